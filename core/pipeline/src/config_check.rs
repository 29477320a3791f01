//! A plugin's `with:` against the JSON Schema of its configuration, before the plugin is asked: unknown keys, missing keys, values of the wrong kind, each at its
//! place. The part of JSON Schema is what schemars writes; what is not understood is left to the plugin, which has the last word. [`Place`] leads back from the
//! paths in its answer (`hosts[0].url`) to the file.

use crate::{
    diagnostic::{Report, Span},
    file::With,
    suggest,
    yaml::{Data, Entry, Node, Value as Scalar, join},
};
use serde_json::{Map, Value};
use std::{cell::Cell, collections::HashSet};

/// Reports all that the schema does not allow; `path` is that of `with` itself.
pub(crate) fn check(with: &With, path: &str, schema: &Value, report: &Report) {
    let checker = Checker { root: schema, report, left: &Cell::new(MOST_LOOKS) };
    checker.value(schema, &with.node, path, with.span, 0);
}

/// References of a schema followed at most: one that refers to itself ends there.
pub(crate) const MAX_REFERENCES: usize = 64;
/// Parts of a schema that are looked at: one that refers to itself twice has no end that can be waited for. What is left is the plugin's to say.
pub(crate) const MOST_LOOKS: u32 = 1 << 20;

struct Checker<'a> {
    root: &'a Value,
    report: &'a Report,
    /// Looks.
    left: &'a Cell<u32>,
}

impl Checker<'_> {
    fn value(&self, schema: &Value, node: &Node, path: &str, key: Span, depth: usize) {
        let Value::Object(schema) = schema else { return };
        let Some(left) = self.left.get().checked_sub(1).filter(|_| depth <= MAX_REFERENCES) else { return };
        self.left.set(left);
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|name| self.root.pointer(name.strip_prefix('#')?)) {
            self.value(target, node, path, key, depth + 1);
        }
        if let Some(Value::Array(all)) = schema.get("allOf") {
            all.iter().for_each(|part| self.value(part, node, path, key, depth + 1));
        }
        if let Some(Value::Array(choices)) = schema.get("oneOf").or_else(|| schema.get("anyOf")) {
            self.choice(choices, node, path, key, depth);
        }
        if let Some(allowed) = words(schema) {
            return self.word(&allowed, node, path, key);
        }
        if let Some(only) = schema.get("const").filter(|only| node.to_json() != **only) {
            return self.expected(&only.to_string(), node, path, key);
        }
        if !self.has_type(schema, node, path, key) {
            return;
        }
        self.range(schema, node, path);
        match &node.data {
            Data::Map(entries) => self.members(schema, entries, path, key, depth),
            Data::List(items) => {
                if let Some(schema) = schema.get("items") {
                    items.iter().enumerate().for_each(|(i, item)| self.value(schema, item, &format!("{path}[{i}]"), item.span, depth));
                }
            }
            Data::Scalar(_) => {}
        }
    }

    /// One of the choices fits, or the findings of the one that comes nearest are shown.
    fn choice(&self, choices: &[Value], node: &Node, path: &str, key: Span, depth: usize) {
        let all_words: Option<Vec<Vec<String>>> = choices.iter().map(|choice| words(choice.as_object()?)).collect();
        if let Some(allowed) = all_words {
            return self.word(&allowed.concat(), node, path, key);
        }
        let mut best: Option<Report> = None;
        for choice in choices {
            let attempt = Report::new(self.report.sources().to_vec());
            let at_value = self.fits_kind(choice, node, depth);
            Checker { root: self.root, report: &attempt, left: self.left }.value(choice, node, path, key, depth + 1);
            if attempt.is_clean() {
                return;
            }
            if at_value && best.as_ref().is_none_or(|best| attempt.errors() < best.errors()) {
                best = Some(attempt);
            }
        }
        match best {
            Some(best) => self.report.append(&best),
            None => {
                let mut kinds: Vec<&str> = Vec::new();
                for kind in choices.iter().flat_map(|choice| self.kinds(choice, depth)).filter(|kind| *kind != "nothing") {
                    if !kinds.contains(&kind) {
                        kinds.push(kind);
                    }
                }
                self.expected(&kinds.join(" or "), node, path, key);
            }
        }
    }

    /// Whether a value of that kind (text, list, ...) can fit the schema.
    fn fits_kind(&self, schema: &Value, node: &Node, depth: usize) -> bool {
        let kinds = self.kinds(schema, depth);
        kinds.is_empty() || kinds.iter().any(|kind| *kind == node.kind() || (*kind == "a number" && node.kind() == "a whole number"))
    }

    fn kinds(&self, schema: &Value, depth: usize) -> Vec<&'static str> {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|name| self.root.pointer(name.strip_prefix('#')?));
        match target {
            Some(target) if depth < MAX_REFERENCES => self.kinds(target, depth + 1),
            _ if schema.get("const").is_some_and(Value::is_string) || schema.get("enum").is_some() => vec!["text"],
            _ => types(schema).into_iter().filter_map(kind_of_type).collect(),
        }
    }

    fn has_type(&self, schema: &Map<String, Value>, node: &Node, path: &str, key: Span) -> bool {
        let Some(types) = schema.get("type").map(type_names) else { return true };
        let found = match &node.data {
            Data::List(_) => "array",
            Data::Map(_) => "object",
            Data::Scalar(scalar) => match scalar.value {
                Scalar::Null => "null",
                Scalar::Bool(_) => "boolean",
                Scalar::Integer(_) => "integer",
                Scalar::Float(_) => "number",
                Scalar::Text(_) => "string",
            },
        };
        let fits = types.contains(&found) || (found == "integer" && types.contains(&"number"));
        if !fits {
            let kinds: Vec<&str> = types.into_iter().filter(|name| *name != "null").filter_map(kind_of_type).collect();
            self.expected(&kinds.join(" or "), node, path, key);
        }
        fits
    }

    fn expected(&self, what: &str, node: &Node, path: &str, key: Span) {
        let span = if node.kind() == "nothing" { key } else { node.span };
        let what = if what.is_empty() { "another value" } else { what };
        let message = match written_of_secret(node) {
            Some(written) => format!("expected {what}, which is not what {written:?} stands for"),
            None => format!("expected {what}, found {}", node.described()),
        };
        self.report.error(span, path, message);
    }

    fn word(&self, allowed: &[String], node: &Node, path: &str, key: Span) {
        let Data::Scalar(scalar) = &node.data else { return self.expected("text", node, path, key) };
        let Scalar::Text(text) = &scalar.value else { return self.expected("text", node, path, key) };
        if allowed.contains(text) {
            return;
        }
        if scalar.secret {
            let message = format!("expected one of {}, which is not what {:?} stands for", allowed.join(", "), scalar.written);
            self.report.error(node.span, path, message);
        } else {
            let end = suggest::or_list(text, allowed.iter().map(String::as_str), "possible values");
            self.report.error(node.span, path, format!("unknown value {text:?}{end}"));
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "only compared")]
    fn range(&self, schema: &Map<String, Value>, node: &Node, path: &str) {
        let Data::Scalar(scalar) = &node.data else { return };
        let number = match scalar.value {
            Scalar::Integer(number) => number as f64,
            Scalar::Float(number) => number,
            _ => return,
        };
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        if let Some(least) = bound("minimum").filter(|least| number < *least) {
            self.report.error(node.span, path, format!("must be at least {least}, not {}", scalar.written));
        }
        if let Some(most) = bound("maximum").filter(|most| number > *most) {
            self.report.error(node.span, path, format!("must be at most {most}, not {}", scalar.written));
        }
    }

    fn members(&self, schema: &Map<String, Value>, entries: &[Entry], path: &str, key: Span, depth: usize) {
        let none = Map::new();
        let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let others = schema.get("additionalProperties");
        let mut meant = Vec::new();
        // Looked for once: there may be many that are unknown.
        let given: HashSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        let free: Vec<&str> = known.keys().map(String::as_str).filter(|key| !given.contains(key)).collect();
        for entry in entries {
            match (known.get(&entry.key), others) {
                (Some(schema), _) => self.value(schema, &entry.value, &join(path, &entry.key), entry.key_span, depth),
                (None, Some(Value::Bool(false))) => {
                    meant.extend(suggest::closest(&entry.key, free.iter().copied()));
                    let end = suggest::or_list(&entry.key, free.iter().copied(), "keys");
                    self.report.error(entry.key_span, path, format!("unknown key {:?}{end}", entry.key));
                }
                (None, Some(schema)) => self.value(schema, &entry.value, &join(path, &entry.key), entry.key_span, depth),
                (None, None) => {}
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let is_missing = |name: &&str| !given.contains(name) && !meant.contains(name);
        for name in required.filter(is_missing) {
            self.report.error(key, path, format!("missing key {name:?}"));
        }
    }
}

/// A scalar that is not to be shown, as written.
fn written_of_secret(node: &Node) -> Option<&str> {
    match &node.data {
        Data::Scalar(scalar) if scalar.secret => Some(&scalar.written),
        _ => None,
    }
}

/// The texts that an enum allows.
pub(crate) fn words(schema: &Map<String, Value>) -> Option<Vec<String>> {
    if let Some(Value::String(only)) = schema.get("const") {
        return Some(vec![only.clone()]);
    }
    schema.get("enum")?.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
}

fn types(schema: &Value) -> Vec<&str> {
    schema.get("type").map(type_names).unwrap_or_default()
}

pub(crate) fn type_names(names: &Value) -> Vec<&str> {
    match names {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// As [`Node::kind`] calls it.
fn kind_of_type(name: &str) -> Option<&'static str> {
    Some(match name {
        "null" => "nothing",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        "object" => "a map",
        _ => return None,
    })
}

/// Where in the file a path of a plugin's answer is: the value, or what comes nearest to it.
pub(crate) struct Place {
    pub(crate) span: Span,
    /// The whole path: `sinks.out.with.hosts[0]`.
    pub(crate) path: String,
}

/// Finds `hosts[0].url` in `with`. Keys may have dots themselves.
pub(crate) fn find(with: &With, base: &str, path: &str) -> Place {
    let (mut node, mut span, mut rest) = (&with.node, with.span, path);
    while !rest.is_empty() {
        let step = match &node.data {
            Data::Map(entries) => entries
                .iter()
                .filter_map(|entry| Some((entry, rest.strip_prefix(entry.key.as_str())?)))
                .filter(|(_, after)| after.is_empty() || after.starts_with(['.', '[']))
                .max_by_key(|(entry, _)| entry.key.len())
                .map(|(entry, after)| (&entry.value, entry.key_span, after)),
            Data::List(items) => rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).and_then(|(index, after)| {
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item, item.span, after))
            }),
            Data::Scalar(_) => None,
        };
        let Some((next, at, after)) = step else { break };
        (node, span, rest) = (next, at, after.strip_prefix('.').unwrap_or(after));
        if rest.is_empty() && !matches!(node.data, Data::Map(_)) && node.kind() != "nothing" {
            span = node.span;
        }
    }
    Place { span, path: if path.is_empty() { base.to_owned() } else { join(base, path) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;
    use schemars::JsonSchema;
    use std::collections::BTreeMap;

    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[allow(dead_code, reason = "only its schema is used")]
    struct Config {
        path: String,
        mode: Option<Mode>,
        hosts: Vec<Host>,
        port: Option<u16>,
        ratio: Option<f64>,
        properties: Option<BTreeMap<String, u32>>,
        id: Option<Id>,
    }

    #[derive(JsonSchema)]
    #[schemars(rename_all = "kebab-case")]
    #[allow(dead_code, reason = "only its schema is used")]
    enum Mode {
        /// With a comment.
        Append,
        OverWrite,
    }

    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[allow(dead_code, reason = "only its schema is used")]
    struct Host {
        url: String,
    }

    #[derive(JsonSchema)]
    #[schemars(untagged)]
    #[allow(dead_code, reason = "only its schema is used")]
    enum Id {
        Columns(Vec<String>),
        Host(Host),
    }

    fn with(text: &str) -> With {
        let node = yaml::parse(text, 0, &Report::new(vec!["p.yaml".to_owned()])).unwrap();
        With { node, span: Span { source: 0, line: 9, column: 9 } }
    }

    fn findings(text: &str) -> String {
        let report = Report::new(vec!["p.yaml".to_owned()]);
        check(&with(text), "sinks.out.with", &schemars::schema_for!(Config).to_value(), &report);
        report.check().map_or_else(|found| found.to_string(), |()| String::new())
    }

    #[test]
    fn what_the_schema_allows_is_clean() {
        assert_eq!(findings("{path: x, hosts: []}"), "");
        assert_eq!(findings("{path: '${P}', mode: over-write, hosts: [{url: a}], port: 1, ratio: 2, properties: {a.b: 3}, id: [x]}"), "");
        assert_eq!(findings("{path: x, hosts: [], mode: null, port: ~, id: {url: x}}"), "");
    }

    #[test]
    fn every_deviation_is_found_at_its_place() {
        for (text, message) in [
            ("{pth: x, hosts: []}", "p.yaml:1:2: sinks.out.with: unknown key \"pth\", did you mean \"path\"?"),
            ("{hosts: []}", "p.yaml:9:9: sinks.out.with: missing key \"path\""),
            ("{path: 5, hosts: []}", "p.yaml:1:8: sinks.out.with.path: expected text, found \"5\""),
            ("{path: x, hosts: {}}", "p.yaml:1:18: sinks.out.with.hosts: expected a list, found a map"),
            ("{path: x, hosts: [{uri: x}]}", "p.yaml:1:20: sinks.out.with.hosts[0]: unknown key \"uri\", did you mean \"url\"?"),
            ("{path: x, hosts: [], mode: apend}", "p.yaml:1:28: sinks.out.with.mode: unknown value \"apend\", did you mean \"append\"?"),
            ("{path: x, hosts: [], port: 70000}", "p.yaml:1:28: sinks.out.with.port: must be at most 65535, not 70000"),
            ("{path: x, hosts: [], port: '1'}", "p.yaml:1:28: sinks.out.with.port: expected a whole number, found \"1\""),
            ("{path: x, hosts: [], properties: {a: b}}", "p.yaml:1:38: sinks.out.with.properties.a: expected a whole number, found \"b\""),
            ("{path: x, hosts: [], id: 7}", "p.yaml:1:26: sinks.out.with.id: expected a list or a map, found \"7\""),
            ("{path: x, hosts: [], id: {ulr: x}}", "p.yaml:1:27: sinks.out.with.id: unknown key \"ulr\", did you mean \"url\"?"),
            ("{path: , hosts: []}", "p.yaml:1:2: sinks.out.with.path: expected text, found nothing"),
        ] {
            assert_eq!(findings(text), message, "{text}");
        }
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let report = Report::new(vec!["p.yaml".to_owned()]);
        check(&with("{a: 1}"), "with", &serde_json::json!({"$ref": "#"}), &report);
        report.check().unwrap();
    }

    /// Its ends are more than 2^64.
    #[test]
    fn a_schema_that_refers_to_itself_twice_ends() {
        let twice = serde_json::json!([{"$ref": "#"}, {"$ref": "#"}]);
        for key in ["allOf", "anyOf", "oneOf"] {
            let report = Report::new(vec!["p.yaml".to_owned()]);
            check(&with("{a: 1}"), "with", &serde_json::json!({"type": "object", key: twice}), &report);
            report.check().unwrap();
        }
    }

    #[test]
    fn paths_of_plugins_lead_to_the_file() {
        let with = with("{hosts: [{url: a}, {url: b}], properties: {a.b: c, a: {b: d}}}");
        for (path, column, line) in
            [("hosts[1].url", 26, 1), ("hosts[7].url", 2, 1), ("properties.a.b", 49, 1), ("nothing", 9, 9), ("", 9, 9)]
        {
            let place = find(&with, "sinks.out.with", path);
            assert_eq!((place.span.line, place.span.column), (line, column), "{path}");
        }
        assert_eq!(find(&with, "sinks.out.with", "hosts[1].url").path, "sinks.out.with.hosts[1].url");
    }
}
