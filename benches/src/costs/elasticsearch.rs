//! Kafka to Elasticsearch (or OpenSearch): each record a document with an id. Count and sum per host are asked of the server and compared with the input.

use super::{
    Costs,
    kafka::{fill, unique},
    median,
};
use crate::{
    generate::{self, Input},
    measure,
    workload::Workload,
};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs};

/// The share of the other workloads' records that a server on this machine takes in some seconds.
const SHARE: f64 = 0.1;
/// Requests at the same time.
const IN_FLIGHT: [u32; 2] = [2, 4];

/// Count and sum by host.
type PerHost = BTreeMap<String, (u64, f64)>;

pub(super) fn run(costs: &Costs<'_>, bootstrap: &str) -> Result<()> {
    let Some(url) = costs.elasticsearch else {
        println!("elasticsearch: skipped, there is none (--elasticsearch URL; `cargo xtask bench --costs` starts one)\n");
        return Ok(());
    };
    let url = url.trim_end_matches('/');
    let input = generate::prepare(costs.data, costs.scale * SHARE)?;
    let truth = truth(&input)?;
    let topic = unique("documents");
    fill(costs, bootstrap, &topic, &input.folder(Workload::Windows, 1))?;
    let documents = input.records(Workload::Windows) as f64 / 1e3;
    let mut results = vec![(Vec::new(), Vec::new()); IN_FLIGHT.len()];
    for round in 0..costs.rounds {
        for (in_flight, (walls, cpus)) in IN_FLIGHT.into_iter().zip(&mut results) {
            let index = unique("documents");
            let settings = [
                format!("sources.input.with.bootstrap={bootstrap:?}"),
                format!("sources.input.with.topic={topic}"),
                format!("sinks.output.with.hosts=[{url:?}]"),
                format!("sinks.output.with.index={index}"),
                format!("sinks.output.with.in_flight={in_flight}"),
            ];
            let log = costs.folder().join("elasticsearch.log");
            let run = measure::run("elasticsearch", &mut costs.run_command("elasticsearch", &settings), &log)?;
            let found = ask(url, &index)?;
            ensure!(found == truth, "elasticsearch, round {round}: {} hosts, expected {}, or other sums", found.len(), truth.len());
            ureq::delete(format!("{url}/{index}")).call()?;
            eprintln!(
                "round {round}: elasticsearch, {in_flight} in flight: {:.2} s wall, {:.2} s CPU, {} MB",
                run.wall, run.cpu, run.peak_mb
            );
            walls.push(documents / run.wall);
            cpus.push(documents / run.cpu.max(0.01));
        }
    }
    println!("Kafka -> Elasticsearch, parallelism 1, {documents:.1} k documents with ids, broker and server on the same machine:\n");
    println!("| requests in flight | k documents/s | k documents per CPU second (ours) |");
    println!("|---|---|---|");
    for (in_flight, (walls, cpus)) in IN_FLIGHT.iter().zip(&results) {
        println!("| {in_flight} | {:.1} | {:.0} |", median(walls), median(cpus));
    }
    println!();
    Ok(())
}

#[derive(Deserialize)]
struct Metric<'a> {
    host: &'a str,
    value: f64,
}

fn truth(input: &Input) -> Result<PerHost> {
    let mut hosts = PerHost::new();
    for entry in fs::read_dir(input.folder(Workload::Windows, 1))? {
        for line in fs::read_to_string(entry?.path())?.lines() {
            let row: Metric<'_> = serde_json::from_str(line)?;
            let host = hosts.entry(row.host.to_owned()).or_default();
            // Exact: values are multiples of 1/1024.
            *host = (host.0 + 1, host.1 + row.value);
        }
    }
    Ok(hosts)
}

/// What the index has, when everything in it can be found.
fn ask(url: &str, index: &str) -> Result<PerHost> {
    ureq::post(format!("{url}/{index}/_refresh")).send_empty()?;
    // Of a text the template makes a keyword.
    let query = json!({
        "size": 0,
        "aggs": {"hosts": {"terms": {"field": "host", "size": 10_000}, "aggs": {"sum": {"sum": {"field": "value"}}}}}
    });
    let text = ureq::post(format!("{url}/{index}/_search"))
        .header("content-type", "application/json")
        .send(query.to_string())?
        .body_mut()
        .read_to_string()?;
    let answer: Value = serde_json::from_str(&text)?;
    per_host(&answer).with_context(|| format!("the answer is not as it should be: {text:.200}"))
}

fn per_host(answer: &Value) -> Option<PerHost> {
    let buckets = answer.pointer("/aggregations/hosts/buckets")?.as_array()?;
    buckets
        .iter()
        .map(|bucket| {
            let sum = bucket.pointer("/sum/value")?.as_f64()?;
            Some((bucket.get("key")?.as_str()?.to_owned(), (bucket.get("doc_count")?.as_u64()?, sum)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_read_and_anything_else_is_none() {
        let answer = json!({"aggregations": {"hosts": {"buckets": [{"key": "a", "doc_count": 2, "sum": {"value": 1.5}}]}}});
        assert_eq!(per_host(&answer), Some(PerHost::from([("a".to_owned(), (2, 1.5))])));
        assert_eq!(per_host(&json!({"error": "no such index"})), None);
    }
}
