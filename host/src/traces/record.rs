//! Our spans as OpenTelemetry's.

use crate::secrets;
use opentelemetry::{
    Context as Parent, KeyValue,
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    },
};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use standpipe_trace::{Beginning, Context, Kind, Recording, Value};

/// Begins spans.
pub(super) struct Recorder(pub(super) SdkTracer);

fn context(context: &Context) -> SpanContext {
    let flags = TraceFlags::default().with_sampled(context.is_sampled);
    SpanContext::new(TraceId::from(context.trace), SpanId::from(context.span), flags, true, TraceState::default())
}

impl standpipe_trace::Recorder for Recorder {
    fn begin(&self, beginning: &Beginning<'_>) -> Box<dyn Recording> {
        let kind = match beginning.kind {
            Kind::Inside => SpanKind::Internal,
            Kind::Client => SpanKind::Client,
            Kind::Server => SpanKind::Server,
        };
        let links = beginning.link.map(|link| Link::with_context(context(link))).into_iter().collect();
        let builder = SpanBuilder::from_name(beginning.name).with_kind(kind).with_links(links);
        let nobody = Parent::new();
        let parent = beginning.parent.map_or_else(|| nobody.clone(), |parent| nobody.with_remote_span_context(context(parent)));
        Box::new(Recorded(self.0.build_with_context(builder, &parent)))
    }
}

/// It ends when it is dropped, as OpenTelemetry's does.
struct Recorded(Span);

impl Recording for Recorded {
    fn context(&self) -> Context {
        let context = self.0.span_context();
        Context {
            trace: u128::from_be_bytes(context.trace_id().to_bytes()),
            span: u64::from_be_bytes(context.span_id().to_bytes()),
            is_sampled: context.is_sampled(),
        }
    }

    fn set(&mut self, name: &'static str, value: Value) {
        self.0.set_attribute(match value {
            Value::Text(text) => KeyValue::new(name, secrets::hidden(&text).into_owned()),
            Value::Number(number) => KeyValue::new(name, number),
            Value::Bool(is) => KeyValue::new(name, is),
        });
    }

    fn fail(&mut self, why: &str) {
        self.0.set_status(Status::error(secrets::hidden(why).into_owned()));
    }
}
