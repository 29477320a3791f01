//! `standpipe demo`, as a user runs it: on its stand-ins, and on a real Kafka and a real OpenSearch.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by a panic")]

use serde_json::Value;
use standpipe_tests::{Folder, Holding, Signal, binary, free_port, kafka, opensearch, standpipe};
use std::{process::Command, time::Duration};

const TIMEOUT: Duration = Duration::from_secs(90);

/// The counts of `N windows, N runs, N flags: all equal (N records in Kafka, N late, N documents written)`.
fn counts(stdout: &str) -> Vec<u64> {
    assert!(stdout.contains(": all equal ("), "{stdout}");
    stdout.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn assert_whole(stdout: &str, records: u64) {
    let counts = counts(stdout);
    let [windows, runs, flags, in_kafka, late, written] = counts[..] else { panic!("{stdout}") };
    assert_eq!((flags, in_kafka), (5, records), "{stdout}");
    // 20 s of event time a second for 3 s are 4 windows at least, for each of the five baselines.
    assert!(windows >= 20 && runs > records / 10, "{stdout}");
    assert!(written >= windows + runs + flags + late, "{stdout}");
}

#[test]
fn on_stand_ins_every_document_is_equal_to_the_truth() {
    let run = standpipe(["demo", "--duration", "3s", "--rate", "2000", "--speed", "20"]).timeout(TIMEOUT).finish().success();
    assert_whole(&run.stdout, 6_000);
    assert_eq!(run.stderr.matches("a stand-in for").count(), 2, "{}", run.stderr);
}

#[test]
fn on_a_cluster_every_document_is_equal_to_the_truth() {
    let port = free_port().to_string();
    let mut run = standpipe(["demo", "--cluster", "--port", &port, "--duration", "6s", "--rate", "1000", "--speed", "20"])
        .timeout(2 * TIMEOUT)
        .start();
    let url = format!("http://127.0.0.1:{port}");
    run.wait_until("the pipeline on the cluster", TIMEOUT, |run| run.stderr().contains(&format!("the pipeline:  {url}/#/jobs/")));
    let get = |path: &str| -> Value {
        let answer = ureq::get(format!("{url}{path}")).call().ok().and_then(|mut answer| answer.body_mut().read_to_string().ok());
        answer.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    };
    // Two task managers have it, and its windows are seen as they pass.
    let mut id = String::new();
    run.wait_until("the job", TIMEOUT, |_| {
        let job = get("/jobs/overview")["jobs"][0].clone();
        id = job["jid"].as_str().unwrap_or_default().to_owned();
        job["state"] == "RUNNING"
    });
    assert_eq!(get(&format!("/jobs/{id}"))["workers"].as_array().map(Vec::len), Some(2));
    let windows = get(&format!("/v1/jobs/{id}/collect?node=windows&limit=5&format=table"));
    assert_eq!(
        (windows["columns"][0]["name"].as_str(), windows["rows"].as_array().map(Vec::len)),
        (Some("baseline_id"), Some(5)),
        "{windows}"
    );
    let run = run.wait().success();
    let counts = counts(&run.stdout);
    assert!(counts[2] == 5 && counts[3] == 6_000, "{}", run.stdout);
    assert!(ureq::get(format!("{url}/overview")).call().is_err(), "nothing is left behind");
}

#[test]
fn on_real_servers_every_document_is_equal_to_the_truth() {
    let (Some(kafka), Some(opensearch)) = (kafka(), opensearch()) else { return };
    let run = standpipe([
        "demo",
        "--duration",
        "3s",
        "--rate",
        "2000",
        "--speed",
        "20",
        "--parallelism",
        "4",
        "--kafka",
        &kafka,
        "--elasticsearch",
        &opensearch,
    ])
    .timeout(TIMEOUT)
    .finish()
    .success();
    assert_whole(&run.stdout, 6_000);
    assert!(!run.stderr.contains("stand-in"), "{}", run.stderr);
}

/// A session cluster of this machine, ended with the value.
struct Cluster(Folder, u16);

impl Cluster {
    fn start() -> Self {
        let cluster = Self(Folder::new(), free_port());
        let run = standpipe(["cluster", "start", "--slots", "2", "--port", &cluster.1.to_string(), "--data"]).args([cluster.0.at("data")]);
        let _ = run.timeout(TIMEOUT).finish().code(0);
        cluster
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(Command::new(binary()).args(["cluster", "stop", "--data"]).arg(self.0.at("data")).output());
    }
}

#[test]
fn by_a_deployment_every_document_is_equal_to_the_truth() {
    let (Some(kafka), Some(opensearch)) = (kafka(), opensearch()) else { return };
    let cluster = Cluster::start();
    let address = "rest.address=127.0.0.1".to_owned();
    let settings =
        [address, format!("rest.port={}", cluster.1), format!("engine.checkpoint.dir={}", cluster.0.at("checkpoints").display())];
    let run = standpipe(["demo", "--duration", "5s", "--rate", "2000", "--speed", "20", "--kafka", &kafka, "--elasticsearch", &opensearch])
        .args(settings.iter().flat_map(|setting| ["-D", setting]))
        .timeout(2 * TIMEOUT)
        .finish()
        .success();
    assert_whole(&run.stdout, 10_000);
    assert!(run.stderr.contains("\"deployment_mode\":\"session\""), "{}", run.stderr);
    let overview = ureq::get(format!("http://127.0.0.1:{}/jobs/overview", cluster.1)).call().unwrap().body_mut().read_to_string().unwrap();
    let overview: Value = serde_json::from_str(&overview).unwrap();
    assert_eq!(overview["jobs"][0]["state"], "FINISHED", "{overview}");
}

#[test]
fn ctrl_c_ends_it_and_what_is_there_is_compared() {
    let mut run = standpipe(["demo", "--duration", "40s", "--rate", "1000"]).timeout(TIMEOUT).start();
    run.wait_until("records are read", Duration::from_secs(30), |run| run.stderr().contains("records in Kafka"));
    run.signal(Signal::INT);
    let run = run.wait().success();
    let counts = counts(&run.stdout);
    assert!(counts[3] > 0 && counts[3] < 40_000, "{}", run.stdout);
}

#[test]
fn it_ends_with_an_error_when_nothing_moves_any_more() {
    let Some(opensearch) = opensearch() else { return };
    let door = Holding::before(&opensearch, "/_bulk");
    let run = ["demo", "--duration", "2s", "--rate", "500", "--patience", "3s", "--elasticsearch", door.url()];
    let run = standpipe(run).timeout(TIMEOUT).finish().code(1);
    assert!(door.holds());
    assert!(run.stderr.contains("error: all records were read, 0 documents delivered, then nothing for 3s"), "{}", run.stderr);
}

#[test]
fn ctrl_c_ends_it_at_once_while_it_compares() {
    let Some(opensearch) = opensearch() else { return };
    // Shorter than the first look at what the indices have: only the comparison searches.
    let door = Holding::before(&opensearch, "/_search");
    let mut run = standpipe(["demo", "--duration", "1s", "--rate", "500", "--elasticsearch", door.url()]).timeout(TIMEOUT).start();
    run.wait_until("the comparison", TIMEOUT, |_| door.holds());
    run.signal(Signal::INT);
    _ = run.wait().code(130);
}

#[test]
fn what_cannot_be_is_one_line_and_the_right_code() {
    let too_many = standpipe(["demo", "--rate", "100000"]).finish().one_error(2);
    assert!(too_many.contains("3000000 records") && too_many.contains("--kafka"), "{too_many}");
    for (more, why) in [(&[][..], "give --kafka and --elasticsearch"), (&["--cluster"], "leave out --cluster")] {
        let nowhere = standpipe(["demo", "-D", "deployment_mode=session"]).args(more).finish().one_error(2);
        assert!(nowhere.contains(why), "{nowhere}");
    }
    // Before anybody is asked, or anything made.
    let wrong = ["demo", "--kafka", "127.0.0.1:1", "--elasticsearch", "http://127.0.0.1:1", "-D", "deployment_mode=session"];
    let wrong = standpipe(wrong).args(["-D", "rest.address=127.0.0.1", "-D", "rest.port=many"]).finish().one_error(2);
    assert!(wrong.contains("rest.port") && wrong.contains("many"), "{wrong}");
    let no_url = standpipe(["demo", "--elasticsearch", "localhost"]).finish().one_error(2);
    assert!(no_url.contains("expected a URL such as http://127.0.0.1:9200"), "{no_url}");
    let nobody = standpipe(["demo", "--elasticsearch", "http://127.0.0.1:1"]).timeout(TIMEOUT).finish().code(3);
    let errors: Vec<&str> = nobody.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(matches!(errors[..], [error] if error.contains("http://127.0.0.1:1 is unreachable")), "{}", nobody.stderr);
}
