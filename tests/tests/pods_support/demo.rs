//! `standpipe demo` with its pipeline in pods, between a real Kafka and a real OpenSearch on the machine that the node is on, while pods are lost. The check is the demo's own: every
//! window, run and flag against what it computes itself from the Kafka log.

use super::{Cluster, shared_checkpoints, uid};
use crate::{
    kubernetes_support::{Api, PATIENCE},
    services_support::{OpenSearch, OwnService},
};
use standpipe_tests::{Folder, Running, Signal, standpipe, wait_until};

/// Longer than it runs: the test ends it.
const DURATION: &str = "20m";

/// The windows that are there.
fn windows(run: &Running, search: &OpenSearch) -> u64 {
    let index = run.stderr().split([' ', ',', '\n']).find(|word| word.starts_with("standpipe-signal-windows-")).unwrap().to_owned();
    search.count_of(&index)
}

pub(crate) fn the_metrics_demo(cluster: &Cluster) {
    let host = cluster.host.as_str();
    let (Some(kafka), Some(opensearch)) = (OwnService::start_at("kafka", host), OwnService::start_at("opensearch", host)) else { return };
    let search = OpenSearch::at(opensearch.address.clone());
    let (api, folder) = (Api::new(&cluster.kubeconfig), Folder::new());
    let settings = ["engine.checkpoint.dir=/mnt/checkpoints", "kubernetes.taskmanager.replicas=2", "kubernetes.taskmanager.slots=1"];
    let mut run = standpipe(["demo", "--duration", DURATION, "--rate", "500", "--parallelism", "2", "--patience", "3m"])
        .args(["--kafka", &kafka.address, "--elasticsearch", &opensearch.address])
        .args(cluster.settings(&api, "m"))
        .args(shared_checkpoints(&folder))
        .args(settings.iter().flat_map(|setting| ["-D", setting]))
        .timeout(10 * PATIENCE)
        .start();
    run.wait_until("the pipeline in pods", 2 * PATIENCE, |run| run.stderr().contains("\"kubernetes.cluster.id\":\"m\""));
    let more_windows = |run: &mut Running, what: &str| {
        let before = windows(run, &search);
        run.wait_until(what, PATIENCE, |run| windows(run, &search) >= before + 10);
    };
    more_windows(&mut run, "windows");

    let lost = uid(&api.pod("m-taskmanager-1"));
    api.delete_pod("m-taskmanager-1");
    wait_until("another task manager", PATIENCE, || api.find_pod("m-taskmanager-1").is_some_and(|pod| uid(&pod) != lost));
    more_windows(&mut run, "windows after the loss of a task manager");

    let lost = api.managers("m")[0].clone();
    api.delete_pod(lost["metadata"]["name"].as_str().unwrap());
    wait_until("another manager", PATIENCE, || api.managers("m").iter().any(|pod| uid(pod) != uid(&lost)));
    more_windows(&mut run, "windows after the loss of the manager");

    run.signal(Signal::INT);
    let run = run.wait().success();
    println!("{}", run.stdout.trim());
    let counts: Vec<u64> = run.stdout.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
    let [windows, runs, flags, records, ..] = counts[..] else { panic!("{}", run.stdout) };
    assert!(run.stdout.contains(": all equal (") && flags == 5 && windows >= 30, "{}", run.stdout);
    assert!(records > 500 && runs > records / 10 && !run.stderr.contains("stand-in"), "{} {}", run.stdout, run.stderr);
    api.wait_until_gone("m");
}
