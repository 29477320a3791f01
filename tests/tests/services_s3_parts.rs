//! The `file` sink's parts in an S3-compatible store: a job that is killed again and again; what it is told when the store does not let it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod parts_support;

use parts_support::{File, PATIENCE, assert_all_is_there_once, killed_again_and_again, pipeline};
use serde_json::{Value, json};
use standpipe_tests::{Folder, s3, standpipe};
use std::{env, process};

/// A bucket of its own.
struct Bucket {
    url: String,
    name: String,
}

impl Bucket {
    fn new(name: &str) -> Option<Self> {
        let url = s3()?;
        let name = format!("{name}-{}", process::id());
        ureq::put(format!("{url}/{name}")).send_empty().unwrap();
        Some(Self { url, name })
    }

    fn options(&self) -> Value {
        json!({ "aws_endpoint": self.url, "aws_allow_http": "true", "aws_region": "us-east-1", "aws_access_key_id": "x", "aws_secret_access_key": "x" })
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let body = ureq::get(format!("{}/{}{path}", self.url, self.name)).call().unwrap();
        body.into_body().with_config().limit(1 << 30).read_to_vec().unwrap()
    }

    /// What stands between the tags of that name.
    fn texts(&self, query: &str, tag: &str) -> Vec<String> {
        let xml = String::from_utf8(self.get(query)).unwrap();
        let tag = format!("<{tag}>");
        let pieces = xml.split(&tag).skip(1);
        pieces.map(|piece| piece.split("</").next().unwrap().to_owned()).collect()
    }

    /// Pieces of uploads that are neither completed nor aborted.
    fn pieces(&self) -> usize {
        let (names, ids) = (self.texts("?uploads", "Key"), self.texts("?uploads", "UploadId"));
        let of = |(name, id): (&String, &String)| self.texts(&format!("/{}?uploadId={id}", name.replace('%', "%25")), "PartNumber").len();
        names.iter().zip(&ids).map(of).sum()
    }

    fn objects(&self, below: &str) -> Vec<File> {
        let names = self.texts(&format!("?list-type=2&max-keys=1000&prefix={below}"), "Key");
        assert!(names.len() < 1000, "more than one page");
        let file = |name: &String| (name.strip_prefix(below).unwrap().to_owned(), self.get(&format!("/{}", name.replace('%', "%25"))));
        names.iter().map(file).collect()
    }
}

#[test]
fn a_job_that_is_killed_again_and_again_writes_every_row_into_one_object() {
    let Some(bucket) = Bucket::new("parts") else { return };
    let folder = Folder::new();
    folder.write("parts.yaml", pipeline(&format!("s3://{}/out/", bucket.name), &bucket.options()).to_string());
    let start =
        |arguments: &[&str]| standpipe(["run", "parts.yaml"]).args(arguments).in_directory(folder.path()).timeout(3 * PATIENCE).start();
    killed_again_and_again(4, start);
    assert_all_is_there_once(&bucket.objects("out/"));
    // One that was begun at the very moment of a kill may still be there, but no byte of it.
    assert_eq!(bucket.pieces(), 0, "what a killed run has uploaded is aborted");
    let error = start(&["--fresh"]).wait().one_error(3);
    assert!(error.contains("has parts of an earlier run of this sink"), "{error}");
}

#[test]
fn what_the_store_does_not_let_is_said_at_the_start() {
    let Some(bucket) = Bucket::new("refused") else { return };
    let folder = Folder::new();
    let mut options = bucket.options();
    let run = |root: &str, options: &Value| {
        folder.write("parts.yaml", pipeline(root, options).to_string());
        standpipe(["run", "parts.yaml"]).in_directory(folder.path()).timeout(2 * PATIENCE).finish().one_error(3)
    };
    let error = run("s3://no-such-bucket-here/out/", &options);
    assert!(error.contains("cannot list s3://no-such-bucket-here/out/") && error.contains("NoSuchBucket"), "{error}");
    options["aws_endpoint"] = json!("http://127.0.0.1:9");
    let error = run(&format!("s3://{}/out/", bucket.name), &options);
    assert!(error.contains(&format!("cannot list s3://{}/out/", bucket.name)), "{error}");
    assert!(env::var_os("AWS_ENDPOINT").is_none(), "the test means the options");
}
