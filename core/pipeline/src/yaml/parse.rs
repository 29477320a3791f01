//! The parser's events to a tree with places. Strict where YAML is generous: one document, no key twice, keys are text, no tags but `!!str`.
//!
//! Depth and size are limited, so that no file (aliases that multiply) can exhaust memory or the stack.

use super::{Data, Entry, Node, Scalar, Value, syntax};
use crate::diagnostic::{Report, Span};
use granit_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;

/// Levels of nesting.
const MAX_DEPTH: usize = 64;
/// Values, after aliases are expanded.
const MAX_NODES: usize = 100_000;
/// Bytes of keys and values, after aliases are expanded.
const MAX_BYTES: usize = 16 << 20;
/// Bytes of a key: YAML's own limit for most. The path of a value has all keys above it.
const MAX_KEY: usize = 1024;

/// The tree of a text; `None` if it is no YAML, which is then in the report. A key that is there twice is in the report too, and its second value is left out.
pub(crate) fn parse(text: &str, source: u16, report: &Report) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder =
        Builder { source, open: Vec::new(), anchors: HashMap::new(), root: None, total: Size::default(), doubles: Vec::new() };
    let root = build(text, &mut builder);
    for problem in builder.doubles.into_iter().chain(root.as_ref().err().cloned()) {
        match problem.hint {
            Some(hint) => report.error_with_hint(problem.span, "", problem.message, hint),
            None => report.error(problem.span, "", problem.message),
        }
    }
    root.ok()
}

/// Why a text is no tree.
#[derive(Clone)]
pub(super) struct Problem {
    pub(super) span: Span,
    pub(super) message: String,
    pub(super) hint: Option<&'static str>,
}

impl Problem {
    fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), hint: None }
    }
}

/// A list or map that is not closed yet.
struct Open {
    span: Span,
    anchor: usize,
    depth: usize,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    /// With the place of each key.
    Map {
        entries: Vec<Entry>,
        known: HashMap<String, Span>,
        key: Option<Key>,
    },
}

/// A key whose value is yet to come.
struct Key {
    text: String,
    span: Span,
    plain: bool,
    /// It has a value already.
    double: bool,
}

/// A finished value, how deep it is and what it adds to the tree: all that is in it where it is copied, else what has not been counted yet.
#[derive(Clone)]
struct Built {
    node: Node,
    depth: usize,
    size: Size,
}

/// How much there is of something.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
}

impl Size {
    fn add(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.bytes += other.bytes;
    }
}

struct Builder {
    source: u16,
    open: Vec<Open>,
    anchors: HashMap<usize, Built>,
    root: Option<Node>,
    total: Size,
    /// Keys that are there twice.
    doubles: Vec<Problem>,
}

fn build(text: &str, builder: &mut Builder) -> Result<Node, Problem> {
    let options = granit_parser::options! { emit_comments: false, flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH };
    let mut documents = 0;
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| syntax::problem(&error, text, builder.source))?;
        let span = syntax::place(&span.start, builder.source);
        match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(Problem::new(span, "a file has one YAML document"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_ref().map(|tag| (tag.original(), tag.is_yaml_core_schema_tag("str")));
                let size = Size { nodes: 1, bytes: text.len() };
                if anchor > 0 {
                    // The copy for its aliases.
                    builder.total.add(size);
                }
                builder.add(Built { node: scalar(&text, style, tag, span)?, depth: 1, size }, anchor, style == ScalarStyle::Plain)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                builder.start(span, anchor, tag.as_ref().map(|tag| tag.original()), Items::List(Vec::new()))?
            }
            Event::MappingStart(_, anchor, tag) => {
                builder.start(
                    span,
                    anchor,
                    tag.as_ref().map(|tag| tag.original()),
                    Items::Map { entries: Vec::new(), known: HashMap::new(), key: None },
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => builder.end()?,
            Event::Alias(id) => {
                let target = builder.anchors.get(&id).cloned();
                let target = target.ok_or_else(|| Problem::new(span, "an alias inside of what it stands for"))?;
                builder.add(target, 0, true).map_err(|problem| Problem { span, ..problem })?;
            }
            _ => {}
        }
    }
    let start = Span { source: builder.source, line: 1, column: 1 };
    builder.root.take().filter(|root| !root.is_null()).ok_or_else(|| Problem::new(start, "the file is empty"))
}

impl Builder {
    fn start(&mut self, span: Span, anchor: usize, tag: Option<String>, items: Items) -> Result<(), Problem> {
        if let Some(tag) = tag {
            return Err(Problem::new(span, format!("the tag {tag} is not supported")));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(span));
        }
        self.open.push(Open { span, anchor, depth: 0, items });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let Some(Open { span, anchor, depth, items }) = self.open.pop() else { return Ok(()) };
        let data = match items {
            Items::List(items) => Data::List(items),
            Items::Map { entries, .. } => Data::Map(entries),
        };
        let size = if anchor > 0 { size(&data) } else { Size { nodes: 1, bytes: 0 } };
        self.add(Built { node: Node { span, data }, depth: depth + 1, size }, anchor, true)
    }

    /// Puts a finished value where it belongs: as a key, as a value, as an item, or as the root.
    fn add(&mut self, built: Built, anchor: usize, plain: bool) -> Result<(), Problem> {
        let span = built.node.span;
        self.total.add(built.size);
        if self.total.nodes > MAX_NODES {
            return Err(Problem::new(span, format!("more than {MAX_NODES} values")));
        }
        if self.total.bytes > MAX_BYTES {
            return Err(Problem::new(span, format!("more than {} MiB of text, each alias counted as what it stands for", MAX_BYTES >> 20)));
        }
        if self.open.len() + built.depth > MAX_DEPTH {
            return Err(too_deep(span));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, built.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(built.node);
            return Ok(());
        };
        open.depth = open.depth.max(built.depth);
        match &mut open.items {
            Items::List(items) => items.push(built.node),
            Items::Map { entries, known, key } => match key.take() {
                None => *key = Some(as_key(&built.node, plain, known, &mut self.doubles)?),
                Some(Key { double: true, .. }) => {}
                Some(Key { text, span, plain, .. }) => entries.push(Entry { key: text, key_span: span, plain, value: built.node }),
            },
        }
        Ok(())
    }
}

fn too_deep(span: Span) -> Problem {
    Problem::new(span, format!("more than {MAX_DEPTH} levels of nesting"))
}

fn size(data: &Data) -> Size {
    let mut all = Size { nodes: 1, bytes: 0 };
    match data {
        Data::Scalar(scalar) => all.bytes = scalar.written.len(),
        Data::List(items) => items.iter().for_each(|item| all.add(size(&item.data))),
        Data::Map(entries) => entries.iter().for_each(|entry| {
            all.bytes += entry.key.len();
            all.add(size(&entry.value.data));
        }),
    }
    all
}

fn as_key(node: &Node, plain: bool, known: &mut HashMap<String, Span>, doubles: &mut Vec<Problem>) -> Result<Key, Problem> {
    let Data::Scalar(scalar) = &node.data else {
        let problem = Problem::new(node.span, format!("a key must be text, not {}", node.kind()));
        return Err(Problem { hint: Some("put texts that begin with { or [ in quotes"), ..problem });
    };
    if scalar.written.len() > MAX_KEY {
        return Err(Problem::new(node.span, format!("a key of more than {MAX_KEY} bytes")));
    }
    let first = known.get(&scalar.written).copied();
    match first {
        Some(at) => {
            let message = format!("the key {:?} is there twice, first at {}:{}", scalar.written, at.line, at.column);
            doubles.push(Problem::new(node.span, message));
        }
        None => _ = known.insert(scalar.written.clone(), node.span),
    }
    Ok(Key { text: scalar.written.clone(), span: node.span, plain, double: first.is_some() })
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<(String, bool)>, span: Span) -> Result<Node, Problem> {
    let plain = style == ScalarStyle::Plain;
    let value = match tag {
        Some((_, true)) => Value::Text(text.to_owned()),
        Some((tag, false)) => return Err(Problem::new(span, format!("the tag {tag} is not supported"))),
        None if plain => resolve(text),
        None => Value::Text(text.to_owned()),
    };
    Ok(Node { span, data: Data::Scalar(Scalar { value, written: text.to_owned(), plain, secret: false }) })
}

/// The core schema of YAML 1.2 (chapter 10.3.2), without `.inf` and `.nan`, which JSON does not have.
pub(crate) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    integer(text).map(Value::Integer).or_else(|| float(text).map(Value::Float)).unwrap_or_else(|| Value::Text(text.to_owned()))
}

fn integer(text: &str) -> Option<i128> {
    let all = |digits: &str, radix: u32| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    if let Some(digits) = text.strip_prefix("0x").filter(|digits| all(digits, 16)) {
        return i128::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = text.strip_prefix("0o").filter(|digits| all(digits, 8)) {
        return i128::from_str_radix(digits, 8).ok();
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if all(digits, 10) { text.parse().ok() } else { None }
}

fn float(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let begins = digits.strip_prefix('.').unwrap_or(digits).starts_with(|c: char| c.is_ascii_digit());
    let known = digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    if begins && known { text.parse().ok().filter(|number: &f64| number.is_finite()) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn tree(text: &str) -> Result<Node, String> {
        let report = Report::new(vec!["p.yaml".to_owned()]);
        let root = parse(text, 0, &report);
        report.check().map_err(|found| found.to_string())?;
        Ok(root.expect("what is no tree is in the report"))
    }

    #[test]
    fn values_have_the_types_of_yaml_1_2() {
        let text = "{a: 1, b: -0x1f, c: 1e3, d: yes, e: no, f: true, g: ~, h: '1', i: 0o17, j: .5, k: 1.2.3, l: !!str 7, m: 2024-01-01, n: +3, o: }";
        assert_eq!(
            tree(text).unwrap().to_json(),
            json!({"a": 1, "b": "-0x1f", "c": 1000.0, "d": "yes", "e": "no", "f": true, "g": null, "h": "1", "i": 15, "j": 0.5, "k": "1.2.3", "l": "7",
                "m": "2024-01-01", "n": 3, "o": null})
        );
    }

    #[test]
    fn every_key_and_value_has_its_place() {
        let root = tree("a: 1\nb:\n  - x\n  - {c: 'ü', d: \"e\"}\n").unwrap();
        let at = |node: &Node| (node.span.line, node.span.column);
        let b = root.get("b").unwrap();
        assert_eq!((b.key_span.line, b.key_span.column), (2, 1));
        let Data::List(items) = &b.value.data else { panic!() };
        assert_eq!((at(&items[0]), at(&items[1])), ((3, 5), (4, 5)));
        let d = items[1].get("d").unwrap();
        assert_eq!((d.key_span.line, d.key_span.column, at(&d.value)), (4, 14, (4, 17)));
    }

    #[test]
    fn aliases_stand_for_their_values() {
        assert_eq!(tree("a: &x {b: [1, 2]}\nc: *x\n").unwrap().to_json(), json!({"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}));
    }

    #[test]
    fn what_is_no_pipeline_file_is_refused_with_its_place() {
        let deep = format!("{}1{}", "[".repeat(70), "]".repeat(70));
        let mut bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
        for i in 1..8 {
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", ")));
        }
        // Few values, much text: in one, and in keys.
        let million = "x".repeat(1 << 20);
        let thousand: Vec<String> = (0..1024).map(|i| format!("{i:01000}: 1")).collect();
        let [long, keys] = [format!("\"{million}\""), format!("{{{}}}", thousand.join(", "))]
            .map(|value| format!("a: &a {value}\nb: [{}]\n", ["*a"; 20].join(", ")));
        for (text, message) in [
            ("", "p.yaml:1:1: the file is empty"),
            ("# nothing\n", "p.yaml:1:1: the file is empty"),
            ("a: 1\na: 2\n", "p.yaml:2:1: the key \"a\" is there twice, first at 1:1"),
            ("a: 1\n---\nb: 2\n", "p.yaml:2:1: a file has one YAML document"),
            ("{[1]: 2}", "p.yaml:1:2: a key must be text, not a list: put texts that begin with { or [ in quotes"),
            ("a: !!int 5", "p.yaml:1:10: the tag !!int is not supported"),
            ("a: &x [*x]", "p.yaml:1:8: an alias inside of what it stands for"),
            (&bomb, "p.yaml:5:40: more than 100000 values"),
            (&long, "p.yaml:2:57: more than 16 MiB of text, each alias counted as what it stands for"),
            (&keys, "p.yaml:2:61: more than 16 MiB of text, each alias counted as what it stands for"),
        ] {
            assert_eq!(tree(text).unwrap_err(), message);
        }
        assert!(tree(&deep).is_err());
        assert!(tree("a: [1, 2\nb: 3\n").unwrap_err().starts_with("p.yaml:"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-a-c0-2:,{}\\[\\]&*!|>'\"#%@` \n\t~.?]{0,60}") {
            let _ = tree(&text);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = tree(&String::from_utf8_lossy(&bytes));
        }
    }
}
