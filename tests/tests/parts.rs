//! The `file` sink's parts on a disk, and CSV as a user has it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod parts_support;

use parts_support::{File, assert_all_is_there_once, killed_again_and_again, pipeline};
use serde_json::Value;
use standpipe_tests::{Folder, read_rows, standpipe};
use std::{fs, path::Path};

fn walk(folder: &Path, below: &str, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            walk(&entry.path(), &format!("{name}/"), files)
        } else {
            files.push((name, fs::read(entry.path()).unwrap()))
        }
    }
}

#[test]
fn a_job_that_is_killed_again_and_again_writes_every_row_into_one_part() {
    let folder = Folder::new();
    folder.write("parts.yaml", pipeline("out/", &Value::Null).to_string());
    let start = |arguments: &[&str]| standpipe(["run", "parts.yaml"]).args(arguments).in_directory(folder.path()).start();
    let plan = standpipe(["explain", "parts.yaml"]).in_directory(folder.path()).finish().success().stdout;
    assert!(plan.contains("  writes parquet") && plan.contains("  writes csv") && plan.contains("  as json"), "{plan}");
    killed_again_and_again(6, start);
    let mut files = Vec::new();
    walk(&folder.at("out"), "", &mut files);
    assert_all_is_there_once(&files);
    // What begins with nothing would write every row a second time.
    let error = start(&["--fresh"]).wait().one_error(3);
    assert!(error.contains("has parts of an earlier run of this sink") && error.contains("move them away"), "{error}");
}

#[test]
fn without_checkpoints_parts_are_there_when_the_job_has_ended_well() {
    let folder = Folder::new();
    folder.write("in.jsonl", "{\"n\": 1, \"k\": \"a/b\"}\n{\"n\": 2}\n{\"n\": 3, \"k\": \"..\"}\n");
    let pipeline = "
name: parts
sources:
  in: {connector: file, with: {path: in.jsonl}, format: json, schema: {n: int64, k: string}}
sinks:
  out: {input: in, connector: file, with: {path: \"out/k={k}/\"}, format: {type: csv, null_text: NA}}
";
    folder.write("parts.yaml", pipeline);
    let run = |folder: &Folder| standpipe(["run", "parts.yaml"]).in_directory(folder.path()).finish();
    run(&folder).success();
    let mut files = Vec::new();
    walk(&folder.at("out"), "", &mut files);
    files.sort();
    let files: Vec<_> = files.into_iter().map(|(name, bytes)| (name, String::from_utf8(bytes).unwrap())).collect();
    let expected = [
        ("k=%2E%2E/parts.out-1-0-000002.csv", "3,..\n"),
        ("k=__HIVE_DEFAULT_PARTITION__/parts.out-1-0-000001.csv", "2,NA\n"),
        ("k=a%2Fb/parts.out-1-0-000000.csv", "1,a/b\n"),
    ];
    assert_eq!(files, expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect::<Vec<_>>());
    assert!(run(&folder).one_error(3).contains("has parts of an earlier run"));

    // A broken record ends the job: nothing is to be seen, and nothing is left.
    let other = Folder::new();
    other.write("in.jsonl", "{\"n\": 1}\n{\"n\": x}\n");
    other.write("parts.yaml", pipeline);
    _ = run(&other).code(1);
    let mut files = Vec::new();
    walk(&other.at("out"), "", &mut files);
    assert_eq!(files, []);
}

#[test]
fn rows_whose_folder_can_have_no_name_are_its_errors() {
    let folder = Folder::new();
    let long = "x".repeat(300);
    folder.write("in.jsonl", format!("{{\"n\": 1, \"k\": \"a\"}}\n{{\"n\": 2, \"k\": \"{long}\"}}\n{{\"n\": 3, \"k\": \"a\"}}\n"));
    let pipeline = "
name: parts
checkpoint: {dir: checkpoints, interval: 10s}
sources:
  in: {connector: file, with: {path: in.jsonl}, format: json, schema: {n: int64, k: string}}
sinks:
  out: {input: in, connector: file, with: {path: \"out/{k}/\"}, format: csv}
  refused: {input: out.errors, connector: file, with: {path: refused.jsonl}}
";
    folder.write("parts.yaml", pipeline);
    standpipe(["run", "parts.yaml"]).in_directory(folder.path()).finish().success();
    let mut files = Vec::new();
    walk(&folder.at("out"), "", &mut files);
    assert_eq!(files, [("a/parts.out-1-0-000000.csv".to_owned(), b"1,a\n3,a\n".to_vec())]);
    let refused = read_rows(folder.at("refused.jsonl"));
    assert!(refused.len() == 1 && refused[0]["reason"].as_str().unwrap().contains("too long a name: 255 bytes"), "{refused:?}");
}

#[test]
fn csv_goes_in_with_its_header_and_out_with_another() {
    let folder = Folder::new();
    let pipeline = "
name: csv
sources:
  in:
    connector: file
    with: {path: \"in-*.csv\"}
    format: {type: csv, header: true, delimiter: \";\", on_error: dead-letter}
    schema: {at: timestamp, name: string, value: float64}
sinks:
  out: {input: in, connector: file, with: {path: out.csv}, format: {type: csv, header: true, null_text: NULL}}
  broken: {input: in.errors, connector: file, with: {path: broken.jsonl}}
";
    folder.write("csv.yaml", pipeline.replace("null_text: NULL", "null_text: \"NULL\""));
    folder.write("in-1.csv", "\u{feff}at;name;value\r\n2024-01-31 23:59:59;\"a, \"\"b\"\"\";1.5\r\n;;\r\n");
    folder.write("in-2.csv", "at;name;value\n2024-02-01T00:00:00Z;c;x\n2024-02-01T00:00:00Z;c;NaN\n");
    standpipe(["run", "csv.yaml"]).in_directory(folder.path()).finish().success();
    let expected = "at,name,value\n2024-01-31T23:59:59Z,\"a, \"\"b\"\"\",1.5\nNULL,NULL,NULL\n2024-02-01T00:00:00Z,c,NaN\n";
    assert_eq!(folder.read("out.csv"), expected);
    let broken = read_rows(folder.at("broken.jsonl"));
    assert_eq!((broken.len(), broken[0]["split"].as_str().unwrap()), (1, "in-2.csv"));
    assert_eq!(broken[0]["reason"], "column \"value\": expected a number that fits float64, found \"x\" at byte 23");
    // A record that is broken ends the job, with its place.
    folder.write(
        "csv.yaml",
        pipeline
            .replace(", on_error: dead-letter", "")
            .replace("null_text: NULL", "null_text: \"-\"")
            .replace("  broken: {input: in.errors, connector: file, with: {path: broken.jsonl}}\n", ""),
    );
    let error = standpipe(["run", "csv.yaml"]).in_directory(folder.path()).finish().one_error(1);
    assert!(error.contains("in-2.csv") && error.contains("found \"x\" at byte 23 in 2024-02-01T00:00:00Z;c;x"), "{error}");
}

#[test]
fn what_cannot_be_is_said_by_check() {
    let folder = Folder::new();
    let check = |sink: &str| {
        folder.write(
            "p.yaml",
            format!(
                "
name: p
sources: {{ticks: {{connector: generator, with: {{count: 1, fields: {{n: {{kind: sequence}}, t: {{kind: timestamp}}}}}}}}}}
sinks:
  out: {{input: ticks, {sink}}}
"
            ),
        );
        standpipe(["check", "p.yaml"]).in_directory(folder.path()).finish().one_error(2)
    };
    for (sink, error) in [
        (
            "connector: print, format: parquet",
            "sinks.out.format: print takes records, one by one: a parquet file has no records that could be written one by one",
        ),
        (
            "connector: print, format: {type: csv, header: true}",
            "sinks.out.format: print takes records, one by one: a header stands at the beginning of a file",
        ),
        (
            "connector: file, with: {path: x.parquet}, format: parquet",
            "sinks.out.with.path: \"x.parquet\" is one file; parquet is written in parts, into a folder: end the path with /",
        ),
        ("connector: file, with: {path: \"x/{m}/\"}", "sinks.out.with.path: {m} names no column, did you mean \"{n}\"?"),
        (
            "connector: file, with: {path: \"x/{t}/\"}",
            "sinks.out.with.path: {t} is a time and needs a format, did you mean \"{t:%Y-%m-%d}\"?",
        ),
        (
            "connector: file, with: {path: \"s3://bucket/x\"}",
            "an object store takes parts, into a folder that ends with /, did you mean \"s3://bucket/x/\"?",
        ),
        ("connector: file, with: {path: \"ftp://host/x/\"}", "Unable to recognise URL"),
        (
            "connector: file, with: {path: \"s3://b/x/\", options: {aws_endpont: x}}",
            "sinks.out.with.options.aws_endpont: is no option of \"s3://b/x/\"",
        ),
        ("connector: file, with: {path: x/, roll: {sise: 1MiB}}", "sinks.out.with.roll: unknown key \"sise\", did you mean \"size\"?"),
        ("connector: file, with: {path: x, roll: {size: 1MiB}}", "sinks.out.with.roll: is for the parts of a folder: end the path with /"),
        (
            "connector: file, with: {path: x}, format: {type: csv, delimiter: ab}",
            "sinks.out.format.delimiter: expected one character, found \"ab\"",
        ),
        ("connector: file, with: {path: x}, format: {type: csv, delimiter: a}", "sinks.out.format: delimiter: 'a' is no delimiter"),
        ("connector: file, with: {path: x}, format: {type: json, delimiter: \";\"}", "sinks.out.format: unknown key \"delimiter\""),
    ] {
        let found = check(sink);
        assert!(found.contains(error), "{sink}: {found}");
    }
    folder.write("file", "");
    folder.write(
        "p.yaml",
        "
name: p
sources: {ticks: {connector: generator, with: {count: 1, fields: {n: {kind: sequence}}}}}
sinks: {out: {input: ticks, connector: file, with: {path: file/below/}}}
",
    );
    let error = standpipe(["run", "p.yaml"]).in_directory(folder.path()).finish().one_error(3);
    assert!(error.contains("file/below") && error.contains("Not a directory"), "{error}");
}
