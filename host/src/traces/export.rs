//! The way of spans to the collector: OpenTelemetry's own queue, thread and encoding, with HTTP by ureq as everywhere here. Around them it is counted what gets lost, and
//! said once when the collector does not answer.

use crate::{output::say, secrets};
use opentelemetry::Context;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter, SpanProcessor},
};
use std::{
    fs,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use ureq::{
    Agent,
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

/// Of what a collector answers.
const LONGEST_ANSWER: u64 = 4 << 20;

/// What has become of spans.
#[derive(Debug, Default)]
pub(super) struct Tally {
    ended: AtomicU64,
    sent: AtomicU64,
    refused: AtomicU64,
    /// It is known that the collector does not answer.
    is_silent: AtomicBool,
    /// What went wrong last on the way; OpenTelemetry's exporter does not say it.
    trouble: Mutex<Option<String>>,
}

impl Tally {
    fn sent(&self, spans: u64) {
        self.sent.fetch_add(spans, Relaxed);
        if self.is_silent.swap(false, Relaxed) {
            say!("traces are exported again; {} spans were lost", self.refused.load(Relaxed));
        }
    }

    fn failed(&self, spans: u64, why: &str) {
        self.refused.fetch_add(spans, Relaxed);
        if !self.is_silent.swap(true, Relaxed) {
            let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
            let why = trouble.as_deref().unwrap_or(why);
            say!("warning: traces are not exported: {}; spans are lost until the collector answers", secrets::hidden(why));
        }
    }

    /// Once, at the end: also what did not fit into the queue, and what was still waiting.
    pub(super) fn say_what_is_lost(&self) {
        let lost = self.ended.load(Relaxed).saturating_sub(self.sent.load(Relaxed));
        if lost > 0 {
            say!("warning: {lost} spans of this process' traces are lost");
        }
    }
}

/// Counts what has ended, before some of it finds no room in the queue.
#[derive(Debug)]
pub(super) struct Counted<P> {
    to: P,
    tally: Arc<Tally>,
}

impl<P> Counted<P> {
    pub(super) const fn new(to: P, tally: Arc<Tally>) -> Self {
        Self { to, tally }
    }
}

impl<P: SpanProcessor> SpanProcessor for Counted<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.to.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        self.tally.ended.fetch_add(1, Relaxed);
        self.to.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.to.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.to.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.to.set_resource(resource);
    }
}

/// Counts what is sent.
#[derive(Debug)]
pub(super) struct Exporter {
    to: opentelemetry_otlp::SpanExporter,
    tally: Arc<Tally>,
}

impl Exporter {
    pub(super) const fn new(to: opentelemetry_otlp::SpanExporter, tally: Arc<Tally>) -> Self {
        Self { to, tally }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.to.export(batch).await;
        match &result {
            Ok(()) => self.tally.sent(spans),
            Err(error) => self.tally.failed(spans, &error.to_string()),
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.to.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.to.set_resource(resource);
    }
}

/// ureq, which waits on the thread that it is called on: the export's own.
#[derive(Debug)]
pub(super) struct Http {
    agent: Agent,
    tally: Arc<Tally>,
}

impl Http {
    /// A collector with https is known by the certificates in that file, or by those that everybody knows.
    pub(super) fn new(timeout: Duration, authority: Option<&str>, tally: Arc<Tally>) -> Result<Self, String> {
        let mut config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(timeout));
        if let Some(file) = authority {
            let wrong = |why: &dyn std::fmt::Display| format!("OTEL_EXPORTER_OTLP_CERTIFICATE: {file}: {why}");
            let text = fs::read(file).map_err(|error| wrong(&error))?;
            let mut certificates = Vec::new();
            for item in parse_pem(&text) {
                if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(&error))? {
                    certificates.push(certificate);
                }
            }
            if certificates.is_empty() {
                return Err(wrong(&"there is no certificate in it"));
            }
            config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::from(certificates)).build());
        }
        Ok(Self { agent: config.build().into(), tally })
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let uri = request.uri();
        let endpoint = shown(uri);
        let sent = self.agent.run(request.map(|body| body.to_vec())).and_then(|answer| {
            let (parts, mut body) = answer.into_parts();
            let body = body.with_config().limit(LONGEST_ANSWER).read_to_vec()?;
            Ok(Response::from_parts(parts, Bytes::from(body)))
        });
        let trouble = match &sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("{endpoint}: status {}", answer.status().as_u16())),
            Err(error) => Some(format!("{endpoint}: {error}")),
        };
        *self.tally.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        Ok(sent?)
    }
}

/// What people know a collector by, without the user's name and password that may be in it.
fn shown(uri: &ureq::http::Uri) -> String {
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}{}", uri.host().unwrap_or_default(), uri.path())
}

impl HttpClient for Http {
    fn send_bytes<'client, 'answer>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'answer>>
    where
        'client: 'answer,
        Self: 'answer,
    {
        Box::pin(async move { self.send(request) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_shown_with_the_port_that_it_has() {
        let shown = |text: &str| shown(&text.parse().unwrap());
        assert_eq!(shown("https://me:secret@collector/v1/traces"), "collector/v1/traces");
        assert_eq!(shown("http://collector:4318/v1/traces"), "collector:4318/v1/traces");
    }
}
