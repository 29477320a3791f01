//! What is said about files that are wrong: the whole message, with line and column.

mod aggregates;
mod isolation;
mod job;
mod secrets;
mod sinks;
mod sources;
mod text;
mod together;
mod transforms;

use crate::fixture::plan;

/// A file that is right, with one line in place of another; the messages that it gets.
pub(super) const GOOD: &str = "\
name: metrics
sources:
  readings:
    connector: lines
    with: {path: in.jsonl}
    format: json
    schema: {host: string, ts: timestamp_ms, value: float64}
    event_time: {column: ts, out_of_orderness: 2s}
transforms:
  hot: {input: readings, filter: value > 90}
  stats:
    input: hot
    key_by: [host]
    window: {tumbling: 10s}
    aggregate: {n: count(*), mean: avg(value)}
sinks:
  out: {input: stats, connector: records, with: {path: out.jsonl}}
";

pub(super) fn replaced(line: &str, other: &str) -> String {
    assert!(GOOD.contains(line), "{line}");
    GOOD.replacen(line, other, 1)
}

pub(super) fn errors(text: &str) -> String {
    match plan(text) {
        Ok(_) => String::new(),
        Err(found) => found,
    }
}

#[track_caller]
pub(super) fn check(cases: &[(&str, &str, &str)]) {
    let mut wrong = String::new();
    for (line, other, message) in cases {
        let found = errors(&replaced(line, other));
        if found != *message {
            wrong.push_str(&format!("--- {other}\nexpected {message}\nfound    {found}\n"));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn the_file_itself_is_right() {
    assert_eq!(errors(GOOD), "");
}
