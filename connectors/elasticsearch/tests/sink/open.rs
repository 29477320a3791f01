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
    serving((status, &body.to_string()), (status, &body.to_string()))
}

/// A server that gives one answer, a status and a body, to every `GET`, and another one to everything else.
fn serving(greeting: (&str, &str), other: (&str, &str)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = |(status, body): (&str, &str)| {
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    };
    let answers = [answer(greeting), answer(other)];
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answers[usize::from(!request.starts_with(b"GET"))].as_bytes());
        }
    });
    url
}

const PAGE: &str = "<!DOCTYPE html>\n<html>\n<body>Nothing here</body>\n</html>\n";

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
    // A node that is starting is no reason to fail.
    sink(config(&canned("503 Service Unavailable", &version("9.1.0")), json!({}))).open().unwrap();
}

#[test]
fn what_greets_with_neither_a_version_nor_a_success_is_refused() {
    for (status, what) in [
        ("404 Not Found", "is no Elasticsearch (status 404: <!DOCTYPE html>)"),
        ("405 Method Not Allowed", "is no Elasticsearch (status 405: <!DOCTYPE html>)"),
        ("503 Service Unavailable", "is not ready (status 503: <!DOCTYPE html>)"),
    ] {
        let error = sink(config(&serving((status, PAGE), (status, PAGE)), json!({}))).open().unwrap_err();
        assert_eq!(error.code, ErrorCode::EXTERNAL);
        assert!(error.message.ends_with(what), "{error}");
    }
    // A node behind a proxy that is not ready is left out, as one that is unreachable.
    let hosts =
        [serving(("502 Bad Gateway", PAGE), ("502 Bad Gateway", PAGE)), canned("200 OK", &json!({ "version": { "number": "9.1.0" } }))];
    let mut both = sink(config("", json!({ "hosts": hosts })));
    both.open().unwrap();
    assert!(both.host.messages().iter().any(|message| message.contains("is not ready (status 502")), "{:?}", both.host.messages());
}

#[test]
fn another_server_behind_the_port_is_one_error_of_the_first_write() {
    for (status, what) in [
        ("404 Not Found", "status 404: <!DOCTYPE html>"),
        ("405 Method Not Allowed", "status 405: <!DOCTYPE html>"),
        ("501 Unsupported method", "status 501: <!DOCTYPE html>"),
        ("304 Not Modified", "status 304"),
        ("200 OK", "unreadable answer"),
    ] {
        let url = serving(("200 OK", PAGE), (status, if status.starts_with("304") { "" } else { PAGE }));
        let mut sink = sink(config(&url, json!({})));
        let error = sink.write(&batch(0..3)).unwrap_err();
        assert_eq!(error.code, ErrorCode::EXTERNAL);
        let expected = format!("{url} does not understand _bulk, so it is no Elasticsearch ({what}");
        assert!(error.message.starts_with(&expected), "{error}");
    }
}

#[test]
fn a_password_in_an_address_that_is_a_secret_is_never_shown() {
    for address in ["http://elastic:hunter2@127.0.0.1:1", "elastic:hunter2@127.0.0.1:1", "http://elastic:hunter2@127.0.0.1:port"] {
        let mut sink = sink(config("${env:ES}", json!({})));
        sink.host.set_secret("env:ES", address);
        let error = sink.open().unwrap_err();
        assert!(error.to_string().contains("hosts[0]"), "{error}");
        let shown = format!("{error:?} {:?}", sink.host.logs());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
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
