//! Spans of traces: what takes its time in the life of a job (a start, a checkpoint, a submission), as the engine, the cluster and the host tell of it. Never of a row or
//! a batch. Who exports them is behind [`Recorder`]; where nobody does, [`Traces`] is off and a span is nothing at all.
//!
//! A span is known elsewhere by its [`Context`], which goes to other processes as the text of W3C's Trace Context.
#![forbid(unsafe_code)]

mod context;

pub use context::{Context, NoContext};

use std::{fmt, sync::Arc};

/// What a span has to do with those of other processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    #[default]
    Inside,
    /// It waits for an answer of another process.
    Client,
    /// It answers another process.
    Server,
}

/// What is known of a span when it begins.
#[derive(Debug, Clone, Copy)]
pub struct Beginning<'a> {
    /// One of few: what it is of is told by its attributes.
    pub name: &'static str,
    /// See there.
    pub kind: Kind,
    /// What it is a part of; none: it is the first of a trace of its own.
    pub parent: Option<&'a Context>,
    /// What else it has to do with, in another trace.
    pub link: Option<&'a Context>,
}

/// What an attribute is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number, of bytes or of what its name says.
    Number(i64),
    /// Whether.
    Bool(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Bool(is)
    }
}

/// Takes spans. None of it may wait.
pub trait Recorder: Send + Sync {
    /// A span begins now.
    fn begin(&self, beginning: &Beginning<'_>) -> Box<dyn Recording>;
}

/// A span that has begun; dropped, it has ended.
pub trait Recording: Send {
    /// By which it is known elsewhere.
    fn context(&self) -> Context;
    /// An attribute; a later one of the same name goes before it.
    fn set(&mut self, name: &'static str, value: Value);
    /// It does not come to a good end.
    fn fail(&mut self, why: &str);
}

/// Whom to tell of spans, if anybody. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<dyn Recorder>>);

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Traces(on)" } else { "Traces(off)" })
    }
}

impl Traces {
    /// Nobody.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// This one.
    #[must_use]
    pub fn to(recorder: Arc<dyn Recorder>) -> Self {
        Self(Some(recorder))
    }

    /// Whether anybody is told.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span.
    #[must_use]
    pub fn begin(&self, beginning: &Beginning<'_>) -> Span {
        let recorded = self.0.as_ref().map(|recorder| {
            let recording = recorder.begin(beginning);
            Recorded { context: recording.context(), recording, traces: self.clone(), is_failed: false }
        });
        Span(recorded.map(Box::new))
    }

    /// Begins a span that is a part of another one, or the first of a trace.
    #[must_use]
    pub fn span(&self, name: &'static str, parent: Option<&Context>) -> Span {
        self.begin(&Beginning { name, kind: Kind::Inside, parent, link: None })
    }
}

struct Recorded {
    context: Context,
    recording: Box<dyn Recording>,
    traces: Traces,
    is_failed: bool,
}

/// A span that has begun; dropped, it has ended. Where traces are off it is nothing.
#[derive(Default)]
pub struct Span(Option<Box<Recorded>>);

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({:?})", self.context())
    }
}

impl Span {
    /// By which it is known elsewhere; none: it is nothing.
    #[must_use]
    pub fn context(&self) -> Option<&Context> {
        self.0.as_ref().map(|recorded| &recorded.context)
    }

    /// Begins a part of it.
    #[must_use]
    pub fn child(&self, name: &'static str) -> Self {
        self.0.as_ref().map(|recorded| recorded.traces.span(name, Some(&recorded.context))).unwrap_or_default()
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(recorded) = &mut self.0 {
            recorded.recording.set(name, value.into());
        }
    }

    /// [`Self::set`], for where a span begins.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// It does not come to a good end; the first cause stays.
    pub fn fail(&mut self, why: &str) {
        if let Some(recorded) = self.0.as_mut().filter(|recorded| !recorded.is_failed) {
            recorded.is_failed = true;
            recorded.recording.fail(why);
        }
    }

    /// It has ended now.
    pub fn end(self) {
        drop(self);
    }

    /// It has ended now, well or with that error, which is handed on.
    ///
    /// # Errors
    /// That of `result`.
    pub fn end_as<T, E: fmt::Display>(mut self, result: Result<T, E>) -> Result<T, E> {
        if let Err(error) = &result
            && self.0.is_some()
        {
            self.fail(&error.to_string());
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    struct One(Arc<Heard>, &'static str);

    impl Heard {
        fn say(&self, line: String) {
            self.0.lock().unwrap().push(line);
        }
    }

    struct To(Arc<Heard>);

    impl Recorder for To {
        fn begin(&self, beginning: &Beginning<'_>) -> Box<dyn Recording> {
            self.0.say(format!("begin {} of {:?}", beginning.name, beginning.parent.map(Context::to_string)));
            Box::new(One(Arc::clone(&self.0), beginning.name))
        }
    }

    const CONTEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    impl Recording for One {
        fn context(&self) -> Context {
            CONTEXT.parse().unwrap()
        }

        fn set(&mut self, name: &'static str, value: Value) {
            self.0.say(format!("{} {name}={value:?}", self.1));
        }

        fn fail(&mut self, why: &str) {
            self.0.say(format!("{} fails: {why}", self.1));
        }
    }

    impl Drop for One {
        fn drop(&mut self) {
            self.0.say(format!("end {}", self.1));
        }
    }

    #[test]
    fn what_happens_is_told_in_its_order() {
        let heard = Arc::new(Heard::default());
        let traces = Traces::to(Arc::new(To(Arc::clone(&heard))));
        let span = traces.span("job", None).with("rows", 3_u64);
        let failed: Result<(), &str> = span.child("open").end_as(Err("no such file"));
        assert_eq!(failed, Err("no such file"));
        let mut span = span;
        span.fail("open failed");
        span.fail("what that entails");
        span.end();
        let told = heard.0.lock().unwrap().join("\n");
        let expected = format!(
            "begin job of None\njob rows=Number(3)\nbegin open of Some({CONTEXT:?})\nopen fails: no such file\nend open\njob fails: open failed\nend job"
        );
        assert_eq!(told, expected);
    }

    #[test]
    fn where_nobody_is_told_a_span_is_nothing() {
        let mut span = Traces::off().span("job", None).with("a", "b");
        span.fail("why");
        assert!(span.context().is_none() && span.child("open").context().is_none());
        assert_eq!(span.end_as::<u8, &str>(Ok(7)), Ok(7));
    }
}
