//! Files that nobody writes by accident: every value another one, bytes turned over, nesting, aliases that multiply, texts and lists without end. Each is a plan or a list of findings with
//! places, in a time that is short and in memory of some times its own size.
//!
//! `mutations` has what people write by accident. `PROPTEST_CASES` says how many cases there are instead of the few that every run can afford.

use crate::{fixture, mutations::check, stand_ins};
use proptest::prelude::*;
use serde_json::{Value, json};
use standpipe_hostile::{
    bytes, cases,
    json::{self, nested},
};
use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

/// For one file, on a machine that does other things too. Without bounds some of these take minutes, or do not end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pipeline with every block and verb, as JSON, which is YAML.
static WHOLE: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "name": "whole", "parallelism": 2, "plugins": ["./plugins"],
        "checkpoint": {"interval": "10s", "dir": "./checkpoints", "timeout": "1m", "min_pause": "1s", "keep": 3, "tolerated_failures": 2},
        "restart": {"strategy": "exponential-delay", "initial_delay": "1s", "max_delay": "1m", "multiplier": 2},
        "engine": {"max_parallelism": 128, "batch_rows": 1000, "in_flight_bytes": "16MiB", "flush_interval": "100ms", "state": {"backend": "disk", "dir": "./state", "cache": "64MiB"}},
        "sources": {"readings": {
            "connector": "lines", "with": {"path": "data/*.jsonl"}, "format": {"type": "json", "on_error": "skip"},
            "schema": {"host": "string", "metric": {"type": "string", "nullable": false}, "ts": "timestamp_ms", "value": "float64", "more": "map<string, list<struct<a: decimal(10, 2), b: int8>>>"},
            "event_time": {"column": "ts", "out_of_orderness": "2s", "idle_timeout": "10s", "max_drift": "1m", "alignment_group": "g"},
            "parallelism": 1,
        }},
        "transforms": {
            "hot": {"input": "readings", "filter": "value > 90 and host in ('a', 'b')"},
            "shaped": {"input": "hot", "select": {"*": true, "fahrenheit": "case when value > 0 then value * 9 / 5 + 32 else cast(null as double) end"}},
            "plain": {"input": "readings", "select": {"host": "host", "value": "value"}},
            "runs": {"input": "plain", "key_by": ["host"], "transform": "run-length", "with": {"column": "value"}},
            "stats": {"input": "readings", "key_by": ["host", "metric"], "window": {"tumbling": {"size": "10s", "offset": "1s"}, "allowed_lateness": "5s"}, "aggregate": {"n": "count(*)", "mean": "avg(value)"}},
            "totals": {"input": "readings", "key_by": ["host"], "aggregate": {"last": "last_value(value)"}, "emit": "changes"},
            "both": {"inputs": ["hot", "readings"], "union": true},
        },
        "sinks": {
            "out": {"input": "stats", "connector": "records", "with": {"path": "out.jsonl", "single": true}, "format": "json", "guarantee": "at-least-once"},
            "index": {"input": "stats", "connector": "rows", "with": {"hosts": ["http://127.0.0.1:9200"]}},
        },
    })
});

/// What means something in a file.
const WORDS: &[&str] = &[
    "\n",
    "  ",
    "- ",
    ": ",
    "? ",
    ", ",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "&a ",
    "*a",
    "!!str ",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "\\n",
    "\\u0000",
    "\\x1b[2J",
    "%YAML 9.9\n",
    "---\n",
    "...\n",
    "#",
    "${file:/dev/zero}",
    "$${",
    "~",
    "1e999",
    "-0",
    "0x7fffffffffffffffffffffffffffffffff",
    "18446744073709551616",
    "<<: ",
    "\u{feff}",
    "\u{2028}",
    "\u{85}",
    "\r",
    "\t",
];

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn values_that_are_others(changes in json::changes()) {
        check(&json::changed(&WHOLE, &changes).to_string(), &fixture::catalogue())?;
    }

    #[test]
    fn bytes_that_are_others(which in 0..stand_ins::EXAMPLES.len(), changes in bytes::changes(WORDS)) {
        let text = bytes::changed(stand_ins::EXAMPLES[which].1.as_bytes(), &changes);
        check(&String::from_utf8_lossy(&text), &stand_ins::catalogue())?;
    }
}

/// A file around something of a filter, a select or a node.
fn with(place: &str, value: impl Into<Value>) -> String {
    let mut whole = WHOLE.clone();
    *whole.pointer_mut(place).unwrap_or_else(|| panic!("no {place}")) = value.into();
    whole.to_string()
}

/// Looked at one after the other: each ends, with a plan or with findings.
fn all_end(files: impl IntoIterator<Item = (String, String)>) {
    for (what, text) in files {
        let begun = Instant::now();
        // Findings have their place; lines of this length are not compared one by one.
        if let Err(found) = crate::mutations::outcome(&text, &fixture::catalogue()) {
            assert!(found.items.len() <= 1_000, "{what}: {} findings", found.items.len());
            for finding in &found.items {
                let line = finding.to_string();
                assert!(line.starts_with("p.yaml:") && line.len() < 40_000 && !line.contains(char::is_control), "{what}: {line:?}");
            }
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {:?}", begun.elapsed());
    }
}

#[test]
fn the_whole_is_a_plan() {
    if let Err(found) = crate::mutations::outcome(&WHOLE.to_string(), &fixture::catalogue()) {
        panic!("{found}");
    }
}

#[test]
fn nesting_has_an_end() {
    let blocks: String = (0..2_000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    let shapes = [
        ("lists", nested("[", "1", "]", 200_000)),
        ("open lists", "[".repeat(1_000_000)),
        ("maps", nested("{a: ", "1", "}", 200_000)),
        ("blocks", blocks),
        ("items", "- ".repeat(200_000)),
        ("keys", "? ".repeat(200_000)),
        ("keys of lists", nested("{[", "1", "]: 1}", 100_000)),
        ("anchors", nested("&a [", "1", "]", 100_000)),
        ("tags", format!("a: {}1", "!!str ".repeat(100_000))),
        ("in a configuration", with("/sinks/out/with", serde_json::from_str::<Value>(&nested("[", "1", "]", 100)).unwrap())),
        ("types", with("/sources/readings/schema/host", nested("list<", "int8", ">", 100_000))),
        ("templates", with("/sinks/out/with/path", nested("{", "host", "}", 100_000))),
        ("references", with("/name", "${".repeat(100_000))),
    ];
    all_end(shapes.into_iter().map(|(what, text)| (what.to_owned(), text)));
}

#[test]
fn expressions_have_an_end() {
    let chain = |with: &str, count: usize| format!("value{}", with.repeat(count));
    let shapes = [
        ("parentheses", nested("(", "value", ")", 100_000)),
        ("open parentheses", "(".repeat(1_000_000)),
        ("calls", nested("abs(", "value", ")", 100_000)),
        ("sums", chain(" + 1", 100_000)),
        ("ors", chain(" > 1 or value", 100_000)),
        ("not", format!("{}true", "not ".repeat(100_000))),
        ("minus", format!("{}value", "- ".repeat(100_000))),
        ("casts", chain("::double", 100_000)),
        ("cases", nested("case when true then ", "1", " else 2 end", 20_000)),
        ("lists", nested("[", "1", "]", 100_000)),
        ("members", chain(".a", 100_000)),
        ("subscripts", chain("[1]", 100_000)),
        ("selects", nested("(select ", "1", ")", 50_000)),
        ("intervals", nested("interval ", "'1' day", "", 100_000)),
        ("between", nested("value between 1 and ", "2", "", 50_000)),
        ("is null", chain(" is null", 100_000)),
        ("collate", chain(" collate a", 100_000)),
        ("at time zone", chain(" at time zone 'UTC'", 50_000)),
        ("a long list", format!("value in ({}1)", "1, ".repeat(100_000))),
        ("a long text", format!("host = '{}'", "x".repeat(4 << 20))),
        ("a long name", "x".repeat(4 << 20)),
        ("a long number", "9".repeat(1 << 20)),
        ("an open text", format!("'{}", "x".repeat(1 << 20))),
        ("an open comment", "/*".repeat(200_000)),
        ("a pattern", format!("regexp_like(host, '{}')", nested("(", "a", "){1000}", 200))),
        ("a repeated text", "length(repeat('xxxxxxxxxxxxxxxx', 1000000000000)) > 1".to_owned()),
    ];
    all_end(shapes.into_iter().map(|(what, text)| (what.to_owned(), with("/transforms/hot/filter", text))));
}

#[test]
fn long_texts_have_a_place() {
    let long = "x".repeat(10 << 20);
    let places = [
        "/name",
        "/plugins/0",
        "/parallelism",
        "/checkpoint/interval",
        "/checkpoint/dir",
        "/restart/strategy",
        "/engine/in_flight_bytes",
        "/sources/readings/connector",
        "/sources/readings/format/type",
        "/sources/readings/schema/host",
        "/sources/readings/event_time/column",
        "/transforms/runs/transform",
        "/transforms/runs/key_by/0",
        "/transforms/stats/aggregate/n",
        "/transforms/stats/window/tumbling/size",
        "/transforms/totals/emit",
        "/transforms/both/inputs/0",
        "/sinks/out/input",
        "/sinks/out/with/path",
        "/sinks/out/guarantee",
    ];
    all_end(places.into_iter().map(|place| (place.to_owned(), with(place, long.as_str()))));
    let shapes = [
        ("a plain text", format!("name: {long}")),
        ("a block", format!("name: |\n  {long}\n")),
        ("digits", format!("parallelism: {}", "9".repeat(10 << 20))),
        ("a fraction", format!("parallelism: 0.{}", "3".repeat(10 << 20))),
        ("a key", format!("{long}: 1")),
        ("a key in quotes", format!("{{\"{long}\": 1}}")),
        ("a key of its own", format!("? {long}\n: 1")),
        ("an anchor", format!("name: &{long} a\n")),
        ("a tag", format!("name: !{long} a\n")),
        ("a comment", format!("# {long}\nname: a")),
        ("lines", "\n".repeat(10 << 20)),
        ("spaces", " ".repeat(10 << 20)),
        ("quotes", "\"".repeat(1 << 20)),
        ("colons", ": ".repeat(1 << 20)),
        ("commas", format!("[{}]", ",".repeat(1 << 20))),
        ("documents", "---\n".repeat(1 << 20)),
        ("directives", "%YAML 1.2\n".repeat(100_000)),
        ("zeros", "\0".repeat(1 << 20)),
        ("wide characters", format!("name: [{}", "\u{1f600}".repeat(1 << 20))),
    ];
    all_end(shapes.into_iter().map(|(what, text)| (what.to_owned(), text)));
}

#[test]
fn many_values_have_an_end() {
    let map = |count: usize, entry: &dyn Fn(usize) -> (String, Value)| (0..count).map(entry).collect::<Value>();
    let many = |count: usize, text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<Vec<_>>();
    let before = |n: usize| if n == 0 { "readings".to_owned() } else { format!("t{}", n - 1) };
    let shapes = [
        ("keys", format!("{{{}}}", many(45_000, &|n| format!("k{n}: 1")).join(", "))),
        ("keys twice", format!("{{{}}}", many(45_000, &|n| format!("k{}: 1", n % 2)).join(", "))),
        ("keys of a node", with("/sinks/out", map(45_000, &|n| (format!("k{n}"), json!(1))))),
        ("keys of a configuration", with("/sinks/out/with", map(45_000, &|n| (format!("k{n}"), json!(1))))),
        ("plugins", with("/plugins", many(45_000, &|n| format!("p{n}")))),
        ("columns", with("/sources/readings/schema", map(20_000, &|n| (format!("c{n}"), json!("int8"))))),
        ("types", with("/sources/readings/schema/host", format!("struct<{}>", many(20_000, &|n| format!("c{n}: int8")).join(", ")))),
        ("selected columns", with("/transforms/shaped/select", map(5_000, &|n| (format!("c{n}"), json!("value"))))),
        ("keys of a key", with("/transforms/stats/key_by", many(20_000, &|n| format!("c{n}")))),
        ("aggregates", with("/transforms/stats/aggregate", map(5_000, &|n| (format!("a{n}"), json!("count(*)"))))),
        ("inputs", with("/transforms/both/inputs", many(20_000, &|_| "hot".to_owned()))),
        ("nodes in a row", with("/transforms", map(2_000, &|n| (format!("t{n}"), json!({"input": before(n), "filter": "value > 1"}))))),
        (
            "nodes in a circle",
            with(
                "/transforms",
                map(20_000, &|n| (format!("t{n}"), json!({"input": format!("t{}", (n + 1) % 20_000), "filter": "value > 1"}))),
            ),
        ),
        (
            "nodes that want what is not there",
            with("/transforms", map(15_000, &|n| (format!("t{n}"), json!({"input": format!("x{n}"), "filter": "value > 1"})))),
        ),
        (
            "sinks",
            with(
                "/sinks",
                map(5_000, &|n| {
                    (
                        format!("s{n}"),
                        json!({"input": "readings", "connector": "records", "with": {"path": format!("{n}")}, "format": "json"}),
                    )
                }),
            ),
        ),
        ("aliases", format!("a: &a [{}]\nb: [{}]\n", "1, ".repeat(1_000), "*a, ".repeat(1_000))),
        ("anchors", format!("[{}]", many(30_000, &|n| format!("&a{n} 1")).join(", "))),
        ("references", with("/name", "${HOME}".repeat(100_000))),
        ("references without an end", with("/name", "${file:/dev/zero}")),
    ];
    all_end(shapes.into_iter().map(|(what, text)| (what.to_owned(), text)));
}
