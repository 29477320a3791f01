//! A source of JSON records, and a sink of encoded ones.

use super::Probe;
use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use standpipe_sdk::{
    Context, Host, Poll, PollLimits, Result, Sink, SinkDeclaration, SinkInput, Source, SourceDeclaration, Split, Written, sink::Encoding,
    source::SingleSplit, wire::Capabilities,
};
use std::sync::Arc;

/// JSON records `{"n": 7}`, every hundredth broken.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct TextsConfig {
    pub records: i64,
}

pub struct Texts {
    records: i64,
    assigned: bool,
    at: i64,
}

impl Source for Texts {
    const NAME: &'static str = "texts";
    type Config = TextsConfig;
    type Enumerator = SingleSplit<TextsConfig>;

    fn declare(_: &TextsConfig) -> Result<SourceDeclaration> {
        let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8, true)]));
        let capabilities = Capabilities { bounded: true, ..Default::default() };
        Ok(SourceDeclaration { encoding: Encoding::Records, schema, capabilities, problems: Vec::new() })
    }

    fn open(config: TextsConfig, _: Context) -> Result<Self> {
        Ok(Self { records: config.records, assigned: false, at: 0 })
    }

    fn assign(&mut self, _: Vec<Split>) -> Result<()> {
        self.assigned = true;
        Ok(())
    }

    fn poll(&mut self, _: PollLimits) -> Result<Poll> {
        if self.at == self.records {
            return Ok(Poll::EndOfSplit("0".to_owned()));
        }
        let until = self.records.min(self.at + 777);
        let text = |n| if n % 100 == 99 { "{broken".to_owned() } else { format!("{{\"n\": {n}}}") };
        let values: ArrayRef = Arc::new((self.at..until).map(|n| Some(text(n))).collect::<StringArray>());
        self.at = until;
        let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8, true)]));
        let batch = RecordBatch::try_new(schema, vec![values])?;
        Ok(Poll::Batch { split: "0".to_owned(), batch, position: until.to_string().into_bytes(), watermark: None })
    }
}

/// Remembers encoded records as they are.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct LinesConfig {
    pub probe: String,
}

pub struct Lines {
    probe: Arc<Probe>,
    key: (String, u32),
    host: Host,
}

impl Sink for Lines {
    const NAME: &'static str = "lines";
    type Config = LinesConfig;

    fn declare(_: &LinesConfig, _: &SinkInput) -> Result<SinkDeclaration> {
        Ok(SinkDeclaration { encoding: Encoding::Records, ..Default::default() })
    }

    fn open(config: LinesConfig, _: &SinkInput, context: Context) -> Result<Self> {
        Ok(Self { probe: Probe::of(&config.probe), key: (context.node, context.subtask), host: context.host })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        self.probe.written.lock().unwrap().entry(self.key.clone()).or_default().push(batch.clone());
        self.host.ack(seq);
        Ok(Written::Taken)
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
}
