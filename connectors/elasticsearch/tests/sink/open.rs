//! What `check` and `open` find: mistakes, unreachable servers, wrong credentials, old versions; and the index template.

use crate::support::{batch, config, sink, stand_in, write};
use serde_json::{Value, json};
use standpipe_elasticsearch_stand_in::Faults;
use standpipe_sdk::ErrorCode;
use std::{
    io::{Read, Write},
    net::TcpListener,
    time::Instant,
};

/// A server that gives one answer to every request, until the test ends.
fn canned(status: &str, body: &Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = body.to_string();
    let answer =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn an_unreachable_server_is_named_within_the_connect_timeout() {
    let url = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let error = sink(config(&url, json!({}))).open().unwrap_err();
    assert_eq!(error.code, ErrorCode::EXTERNAL);
    assert!(error.to_string().contains(&format!("{url} is unreachable")), "{error}");
    // One that takes the connection and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let start = Instant::now();
    let error = sink(config(&url, json!({ "connect_timeout": "200ms" }))).open().unwrap_err();
    assert!(error.to_string().contains("no answer within 200ms"), "{error}");
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn credentials_are_sent_and_asked_for() {
    let basic = stand_in(Faults { authorization: Some("Basic dXNlcjpodW50ZXIy".to_owned()), ..Faults::default() });
    let error = sink(config(&basic.url(), json!({}))).open().unwrap_err();
    assert_eq!(error.code, ErrorCode::EXTERNAL);
    assert!(error.to_string().contains("refuses the credentials"), "{error}");
    let mut known = sink(config(&basic.url(), json!({ "username": "user", "password": "${env:ES_PASSWORD}" })));
    known.host.set_secret("env:ES_PASSWORD", "hunter2");
    write(&mut known, &batch(0..3));
    known.finish().unwrap();
    assert_eq!(basic.documents("rows").len(), 3);
    assert!(!known.host.logs().iter().any(|(_, line)| line.to_string().contains("hunter2")));
    let key = stand_in(Faults { authorization: Some("ApiKey a2V5".to_owned()), ..Faults::default() });
    let mut known = sink(config(&key.url(), json!({ "api_key": "${file:KEY}" })));
    known.host.set_secret("file:KEY", "a2V5\n");
    known.open().unwrap();
    let error = sink(config(&key.url(), json!({ "api_key": "no key" }))).open().unwrap_err();
    assert!(error.to_string().contains("no encoded API key"), "{error}");
}

#[test]
fn versions_from_7_on_and_opensearch_are_taken() {
    let version = |number: &str| json!({ "version": { "number": number } });
    let opensearch = json!({ "version": { "number": "1.0.0", "distribution": "opensearch" } });
    for body in [version("7.0.0"), version("8.19.1"), version("9.1.0"), opensearch, json!({ "something": "else" })] {
        sink(config(&canned("200 OK", &body), json!({}))).open().unwrap_or_else(|error| panic!("{body}: {error}"));
    }
    let old = sink(config(&canned("200 OK", &version("6.8.0")), json!({}))).open().unwrap_err();
    assert!(old.to_string().contains("Elasticsearch 6.8.0; this sink needs 7 or later"), "{old}");
    // A cluster that is starting is no reason to fail.
    sink(config(&canned("503 Service Unavailable", &json!({})), json!({}))).open().unwrap();
}

#[test]
fn an_index_template_is_put_once_and_replaced_only_when_told() {
    let server = stand_in(Faults::default());
    let made = |template: Value| sink(config(&server.url(), json!({ "index": "stats-{ts:%Y}", "template": template })));
    made(json!({ "create": false })).open().unwrap();
    assert_eq!(server.template("stats"), None);
    made(json!({ "settings": { "number_of_shards": 1 } })).open().unwrap();
    let first = server.template("stats").unwrap();
    assert_eq!(first["index_patterns"], json!(["stats-*"]));
    assert_eq!(first["template"]["settings"]["number_of_shards"], 1);
    assert_eq!(first["template"]["mappings"]["properties"]["ts"], json!({ "type": "date" }));
    assert_eq!(first["template"]["mappings"]["properties"]["n"], json!({ "type": "long" }));
    made(json!({ "settings": { "number_of_shards": 2 } })).open().unwrap();
    assert_eq!(server.template("stats"), Some(first));
    let mut last = made(json!({ "settings": { "number_of_shards": 2 }, "overwrite": true }));
    write(&mut last, &batch(0..10));
    last.finish().unwrap();
    assert_eq!(server.template("stats").unwrap()["template"]["settings"]["number_of_shards"], 2);
    assert_eq!(server.documents("stats-1970").len(), 10);
}

#[test]
fn mistakes_are_found_without_a_server() {
    let problems = |more: Value| {
        let problems = sink(config("http://127.0.0.1:1", more)).validate().unwrap().details.problems;
        problems.into_iter().map(|problem| (problem.path, problem.suggestion)).collect::<Vec<_>>()
    };
    assert_eq!(problems(json!({})), []);
    assert_eq!(problems(json!({ "index": "x-{hosst}" })), [("index".to_owned(), Some("{host}".to_owned()))]);
    assert_eq!(problems(json!({ "in_flght": 3 })), [("in_flght".to_owned(), Some("in_flight".to_owned()))]);
    assert_eq!(problems(json!({ "on_reject": "dead-leter" })).len(), 1);
    assert_eq!(problems(json!({ "timeout": "30" }))[0].0, "timeout");
}
