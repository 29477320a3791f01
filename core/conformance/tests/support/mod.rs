//! What the tests of all kinds have in common: each check of the suite must fail for the plugin that does wrong what it looks at, and for no other reason.

use serde_json::{Value, json};
use standpipe_conformance::{Report, Subject, Suite, Verdict, checks};
use std::{fs, sync::Mutex, time::Duration};

/// Memory that is lost, at each call with the trouble `leaks`.
const LOST: usize = 4000;

/// Runs the suite on a fixture that is told what to do wrong.
pub(crate) fn tried(subject: &Subject, trouble: &str, more: &Value, change: impl Fn(Suite) -> Suite) -> Report {
    let mut config = more.clone();
    config["trouble"] = trouble.into();
    let batches = if trouble == "leaks" { 6000 } else { 200 };
    change(Suite::new(subject.clone(), config).batches(batches).deadline(Duration::from_secs(2))).run()
}

/// The suite passes when nothing is wrong, with that many checks passed; and each of its checks fails alone for the fixture that is named after it.
#[track_caller]
pub(crate) fn every_check_can_fail(
    subject: impl Into<Subject>,
    skipped: &[&str],
    more: impl Fn(&str) -> Value,
    change: impl Fn(Suite) -> Suite,
) {
    let subject = subject.into();
    let good = tried(&subject, "", &json!({}), &change);
    good.assert_passed();
    let left_out: Vec<&str> =
        good.findings.iter().filter(|found| found.verdict == Verdict::Skipped).map(|found| found.check.as_str()).collect();
    assert_eq!(left_out, skipped, "{good}");
    for check in checks(subject.kind()) {
        let report = tried(&subject, check.name, &more(check.name), &change);
        assert_eq!(report.failed(), [check.name], "{} with the trouble {:?}\n{report}", subject.kind(), check.name);
    }
}

/// What a fixture does at the calls that all have, if it is told to.
pub(crate) fn trouble_at_open(trouble: &str) {
    if trouble == "threads" {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
}

/// Loses some memory.
pub(crate) fn trouble_with_rows(trouble: &str) {
    if trouble == "leaks" {
        std::mem::forget(vec![1_u8; LOST]);
    }
}

/// Sleeps through what it was asked to end.
pub(crate) fn trouble_when_cancelled(trouble: &str, is_cancelled: bool) {
    if trouble == "cancellation" && is_cancelled {
        std::thread::sleep(Duration::from_secs(20));
    }
}

/// Holds what it was lent, when the instance is long gone.
pub(crate) fn trouble_with_release(trouble: &str, batch: &arrow_array::RecordBatch) {
    static HELD: Mutex<Option<arrow_array::RecordBatch>> = Mutex::new(None);
    if trouble == "release" {
        *HELD.lock().unwrap() = Some(batch.clone());
    }
}

/// Leaves an open file behind.
pub(crate) fn trouble_with_files(trouble: &str) {
    if trouble == "validate" {
        std::mem::forget(fs::File::open("/dev/null").unwrap());
    }
}

/// A number that is declared as one, and is whatever was written.
#[derive(serde::Deserialize, Debug, Clone, Default)]
#[serde(transparent)]
pub(crate) struct Loose(Value);

impl Loose {
    /// What is wrong with it.
    pub(crate) fn problem(&self, trouble: &str) -> Option<standpipe_sdk::wire::Problem> {
        let is_wrong = !self.0.is_null() && !self.0.is_number();
        assert!(!is_wrong || trouble != "configuration", "a number, I said");
        is_wrong.then(|| standpipe_sdk::Error::config("loose", "is no number").into())
    }
}

impl schemars::JsonSchema for Loose {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Loose".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "integer"})
    }
}
