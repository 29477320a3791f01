//! `exhibit-numbers`: several splits, an enumerator that remembers, positions, pauses, lag, watermarks, a secret in the configuration.

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::source::{
    Capabilities, Discovery, Encoding, Enumerator, Poll, PollLimits, Source, SourceDeclaration, Split, SplitDescription,
};
use standpipe_sdk::wire::{Problem, SplitLag};
use standpipe_sdk::{CloseReason, Context, Error, Host, Result, Secret};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Numbers with a time, in several splits.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NumbersConfig {
    /// Numbers of each split.
    pub count: i64,
    /// Splits.
    #[serde(default = "two")]
    pub splits: u32,
    /// Is logged as its length.
    pub token: Option<Secret>,
}

fn two() -> u32 {
    2
}

/// A split that is read.
struct Reading {
    id: String,
    next: i64,
    is_paused: bool,
}

pub struct Numbers {
    count: i64,
    reading: Vec<Reading>,
    turn: usize,
    host: Host,
}

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, name == "odd");
    Arc::new(Schema::new(vec![
        field("split", DataType::Utf8),
        field("n", DataType::Int64),
        field("odd", DataType::Utf8),
        field("at", time),
    ]))
}

impl Source for Numbers {
    const NAME: &'static str = "exhibit-numbers";
    type Config = NumbersConfig;
    type Enumerator = Splits;

    fn declare(config: &NumbersConfig) -> Result<SourceDeclaration> {
        let capabilities = Capabilities { bounded: true, replayable: true, ordered: true, ..Capabilities::default() };
        let problem = Problem { path: "count".to_owned(), message: "expected 0 or more".to_owned(), suggestion: Some("0".to_owned()) };
        let problems = if config.count < 0 { vec![problem] } else { Vec::new() };
        Ok(SourceDeclaration { encoding: Encoding::Rows, schema: schema(), capabilities, problems })
    }

    fn open(config: NumbersConfig, context: Context) -> Result<Self> {
        let token = config.token.as_ref().map_or(0, |token| token.expose().len());
        context.host.info("numbers", &[("token", token.into()), ("generation", context.generation.into())]);
        Ok(Self { count: config.count, reading: Vec::new(), turn: 0, host: context.host })
    }

    fn assign(&mut self, splits: Vec<Split>) -> Result<()> {
        for split in splits {
            let next = split.position.map_or(Ok(0), |position| String::from_utf8_lossy(&position).parse())?;
            self.reading.push(Reading { id: split.id, next, is_paused: false });
        }
        Ok(())
    }

    fn unassign(&mut self, splits: &[String]) -> Result<Vec<Vec<u8>>> {
        let mut positions = Vec::new();
        for id in splits {
            let place = self.reading.iter().position(|split| split.id == *id).ok_or_else(|| Error::data(format!("{id} is not here")))?;
            positions.push(self.reading.remove(place).next.to_string().into_bytes());
        }
        Ok(positions)
    }

    fn poll(&mut self, limits: PollLimits) -> Result<Poll> {
        let splits = self.reading.len();
        let Some(place) = (0..splits).map(|step| (self.turn + step) % splits).find(|place| !self.reading[*place].is_paused) else {
            return Ok(Poll::Idle);
        };
        self.turn = place + 1;
        let rows = (self.count - self.reading[place].next).min(limits.max_rows as i64).min(100);
        if rows <= 0 {
            return Ok(Poll::EndOfSplit(self.reading.remove(place).id));
        }
        let Reading { id, next, .. } = &mut self.reading[place];
        let numbers = *next..*next + rows;
        *next += rows;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(numbers.clone().map(|_| id.as_str()))),
            Arc::new(Int64Array::from_iter_values(numbers.clone())),
            Arc::new(numbers.clone().map(|n| (n % 2 == 1).then_some("odd")).collect::<StringArray>()),
            Arc::new(TimestampMicrosecondArray::from_iter_values(numbers.clone().map(|n| n * 1_000_000))),
        ];
        let batch = RecordBatch::try_new(schema(), columns)?;
        self.host.counter("exhibit_rows", &[("split", id)]).add(rows as u64);
        Ok(Poll::Batch { split: id.clone(), batch, position: next.to_string().into_bytes(), watermark: Some(numbers.end * 1_000_000) })
    }

    fn pause(&mut self, splits: &[String]) -> Result<()> {
        self.reading.iter_mut().filter(|split| splits.contains(&split.id)).for_each(|split| split.is_paused = true);
        Ok(())
    }

    fn resume(&mut self, splits: &[String]) -> Result<()> {
        self.reading.iter_mut().filter(|split| splits.contains(&split.id)).for_each(|split| split.is_paused = false);
        Ok(())
    }

    fn checkpoint_committed(&mut self, checkpoint: u64, positions: &[(String, Vec<u8>)]) -> Result<()> {
        self.host.debug("durable", &[("checkpoint", checkpoint.into()), ("splits", positions.len().into())]);
        Ok(())
    }

    fn lag(&self) -> Vec<SplitLag> {
        let lag =
            |split: &Reading| SplitLag { split: split.id.clone(), records: u64::try_from(self.count - split.next).ok(), millis: None };
        self.reading.iter().map(lag).collect()
    }

    fn close(&mut self, reason: CloseReason) -> Result<()> {
        self.host.debug("closed", &[("reason", format!("{reason:?}").into())]);
        Ok(())
    }
}

/// Tells one split a call.
pub struct Splits {
    all: u32,
    told: BTreeSet<String>,
}

impl Enumerator for Splits {
    type Config = NumbersConfig;

    fn open(config: NumbersConfig, _: Context) -> Result<Self> {
        Ok(Self { all: config.splits, told: BTreeSet::new() })
    }

    fn discover(&mut self, _: std::time::Duration) -> Result<Discovery> {
        let next = (0..self.all).map(|split| format!("split-{split}")).find(|split| !self.told.contains(split));
        self.told.extend(next.clone());
        let added = next.into_iter().map(|split| SplitDescription { split, details: "{}".to_owned() }).collect();
        Ok(Discovery { added, removed: Vec::new(), exhausted: self.told.len() == self.all as usize })
    }

    fn snapshot(&mut self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(&self.told)?)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<()> {
        self.told = serde_json::from_slice(snapshot)?;
        Ok(())
    }
}
