//! What is wrong with a pipeline file, for people: one line per finding, with file, line, column, key and what was probably meant.
//!
//! Every step of this crate takes a [`Report`] and goes on as far as it can, so that one run shows all that is wrong. The text form is
//! `pipeline.yaml:12:5: sinks.out.with: unknown key "pth", did you mean "path"?`.

use std::{borrow::Cow, cell::RefCell, collections::HashSet, fmt};

/// Findings that are shown; whoever has mended so many sees the others.
const MOST: usize = 1_000;
/// Characters of a message or a path; of a longer one its beginning and its end.
const LONGEST: usize = 4_000;

/// A place in the pipeline file or in a `--set` of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub(crate) struct Span {
    /// 0: the file; n: the n-th override of the command line.
    pub(crate) source: u16,
    /// From 1; 0: no place in particular.
    pub(crate) line: u32,
    /// In characters, from 1.
    pub(crate) column: u32,
}

/// A value and where it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct At<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it begins.
    pub(crate) span: Span,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file as the user named it, or the override: `--set parallelism=x`.
    pub file: String,
    /// From 1; 0: no place in particular.
    pub line: u32,
    /// In characters, from 1; 0: no place in particular.
    pub column: u32,
    /// Keys from the root: `sinks.out.with`; may be empty.
    pub path: String,
    /// What is wrong, one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

/// Whose fault it is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The pipeline file, the configuration or a plugin.
    Configuration,
    /// Something outside: a missing file, an unreachable address.
    External,
}

/// Everything that is wrong, in the order of the file. Displayed as one line per finding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(items))]
pub struct Diagnostics {
    /// At least one.
    pub items: Vec<Diagnostic>,
    /// External if that is all that is wrong.
    pub class: Class,
}

impl Diagnostics {
    /// Whether all that is wrong is outside: a missing file, an unreachable address.
    #[must_use]
    pub fn outside(&self) -> bool {
        self.class == Class::External
    }

    /// The exit code of the command line: 2 or 3.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.class {
            Class::Configuration => 2,
            Class::External => 3,
        }
    }
}

/// As a terminal may have it, on one line: what the author wrote is in paths and messages, whatever it is.
fn shown(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST && !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let plain: Vec<char> = text.chars().take(LONGEST / 2).collect();
    let count = text.chars().count();
    let rest = text.chars().skip(plain.len().max(count.saturating_sub(LONGEST / 2)));
    let gap = if count > LONGEST { " ... " } else { "" };
    let escaped =
        |text: String, c: char| if c.is_control() { text + &c.escape_default().to_string() } else { text + c.encode_utf8(&mut [0; 4]) };
    let begin = plain.into_iter().fold(String::new(), escaped);
    Cow::Owned(rest.fold(begin + gap, escaped))
}

fn lines(items: &[Diagnostic]) -> String {
    items.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n")
}

/// Collects findings. Shared by reference between the steps of one run.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// By [`Span::source`]: the file's name, then the overrides.
    sources: Vec<String>,
    found: RefCell<Vec<(Span, Class, Diagnostic)>>,
    warnings: RefCell<Vec<(Span, Diagnostic)>>,
    /// Where nothing more is to be said.
    sealed: RefCell<HashSet<Span>>,
}

impl Report {
    pub(crate) fn new(sources: Vec<String>) -> Self {
        Self { sources, found: RefCell::default(), warnings: RefCell::default(), sealed: RefCell::default() }
    }

    pub(crate) fn sources(&self) -> &[String] {
        &self.sources
    }

    /// A place as people are shown it: `counts.yaml:12:5`, `--set parallelism=2`.
    pub(crate) fn place(&self, span: Span) -> String {
        let file = self.sources.get(usize::from(span.source)).cloned().unwrap_or_default();
        if span.source == 0 && span.line > 0 { format!("{file}:{}:{}", span.line, span.column) } else { file }
    }

    pub(crate) fn error(&self, span: Span, path: &str, message: impl Into<String>) {
        self.push(span, Class::Configuration, path, message.into(), None);
    }

    pub(crate) fn error_with_hint(&self, span: Span, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.push(span, Class::Configuration, path, message.into(), Some(hint.into()));
    }

    pub(crate) fn external(&self, span: Span, path: &str, message: impl Into<String>) {
        self.push(span, Class::External, path, message.into(), None);
    }

    pub(crate) fn warn(&self, span: Span, path: &str, message: impl Into<String>) {
        let warning = self.diagnostic(span, path, message.into(), None);
        self.warnings.borrow_mut().push((span, warning));
    }

    fn push(&self, span: Span, class: Class, path: &str, message: String, hint: Option<String>) {
        if self.sealed.borrow().contains(&span) || self.errors() >= MOST {
            return;
        }
        let finding = self.diagnostic(span, path, message, hint);
        self.found.borrow_mut().push((span, class, finding));
    }

    fn diagnostic(&self, span: Span, path: &str, message: String, hint: Option<String>) -> Diagnostic {
        let file = self.sources.get(usize::from(span.source)).cloned().unwrap_or_default();
        // A `--set` is one line on the command line: its text says where.
        let (line, column) = if span.source == 0 { (span.line, span.column) } else { (0, 0) };
        Diagnostic { file, line, column, path: shown(path).into_owned(), message: shown(&message).into_owned(), hint }
    }

    /// What was found so far is the cause of whatever later steps find at the same places: they are not heard there.
    pub(crate) fn seal(&self) {
        self.sealed.borrow_mut().extend(self.found.borrow().iter().map(|(span, ..)| *span));
    }

    /// Takes over the findings of another report.
    pub(crate) fn append(&self, other: &Report) {
        let (sealed, room) = (self.sealed.borrow(), MOST.saturating_sub(self.errors()));
        self.found.borrow_mut().extend(other.found.take().into_iter().filter(|(span, ..)| !sealed.contains(span)).take(room));
    }

    /// Whether nothing has been found so far.
    pub(crate) fn is_clean(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// How many errors there are so far.
    pub(crate) fn errors(&self) -> usize {
        self.found.borrow().len()
    }

    /// The end of a step: everything that was found; `Ok` if that is nothing.
    pub(crate) fn check(&self) -> Result<(), Diagnostics> {
        if self.is_clean() { Ok(()) } else { Err(self.failed()) }
    }

    /// Everything that was found, in the order of the file.
    pub(crate) fn failed(&self) -> Diagnostics {
        let mut found = self.found.take();
        let external = found.iter().all(|(_, class, _)| *class == Class::External);
        found.sort_by_key(|(span, ..)| *span);
        found.dedup();
        let items = found.into_iter().map(|(.., diagnostic)| diagnostic).collect();
        Diagnostics { items, class: if external { Class::External } else { Class::Configuration } }
    }

    /// The warnings so far, in the order of the file.
    pub(crate) fn take_warnings(&self) -> Vec<Diagnostic> {
        let mut warnings = self.warnings.take();
        warnings.sort_by_key(|(span, _)| *span);
        warnings.into_iter().map(|(_, diagnostic)| diagnostic).collect()
    }
}
