//! Checkpoints that a job cannot go on from: damaged, foreign, of another job, of a pipeline that has changed. Each is refused with its file or node and the reason,
//! before anything is opened, and stays as it is: with what is mended, the job goes on from it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Folder, Run, Signal, read_rows, standpipe};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Starting, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);
const ROWS: usize = 20_000;

/// Every kind of state: positions, a window, a running aggregate, a plugin's keyed state, a sink that commits.
const JOB: &str = "
name: job
checkpoint: {interval: 50ms, dir: ckpt, keep: 100}
sources:
  ticks:
    connector: generator
    with: {rate: 20000, count: 20000, fields: {n: {kind: sequence}, k: {kind: uniform-int, min: 0, max: 9}, t: {kind: timestamp}}}
    event_time: {column: t}
transforms:
  windows: {input: ticks, key_by: [k], window: {tumbling: 200ms}, aggregate: {c: \"count(*)\", m: \"max(n)\"}}
  totals: {input: ticks, key_by: [k], aggregate: {s: \"sum(n)\"}, emit: final}
  flagged: {input: ticks, select: {kk: \"k\", odd: \"n % 3 > 0\"}}
  runs: {input: flagged, key_by: [kk], transform: run-length, with: {column: odd}}
sinks:
  all: {input: ticks, connector: file, with: {path: all.jsonl}, format: json}
  out: {input: windows, connector: file, with: {path: windows.jsonl}, format: json}
  sums: {input: totals, connector: file, with: {path: sums.jsonl}, format: json}
  lengths: {input: runs, connector: file, with: {path: runs.jsonl}, format: json}
";

struct Job(Folder);

impl Job {
    /// One that was killed when it had some checkpoints.
    fn killed() -> Self {
        let job = Self(Folder::new());
        job.0.write("job.yaml", JOB);
        let mut run = job.run(&["--log-level", "info"]).start();
        run.wait_until("checkpoints", PATIENCE, |run| run.stderr().matches("is durable after").count() >= 4);
        run.signal(Signal::KILL);
        _ = run.wait();
        job
    }

    fn run(&self, arguments: &[&str]) -> Run {
        standpipe(["run", "job.yaml"]).args(arguments).in_directory(self.0.path())
    }

    /// The paths of the manifests, oldest first.
    fn manifests(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.at("ckpt/job/checkpoints")).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    /// A file of the newest checkpoint that has this in its name.
    fn newest_file(&self, part: &str) -> PathBuf {
        let manifest: serde_json::Value = serde_json::from_slice(&fs::read(self.manifests().last().unwrap()).unwrap()).unwrap();
        let files = manifest["nodes"].as_object().unwrap().values().flat_map(|node| node["tables"].as_object().unwrap().values());
        let mut paths = files.flat_map(|files| files.as_array().unwrap()).map(|file| file["path"].as_str().unwrap().to_owned());
        let path = paths.find(|path| path.contains(part)).unwrap_or_else(|| panic!("no file of {part}: {manifest}"));
        self.0.at("ckpt/job").join(path)
    }

    /// What a refused restore must leave as it is: checkpoints and output.
    fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for folder in ["ckpt/job/checkpoints", "ckpt/job/data", "."] {
            for entry in fs::read_dir(self.0.at(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() && path.file_name().unwrap() != "job.yaml" {
                    found.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        found
    }

    /// The newest checkpoint is refused with these words, all on one line, and nothing has changed.
    fn refuses(&self, code: i32, arguments: &[&str], words: &[&str]) {
        let before = self.content();
        let list = || standpipe(["checkpoint", "list", "job.yaml", "--format", "json"]).in_directory(self.0.path()).finish().stdout;
        let listed = list();
        let finished = self.run(&["--restore", "latest"]).args(arguments).finish().code(code);
        let line = finished.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{}", finished.stderr));
        for word in words {
            assert!(line.contains(word), "{word:?} is not in: {line}");
        }
        assert!(self.content() == before, "something has changed");
        assert_eq!(list(), listed);
    }

    /// With what was mended it goes on, and everything is as if nothing had happened.
    fn goes_on(&self) {
        self.run(&["--restore", "latest"]).finish().success();
        let all = read_rows(self.0.at("all.jsonl"));
        assert!(all.len() == ROWS && all.iter().zip(0..).all(|(row, n)| row["n"] == n), "{} rows", all.len());
        let counted: i64 = read_rows(self.0.at("windows.jsonl")).iter().map(|row| row["c"].as_i64().unwrap()).sum();
        assert_eq!(counted, ROWS as i64);
        let sum: i64 = read_rows(self.0.at("sums.jsonl")).iter().map(|row| row["s"].as_i64().unwrap()).sum();
        assert_eq!(sum, (0..ROWS as i64).sum::<i64>());
    }
}

/// Does something to a file, and takes it back.
fn with_changed(path: &Path, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>, check: impl FnOnce()) {
    let original = fs::read(path).unwrap();
    match change(original.clone()) {
        Some(changed) => fs::write(path, changed).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
    check();
    fs::write(path, original).unwrap();
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn manifests_that_are_damaged_or_not_ours() {
    let job = Job::killed();
    let newest = job.manifests().pop().unwrap();
    let other = |content: &[u8]| Some(content.to_vec());
    let half = |content: Vec<u8>| Some(content[..content.len() / 2].to_vec());
    // Its place in the text is told, too.
    with_changed(&newest, half, || job.refuses(1, &[], &[name(&newest), "EOF while parsing"]));
    with_changed(&newest, |_| other(b""), || job.refuses(1, &[], &[name(&newest), "EOF while parsing"]));
    with_changed(&newest, |_| other(b"\x89PNG\r\n\x1a\n\0\0\0"), || job.refuses(1, &[], &[name(&newest), "expected value"]));
    with_changed(&newest, |_| other(b"{\"format\": 1}"), || job.refuses(1, &[], &[name(&newest), "missing field `standpipe`"]));
    let later = |content: Vec<u8>| Some(String::from_utf8(content).unwrap().replacen("\"format\": 1", "\"format\": 7", 1).into_bytes());
    with_changed(&newest, later, || {
        job.refuses(1, &[], &[name(&newest), "it is of format 7, by standpipe 0.1.0; this release reads up to 1"])
    });
    let base = job.0.at("ckpt/job/generations/000001.base");
    with_changed(&base, |_| other(b"nothing"), || job.refuses(1, &[], &[name(&base), "it is no number"]));
    job.goes_on();
}

#[test]
fn state_files_that_are_damaged_missing_or_not_ours() {
    let job = Job::killed();
    for part in ["transforms.windows", "transforms.totals", "transforms.runs", "sources.ticks-0-splits", "sinks.all"] {
        let file = job.newest_file(part);
        with_changed(&file, |_| None, || job.refuses(1, &[], &[name(&file), "it is missing"]));
        let half = |content: Vec<u8>| Some(content[..content.len() / 2].to_vec());
        with_changed(&file, half, || job.refuses(1, &[], &[name(&file), "bytes", "were written"]));
        let turned = |mut content: Vec<u8>| {
            let middle = content.len() / 2;
            content[middle] ^= 0xff;
            Some(content)
        };
        with_changed(&file, turned, || job.refuses(2, &[], &[name(&file), "its content is not what was written"]));
        // As long, and of another program.
        let foreign = |content: Vec<u8>| Some(vec![b'x'; content.len()]);
        with_changed(&file, foreign, || job.refuses(2, &[], &[name(&file), "its content is not what was written"]));
    }
    job.goes_on();
}

#[test]
fn pipelines_that_do_not_fit() {
    let job = Job::killed();
    let refuses = |from: &str, to: &str, words: &[&str]| {
        let changed = JOB.replace(from, to);
        assert_ne!(changed, JOB, "{from}");
        job.0.write("job.yaml", changed);
        job.refuses(2, &[], words);
    };
    refuses(
        "name: job",
        "name: job\nengine: {max_parallelism: 64}",
        &["its state is in 128 key groups, the pipeline's engine.max_parallelism is 64"],
    );
    // Types of keys, of values and of aggregates.
    refuses("windows: {input: ticks, key_by: [k]", "windows: {input: ticks, key_by: [t]", &["transforms.windows", "its key is Struct"]);
    refuses("kk: \"k\"", "kk: \"cast(k as string)\"", &["transforms.runs: the snapshot does not fit: state \"length\": its key is Struct"]);
    refuses("max(n)", "max(t)", &["transforms.windows", "m.0"]);
    refuses("sum(n)", "sum(cast(n as double))", &["transforms.totals", "s.0"]);
    // Another aggregate, another verb, no node.
    refuses("s: \"sum(n)\"", "other: \"sum(n)\"", &["transforms.totals", "other.0"]);
    refuses(
        "  totals: {input: ticks, key_by: [k], aggregate: {s: \"sum(n)\"}, emit: final}",
        "  totals: {input: ticks, key_by: [k], window: {tumbling: 1s}, aggregate: {s: \"sum(n)\"}}",
        &["transforms.totals was a aggregate, which it is not any more"],
    );
    refuses(
        "  lengths: {input: runs, connector: file, with: {path: runs.jsonl}, format: json}\n",
        "",
        &["it has state of sinks.lengths, which is not in the pipeline; --allow-non-restored-state leaves it behind"],
    );
    job.0.write("job.yaml", JOB);
    job.goes_on();
}

/// What is refused does not make later checkpoints unreachable.
#[test]
fn an_older_checkpoint_that_does_not_fit_leaves_the_newest_in_its_place() {
    let job = Job::killed();
    let before = job.content();
    let generations = || fs::read_dir(job.0.at("ckpt/job/generations")).unwrap().count();
    let claimed = generations();
    let number = name(&job.manifests()[0]).split('-').next().unwrap().trim_start_matches('0').to_owned();
    job.0.write("job.yaml", JOB.replace("sum(n)", "sum(cast(n as double))"));
    let error = job.run(&["--restore", &number]).finish().code(2).stderr;
    assert!(error.contains(&format!("error: checkpoint {number}: transforms.totals")), "{error}");
    assert!(job.content() == before, "something has changed");
    assert_eq!(generations(), claimed, "a process that ran the job would have lost it");
    job.0.write("job.yaml", JOB);
    let newest = name(job.manifests().last().unwrap()).split('-').next().unwrap().trim_start_matches('0').to_owned();
    let run = job.run(&["--restore", "latest"]).finish().success();
    assert!(run.stderr.contains(&format!("job: goes on from checkpoint {newest} in ckpt/job")), "{}", run.stderr);
}

#[test]
fn the_checkpoints_of_another_job() {
    let job = Job::killed();
    // It fits in all but its name.
    fs::rename(job.0.at("ckpt/job"), job.0.at("ckpt/other")).unwrap();
    job.0.write("job.yaml", JOB.replace("name: job", "name: other"));
    let error = job.run(&["--restore", "latest"]).finish().one_error(2);
    assert!(error.contains(": it is of the job \"job\", this is \"other\""), "{error}");
    fs::rename(job.0.at("ckpt/other"), job.0.at("ckpt/job")).unwrap();
    job.0.write("job.yaml", JOB);
    job.goes_on();
}

#[test]
fn a_folder_that_may_not_be_written_or_read() {
    use std::os::unix::fs::PermissionsExt;
    let job = Job::killed();
    let set = |mode: u32| {
        for folder in ["ckpt/job/generations", "ckpt/job/checkpoints", "ckpt/job/data"] {
            fs::set_permissions(job.0.at(folder), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set(0o500);
    let probe = job.0.at("ckpt/job/data/probe");
    if fs::write(&probe, "").is_ok() {
        // Root may do anything: the store without permission is in the tests of S3.
        fs::remove_file(probe).unwrap();
        set(0o700);
        return;
    }
    job.refuses(3, &[], &["cannot create", "Permission denied"]);
    set(0o000);
    let error = job.run(&["--restore", "latest"]).finish().one_error(3);
    set(0o700);
    assert!(error.contains("Permission denied"), "{error}");
    job.goes_on();
}
