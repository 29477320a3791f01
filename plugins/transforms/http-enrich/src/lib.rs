//! `http-enrich`: adds columns that an HTTP service answers. The keys of each batch, every one once, are a POST; while it is under way the next batches are asked for, on
//! threads of their own (`workers`), as many as the pipeline's `async.capacity` says. What is sent and read is in `columns`, the request with its repeats in `client`.
#![deny(unsafe_code)]

mod client;
mod columns;
mod workers;

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema, SchemaRef};
use client::Client;
use columns::Columns;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use standpipe_formats::types;
use standpipe_sdk::{
    Call, CloseReason, Context, Error, Result, Secret, Transform, TransformDeclaration, TransformInput,
    config::closest,
    is_reference,
    transform::{Asynchronous, OutputDeclaration, TypeClass},
    units::Time,
    wire::Problem,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use workers::Workers;

standpipe_sdk::export_plugin! { transforms: [HttpEnrich] }

/// Adds columns that an HTTP service answers: a request for each batch, several at the same time.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct HttpEnrichConfig {
    /// Where the keys of a batch are sent by POST, `http://` or `https://`.
    pub url: String,
    /// The columns that are sent.
    pub keys: Vec<String>,
    /// The columns that are answered, with their types, as in a `schema`. They stand behind those of the input, in the order of their names.
    pub columns: BTreeMap<String, String>,
    /// Headers of each request, such as `Authorization`.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// How long a request may take.
    #[serde(default = "ten_seconds")]
    pub timeout: Time,
    /// What happens after a request that fails in a way that may pass: no connection, no answer in time, status 429 or 5xx.
    #[serde(default)]
    pub retry: Retry,
}

fn ten_seconds() -> Time {
    Time(Duration::from_secs(10))
}

/// How often a request is made.
#[derive(Deserialize, Serialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Requests in all, the first one among them.
    #[schemars(range(min = 1))]
    pub attempts: u32,
    /// The wait before the second one; before each further one it is twice as long.
    pub initial: Time,
    /// The longest wait.
    pub max: Time,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, initial: Time(Duration::from_millis(200)), max: Time(Duration::from_secs(5)) }
    }
}

impl Retry {
    /// The wait behind an attempt, from 1.
    fn wait(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(20);
        self.initial.0.saturating_mul(1 << doublings).min(self.max.0)
    }
}

impl HttpEnrichConfig {
    /// When a call has ended by itself in any case, and some seconds.
    fn longest(&self) -> Duration {
        // Beyond some attempts all waits are the longest.
        let few = self.retry.attempts.min(32);
        let waits: Duration = (1..few).map(|attempt| self.retry.wait(attempt)).sum();
        let more = (self.retry.max.0 + self.timeout.0).saturating_mul(self.retry.attempts - few);
        waits + self.timeout.0.saturating_mul(few) + more + Duration::from_secs(10)
    }

    /// The columns that are answered, and what is wrong with them.
    fn answered(&self, input: &Schema, problems: &mut Vec<Problem>) -> Vec<Field> {
        let mut fields = Vec::new();
        for (name, written) in &self.columns {
            let path = format!("columns.{name}");
            match types::parse_field(name, written) {
                _ if input.field_with_name(name).is_ok() => problems.push(problem(&path, "the input has a column of that name".to_owned())),
                Ok(field) => fields.push(field.with_nullable(true)),
                Err(error) => problems.push(problem(&path, error.message)),
            }
        }
        if self.columns.is_empty() {
            problems.push(problem("columns", "at least one column is needed".to_owned()));
        }
        fields
    }

    fn check(&self, input: &Schema, problems: &mut Vec<Problem>) {
        if !is_reference(&self.url) && !is_http(&self.url) {
            problems.push(problem("url", format!("{:?} is no http:// or https:// address", self.url)));
        }
        if self.keys.is_empty() {
            problems.push(problem("keys", "at least one column is needed".to_owned()));
        }
        for (index, name) in self.keys.iter().enumerate() {
            let path = format!("keys[{index}]");
            let suggestion = closest(name, input.fields().iter().map(|field| field.name().as_str())).map(str::to_owned);
            match input.field_with_name(name) {
                Err(_) => problems.push(Problem { path, message: format!("the input has no column {name:?}"), suggestion }),
                Ok(_) if self.keys[..index].contains(name) => problems.push(problem(&path, format!("{name:?} is there twice"))),
                Ok(_) => {}
            }
        }
        for (name, value) in &self.headers {
            if let Err(why) = client::check_header(name, (!is_reference(value.expose())).then(|| value.expose())) {
                problems.push(problem(&format!("headers.{name}"), why));
            }
        }
        if self.retry.attempts == 0 {
            problems.push(problem("retry.attempts", "must be at least 1".to_owned()));
        }
        if self.timeout.0.is_zero() {
            problems.push(problem("timeout", "must be longer than 0s".to_owned()));
        }
    }
}

fn is_http(url: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}

fn problem(path: &str, message: String) -> Problem {
    Problem { path: path.to_owned(), message, suggestion: None }
}

/// All type classes: other columns are passed on as they are.
const ALL_TYPES: [TypeClass; 6] =
    [TypeClass::Dictionary, TypeClass::Large, TypeClass::View, TypeClass::ListView, TypeClass::RunEnd, TypeClass::Nested];

fn output(input: &Schema, answered: &[Field]) -> SchemaRef {
    let fields: Vec<_> = input.fields().iter().cloned().chain(answered.iter().cloned().map(Arc::new)).collect();
    Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()))
}

/// Asks an HTTP service.
pub struct HttpEnrich {
    columns: Arc<Columns>,
    client: Arc<Client>,
    workers: Workers,
}

impl Transform for HttpEnrich {
    const NAME: &'static str = "http-enrich";
    type Config = HttpEnrichConfig;

    fn declare(config: &HttpEnrichConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let schema = &input.only()?.schema;
        let mut problems = Vec::new();
        config.check(schema, &mut problems);
        let answered = config.answered(schema, &mut problems);
        if problems.is_empty()
            && let Err(error) = Columns::new(schema, &config.keys, &answered)
        {
            problems.push(problem("", error.message));
        }
        // With a wrong one there is nothing to be said of the time.
        let timeout = problems.is_empty().then(|| config.longest());
        Ok(TransformDeclaration {
            outputs: vec![OutputDeclaration::main(output(schema, &answered))],
            asynchronous: Some(Asynchronous { capacity: None, timeout }),
            types: ALL_TYPES.to_vec(),
            problems,
            ..TransformDeclaration::default()
        })
    }

    fn open(config: HttpEnrichConfig, input: &TransformInput, _: Context) -> Result<Self> {
        let schema = &input.only()?.schema;
        let mut problems = Vec::new();
        let answered = config.answered(schema, &mut problems);
        let columns = Arc::new(Columns::new(schema, &config.keys, &answered)?);
        if !is_http(&config.url) {
            return Err(Error::config("url", "is no http:// or https:// address"));
        }
        let client = Arc::new(Client::new(&config)?);
        Ok(Self { columns, client, workers: Workers::default() })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let completion = call.completion()?;
        let (columns, client) = (Arc::clone(&self.columns), Arc::clone(&self.client));
        self.workers.run(move |busy| {
            completion.answer(|results| {
                let question = columns.question(&batch)?;
                let answer = client.ask(&question.body, &|| results.cancelled())?;
                results.emit(columns.enriched(&batch, &question, &answer)?)?;
                busy.free();
                Ok(())
            });
        })
    }

    fn close(&mut self, _: CloseReason) -> Result<()> {
        // Requests that are under way end by themselves; nobody waits for them.
        self.workers.close();
        Ok(())
    }
}
