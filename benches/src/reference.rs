//! The truth: each workload in a few lines of plain Rust over the one-file input.

use crate::{
    digest::{Digest, PerHost, of_hosts},
    generate::Input,
    workload::Workload,
};
use anyhow::Result;
use serde::Deserialize;
use std::{collections::HashMap, fs};

const WINDOW_MILLIS: i64 = 10_000;

/// Count, sum, minimum, maximum.
type Pane = (u64, f64, f64, f64);

#[derive(Deserialize)]
struct Metric<'a> {
    host: &'a str,
    metric: &'a str,
    ts: i64,
    value: f64,
}

/// The digest that a right output has.
pub(crate) fn digest(workload: Workload, input: &Input) -> Result<Digest> {
    let mut text = String::new();
    for entry in fs::read_dir(input.folder(workload, 1))? {
        text.push_str(&fs::read_to_string(entry?.path())?);
    }
    match workload {
        Workload::WordCount => Ok(word_count(&text)),
        Workload::Windows => windows(&text),
        Workload::Stateless => stateless(&text),
        Workload::Running => running(&text),
    }
}

fn word_count(text: &str) -> Digest {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for word in text.split_ascii_whitespace() {
        *counts.entry(word).or_default() += 1;
    }
    let mut digest = Digest::default();
    for (word, count) in counts {
        digest.add(&[word], &[count as f64]);
    }
    digest
}

fn windows(text: &str) -> Result<Digest> {
    let mut windows: HashMap<(&str, &str, i64), Pane> = HashMap::new();
    for line in text.lines() {
        let row: Metric = serde_json::from_str(line)?;
        let start = row.ts - row.ts.rem_euclid(WINDOW_MILLIS);
        let window = windows.entry((row.host, row.metric, start)).or_insert((0, 0.0, f64::INFINITY, f64::NEG_INFINITY));
        *window = (window.0 + 1, window.1 + row.value, window.2.min(row.value), window.3.max(row.value));
    }
    let mut digest = Digest::default();
    for ((host, metric, start), (count, sum, min, max)) in windows {
        digest.add(&[host, metric], &[start as f64, count as f64, sum / count as f64, min, max]);
    }
    Ok(digest)
}

fn stateless(text: &str) -> Result<Digest> {
    let mut digest = Digest::default();
    for line in text.lines() {
        let row: Metric = serde_json::from_str(line)?;
        if row.value > 50.0 {
            digest.add(&[row.host, row.metric], &[row.ts as f64, row.value, row.value * 2.0]);
        }
    }
    Ok(digest)
}

fn running(text: &str) -> Result<Digest> {
    let mut hosts = PerHost::new();
    for line in text.lines() {
        let row: Metric = serde_json::from_str(line)?;
        if !hosts.contains_key(row.host) {
            hosts.insert(row.host.to_owned(), (0, 0.0, f64::NEG_INFINITY));
        }
        if let Some(host) = hosts.get_mut(row.host) {
            // Values are not negative, so the highest running sum is the last.
            *host = (host.0 + 1, host.1 + row.value, host.2.max(row.value));
        }
    }
    Ok(of_hosts(&hosts))
}
