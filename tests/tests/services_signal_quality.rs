//! The metrics demo on a real Kafka and a real OpenSearch: `examples/signal-quality.yaml` as it is in the repository, with the addresses and names of the test. Every document
//! of its four indices is compared with what plain code makes of the log.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test fails by a panic; small numbers"
)]
#![allow(clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "small numbers; a hash takes bits as they are")]

mod services_support;

use serde_json::json;
use services_support::{
    Kafka, OpenSearch, PATIENCE,
    signals::{BASELINES, DURATION, PARTITIONS, Truth, WINDOW, produce, punctual, signal},
    unique,
};
use standpipe_elasticsearch_stand_in::{Faults, StandIn};
use standpipe_tests::{Run, Running, Signal, assert_same_rows, standpipe};
use std::{collections::HashSet, time::Duration};

/// The pipeline's sinks, with the ids of their documents.
const SINKS: [(&str, &[&str]); 4] = [
    ("signal-windows", &["baseline_id", "window_start"]),
    ("flag-runs", &["log_partition", "log_offset"]),
    ("current-flag", &["baseline_id"]),
    ("late-signals", &["log_partition", "log_offset"]),
];

/// The pipeline of the repository, from this topic into this test's indices by the server at `url`.
fn pipeline(kafka: &Kafka, topic: &str, search: &OpenSearch, url: &str, batch: usize) -> Run {
    let source = "sources.signals";
    let mut run = standpipe(["run", "examples/signal-quality.yaml"])
        .timeout(2 * PATIENCE)
        .set(&format!("{source}.with.bootstrap"), &kafka.bootstrap)
        .set(&format!("{source}.with.topic"), topic)
        .set(&format!("{source}.with.group"), topic)
        // No partition may fall behind the others by being slow: then other signals would be late than those of the test.
        .set(&format!("{source}.event_time.idle_timeout"), "60s");
    for (sink, id) in SINKS {
        let with = search.with(url, sink, id, &json!({ "batch": { "max_docs": batch, "max_age": "20ms" } }));
        run = run.set(&format!("sinks.{sink}.with"), with.to_string());
    }
    run
}

fn assert_documents(search: &OpenSearch, truth: &Truth) {
    for ((sink, _), expected) in SINKS.iter().zip([&truth.windows, &truth.runs, &truth.current, &truth.late]) {
        assert_same_rows(sink, &search.documents(sink), expected);
    }
}

struct Job {
    parallelism: &'static str,
    search: OpenSearch,
    run: Running,
}

impl Job {
    fn wait_for(&mut self, what: &str, is_there: impl Fn(&OpenSearch) -> bool) {
        let search = &self.search;
        self.run.wait_until(&format!("{what} at parallelism {}", self.parallelism), PATIENCE, |_| is_there(search));
    }
}

#[test]
fn every_document_equals_the_truth_at_parallelism_1_2_and_4() {
    let Some(kafka) = Kafka::shared() else { return };
    let Some(search) = OpenSearch::shared() else { return };
    let topic = unique("signals");
    produce(&kafka, &topic, &punctual());
    let first = kafka.read(&topic);
    let partitions: HashSet<i64> = first.iter().map(|record| record.partition).collect();
    assert_eq!(partitions.len(), PARTITIONS, "every partition has signals");

    let start = |parallelism| {
        let search = OpenSearch::at(search.url.clone());
        let run = pipeline(&kafka, &topic, &search, &search.url, 1_000).args(["-p", parallelism, "--drain"]).start();
        Job { parallelism, search, run }
    };
    let mut jobs = ["1", "2", "4"].map(start);

    // The watermark is at the last signal less 3 s: all windows but the last one have fired, in each job for each baseline.
    let fired = (DURATION / WINDOW - 1) * BASELINES.len() as i64;
    for job in &mut jobs {
        job.wait_for("all windows but the last", |search| search.count("signal-windows") as i64 >= fired);
        assert_eq!(job.search.count("signal-windows") as i64, fired, "a window that is open has fired");
    }
    // Now these signals are late, but for the one whose window is open. The last ones say that all has been read.
    let mut lines = String::new();
    for baseline in BASELINES {
        for time in [10, 7 * WINDOW, DURATION - WINDOW - 1, DURATION - 2_999] {
            signal(&mut lines, baseline, time);
        }
    }
    BASELINES.iter().for_each(|baseline| signal(&mut lines, *baseline, DURATION + 1_000));
    produce(&kafka, &topic, &lines);
    let log = kafka.read(&topic);
    assert_eq!(log.len(), first.len() + 5 * BASELINES.len());
    let before: HashSet<_> = first.iter().map(|record| (record.partition, record.offset)).collect();
    let truth = Truth::of(&log, |record, time| !before.contains(&(record.partition, record.offset)) && time < DURATION - WINDOW);
    assert_eq!(truth.late.len(), 3 * BASELINES.len());

    for job in &mut jobs {
        job.wait_for("the last signal of each baseline", |search| {
            let mut current = search.documents("current-flag");
            current.sort_by_key(|row| row["baseline_id"].as_i64());
            let mut expected = truth.current.clone();
            expected.sort_by_key(|row| row["baseline_id"].as_i64());
            current == expected
        });
        job.run.signal(Signal::INT);
    }
    for Job { parallelism, search, run } in jobs {
        let finished = run.wait().code(0);
        assert_documents(&search, &truth);
        let summary = finished.stderr.lines().last().unwrap_or_default().to_owned();
        assert!(summary.contains(&format!(": {} rows in, ", log.len())), "parallelism {parallelism}: {}", finished.stderr);
        assert!(summary.ends_with(&format!(", {} late", truth.late.len())), "parallelism {parallelism}: {}", finished.stderr);
    }
}

/// The server answers 429 and 503 to requests and to parts of them, closes connections before and after it has applied a request, and is slow.
#[test]
fn a_server_full_of_faults_loses_and_doubles_nothing() {
    let Some(kafka) = Kafka::shared() else { return };
    let Some(search) = OpenSearch::shared() else { return };
    let topic = unique("signals");
    produce(&kafka, &topic, &punctual());
    let faults = Faults {
        seed: 11,
        busy_every: 7,
        busy_items: 0.05,
        unavailable_items: 0.05,
        cut_before_apply: 0.1,
        cut_after_apply: 0.1,
        latency: Duration::from_millis(5),
        ..Faults::default()
    };
    let proxy = StandIn::proxy("127.0.0.1:0", &search.url, faults).unwrap();
    let run = pipeline(&kafka, &topic, &search, &proxy.url(), 50).set("sources.signals.with.bounded", "true").args(["-p", "2"]);
    run.finish().success();
    // 14 of them were refused as a whole, some 20 were cut.
    assert!(proxy.bulk_requests() >= 100, "{} requests", proxy.bulk_requests());
    let truth = Truth::of(&kafka.read(&topic), |_, _| false);
    assert_eq!((truth.windows.len(), truth.late.len()), ((DURATION / WINDOW + 1) as usize * BASELINES.len(), 0));
    assert_documents(&search, &truth);
}
