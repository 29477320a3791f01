//! Sources and sinks through the tables: splits, positions, secrets, busy sinks, rejections, checkpoints, logs; and the exports of a plugin.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use arrow_array::{ArrayRef, Int64Array, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde::Deserialize;
use serde_json::json;
use standpipe_sdk::{
    Committable, Context, Enumerator, Error, ErrorCode, LogLevel, Poll, PollLimits, Recovered, Rejection, Result, Secret, Sink,
    SinkDeclaration, SinkInput, Source, SourceDeclaration, Split, Written,
    hosting::{Polled, SplitPosition},
    source::{Capabilities, Discovery, Encoding, SplitDescription, SplitLag},
    testing::Harness,
};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Counts.
///
/// From nought.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct CounterConfig {
    /// Rows of each split.
    rows: i64,
    #[serde(default)]
    token: Secret,
}

struct Counter {
    config: CounterConfig,
    context: Context,
    splits: VecDeque<(String, i64)>,
}

struct Splits;

fn numbers() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("number", DataType::Int64, false)]))
}

fn batch(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    RecordBatch::try_new(numbers(), vec![values]).unwrap()
}

impl Enumerator for Splits {
    type Config = CounterConfig;

    fn open(_: CounterConfig, _: Context) -> Result<Self> {
        Ok(Self)
    }

    fn discover(&mut self, _: Duration) -> Result<Discovery> {
        let split = |split: &str| SplitDescription { split: split.to_owned(), details: "{}".to_owned() };
        Ok(Discovery { added: vec![split("a"), split("b")], removed: Vec::new(), exhausted: true })
    }
}

impl Source for Counter {
    const NAME: &'static str = "counter";
    type Config = CounterConfig;
    type Enumerator = Splits;

    fn declare(_: &CounterConfig) -> Result<SourceDeclaration> {
        let capabilities = Capabilities { bounded: true, replayable: true, ..Default::default() };
        Ok(SourceDeclaration { encoding: Encoding::Rows, schema: numbers(), capabilities, problems: Vec::new() })
    }

    fn open(config: CounterConfig, context: Context) -> Result<Self> {
        context.host.info("counting", &[("token_length", config.token.expose().len().into())]);
        Ok(Self { config, context, splits: VecDeque::new() })
    }

    fn assign(&mut self, splits: Vec<Split>) -> Result<()> {
        for split in splits {
            assert_eq!(split.details, "{}");
            let position = split.position.map_or(Ok(0), |position| String::from_utf8_lossy(&position).parse());
            self.splits.push_back((split.id, position?));
        }
        Ok(())
    }

    fn unassign(&mut self, splits: &[String]) -> Result<Vec<Vec<u8>>> {
        let position = |id: &String| self.splits.iter().find(|split| split.0 == *id).map(|split| split.1.to_string().into_bytes());
        splits.iter().map(|id| position(id).ok_or_else(|| Error::external(format!("no split {id}")))).collect()
    }

    fn poll(&mut self, limits: PollLimits) -> Result<Poll> {
        let Some((split, from)) = self.splits.pop_front() else { return Ok(Poll::Idle) };
        if from >= self.config.rows {
            return Ok(Poll::EndOfSplit(split));
        }
        let to = self.config.rows.min(from + limits.max_rows as i64);
        self.splits.push_back((split.clone(), to));
        self.context.host.gauge("at", &[("split", &split)]).set(to as f64);
        Ok(Poll::Batch { split, batch: batch(from..to), position: to.to_string().into_bytes(), watermark: Some(to) })
    }

    fn lag(&self) -> Vec<SplitLag> {
        let lag =
            |split: &(String, i64)| SplitLag { split: split.0.clone(), records: Some((self.config.rows - split.1) as u64), millis: None };
        self.splits.iter().map(lag).collect()
    }
}

#[test]
fn a_source_reads_all_splits_and_goes_on_from_positions() {
    let mut source = Harness::source::<Counter>(json!({ "rows": 5 }));
    assert!(source.validate().unwrap().details.capabilities.bounded);
    source.assign().unwrap();
    assert_eq!(source.reader().unwrap().lag()[1], SplitLag { split: "b".to_owned(), records: Some(5), millis: None });
    match source.poll(3).unwrap() {
        Polled::Batch { split, batch: rows, position, watermark } => {
            assert_eq!((split.as_str(), rows, position.as_slice(), watermark), ("a", batch(0..3), &b"3"[..], Some(3)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(source.host.metric("at"), Some(3.0));
    source.restart();
    let rest = source.read_all().unwrap();
    let mut values: Vec<i64> = rest.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    values.sort_unstable();
    assert_eq!(values, [0, 1, 2, 3, 3, 4, 4]);
}

#[test]
fn splits_are_given_back_with_their_positions() {
    let mut source = Harness::source::<Counter>(json!({ "rows": 5 }));
    let reader = source.reader().unwrap();
    let split = |position: &[u8]| SplitPosition { split: "x".to_owned(), details: "{}".to_owned(), position: Some(position.to_vec()) };
    reader.assign(&[split(b"4")]).unwrap();
    assert_eq!(reader.unassign(&["x".to_owned()]).unwrap(), [b"4"]);
    let error = reader.unassign(&["y".to_owned()]).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.code), ("sources.node: counter: no split y", ErrorCode::EXTERNAL));
    let error = reader.pause(&["x".to_owned()]).unwrap_err();
    assert_eq!(error.code, ErrorCode::UNSUPPORTED);
}

#[test]
fn references_are_resolved_in_create_and_not_in_validate() {
    let mut source = Harness::source::<Counter>(json!({ "rows": 1, "token": "${env:TOKEN}!" }));
    assert!(source.validate().unwrap().details.problems.is_empty());
    let error = source.open().unwrap_err();
    assert_eq!(error.to_string(), "sources.node: counter: token: env:TOKEN is not set");
    source.host.set_secret("env:TOKEN", "hunter2");
    source.open().unwrap();
    let (level, line) = source.host.logs().remove(0);
    assert_eq!((level, line), (LogLevel::Info, json!({ "message": "counting", "token_length": 8 })));
}

#[test]
fn a_manifest_describes_kinds_from_their_types() {
    let kinds = [standpipe_sdk::export::Kind::source::<Counter>()];
    let description = standpipe_sdk::export::description(&kinds, "test");
    let kind = &description.kinds[0];
    assert_eq!((kind.kind.as_str(), kind.name.as_str(), kind.summary.as_str()), ("source", "counter", "Counts."));
    assert_eq!(kind.config_schema["properties"]["rows"]["description"], "Rows of each split.");
    assert_eq!(kind.config_schema["properties"]["token"]["type"], "string");
    assert_eq!(description.build["sdk"], env!("CARGO_PKG_VERSION"));
    let workspace = include_str!("../../../Cargo.toml");
    let arrow = format!("arrow-array = {{ version = \"{}\"", description.build["arrow"].as_str().unwrap());
    assert!(workspace.contains(&arrow), "{arrow}");
}

/// Refuses negative numbers; takes every other batch only at the second try.
struct Positive {
    context: Context,
    busy: bool,
    rows: usize,
}

#[derive(Deserialize, schemars::JsonSchema)]
struct NoConfig {}

impl Sink for Positive {
    const NAME: &'static str = "positive";
    type Config = NoConfig;

    fn declare(_: &NoConfig, input: &SinkInput) -> Result<SinkDeclaration> {
        Ok(SinkDeclaration { columns: input.key.clone(), max_subtasks: Some(1), ..Default::default() })
    }

    fn open(_: NoConfig, _: &SinkInput, context: Context) -> Result<Self> {
        Ok(Self { context, busy: false, rows: 0 })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        self.busy = !self.busy;
        if self.busy {
            self.context.host.wake();
            return Ok(Written::Busy);
        }
        let refused = |row: usize| Rejection { row: row as u32, reason: "negative".to_owned(), details: String::new() };
        let values = batch.column(0).as_primitive::<Int64Type>().values();
        let refused: Vec<_> = values.iter().enumerate().filter(|value| *value.1 < 0).map(|value| refused(value.0)).collect();
        self.context.host.reject(seq, &refused)?;
        self.rows += batch.num_rows() - refused.len();
        self.context.host.ack(seq);
        Ok(Written::Taken)
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        self.context.host.histogram("flushed", &[]).record(self.rows as f64);
        Ok(())
    }

    fn prepare(&mut self, checkpoint: u64) -> Result<Vec<u8>> {
        Ok(format!("{checkpoint}/{}", self.rows).into_bytes())
    }

    fn commit(&mut self, up_to: u64, prepared: &[Committable]) -> Result<()> {
        let bytes = String::from_utf8_lossy(&prepared[0].bytes).into_owned();
        self.context.host.debug(format!("committed {up_to}"), &[("bytes", bytes.into())]);
        Ok(())
    }

    fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>> {
        Ok(prepared.iter().map(|one| if one.checkpoint > 1 { Recovered::Lost } else { Recovered::Commit }).collect())
    }
}

#[test]
fn a_busy_sink_gets_its_batch_again() {
    let mut sink = Harness::sink::<Positive>(json!({}), numbers()).with_mode(standpipe_sdk::wire::ChangeMode::Upsert, &["number"]);
    assert_eq!(sink.validate().unwrap().details.columns, ["number"]);
    assert_eq!(sink.write(&batch([1, -2, 3])).unwrap(), Written::Busy);
    assert_eq!((sink.host.wakes(), sink.host.acknowledged()), (1, 0));
    assert_eq!(sink.write(&batch([1, -2, 3])).unwrap(), Written::Taken);
    assert_eq!((sink.written(), sink.host.acknowledged()), (1, 1));
    let refused = Rejection { row: 1, reason: "negative".to_owned(), details: String::new() };
    assert_eq!(sink.host.rejections(), [(1, refused)]);
    sink.flush().unwrap();
    assert_eq!(sink.host.metric("flushed"), Some(2.0));
    sink.checkpoint(4).unwrap();
    assert_eq!(sink.host.logs().pop().unwrap().1, json!({ "message": "committed 4", "bytes": "4/2" }));
}

#[test]
fn a_sink_says_what_became_of_what_it_prepared() {
    let mut sink = Harness::sink::<Positive>(json!({}), numbers());
    let prepared = [1, 2].map(|checkpoint| Committable { checkpoint, subtask: 0, bytes: vec![1] });
    assert_eq!(sink.instance().unwrap().recover(&prepared).unwrap(), [Recovered::Commit, Recovered::Lost]);
    let wrong: ArrayRef = Arc::new(arrow_array::Int32Array::from(vec![1]));
    let wrong = RecordBatch::try_from_iter([("number", wrong)]).unwrap();
    let error = sink.write(&wrong).unwrap_err();
    assert!(error.message.contains("of type Int32 where \"number\" of type Int64 is declared"), "{error}");
}

standpipe_sdk::export_plugin! { sinks: [Positive], sources: [Counter] }
