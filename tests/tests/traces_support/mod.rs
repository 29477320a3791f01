//! An OTLP receiver: takes spans over HTTP as a collector does, decodes them by OpenTelemetry's own types, and finds them by name and place in their trace.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, status::StatusCode},
};
use prost::Message;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A span as it came, with what its process says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) span: Span,
    pub(crate) resource: BTreeMap<String, String>,
    /// Headers of the request that it came with.
    pub(crate) headers: BTreeMap<String, String>,
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &KeyValue| match value.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        other => panic!("{}: {other:?}", value.key),
    };
    attributes.iter().map(|one| (one.key.clone(), text(one))).collect()
}

impl Got {
    pub(crate) fn name(&self) -> &str {
        &self.span.name
    }

    /// An attribute, or nothing.
    pub(crate) fn get(&self, key: &str) -> String {
        texts(&self.span.attributes).remove(key).unwrap_or_default()
    }

    pub(crate) fn service(&self) -> &str {
        &self.resource["service.name"]
    }

    /// What it says of its failure, if it has failed.
    pub(crate) fn failure(&self) -> Option<&str> {
        let status = self.span.status.as_ref()?;
        (status.code == StatusCode::Error as i32).then_some(status.message.as_str())
    }
}

/// Listens until the test's process ends.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let all = Arc::clone(&got);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let all = Arc::clone(&all);
                thread::spawn(move || serve(stream, &all));
            }
        });
        Self { endpoint, got }
    }

    /// All that has come.
    pub(crate) fn spans(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

/// Answers requests until the other side closes.
fn serve(stream: TcpStream, all: &Mutex<Vec<Got>>) {
    let mut to = stream.try_clone().unwrap();
    let mut from = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if from.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        assert_eq!(request.trim_end(), "POST /v1/traces HTTP/1.1");
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        from.read_exact(&mut body).unwrap();
        let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("a request of OTLP");
        for of_process in request.resource_spans {
            let resource = texts(&of_process.resource.unwrap_or_default().attributes);
            for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                all.lock().unwrap().push(Got { span, resource: resource.clone(), headers: headers.clone() });
            }
        }
        to.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").unwrap();
    }
}

/// The spans of a name.
pub(crate) fn named<'a>(spans: &'a [Got], name: &str) -> Vec<&'a Got> {
    spans.iter().filter(|got| got.name() == name).collect()
}

/// The one span of a name.
#[track_caller]
pub(crate) fn one<'a>(spans: &'a [Got], name: &str) -> &'a Got {
    let found = named(spans, name);
    let [one] = found[..] else { panic!("{} spans {name}: {:#?}", found.len(), names(spans)) };
    one
}

/// The parts of a span with that name.
pub(crate) fn parts<'a>(spans: &'a [Got], of: &Got, name: &str) -> Vec<&'a Got> {
    let is_part = |got: &&Got| got.span.trace_id == of.span.trace_id && got.span.parent_span_id == of.span.span_id && got.name() == name;
    spans.iter().filter(is_part).collect()
}

/// The one part of a span with that name, which does not begin before nor end after it.
#[track_caller]
pub(crate) fn part<'a>(spans: &'a [Got], of: &Got, name: &str) -> &'a Got {
    let found = parts(spans, of, name);
    let [one] = found[..] else { panic!("{} parts {name} of {}: {:#?}", found.len(), of.name(), names(spans)) };
    let (inner, outer) = (&one.span, &of.span);
    assert!(inner.start_time_unix_nano >= outer.start_time_unix_nano && inner.start_time_unix_nano <= inner.end_time_unix_nano);
    one
}

pub(crate) fn names(spans: &[Got]) -> Vec<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let line = |got: &Got| {
        let span = &got.span;
        format!("{} {} < {} {} {:?}", hex(&span.trace_id), hex(&span.span_id), hex(&span.parent_span_id), span.name, got.failure())
    };
    spans.iter().map(line).collect()
}
