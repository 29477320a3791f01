//! Kibana's dashboard of the metrics demo: the query of every panel, on a real OpenSearch, over documents whose answers are known and over those that the demo writes.
//! `docker/kibana/check.py` translates the panels as Kibana does; Kibana itself cannot run here.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod services_support;

use serde_json::Value;
use services_support::{OpenSearch, OwnService, PATIENCE};
use standpipe_tests::{repository, standpipe};
use std::process::Command;

const PANELS: [&str; 6] =
    ["Mean signal", "Lowest and highest signal", "Records per window", "Flags", "Lengths of the runs of flags", "Current flag"];

/// Exit code, standard output, standard error.
fn check(arguments: &[&str]) -> (Option<i32>, String, String) {
    let script = repository().join("docker/kibana/check.py");
    let output = Command::new("python3").arg(script).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Every panel has answered with rows.
fn assert_panels((code, stdout, stderr): (Option<i32>, String, String)) {
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let buckets =
        |line: &str| line.split_once(": ").and_then(|(panel, rest)| Some((panel.to_owned(), rest.split(' ').next()?.parse().ok()?)));
    let found: Vec<(String, u64)> = stdout.lines().filter_map(buckets).collect();
    assert_eq!(found.iter().map(|(panel, _)| panel.as_str()).collect::<Vec<_>>(), PANELS);
    assert!(found.iter().all(|(_, buckets)| *buckets >= 5), "five baselines at least: {stdout}");
}

/// On a server of its own: the panels' patterns take every index of the demo, of whatever run.
#[test]
fn every_panel_of_the_dashboard_answers_and_rightly() {
    let Some(own) = OwnService::start("opensearch") else { return };
    let search = OpenSearch::at(own.address.clone());
    let (code, _, stderr) = check(&[&search.url]);
    assert_eq!(code, Some(1), "a server without documents: {stderr}");

    // Every number that a panel shows is compared with one that plain code has computed from the documents.
    assert_panels(check(&["--seed", &search.url]));
    // And it would not be well without them.
    search.must("DELETE", "standpipe-flag-runs-seed", &Value::Null);
    let (code, _, stderr) = check(&[&search.url]);
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("check.py: standpipe-flag-runs-*"), "{stderr}");

    // What the demo writes has the fields and the types that the panels need, and is in their range of time.
    search.must("DELETE", "standpipe-signal-windows-seed,standpipe-current-flag-seed", &Value::Null);
    let demo = ["demo", "--duration", "3s", "--rate", "1000", "--speed", "20", "--elasticsearch", &search.url];
    let demo = standpipe(demo).timeout(2 * PATIENCE).finish().code(0);
    assert!(demo.stdout.contains(": all equal ("), "{}", demo.stdout);
    assert_panels(check(&[&search.url]));
}
