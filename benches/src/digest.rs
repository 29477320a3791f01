//! The digest of an output: row count and the wrapping sum of a hash per row, so that order does not matter. Rows are read as typed values: how a number is written does not matter.

use crate::workload::Workload;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::xxh3_64;

/// What two equal outputs have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Digest {
    rows: u64,
    sum: u64,
}

impl Digest {
    /// Adds a row of texts and numbers. Floats are rounded to eight digits: means may differ in the last bits.
    pub(crate) fn add(&mut self, texts: &[&str], numbers: &[f64]) {
        let mut bytes = Vec::with_capacity(64);
        for text in texts {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
        for number in numbers {
            bytes.extend_from_slice(&((number * 1e8).round() as i128).to_le_bytes());
        }
        self.rows += 1;
        self.sum = self.sum.wrapping_add(xxh3_64(&bytes));
    }
}

#[derive(Deserialize)]
struct Word<'a> {
    word: &'a str,
    n: u64,
}

#[derive(Deserialize)]
struct Window<'a> {
    host: &'a str,
    metric: &'a str,
    ws: i64,
    n: u64,
    av: f64,
    mi: f64,
    ma: f64,
}

#[derive(Deserialize)]
struct Derived<'a> {
    host: &'a str,
    name: &'a str,
    ts: i64,
    value: f64,
    double: f64,
}

#[derive(Deserialize)]
struct Running<'a> {
    host: &'a str,
    sum: f64,
    max: f64,
}

/// Per host: rows, the highest running sum, the highest maximum: the running order of different hosts is free.
pub(crate) type PerHost = HashMap<String, (u64, f64, f64)>;

/// The digest of W4: one row per host.
pub(crate) fn of_hosts(hosts: &PerHost) -> Digest {
    let mut digest = Digest::default();
    for (host, (rows, sum, max)) in hosts {
        digest.add(&[host], &[*rows as f64, *sum, *max]);
    }
    digest
}

/// Reads the output files below a folder.
pub(crate) fn of(workload: Workload, folder: &Path) -> Result<Digest> {
    let mut digest = Digest::default();
    let mut hosts = PerHost::new();
    for file in files(folder)? {
        let text = fs::read_to_string(&file)?;
        for line in text.lines() {
            add_line(workload, line, &mut digest, &mut hosts).with_context(|| format!("{}: {line}", file.display()))?;
        }
    }
    Ok(if workload == Workload::Running { of_hosts(&hosts) } else { digest })
}

fn add_line(workload: Workload, line: &str, digest: &mut Digest, hosts: &mut PerHost) -> Result<()> {
    match workload {
        Workload::WordCount => {
            let row: Word = serde_json::from_str(line)?;
            digest.add(&[row.word], &[row.n as f64]);
        }
        Workload::Windows => {
            let row: Window = serde_json::from_str(line)?;
            digest.add(&[row.host, row.metric], &[row.ws as f64, row.n as f64, row.av, row.mi, row.ma]);
        }
        Workload::Stateless => {
            let row: Derived = serde_json::from_str(line)?;
            digest.add(&[row.host, row.name], &[row.ts as f64, row.value, row.double]);
        }
        Workload::Running => {
            let row: Running = serde_json::from_str(line)?;
            if !hosts.contains_key(row.host) {
                hosts.insert(row.host.to_owned(), (0, f64::NEG_INFINITY, f64::NEG_INFINITY));
            }
            let host = hosts.get_mut(row.host).context("inserted above")?;
            *host = (host.0 + 1, host.1.max(row.sum), host.2.max(row.max));
        }
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['.', '_']));
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if !hidden {
            found.push(path);
        }
    }
    Ok(found)
}
