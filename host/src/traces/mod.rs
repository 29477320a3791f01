//! Traces by OpenTelemetry, the only place that names it: spans go to a collector over OTLP/HTTP, where the environment says so (`OTEL_...`, as OpenTelemetry has
//! specified it), else nowhere. What is wrong with it is one warning: no job waits for a collector, nor ends because of one.

mod export;
mod record;

use crate::{exit::Code, output::say, secrets};
use export::{Counted, Exporter, Http, Tally};
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchSpanProcessor, SdkTracerProvider},
};
use record::Recorder;
use standpipe_trace::{Context, Span, Traces};
use std::{
    env,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Set in a worker, and by who starts us: what the process' spans are parts of, as W3C's Trace Context has it.
pub(crate) const PARENT: &str = "TRACEPARENT";
/// How long the last spans of a process may take to be sent.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a collector takes, if `OTEL_EXPORTER_OTLP_TIMEOUT` (milliseconds) does not say otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

static STARTED: OnceLock<Started> = OnceLock::new();

struct Started {
    provider: SdkTracerProvider,
    tally: Arc<Tally>,
    traces: Traces,
}

/// A variable that has a value.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// A setting of traces, or else of everything that is exported.
fn setting(name: &str) -> Option<String> {
    variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

/// Whether spans are to be exported, or why they cannot be although they should.
fn is_wanted() -> Result<bool, String> {
    if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    match variable("OTEL_TRACES_EXPORTER") {
        None if setting("ENDPOINT").is_none() => return Ok(false),
        None => {}
        Some(exporters) => {
            let mut exporters = exporters.split(',').map(str::trim);
            match exporters.find(|exporter| *exporter != "none") {
                None => return Ok(false),
                Some("otlp") => {}
                Some(other) => return Err(format!("OTEL_TRACES_EXPORTER: {other:?}: expected otlp or none")),
            }
        }
    }
    match setting("PROTOCOL") {
        Some(protocol) if protocol != "http/protobuf" => {
            Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL: {protocol:?} is not spoken here: expected http/protobuf (a collector's port 4318)"))
        }
        _ => Ok(true),
    }
}

/// Starts the export where the environment asks for it; call it once. `service` is the process' name where `OTEL_SERVICE_NAME` gives none.
pub(crate) fn start(service: &'static str) {
    let started = is_wanted().and_then(|is_wanted| is_wanted.then(|| open(service)).transpose());
    match started {
        Ok(None) => {}
        Ok(Some(started)) => drop(STARTED.set(started)),
        Err(why) => say!("warning: traces are not exported: {}", secrets::hidden(&why)),
    }
}

fn open(service: &'static str) -> Result<Started, String> {
    let timeout = setting("TIMEOUT").and_then(|millis| millis.parse().ok()).map_or(TIMEOUT, Duration::from_millis);
    let authority = setting("CERTIFICATE");
    let tally = Arc::new(Tally::default());
    let http = Http::new(timeout, authority.as_deref(), Arc::clone(&tally))?;
    let exporter = SpanExporter::builder().with_http().with_http_client(http).build().map_err(|error| error.to_string())?;
    let processor = BatchSpanProcessor::builder(Exporter::new(exporter, Arc::clone(&tally))).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource(service))
        .with_span_processor(Counted::new(processor, Arc::clone(&tally)))
        .build();
    let traces = Traces::to(Arc::new(Recorder(provider.tracer("standpipe"))));
    Ok(Started { provider, tally, traces })
}

/// What the process is. What users say goes before what we do.
fn resource(service: &'static str) -> Resource {
    let is_named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES")
            .is_some_and(|said| said.split(',').any(|one| one.trim_start().starts_with("service.name=")));
    let own = [KeyValue::new("service.version", env!("CARGO_PKG_VERSION")), KeyValue::new("process.pid", i64::from(std::process::id()))];
    let said: Resource = Resource::builder().build();
    let builder = Resource::builder_empty().with_attributes(own);
    let builder = builder.with_attributes(said.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())));
    if is_named { builder.build() } else { builder.with_service_name(service).build() }
}

/// Whom to tell of spans.
pub(crate) fn traces() -> Traces {
    STARTED.get().map(|started| started.traces.clone()).unwrap_or_default()
}

/// What this process' spans are parts of, if whoever has started it says so.
pub(crate) fn parent() -> Option<Context> {
    env::var(PARENT).ok().and_then(|text| text.parse().ok())
}

/// Sends what is left, for a moment at the most; what ends from now on is lost. Call it before the process ends.
pub(crate) fn finish() {
    let Some(started) = STARTED.get() else { return };
    // Its error is ours: what has not been sent by now is counted.
    drop(started.provider.shutdown_with_timeout(PATIENCE));
    started.tally.say_what_is_lost();
}

/// Ends the process as [`std::process::exit`], with its spans sent.
pub(crate) fn exit(code: Code) -> ! {
    finish();
    std::process::exit(code as i32)
}

/// Notes how something has ended in its span, without what is secret in it.
pub(crate) fn end<T>(mut span: Span, result: anyhow::Result<T>) -> anyhow::Result<T> {
    if let Err(error) = &result {
        span.fail(&secrets::hidden(&format!("{error:#}")));
    }
    result
}
