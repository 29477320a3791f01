//! Flink's own command-line client (`flink list`, `savepoint`, `stop`, `cancel`, `checkpoint`) with a session cluster.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod cluster_support;

use cluster_support::{COUNTS, Cluster, PATIENCE, SAFE};
use standpipe_tests::repository;
use std::{path::Path, process::Command};

/// What one command of the client has said, and whether it succeeded.
fn flink(jars: &str, cluster: &Cluster, arguments: &[&str]) -> (bool, String) {
    let address = format!("127.0.0.1:{}", cluster.port);
    let script = repository().join("tests/services/flink.sh");
    // Nothing of it stays: what it has started ends with it.
    let mut client = Command::new("timeout");
    client.arg(PATIENCE.as_secs().to_string()).arg(script).args(["run", jars, &address]).args(arguments);
    let output = client.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

#[test]
fn flinks_client_lists_saves_stops_and_cancels_jobs() {
    let Some(jars) = standpipe_tests::flink() else { return };
    let cluster = Cluster::start();
    let _task_manager = cluster.task_manager("only", 3);
    let flink = |arguments: &[&str]| flink(&jars, &cluster, arguments);
    let good = |arguments: &[&str]| {
        let (success, said) = flink(arguments);
        assert!(success, "{arguments:?}: {said}");
        said
    };
    // Long enough for some starts of a Java machine.
    let id = cluster.submit(&cluster.bundle(&format!("{COUNTS}{SAFE}").replace("count: 40000", "count: 400000"), 2));
    cluster.taken(&id, 2);
    let listed = good(&["list", "-a"]);
    assert!(listed.contains(&format!("{id} : counts (RUNNING)")), "{listed}");
    let (kept, stopped) = (cluster.folder.at("kept"), cluster.folder.at("stopped"));
    let saved = good(&["savepoint", &id, kept.to_str().unwrap()]);
    let place = |said: &str, below: &Path| {
        let below = below.to_str().unwrap();
        let place = said
            .split_whitespace()
            .map(|word| word.trim_start_matches("file:"))
            .find(|word| word.contains(below) && word.ends_with(".json"));
        place.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    let saved = place(&saved, &kept);
    assert!(Path::new(&saved).exists(), "{saved}");
    let checkpoint = good(&["checkpoint", &id]);
    assert!(checkpoint.contains("completed"), "{checkpoint}");
    // What cannot be says why, also there.
    cluster.folder.write("file", "");
    let (success, said) = flink(&["savepoint", &id, cluster.folder.at("file/x").to_str().unwrap()]);
    assert!(!success && said.contains("is no place for checkpoints"), "{said}");
    let said = good(&["stop", "-p", stopped.to_str().unwrap(), &id]);
    let last = place(&said, &stopped);
    cluster.state(&id, "FINISHED");
    let said = good(&["savepoint", "-d", &saved]);
    assert!(!Path::new(&saved).exists(), "{said}");
    let mut bundle = cluster.bundle(&format!("{COUNTS}{SAFE}"), 3);
    bundle.options.restore = Some(last);
    let again = cluster.submit(&bundle);
    let restored = cluster.wait_for(&again, "its status", |job| job["status"]["checkpoints"].is_object());
    assert!(restored["status"]["checkpoints"]["restored"].is_u64(), "{restored:#}");
    cluster.state(&again, "FINISHED");
    let third = cluster.submit(&cluster.bundle(&COUNTS.replace("DIR/", "DIR/x-"), 2));
    cluster.state(&third, "RUNNING");
    good(&["cancel", &third]);
    cluster.state(&third, "CANCELED");
    let listed = good(&["list", "-a"]);
    assert!(listed.contains("(CANCELED)") && listed.contains("(FINISHED)"), "{listed}");
    // Who is over cannot be stopped, and the client says so.
    let (success, said) = flink(&["stop", &id]);
    assert!(!success && said.contains("the job is FINISHED"), "{said}");
}
