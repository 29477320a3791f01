//! The deployment mode `kubernetes-application` on a node, with pods that run the image: `cargo xtask test --all`. Rows, ends, what is left; a task manager and a manager that are lost; another
//! parallelism; a savepoint, and another deployment from it; files that the image does not have; a node that is drained (`pods_support/drain`); the metrics demo between a real
//! Kafka and a real OpenSearch (`pods_support/demo`).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod kubernetes_support;
mod pods_support;
mod services_support;

use kubernetes_support::{Api, PATIENCE};
use pods_support::{Cluster, ENDLESS, assert_counted_once, demo, deployment, drain, runs_on, shared_checkpoints, status, uid};
use standpipe_tests::{Folder, plugin, wait_until};
use std::{fs, io::Read};

const BOUNDED: &str = "\
name: squares
sources:
  numbers: {connector: generator, with: {count: 1000, fields: {n: {kind: sequence}}}}
transforms:
  squares: {input: numbers, select: {n: n, square: 'n * n'}}
sinks:
  out: {input: squares, connector: collect}
";
fn a_bounded_job(cluster: &Cluster) {
    let (api, folder) = (Api::new(&cluster.kubeconfig), Folder::new());
    folder.write("job.yaml", BOUNDED);
    let _ = cluster.deploy(&api, &folder, "j", &[]).finish().code(0);
    let mut log = cluster.log_of_task_manager(&api, "j-taskmanager-0");
    let rows = deployment(&folder, "collect", "j").args(["--format", "csv"]).finish().code(0).stdout;
    assert_eq!(rows.lines().count(), 1001, "{rows}");
    assert_eq!(rows.lines().last(), Some("999,998001"));
    assert_eq!(deployment(&folder, "wait", "j").finish().code(0).stdout, "FINISHED\n");
    // The manager itself clears away what the job does not need any more.
    wait_until("the cluster of the job is gone", PATIENCE, || {
        let left: Vec<String> = api.objects("j").into_iter().map(|(name, _)| name).collect();
        left == ["Job j", "ServiceAccount j", "Role j", "RoleBinding j"]
    });
    assert_eq!(status(&folder, "j"), "FINISHED");
    // It hears farewells yet.
    wait_until("the end of its manager", PATIENCE, || {
        let logs = deployment(&folder, "logs", "j").finish().code(0).stdout;
        logs.contains("==> j-") && logs.contains("the job has finished")
    });
    // Its task manager has ended with it, and found nothing wrong with that.
    let mut said = String::new();
    log.read_to_string(&mut said).unwrap();
    assert!(said.contains("task manager: 1 slots") && !said.contains("WARN") && !said.contains("warning"), "{said}");
    let late = deployment(&folder, "collect", "j").finish().one_error(3);
    assert!(late.ends_with("the job is over: it is FINISHED"), "{late}");
    let _ = deployment(&folder, "remove", "j").finish().code(0);
    api.wait_until_gone("j");
}

fn files_that_the_image_lacks(cluster: &Cluster) {
    let (api, folder) = (Api::new(&cluster.kubeconfig), Folder::new());
    folder.write("job.yaml", BOUNDED);
    // Another file, though it does the same; larger than a config map takes.
    fs::create_dir(folder.at("own")).unwrap();
    let mut bytes = fs::read(plugin("connector_generator")).unwrap();
    bytes.extend(vec![0_u8; 1 << 20]);
    fs::write(folder.at("own/libgenerator.so"), bytes).unwrap();
    let _ = cluster.deploy(&api, &folder, "u", &[]).plugin_path(folder.at("own")).finish().code(0);
    assert_eq!(deployment(&folder, "wait", "u").finish().code(0).stdout, "FINISHED\n");
    let _ = deployment(&folder, "remove", "u").finish().code(0);
    api.wait_until_gone("u");
}

fn a_job_that_fails_and_one_that_is_cancelled(cluster: &Cluster) {
    let (api, folder) = (Api::new(&cluster.kubeconfig), Folder::new());
    let broken = "name: broken\nsources:\n  rows: {connector: file, with: {path: gone.jsonl}, format: json, schema: {n: int64}}\nsinks:\n  out: {input: rows, connector: print, format: json}\n";
    folder.write("job.yaml", broken);
    // Its submission is complete when the manager has it, which may be before it fails.
    let deployed = cluster.deploy(&api, &folder, "b", &[]).finish();
    let failed = if deployed.code == Some(0) { deployment(&folder, "wait", "b").finish().code(1) } else { deployed.code(1) };
    assert!(failed.stderr.contains("cannot read gone.jsonl: No such file or directory"), "{failed:?}");
    if folder.at("b.json").exists() {
        let _ = deployment(&folder, "remove", "b").finish().code(0);
    }
    api.wait_until_gone("b");

    folder.write("job.yaml", ENDLESS.replace("checkpoint: {interval: 500ms, dir: /mnt/checkpoints}\n", ""));
    let _ = cluster.deploy(&api, &folder, "c", &[]).finish().code(0);
    assert_eq!(deployment(&folder, "cancel", "c").finish().code(0).stdout, "CANCELED\n");
    wait_until("its manager is gone", PATIENCE, || api.objects("c").len() == 4);
    api.wait_for(&Api::path("Job", "c"), |job| {
        job["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "Failed"))
    });
    api.delete_pod(api.managers("c")[0]["metadata"]["name"].as_str().unwrap());
    assert_eq!(status(&folder, "c"), "CANCELED");
    let _ = deployment(&folder, "remove", "c").finish().code(0);
    api.wait_until_gone("c");
}

fn lost_pods_another_parallelism_and_a_savepoint(cluster: &Cluster) {
    let (api, folder) = (Api::new(&cluster.kubeconfig), Folder::new());
    folder.write("job.yaml", ENDLESS);
    let volumes = shared_checkpoints(&folder);
    let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
    let refused = cluster.deploy(&api, &folder, "r", &[]).finish().code(2);
    assert!(refused.stderr.contains("checkpoint.dir: \"/mnt/checkpoints\" is a folder of one pod"), "{refused:?}");
    let _ = cluster.deploy(&api, &folder, "r", &volumes).finish().code(0);
    let runs_on = |what: &str| runs_on(&folder, "r", what);
    runs_on("checkpoints");

    let before = uid(&api.pod("r-taskmanager-0"));
    api.delete_pod("r-taskmanager-0");
    wait_until("another task manager", PATIENCE, || api.find_pod("r-taskmanager-0").is_some_and(|pod| uid(&pod) != before));
    runs_on("after the loss of a task manager");

    let manager = api.managers("r")[0].clone();
    api.delete_pod(manager["metadata"]["name"].as_str().unwrap());
    wait_until("another manager", PATIENCE, || api.managers("r").iter().any(|pod| uid(pod) != uid(&manager)));
    runs_on("after the loss of the manager");

    let _ = deployment(&folder, "rescale", "r").args(["2"]).finish().code(0);
    assert!(api.find_pod("r-taskmanager-1").is_some(), "there is one task manager more");
    runs_on("with another parallelism");
    let _ = deployment(&folder, "rescale", "r").args(["1"]).finish().code(0);
    wait_until("the second task manager is given up", PATIENCE, || api.find_pod("r-taskmanager-1").is_none());
    runs_on("with the former parallelism");

    let savepoint = deployment(&folder, "stop", "r").finish().code(0).stdout;
    let _ = deployment(&folder, "remove", "r").finish().code(0);
    api.wait_until_gone("r");
    let from = [volumes.as_slice(), &["--restore", savepoint.trim()]].concat();
    let _ = cluster.deploy(&api, &folder, "s", &from).finish().code(0);
    let rows = deployment(&folder, "collect", "s").args(["--limit", "1", "--format", "csv"]).finish().code(0).stdout;
    assert_counted_once(&rows, 200);
    let _ = deployment(&folder, "cancel", "s").finish().code(0);
    let _ = deployment(&folder, "remove", "s").finish().code(0);
    api.wait_until_gone("s");
}

/// One after another: they share the node, and the image.
#[test]
fn jobs_on_a_node() {
    let Some(cluster) = Cluster::new() else { return };
    a_bounded_job(&cluster);
    files_that_the_image_lacks(&cluster);
    a_job_that_fails_and_one_that_is_cancelled(&cluster);
    lost_pods_another_parallelism_and_a_savepoint(&cluster);
    drain::a_node_that_is_drained(&cluster);
    demo::the_metrics_demo(&cluster);
}
