//! Each check of a source fails for the source that does wrong what it looks at. One test: memory and threads are the whole process'.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

#[allow(dead_code, reason = "each kind uses its part")]
mod support;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use standpipe_conformance::Suite;
use standpipe_sdk::{
    CloseReason, Context, Enumerator, Error, Poll, PollLimits, Result, Source, SourceDeclaration, Split,
    source::{Capabilities, Discovery, Encoding, SplitDescription},
    testing::Harness,
};
use std::{
    collections::BTreeSet,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use support::{Loose, every_check_can_fail, trouble_at_open, trouble_when_cancelled, trouble_with_rows};

/// Rows of a split.
const ROWS: i64 = 60;

#[derive(Deserialize, JsonSchema, Clone)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    trouble: String,
    #[serde(default)]
    loose: Loose,
    /// What is declared that is not so.
    #[serde(default)]
    endless: bool,
}

/// Two splits of numbers and words.
struct Numbers {
    config: Config,
    context: Context,
    splits: Vec<(String, i64)>,
    paused: BTreeSet<String>,
    assigned: bool,
    closed: bool,
    turn: usize,
}

fn schema(trouble: &str) -> SchemaRef {
    let twice = if trouble == "schema" { "number" } else { "word" };
    Arc::new(Schema::new(vec![Field::new("number", DataType::Int64, false), Field::new(twice, DataType::Utf8, true)]))
}

impl Source for Numbers {
    const NAME: &'static str = "numbers";
    type Config = Config;
    type Enumerator = Splits;

    fn declare(config: &Config) -> Result<SourceDeclaration> {
        let capabilities = Capabilities { bounded: config.trouble != "end", replayable: true, ..Capabilities::default() };
        let problems = config.loose.problem(&config.trouble).into_iter().collect();
        Ok(SourceDeclaration { encoding: Encoding::Rows, schema: schema(&config.trouble), capabilities, problems })
    }

    fn open(config: Config, context: Context) -> Result<Self> {
        trouble_at_open(&config.trouble);
        Ok(Self { config, context, splits: Vec::new(), paused: BTreeSet::new(), assigned: false, closed: false, turn: 0 })
    }

    fn assign(&mut self, splits: Vec<Split>) -> Result<()> {
        for split in splits {
            let wrong = || Error::data("no position");
            let at = match split.position.map(String::from_utf8) {
                None => 0,
                Some(text) if self.config.trouble == "nonsense" => text.unwrap().parse().unwrap(),
                Some(text) => text.map_err(|_| wrong())?.parse::<i64>().map_err(|_| wrong())?,
            };
            let skips = self.config.trouble == "positions" && at > 0 && !self.assigned;
            self.splits.push((split.id, at + i64::from(skips)));
        }
        self.assigned = true;
        Ok(())
    }

    fn unassign(&mut self, splits: &[String]) -> Result<Vec<Vec<u8>>> {
        let back = i64::from(self.config.trouble == "unassign");
        let position = |id: &String| {
            let (_, at) = self.splits.iter().find(|(known, _)| known == id).ok_or_else(|| Error::data("no such split"))?;
            Ok((at - back).max(0).to_string().into_bytes())
        };
        let positions = splits.iter().map(position).collect::<Result<_>>()?;
        self.splits.retain(|(known, _)| !splits.contains(known));
        Ok(positions)
    }

    fn poll(&mut self, limits: PollLimits) -> Result<Poll> {
        trouble_with_rows(&self.config.trouble);
        self.turn += 1;
        let open: Vec<usize> = (0..self.splits.len()).filter(|at| !self.paused.contains(&self.splits[*at].0)).collect();
        if open.is_empty() || (self.config.endless && self.splits.iter().all(|(_, at)| *at >= ROWS)) {
            return self.wait(limits.wait);
        }
        let chosen = open[self.turn % open.len()];
        let (split, at) = self.splits[chosen].clone();
        if at >= ROWS {
            self.splits.remove(chosen);
            return Ok(Poll::EndOfSplit(split));
        }
        let too_many = usize::from(self.config.trouble == "limits" && limits.max_rows == 3);
        let end = (at + (limits.max_rows + too_many) as i64).min(ROWS);
        self.splits[chosen].1 = end;
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(at..end));
        let words: ArrayRef =
            Arc::new((at..end).map(|number| (number % 3 > 0).then(|| format!("{split}{number}"))).collect::<StringArray>());
        let batch = RecordBatch::try_new(schema(&self.config.trouble), vec![numbers, words])?;
        Ok(Poll::Batch { split, batch, position: end.to_string().into_bytes(), watermark: None })
    }

    fn pause(&mut self, splits: &[String]) -> Result<()> {
        if self.config.trouble != "pause" {
            self.paused.extend(splits.iter().cloned());
        }
        Ok(())
    }

    fn resume(&mut self, splits: &[String]) -> Result<()> {
        splits.iter().for_each(|split| _ = self.paused.remove(split));
        Ok(())
    }

    fn checkpoint_committed(&mut self, checkpoint: u64, _: &[(String, Vec<u8>)]) -> Result<()> {
        match (self.config.trouble.as_str(), checkpoint) {
            ("commits", 4) => Err(Error::data("no positions")),
            _ => Ok(()),
        }
    }

    fn close(&mut self, _: CloseReason) -> Result<()> {
        assert!(!self.closed || self.config.trouble != "lifecycle", "closed twice");
        self.closed = true;
        Ok(())
    }
}

impl Numbers {
    fn wait(&self, wait: Duration) -> Result<Poll> {
        if self.config.trouble == "poll-deadline" && wait > Duration::from_millis(100) && wait < Duration::from_secs(60) {
            thread::sleep(wait + Duration::from_secs(1));
        }
        trouble_when_cancelled(&self.config.trouble, wait > Duration::from_secs(60));
        let begun = Instant::now();
        while begun.elapsed() < wait && !self.context.host.cancelled() {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(Poll::Idle)
    }
}

struct Splits {
    config: Config,
    context: Context,
    is_known: bool,
}

impl Enumerator for Splits {
    type Config = Config;

    fn open(config: Config, context: Context) -> Result<Self> {
        Ok(Self { config, context, is_known: false })
    }

    fn discover(&mut self, wait: Duration) -> Result<Discovery> {
        let added = ["a", "b"].map(|split| SplitDescription { split: split.to_owned(), details: String::new() }).to_vec();
        if self.is_known {
            let begun = Instant::now();
            while begun.elapsed() < wait && !self.context.host.cancelled() {
                thread::sleep(Duration::from_millis(1));
            }
            return Ok(Discovery { exhausted: true, ..Discovery::default() });
        }
        self.is_known = true;
        Ok(Discovery { added, removed: Vec::new(), exhausted: true })
    }

    fn snapshot(&mut self) -> Result<Vec<u8>> {
        Ok(b"known".to_vec())
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<()> {
        if snapshot != b"known" || self.config.trouble == "enumerator" {
            return Err(Error::data("no snapshot of mine"));
        }
        self.is_known = true;
        Ok(())
    }
}

#[test]
fn every_check_fails_for_what_it_looks_at() {
    every_check_can_fail(Harness::source_kind::<Numbers>(), &[], |_| json!({}), |suite| suite);

    // Besides those in the table.
    let failed = |config: serde_json::Value| {
        Suite::new(Harness::source_kind::<Numbers>(), config).batches(200).deadline(Duration::from_secs(1)).run()
    };
    let endless = failed(json!({"endless": true}));
    assert_eq!(endless.failed(), ["end"], "{endless}");
    assert_eq!(endless.finding("end").unwrap().message, "declares `bounded`, and gave neither rows nor an end for 1 s");
    let refused = failed(json!({"troble": "x"}));
    assert_eq!(
        refused.finding("configuration").unwrap().message,
        "the configuration is refused: troble: is not known, did you mean \"trouble\"?"
    );
}
