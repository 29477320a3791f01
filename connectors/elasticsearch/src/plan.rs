//! What a configuration means for an input: checked and compiled without I/O, every mistake at once with its path. Called by `sink` in `declare`, where texts may still
//! be references, and in `open`, where they are resolved.

use crate::{
    config::Config,
    document::{self, Layout},
    id,
    index_name::{IndexName, problem_of},
    operation::Operation,
    template,
};
use arrow_schema::Schema;
use elasticsearch::http::Url;
use standpipe_sdk::{
    SinkInput,
    config::closest,
    is_reference,
    wire::{ChangeMode, Problem, ROLE, ROLE_ROW_KIND},
};

/// Requests at the same time at most: each has a lane with a queue of its own.
const MAX_IN_FLIGHT: usize = 64;
/// Requests a second at least, where they are limited: slower ones would be a mistake.
const MIN_RATE: f64 = 0.01;

/// A configuration that has been understood.
pub(crate) struct Plan {
    /// `None` while the text is a reference.
    pub(crate) index: Option<IndexName>,
    /// The columns of the id; empty: the server makes it.
    pub(crate) id: Vec<usize>,
    /// The column of `+I`, `+U`, `-U`, `-D`.
    pub(crate) row_kind: Option<usize>,
    pub(crate) operation: Operation,
    pub(crate) layout: Layout,
}

impl Plan {
    /// Understands a configuration.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(crate) fn new(config: &Config, input: &SinkInput) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        hosts(config, &mut problems);
        credentials(config, &mut problems);
        numbers(config, &mut problems);
        let schema = input.schema.as_ref();
        let is_row_kind = |field: &arrow_schema::FieldRef| field.metadata().get(ROLE).is_some_and(|role| role == ROLE_ROW_KIND);
        let row_kind = schema.fields().iter().position(is_row_kind);
        for (_, field) in schema.fields().iter().enumerate().filter(|(index, _)| Some(*index) != row_kind) {
            if let Err(why) = document::check(field.data_type()) {
                problems.push(problem("", format!("column {}: {why}", field.name())));
            }
        }
        let id = id_columns(config, input, &mut problems);
        let index = index(config, input, &mut problems);
        let has_id = config.id.is_some() || input.mode == ChangeMode::Upsert;
        let operation = Operation::new(config, input, has_id, &mut problems);
        if problems.is_empty() { Ok(Self { index, id, row_kind, operation, layout: Layout::new(schema, row_kind) }) } else { Err(problems) }
    }
}

pub(crate) fn problem(path: &str, message: String) -> Problem {
    Problem { path: path.to_owned(), message, suggestion: None }
}

fn hosts(config: &Config, problems: &mut Vec<Problem>) {
    if config.hosts.is_empty() {
        problems.push(problem("hosts", "is empty; at least one address is needed".to_owned()));
    }
    for (index, host) in config.hosts.iter().enumerate().filter(|(_, host)| !is_reference(host)) {
        let path = format!("hosts[{index}]");
        let example = || Some("http://127.0.0.1:9200".to_owned());
        match Url::parse(host) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                problems.push(problem(&path, "holds a user; write it as username and password".to_owned()));
            }
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => {}
            Ok(_) => {
                let message = format!("{:?} is no address of the form http://HOST:PORT", without_user(host));
                problems.push(Problem { suggestion: example(), ..problem(&path, message) });
            }
            Err(error) => {
                let message = format!("{:?} is no address: {error}", without_user(host));
                problems.push(Problem { suggestion: example(), ..problem(&path, message) });
            }
        }
    }
}

/// An address as it may be shown: without the user and password that it may hold, even where it is no URL.
pub(crate) fn without_user(address: &str) -> String {
    let (scheme, rest) = address.find("://").map_or(("", address), |at| address.split_at(at + 3));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    format!("{scheme}{rest}")
}

fn credentials(config: &Config, problems: &mut Vec<Problem>) {
    if config.api_key.is_some() && (config.username.is_some() || config.password.is_some()) {
        problems.push(problem("api_key", "goes without username and password".to_owned()));
    }
    match (&config.username, &config.password) {
        (Some(_), None) => problems.push(problem("password", "is missing; username needs it".to_owned())),
        (None, Some(_)) => problems.push(problem("username", "is missing; password needs it".to_owned())),
        _ => {}
    }
}

fn numbers(config: &Config, problems: &mut Vec<Problem>) {
    if !(1..=MAX_IN_FLIGHT).contains(&config.in_flight) {
        problems.push(problem("in_flight", format!("{} is not from 1 to {MAX_IN_FLIGHT}", config.in_flight)));
    }
    if config.batch.max_docs == 0 {
        problems.push(problem("batch.max_docs", "is 0; a request needs a document".to_owned()));
    }
    if config.batch.max_bytes.0 == 0 {
        problems.push(problem("batch.max_bytes", "is 0; a request needs room".to_owned()));
    }
    if config.buffer.0 == 0 {
        problems.push(problem("buffer", "is 0; documents need room".to_owned()));
    }
    if config.requests_per_second.is_some_and(|rate| !(rate >= MIN_RATE && rate.is_finite())) {
        problems.push(problem("requests_per_second", format!("must be {MIN_RATE} at least; leave it out for no limit")));
    }
    if !(0.0..=1.0).contains(&config.retry.jitter) {
        problems.push(problem("retry.jitter", format!("{} is not from 0 to 1", config.retry.jitter)));
    }
    if config.retry.initial.0.is_zero() || config.retry.max.0 < config.retry.initial.0 {
        problems.push(problem("retry", "initial must be more than 0 and at most max".to_owned()));
    }
    for (path, time) in [("timeout", config.timeout), ("slow_after", config.slow_after), ("connect_timeout", config.connect_timeout)] {
        if time.0.is_zero() {
            problems.push(problem(path, "is 0; an answer needs time".to_owned()));
        }
    }
}

/// The columns of the id: those configured, else the key of an upsert stream.
fn id_columns(config: &Config, input: &SinkInput, problems: &mut Vec<Problem>) -> Vec<usize> {
    let schema = input.schema.as_ref();
    let is_upsert = input.mode == ChangeMode::Upsert;
    let names = match &config.id {
        Some(names) if names.is_empty() => {
            problems.push(problem("id", "is empty; leave it out, or name the columns of the key".to_owned()));
            return Vec::new();
        }
        Some(names) => names,
        None if is_upsert => &input.key,
        None => return Vec::new(),
    };
    if is_upsert {
        same_columns(names, &input.key, problems);
    }
    let mut columns = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let path = format!("id[{place}]");
        match schema.column_with_name(name) {
            None => problems.push(Problem { suggestion: suggest(name, schema), ..problem(&path, format!("there is no column {name:?}")) }),
            Some((column, _)) if columns.contains(&column) => problems.push(problem(&path, format!("{name:?} is named twice"))),
            Some((column, field)) => match id::check(field.data_type()) {
                Ok(()) => columns.push(column),
                Err(why) => problems.push(problem(&path, format!("{name}: {why}"))),
            },
        }
    }
    columns
}

/// An upsert stream says "the row of this key": with other columns two keys would share a document, or a delete would miss it.
fn same_columns(names: &[String], key: &[String], problems: &mut Vec<Problem>) {
    if names.is_empty() {
        problems.push(problem("id", "an upsert stream without a key needs id".to_owned()));
    }
    if !key.is_empty() && (names.iter().any(|name| !key.contains(name)) || key.iter().any(|name| !names.contains(name))) {
        let suggestion = Some(format!("[{}]", key.join(", ")));
        let message = "the id of an upsert stream must be made of its key columns".to_owned();
        problems.push(Problem { suggestion, ..problem("id", message) });
    }
}

pub(crate) fn suggest(name: &str, schema: &Schema) -> Option<String> {
    closest(name, schema.fields().iter().map(|field| field.name().as_str())).map(str::to_owned)
}

fn index(config: &Config, input: &SinkInput, problems: &mut Vec<Problem>) -> Option<IndexName> {
    if let Some(fallback) = config.index_fallback.as_deref().filter(|fallback| !is_reference(fallback))
        && let Some(why) = problem_of(fallback)
    {
        problems.push(problem("index_fallback", format!("{fallback:?} {why}")));
    }
    if is_reference(&config.index) {
        return None;
    }
    let index = match IndexName::compile(&config.index, &input.schema) {
        Ok(index) => index,
        Err(wrong) => {
            problems.push(wrong);
            return None;
        }
    };
    let name = |column: usize| input.schema.field(column).name();
    if input.mode == ChangeMode::Upsert
        && !input.key.is_empty()
        && let Some(column) = index.columns().find(|column| !input.key.contains(name(*column)))
    {
        let message =
            format!("{} is no key column: an upsert would write the row to a second index and leave the first as it was", name(column));
        problems.push(problem("index", message));
    }
    if let Some(template) = config.template.as_ref().filter(|template| template.create)
        && let Err(message) = template::name(template, &index)
    {
        problems.push(problem("template", message));
    }
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::{DataType, Field, TimeUnit};
    use serde_json::{Value, json};
    use std::{collections::HashMap, sync::Arc};

    fn input(mode: ChangeMode) -> SinkInput {
        let kind = Field::new("op", DataType::Utf8, false).with_metadata(HashMap::from([(ROLE.to_owned(), ROLE_ROW_KIND.to_owned())]));
        let mut fields = vec![
            Field::new("host", DataType::Utf8, true),
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("value", DataType::Float64, true),
        ];
        if mode == ChangeMode::Upsert {
            fields.push(kind);
        }
        SinkInput { node: "s".to_owned(), schema: Arc::new(Schema::new(fields)), mode, key: vec!["host".to_owned()], format: None }
    }

    fn plan(mode: ChangeMode, more: Value) -> Result<Plan, Vec<(String, Option<String>)>> {
        let mut config = json!({ "hosts": ["http://a:9200"], "index": "i" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Plan::new(&serde_json::from_value(config).unwrap(), &input(mode))
            .map_err(|problems| problems.into_iter().map(|p| (format!("{}: {}", p.path, p.message), p.suggestion)).collect())
    }

    fn wrong(mode: ChangeMode, more: Value) -> Vec<(String, Option<String>)> {
        plan(mode, more.clone()).err().unwrap_or_else(|| panic!("{more} is accepted"))
    }

    #[test]
    fn an_upsert_stream_has_the_ids_of_its_key() {
        let upsert = plan(ChangeMode::Upsert, json!({})).unwrap();
        assert_eq!((upsert.id, upsert.row_kind), (vec![0], Some(3)));
        assert_eq!(plan(ChangeMode::Append, json!({})).unwrap().id, [0_usize; 0]);
        assert_eq!(plan(ChangeMode::Append, json!({ "id": ["ts", "host"] })).unwrap().id, [1, 0]);
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let seen = wrong(
            ChangeMode::Append,
            json!({ "hosts": ["a:9200", "http://u:p@b"], "id": ["hots"], "index": "x-{tz}", "in_flight": 0, "username": "u" }),
        );
        let paths: Vec<_> = seen.iter().map(|(text, _)| text.split(':').next().unwrap()).collect();
        assert_eq!(paths, ["hosts[0]", "hosts[1]", "password", "in_flight", "id[0]", "index"]);
        assert_eq!(seen[4].1.as_deref(), Some("host"));
        assert_eq!(seen[5].1.as_deref(), Some("{ts}"));
    }

    #[test]
    fn what_does_not_fit_the_stream_is_refused() {
        for (mode, more, expected) in [
            (ChangeMode::Append, json!({ "requests_per_second": 0.0 }), "requests_per_second: must be"),
            (ChangeMode::Upsert, json!({ "id": ["host", "ts"] }), "id: the id of an upsert stream"),
            (ChangeMode::Upsert, json!({ "index": "x-{ts:%Y}" }), "index: ts is no key column"),
            (ChangeMode::Append, json!({ "id": [] }), "id: is empty"),
            (ChangeMode::Append, json!({ "id": ["value"] }), "id[0]: value: values of type Float64"),
            (ChangeMode::Append, json!({ "id": ["host", "host"] }), "id[1]: \"host\" is named twice"),
            (ChangeMode::Append, json!({ "hosts": [] }), "hosts: is empty"),
            (ChangeMode::Append, json!({ "index_fallback": "X" }), "index_fallback: \"X\" is no index name"),
            (ChangeMode::Append, json!({ "api_key": "k", "username": "u", "password": "p" }), "api_key: goes without"),
            (ChangeMode::Append, json!({ "index": "{host}-x", "template": {} }), "template: "),
            (ChangeMode::Append, json!({ "retry": { "initial": "5s", "max": "1s" } }), "retry: initial"),
        ] {
            let seen = wrong(mode, more);
            assert!(seen.len() == 1 && seen[0].0.starts_with(expected), "{seen:?}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_never_shown() {
        for host in [
            "http://u:hunter2@b",
            "http://u:hunter2@b:port",
            "u:hunter2@b:9200",
            "elastic:hunter2@b",
            "http://u:hun/ter2@b",
            "ftp://u:x@hunter2@b/",
            "://hunter2@b",
        ] {
            let seen = wrong(ChangeMode::Append, json!({ "hosts": [host] }));
            assert!(seen.len() == 1 && !seen[0].0.contains("hun") && !seen[0].0.contains("ter2"), "{seen:?}");
        }
        assert_eq!(without_user("https://u:p@es:9200/x"), "https://es:9200/x");
        assert_eq!(without_user("https://es:9200/x"), "https://es:9200/x");
    }

    #[test]
    fn references_are_left_for_open() {
        let plan = plan(ChangeMode::Append, json!({ "hosts": ["${env:ES}"], "index": "${env:INDEX}" })).unwrap();
        assert!(plan.index.is_none());
    }
}
