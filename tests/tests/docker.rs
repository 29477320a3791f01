//! What `docker/` says of itself, as far as files can be wrong without an engine: the compose file's commands, ports, rights and addresses, the jobs that it deploys, the image's user,
//! `build-image.sh`. The image and the compose file run in tests/tests/services_docker.rs.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::{Map, Value, json};
use standpipe_tests::{Folder, repository, standpipe};
use std::{fs, process::Command};

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn yaml(file: &str) -> Value {
    standpipe_tests::yaml(&read(file))
}

fn services() -> Map<String, Value> {
    yaml("docker/compose.yaml")["services"].as_object().unwrap().clone()
}

/// Those that run Standpipe's image.
fn ours() -> Map<String, Value> {
    let is_ours = |service: &Value| service["image"] == "${STANDPIPE_IMAGE:-standpipe:latest}";
    let ours: Map<String, Value> = services().into_iter().filter(|(_, service)| is_ours(service)).collect();
    assert_eq!(ours.len(), 7, "{:?}", ours.keys());
    ours
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}")).iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// The command lines of `standpipe` in a shell's script, without what the shell makes of it.
fn in_script(script: &str) -> Vec<Vec<String>> {
    let end = |word: &str| word.starts_with(['|', '>', '<', ';', '&']);
    let line = |at: usize| script[at..].lines().next().unwrap_or_default().split_whitespace().skip(1);
    script.match_indices("standpipe ").map(|(at, _)| line(at).take_while(|word| !end(word)).map(str::to_owned).collect()).collect()
}

/// Every command line of the binary in a service: its command and its health check.
fn commands(service: &Value) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for part in [&service["command"], &service["healthcheck"]["test"]].into_iter().filter(|part| !part.is_null()) {
        let part = words(part);
        match part.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["CMD", "standpipe", ..] => found.push(part[2..].to_vec()),
            ["CMD-SHELL", script] | ["CMD", "bash", "-euc", script] => found.extend(in_script(script)),
            [script] => found.extend(in_script(script)),
            _ => found.push(part),
        }
    }
    found
}

#[test]
fn every_command_of_the_compose_file_is_one_of_the_binary() {
    let mut all = Vec::new();
    for (name, service) in ours() {
        for command in commands(&service) {
            // What clap does not know is an error before the help is shown.
            let finished = standpipe(&command).args(["--help"]).finish();
            assert_eq!(finished.code, Some(0), "{name}: standpipe {}: {}", command.join(" "), finished.stderr);
            all.push(command.first().unwrap().clone());
        }
    }
    all.sort();
    let expected = ["deploy", "deploy", "deployment", "deployment", "job", "job", "jobmanager", "run", "taskmanager", "taskmanager"]
        .map(str::to_owned);
    assert_eq!(all, expected);
}

#[test]
fn ports_are_open_to_this_machine_alone() {
    let mut ports = 0;
    for (name, service) in services() {
        for port in service.get("ports").map(words).unwrap_or_default() {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
            ports += 1;
        }
        assert_ne!(service["network_mode"], "host", "{name}");
    }
    assert_eq!(ports, 4, "Standpipe's dashboard, Kibana, Elasticsearch, Kafka");
}

#[test]
fn services_have_no_rights_and_say_whether_they_are_well() {
    let once = ["token", "metrics", "word-count"];
    for (name, service) in ours() {
        assert_eq!((&service["cap_drop"], &service["init"]), (&json!(["ALL"]), &json!(true)), "{name}");
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]), "{name}");
        assert!(service["user"].is_null() && service["privileged"].is_null() && service["cap_add"].is_null(), "{name}");
        // What is made once is a file of a volume; nothing is a secret that stands in the file.
        assert!(service["environment"].is_null(), "{name}");
        let is_once = once.contains(&name.as_str());
        assert_eq!(service["healthcheck"].is_null(), is_once, "{name}");
        assert_eq!(service["restart"], if is_once { "no" } else { "on-failure" }, "{name}");
    }
    for name in ["kafka", "elasticsearch", "kibana"] {
        assert!(services()[name]["healthcheck"].is_object(), "{name}");
    }
}

/// Task managers give a name that others reach them by, the manager listens to others and wants a token, and all of them have the same one.
#[test]
fn the_cluster_is_reached_by_name_and_with_a_token() {
    let ours = ours();
    let command = |service: &str| words(&ours[service]["command"]);
    let after = |service: &str, option: &str| {
        let command = command(service);
        let at = command.iter().position(|word| word == option).unwrap_or_else(|| panic!("{service}: no {option}"));
        command[at + 1].clone()
    };
    assert_eq!(after("jobmanager", "--bind"), "0.0.0.0:8081");
    let mut folders = vec![after("jobmanager", "--data")];
    for name in ["taskmanager-1", "taskmanager-2"] {
        assert_eq!(after(name, "--host"), name);
        assert_eq!(after(name, "--jobmanager"), "http://jobmanager:8081");
        // Nobody is asked who he is there.
        assert!(after(name, "--metrics").starts_with("127.0.0.1:"), "{name}");
        folders.push(after(name, "--data"));
    }
    folders.sort();
    folders.dedup();
    assert_eq!(folders.len(), 3, "a folder for each: {folders:?}");
    let settings = yaml("docker/jobs/deployment.yaml");
    assert_eq!((&settings["rest.address"], &settings["rest.port"]), (&json!("jobmanager"), &json!(8081)));
    for name in ["jobmanager", "taskmanager-1", "taskmanager-2"] {
        assert_eq!(json!(after(name, "--token-file")), settings["rest.token.file"], "{name}");
        assert!(!command(name).iter().any(|word| word == "--open"), "{name}");
    }
}

#[test]
fn whoever_is_waited_for_is_there_and_can_be_waited_for() {
    let services = services();
    let mut waits = 0;
    for (name, service) in &services {
        for (other, how) in service.get("depends_on").and_then(Value::as_object).into_iter().flatten() {
            let other_service = services.get(other).unwrap_or_else(|| panic!("{name} waits for {other}"));
            match how["condition"].as_str().unwrap() {
                "service_healthy" => assert!(other_service["healthcheck"].is_object(), "{name} waits for {other}"),
                "service_completed_successfully" => assert_eq!(other_service["restart"], "no", "{name} waits for {other}"),
                condition => assert_eq!(condition, "service_started", "{name} waits for {other}"),
            }
            waits += 1;
        }
    }
    assert!(waits > 10, "{waits}");
}

/// What is below these keys as text, with these replacements made.
fn as_text(pipeline: &Value, key: &str, replacements: &[(&str, &str)]) -> String {
    replacements.iter().fold(pipeline[key].to_string(), |text, (from, to)| text.replace(from, to))
}

#[test]
fn the_metrics_job_is_the_example_with_other_addresses() {
    let (job, example) = (yaml("docker/jobs/metrics.yaml"), yaml("examples/signal-quality.yaml"));
    let addresses = [("kafka:9092", "127.0.0.1:9092"), ("elasticsearch:9200", "127.0.0.1:9200"), ("-compose\"", "\"")];
    for key in ["name", "parallelism", "sources", "transforms", "sinks"] {
        assert_eq!(as_text(&job, key, &addresses), as_text(&example, key, &[]), "{key}");
    }
    // The dashboard's patterns, as check.py has them too.
    for sink in ["signal-windows", "flag-runs", "current-flag"] {
        assert!(read("docker/kibana/dashboard.ndjson").contains(&format!("\"standpipe-{sink}-*\"")), "{sink}");
        assert_eq!(job["sinks"][sink]["with"]["index"], format!("standpipe-{sink}-compose"));
    }
    // Where both task managers reach them.
    assert!(job["checkpoint"]["dir"].as_str().unwrap().starts_with("/var/lib/standpipe/"), "{job}");
    assert!(job["restart"].is_object());
    let more: Vec<&String> = job.as_object().unwrap().keys().filter(|key| example.get(key).is_none()).collect();
    assert_eq!(more, ["checkpoint", "restart"]);
}

#[test]
fn word_count_is_the_example_whose_rows_are_collected() {
    let (job, example) = (yaml("docker/jobs/word-count.yaml"), yaml("examples/word-count.yaml"));
    assert_eq!(as_text(&job, "sources", &[("data/words.txt", "examples/data/words.txt")]), as_text(&example, "sources", &[]));
    for key in ["name", "transforms"] {
        assert_eq!(job[key], example[key], "{key}");
    }
    assert_eq!(job["sinks"], json!({ "out": { "input": "counts", "connector": "collect" } }));
}

#[test]
fn the_jobs_are_pipelines_and_their_settings_those_of_a_deployment() {
    let folder = Folder::new();
    fs::create_dir(folder.at("data")).unwrap();
    folder.write("data/words.txt", "a b\n");
    for job in ["metrics", "signals", "word-count"] {
        let file = repository().join(format!("docker/jobs/{job}.yaml"));
        standpipe(["check"]).args([&file]).in_directory(folder.path()).finish().success();
        let settings = repository().join("docker/jobs/deployment.yaml");
        let shown = standpipe(["config", "show", "--strict"]).args([file]).args(["--config".into(), settings]).finish().code(0);
        assert!(shown.stdout.contains("jobmanager") && shown.stderr.is_empty(), "{} {}", shown.stdout, shown.stderr);
    }
}

/// Nothing is run in the last stage, so that a base without a shell will do, and what it ends with is no root.
#[test]
fn the_image_ends_as_a_user_without_rights() {
    let text = read("docker/Dockerfile");
    let last = text.rsplit_once("\nFROM ").unwrap().1;
    let instruction = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let instructions: Vec<String> = last.lines().skip(1).filter(|line| !line.starts_with('#')).map(instruction).collect();
    assert_eq!(instructions, ["COPY", "COPY", "ENV", "USER", "WORKDIR", "ENTRYPOINT"]);
    assert!(last.contains("\nUSER 10001:10001\n") && last.contains("--chown=10001:10001"), "{last}");
    let ignored = read(".dockerignore");
    assert!([".git", "target", ".cache"].iter().all(|name| ignored.lines().any(|line| line == *name)), "{ignored}");
}

fn build(arguments: &[&str], engine: &str) -> (Option<i32>, String) {
    let mut command = Command::new(repository().join("docker/build-image.sh"));
    let output = command.args(arguments).env("DOCKER", engine).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

#[test]
fn build_image_says_what_is_wrong() {
    let folder = Folder::new();
    let path = folder.path().to_str().unwrap();
    let nobody = "standpipe-test-no-such-engine";
    let engine = build(&[], nobody);
    assert_eq!(engine, (Some(3), format!("build-image.sh: no {nobody} on PATH (DOCKER=podman or DOCKER=buildah names another)")));
    assert_eq!(build(&["--dist"], "true"), (Some(2), "build-image.sh: --dist takes a value".to_owned()));
    assert_eq!(build(&["--dits", path], "true"), (Some(2), "build-image.sh: unknown argument --dits".to_owned()));
    assert_eq!(build(&["--dist", path], "true"), (Some(2), format!("build-image.sh: {path}/standpipe is no program")));
    fs::copy("/bin/true", folder.at("standpipe")).unwrap();
    assert_eq!(build(&["--dist", path], "true"), (Some(2), format!("build-image.sh: {path} has no plugin")));
    fs::create_dir(folder.at("plugins")).unwrap();
    assert_eq!(build(&["--dist", path], "true"), (Some(2), format!("build-image.sh: {path}/plugins has no plugin")));
    folder.write("plugins/liba.so", "");
    assert_eq!(build(&["--dist", path, "--plugins", "/no/such"], "true"), (Some(2), "build-image.sh: /no/such has no plugin".to_owned()));
    // The engine's own exit code.
    assert_eq!(build(&["--dist", path], "false").0, Some(1));
    assert_eq!(build(&["--dist", path], "true"), (Some(0), String::new()));
}
