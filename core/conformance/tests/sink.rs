//! Each check of a sink fails for the sink that does wrong what it looks at. One test: memory and threads are the whole process'.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

#[allow(dead_code, reason = "each kind uses its part")]
mod support;

use arrow_array::{Array, RecordBatch};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use standpipe_conformance::{Suite, Verdict, checks};
use standpipe_sdk::{
    CloseReason, Committable, Context, Error, Recovered, Result, Sink, SinkDeclaration, SinkInput, Written,
    sink::{Capabilities, ChangeMode},
    testing::Harness,
};
use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};
use support::{Loose, every_check_can_fail, tried, trouble_at_open, trouble_when_cancelled, trouble_with_release, trouble_with_rows};

/// What has been committed, by any instance.
static COMMITTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// What has been given up.
static ABORTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// Numbers of what was prepared.
static PREPARED: AtomicU64 = AtomicU64::new(0);

#[derive(Deserialize, JsonSchema, Clone)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    trouble: String,
    #[serde(default)]
    loose: Loose,
    #[serde(default)]
    transactional: bool,
}

/// Counts what it gets.
struct Counter {
    config: Config,
    context: Context,
    has_kind: bool,
    busy: bool,
    written: u64,
    closed: bool,
}

impl Counter {
    fn is(&self, trouble: &str) -> bool {
        self.config.trouble == trouble
    }

    fn ids(&self, prepared: &[Committable]) -> Result<Vec<String>> {
        let id = |prepared: &Committable| {
            let text = String::from_utf8(prepared.bytes.clone()).ok().filter(|text| text.starts_with("part-"));
            match text {
                None if self.is("nonsense") => panic!("no committable of mine"),
                text => text.ok_or_else(|| Error::data("no committable of mine")),
            }
        };
        prepared.iter().map(id).collect()
    }
}

impl Sink for Counter {
    const NAME: &'static str = "counter";
    type Config = Config;

    fn declare(config: &Config, _: &SinkInput) -> Result<SinkDeclaration> {
        let capabilities = Capabilities { transactional: config.transactional, idempotent: true, ordered: true, ..Capabilities::default() };
        let problems = config.loose.problem(&config.trouble).into_iter().collect();
        Ok(SinkDeclaration { capabilities, problems, accepts: vec![ChangeMode::Append, ChangeMode::Upsert], ..SinkDeclaration::default() })
    }

    fn open(config: Config, input: &SinkInput, context: Context) -> Result<Self> {
        trouble_at_open(&config.trouble);
        let has_kind = input.mode != ChangeMode::Append;
        let busy = config.trouble == "busy";
        Ok(Self { config, context, has_kind, busy, written: 0, closed: false })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        trouble_with_rows(&self.config.trouble);
        trouble_with_release(&self.config.trouble, batch);
        if std::mem::take(&mut self.busy) {
            return Ok(Written::Busy);
        }
        match self.config.trouble.as_str() {
            "batches" if batch.num_rows() == 0 => return Err(Error::data("no rows")),
            "change-modes" if self.has_kind => return Err(Error::data("what is this column for?")),
            "replay" if self.context.restored => return Err(Error::data("there already")),
            _ => {}
        }
        self.written = seq;
        self.context.host.ack(seq + u64::from(self.is("acknowledgements")));
        Ok(Written::Taken)
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        trouble_when_cancelled(&self.config.trouble, self.context.host.cancelled());
        Ok(())
    }

    fn prepare(&mut self, _: u64) -> Result<Vec<u8>> {
        let id = format!("part-{}", PREPARED.fetch_add(1, SeqCst));
        Ok(if self.config.transactional || self.is("capabilities") { id.into_bytes() } else { Vec::new() })
    }

    fn commit(&mut self, _: u64, prepared: &[Committable]) -> Result<()> {
        for id in self.ids(prepared)? {
            if !COMMITTED.lock().unwrap().insert(id) && self.is("transactions") {
                return Err(Error::data("there already"));
            }
        }
        Ok(())
    }

    fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>> {
        let committed = |id: &String| COMMITTED.lock().unwrap().contains(id) && !self.is("recovery");
        Ok(self.ids(prepared)?.iter().map(|id| if committed(id) { Recovered::Committed } else { Recovered::Commit }).collect())
    }

    fn abort(&mut self, prepared: &[Committable]) -> Result<()> {
        for id in self.ids(prepared)? {
            if !ABORTED.lock().unwrap().insert(id) && self.is("abort") {
                return Err(Error::data("gone already"));
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        match (self.is("finish"), self.written) {
            (true, 0) => Err(Error::data("no rows")),
            _ => Ok(()),
        }
    }

    fn close(&mut self, _: CloseReason) -> Result<()> {
        assert!(!self.closed || !self.is("lifecycle"), "closed twice");
        self.closed = true;
        Ok(())
    }
}

#[test]
fn every_check_fails_for_what_it_looks_at() {
    let of_transactions = ["transactions", "recovery", "abort"];
    let more = |check: &str| json!({"transactional": of_transactions.contains(&check)});
    every_check_can_fail(Harness::sink_kind::<Counter>(), &of_transactions, more, |suite| suite);

    // A transactional one passes them all, and so does one of other rows.
    let subject = Harness::sink_kind::<Counter>().into();
    let report = tried(&subject, "", &json!({"transactional": true}), |suite| suite.seed(7).key(&["id"]));
    report.assert_passed();
    assert_eq!(report.count(Verdict::Passed), checks("sink").len(), "{report}");
    let only = tried(&subject, "", &json!({}), |suite: Suite| suite.only(&["busy", "release"]));
    assert_eq!(only.findings.iter().map(|found| found.check.as_str()).collect::<Vec<_>>(), ["busy", "release"]);

    // As whoever looks at a null without asking.
    #[derive(Deserialize, JsonSchema)]
    struct Nothing {}
    struct First;
    impl Sink for First {
        const NAME: &'static str = "first";
        type Config = Nothing;
        fn declare(_: &Nothing, _: &SinkInput) -> Result<SinkDeclaration> {
            Ok(SinkDeclaration::default())
        }
        fn open(_: Nothing, _: &SinkInput, _: Context) -> Result<Self> {
            Ok(Self)
        }
        fn write(&mut self, _: u64, batch: &RecordBatch) -> Result<Written> {
            assert!(batch.column(1).is_valid(0), "nobody told me");
            Ok(Written::Taken)
        }
        fn flush(&mut self, _: u64) -> Result<()> {
            Ok(())
        }
    }
    let report = Suite::new(Harness::sink_kind::<First>(), json!({})).only(&["batches"]).run();
    let message = &report.finding("batches").unwrap().message;
    assert!(message.contains("plugin \"first\" panicked in write: "), "{message}");
}
