//! A bucket of a test's own on the S3-compatible server, and what the binary must know to reach it.

use super::unique;
use standpipe_tests::Run;
use std::time::Duration;
use ureq::{Agent, http::Request};

/// The server checks no signature, but a request without one is a stranger's.
const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// A bucket.
pub(crate) struct Bucket {
    /// Of the server.
    pub(crate) url: String,
    pub(crate) name: String,
    agent: Agent,
}

impl Bucket {
    /// A new one on the shared server; `None`: the test is to return.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let url = standpipe_tests::s3()?;
        let config = Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).http_status_as_error(false).proxy(None);
        let bucket = Self { url, name: unique(name), agent: config.build().into() };
        bucket.must("PUT", "", Vec::new());
        Some(bucket)
    }

    /// The URL for `checkpoint: {dir: ...}`.
    pub(crate) fn dir(&self) -> String {
        format!("s3://{}/jobs", self.name)
    }

    /// A request below the bucket that must succeed; the answer.
    pub(crate) fn must(&self, method: &str, path: &str, body: Vec<u8>) -> Vec<u8> {
        let uri = format!("{}/{}{path}", self.url, self.name);
        let request = Request::builder().method(method).uri(&uri).header("authorization", SIGNED).body(body).unwrap();
        let mut answer = self.agent.run(request).unwrap_or_else(|error| panic!("{uri}: {error}"));
        let content = answer.body_mut().with_config().limit(256 << 20).read_to_vec().unwrap();
        assert!(answer.status().is_success(), "{method} {uri}: {} {}", answer.status(), String::from_utf8_lossy(&content));
        content
    }

    /// The names and contents of all objects.
    pub(crate) fn objects(&self) -> Vec<(String, Vec<u8>)> {
        let list = String::from_utf8(self.must("GET", "?list-type=2&max-keys=1000", Vec::new())).unwrap();
        let keys = list.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        keys.map(|(key, _)| (key.to_owned(), self.must("GET", &format!("/{key}"), Vec::new()))).collect()
    }

    /// Refuses an action (`s3:PutObject`) to everybody.
    pub(crate) fn deny(&self, action: &str) {
        let resource = format!("arn:aws:s3:::{}", self.name);
        let statement =
            serde_json::json!({ "Effect": "Deny", "Principal": "*", "Action": action, "Resource": [&resource, format!("{resource}/*")] });
        let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [statement] });
        self.must("PUT", "?policy", policy.to_string().into_bytes());
    }
}

/// The environment that the binary finds the server in, at this URL.
pub(crate) fn with_s3(run: Run, url: &str) -> Run {
    let variables = [
        ("AWS_ENDPOINT_URL", url),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("NO_PROXY", "127.0.0.1"),
    ];
    variables.into_iter().fold(run, |run, (name, value)| run.env(name, value))
}
