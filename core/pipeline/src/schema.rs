//! The JSON Schema of the pipeline file, for editors and for `standpipe schema`. These types are never filled: they are the documentation of the file in a form that
//! schemars reads. Their keys are tested against the tables of the reader in `file/`, so that an editor and `check` agree.
#![allow(dead_code, reason = "only their schemas are used")]

use schemars::JsonSchema;
use serde_json::Value;
use std::collections::BTreeMap;

/// The JSON Schema of a pipeline file.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(PipelineFile).to_value();
    without_null(&mut schema);
    schema
}

/// An optional key may be left out; it may not be null.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(members) => {
            members.values_mut().for_each(without_null);
            for key in ["type", "anyOf"] {
                let Some(Value::Array(choices)) = members.get_mut(key) else { continue };
                choices.retain(|choice| choice != "null" && choice.get("type").is_none_or(|name| name != "null"));
                if let [only] = choices.as_mut_slice() {
                    let only = only.take();
                    match only {
                        Value::Object(inner) if key == "anyOf" => {
                            members.remove(key);
                            members.extend(inner);
                        }
                        only => _ = members.insert(key.to_owned(), only),
                    }
                }
            }
        }
        _ => {}
    }
}

/// A Standpipe pipeline.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "Standpipe pipeline")]
struct PipelineFile {
    /// The job's name.
    name: String,
    /// Subtasks of every node that does not say otherwise; 1 if neither the file nor the configuration says so.
    parallelism: Option<Count>,
    /// Plugin files or directories of them, searched first; relative paths are so to the current directory.
    plugins: Option<OneOrMany>,
    /// Settings of the engine.
    engine: Option<Engine>,
    /// Checkpoints: what a job goes on from after a failure or a stop.
    checkpoint: Option<Checkpoint>,
    /// What happens when the job fails.
    restart: Option<Restart>,
    /// Where `standpipe deploy` runs it, in flat dotted keys: deployment_mode, rest.address, rest.port, engine.KEY, ...; -D and --config are before it.
    deployment: Option<BTreeMap<String, SettingValue>>,
    /// Functions of plugins that expressions may call, by the name that they get.
    functions: Option<BTreeMap<String, Function>>,
    /// Where rows come from, by name.
    #[schemars(extend("minProperties" = 1))]
    sources: BTreeMap<String, Source>,
    /// What happens to them, by name.
    transforms: Option<BTreeMap<String, Transform>>,
    /// Where they go, by name.
    #[schemars(extend("minProperties" = 1))]
    sinks: BTreeMap<String, Sink>,
}

/// A text or a list of texts.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// A plain value.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum SettingValue {
    /// Text.
    Text(String),
    /// A number.
    Number(f64),
    /// True or false.
    Bool(bool),
}

/// A number and a unit: `10s`, `500ms`, `1h30m`. Units: ns, us, ms, s, m, h, d.
struct Duration;

/// A number and a unit: `64MiB`. Units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB.
struct Size;

/// A whole number from 1 to 32768, or a reference to one.
struct Count;

/// `true`.
struct True;

/// `"*"`.
struct All;

macro_rules! schema_of {
    ($Name:ident, $schema:tt) => {
        impl JsonSchema for $Name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($Name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

schema_of!(Duration, {
    "type": "string",
    "description": "A number and a unit: 10s, 500ms, 1h30m. Units: ns, us, ms, s, m, h, d.",
    "pattern": r"^\s*([0-9]+(\.[0-9]+)?\s*(ns|us|ms|s|m|h|d)\s*)+$|\$\{"
});
schema_of!(Size, {
    "type": "string",
    "description": "A number and a unit: 64MiB. Units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB.",
    "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtT]?i?[bB])\s*$|\$\{"
});
schema_of!(Count, {
    "type": ["integer", "string"],
    "description": "A whole number from 1 to 32768, or a reference such as ${PARALLELISM}.",
    "minimum": 1,
    "maximum": 32768,
    "pattern": r"\$\{"
});
schema_of!(True, { "type": "boolean", "const": true });
schema_of!(All, { "type": "string", "const": "*" });

/// A function of a plugin.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Function {
    /// The kind: what the plugin calls it; NAME@1.2 is one of that version, ./libmine.so#NAME that of the file.
    function: String,
    /// The function's own configuration.
    with: Option<BTreeMap<String, Value>>,
}

/// Settings of the engine.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Engine {
    /// Key groups, and so the most subtasks of a node; fixed at the job's first start. Default 128.
    max_parallelism: Option<Count>,
    /// Rows of a batch that a source aims at. Default 8192.
    #[schemars(range(min = 1, max = 1000000))]
    batch_rows: Option<u32>,
    /// How much a source subtask may have on its way to the sinks before it waits. Default 64MiB.
    in_flight_bytes: Option<Size>,
    /// How long a source holds rows back to fill a batch. Default 10ms: short, because most jobs want their rows soon; longer batches better at low rates.
    flush_interval: Option<Duration>,
    /// Where keyed state of plugins is kept while the job runs.
    state: Option<State>,
    /// Where Prometheus is answered while the job runs, as `run --metrics` has it: an address and a port. A session cluster answers for its jobs itself.
    metrics: Option<String>,
}

/// Where keyed state of plugins is kept while the job runs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct State {
    /// `memory`, or `disk` for state larger than memory.
    backend: Backend,
    /// disk: a directory on this machine, `state` if nothing is said. It is scratch: emptied at the end.
    dir: Option<String>,
    /// disk: what each subtask may have in memory. Default 64MiB, at least 1MiB.
    cache: Option<Size>,
}

/// Checkpoints.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Checkpoint {
    /// From the start of one to the start of the next.
    interval: Duration,
    /// Where they are kept: a directory, or the URL of an object store (file, s3, gs, az); `checkpoints` if nothing is said.
    dir: Option<String>,
    /// When one is given up; 10m if nothing is said.
    timeout: Option<Duration>,
    /// From the end of one to the start of the next, at least.
    min_pause: Option<Duration>,
    /// How many are kept, savepoints aside; 3 if nothing is said.
    #[schemars(range(min = 1, max = 1000))]
    keep: Option<u32>,
    /// How many in a row may fail before the job does; any number if nothing is said.
    #[schemars(range(min = 1))]
    tolerated_failures: Option<u32>,
}

/// What happens when the job fails.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Restart {
    /// When it is started again.
    strategy: Strategy,
    /// fixed-delay: how often.
    #[schemars(range(min = 1))]
    attempts: Option<u32>,
    /// fixed-delay, failure-rate: how long after.
    delay: Option<Duration>,
    /// exponential-delay: after the first failure.
    initial_delay: Option<Duration>,
    /// exponential-delay: at most.
    max_delay: Option<Duration>,
    /// exponential-delay: from one failure to the next. Default 2.
    #[schemars(range(min = 1))]
    multiplier: Option<f64>,
    /// failure-rate: so many in an interval.
    #[schemars(range(min = 1))]
    failures: Option<u32>,
    /// failure-rate: the interval.
    interval: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Backend {
    Memory,
    Disk,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Strategy {
    None,
    FixedDelay,
    ExponentialDelay,
    FailureRate,
}

/// Where rows come from.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Source {
    /// The plugin's source; NAME@1.2 is one of that version, ./libmine.so#NAME that of the file.
    connector: String,
    /// Its configuration.
    with: Option<BTreeMap<String, Value>>,
    /// How its records become rows; a source of rows has none.
    format: Option<SourceFormat>,
    /// The columns of the records; required with json.
    #[schemars(extend("minProperties" = 1))]
    schema: Option<BTreeMap<String, Column>>,
    /// Which column says when a row happened; windows need it.
    event_time: Option<EventTime>,
    /// Whether its plugin runs in processes of its own. Default none.
    isolation: Option<Isolation>,
    /// Subtasks.
    parallelism: Option<Count>,
}

/// A format, or a format and what to do with broken records.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum SourceFormat {
    /// The format's name.
    Name(FormatName),
    /// In detail.
    Detailed(DetailedFormat),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct DetailedFormat {
    /// The format's name.
    r#type: FormatName,
    /// What happens to a record that cannot be decoded: the job fails, the record is dropped, or it goes to NAME.errors. Default fail.
    on_error: Option<OnError>,
    /// What a null record, a tombstone, is: one that cannot be decoded, nothing, or a row without values. Default broken.
    on_null: Option<OnNull>,
    /// csv: what stands between two fields. Default a comma.
    delimiter: Option<String>,
    /// csv: what stands around a field that holds a delimiter, a quote or a newline. Default a double quote.
    quote: Option<String>,
    /// csv: the text of a null, without quotes around it. Default empty.
    null_text: Option<String>,
    /// csv: whether files begin with the names of the columns. Default false.
    header: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum FormatName {
    /// The record as it is, in one column of type string or binary.
    Raw,
    /// One JSON object per record.
    Json,
    /// Fields of text with a delimiter between them, RFC 4180.
    Csv,
    /// Whole files of Apache Parquet; for sinks that write files.
    Parquet,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum OnNull {
    Broken,
    Skip,
    Row,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum OnError {
    Fail,
    Skip,
    DeadLetter,
}

/// A type such as `string`, `timestamp_ms`, `decimal(10, 2)`, `list<int64>`, or a type in detail.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Column {
    /// The type.
    Type(String),
    /// In detail.
    Detailed(DetailedColumn),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct DetailedColumn {
    /// The type.
    r#type: String,
    /// Whether a value may be missing. Default true.
    nullable: Option<bool>,
}

/// When a row happened.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EventTime {
    /// A column of a timestamp type.
    column: String,
    /// How far a row may be behind the latest one of its split. Default 0s.
    out_of_orderness: Option<Duration>,
    /// After how long without data a split no longer holds the others back. Default 10s.
    idle_timeout: Option<Duration>,
    /// How far a split may be ahead of the slowest one before it is read no further. By default as far as it likes.
    max_drift: Option<Duration>,
    /// Sources of one group wait for each other, not only the splits of one source. Needs max_drift.
    alignment_group: Option<String>,
}

/// What happens to rows: exactly one of filter, select, union, transform, aggregate.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Transform {
    /// The node that it reads; NAME.late and NAME.errors are outputs of it.
    input: Option<String>,
    /// The nodes that it reads, where there are several.
    #[schemars(extend("minItems" = 1))]
    inputs: Option<Vec<String>>,
    /// Keeps the rows for which this condition is true.
    filter: Option<Expression>,
    /// Computes columns: name and expression. "*": true keeps all of the input, where a column of the same name takes its place.
    select: Option<Select>,
    /// Passes all rows of all inputs on.
    union: Option<True>,
    /// A plugin's transform; NAME@1.2 is one of that version, ./libmine.so#NAME that of the file.
    transform: Option<String>,
    /// Aggregates: name and a call such as avg(value).
    #[schemars(extend("minProperties" = 1))]
    aggregate: Option<BTreeMap<String, Expression>>,
    /// The configuration of a plugin's transform.
    with: Option<BTreeMap<String, Value>>,
    /// The key columns of aggregate and transform.
    key_by: Option<OneOrMany>,
    /// transform: how the calls of one that answers later are held.
    r#async: Option<Async>,
    /// transform without key_by: whether its plugin runs in processes of its own. Default none.
    isolation: Option<Isolation>,
    /// The window of aggregate.
    window: Option<Window>,
    /// When aggregate without a window gives rows: at the end of bounded inputs, when a key changes, or for each row. Default final for bounded inputs, else changes.
    emit: Option<EmitName>,
    /// Subtasks.
    parallelism: Option<Count>,
}

/// An SQL expression; names are case-sensitive.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Expression {
    /// As text.
    Text(String),
    /// A number.
    Number(f64),
    /// True or false.
    Bool(bool),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Select {
    /// All columns.
    All(All),
    /// By name.
    Columns(BTreeMap<String, Expression>),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum EmitName {
    Final,
    Changes,
    Each,
}

/// Where a node's plugin runs.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Isolation {
    /// In which process.
    Mode(IsolationMode),
    /// In detail.
    Detailed(DetailedIsolation),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct DetailedIsolation {
    /// In which process.
    mode: IsolationMode,
    /// process: memory of each of its own that it may have, at least 16MiB. By default as much as it likes.
    memory: Option<Size>,
    /// process: which files of the machine it may use; by default those that the job may.
    sandbox: Option<Sandbox>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sandbox {
    /// Files and directories that it may read.
    read: Option<OneOrMany>,
    /// Files and directories that it may read and write.
    write: Option<OneOrMany>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum IsolationMode {
    /// That of the job.
    None,
    /// One of its own for each subtask.
    Process,
}

/// The calls of a transform that answers later.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Async {
    /// Calls of each subtask at the same time. Default as the plugin wishes, else 16.
    #[schemars(range(min = 1, max = 65536))]
    capacity: Option<u32>,
    /// In which order results go on: that of the input, or that in which they come, none past a watermark. Default input.
    order: Option<OrderName>,
    /// How long a call may take before the job fails. Default as the plugin wishes, else 60s.
    timeout: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum OrderName {
    Input,
    Any,
}

/// How rows fall into windows.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Window {
    /// Windows of one length, one after the other.
    tumbling: Tumbling,
    /// How long after its end a window still takes rows; later ones go to NAME.late. Default 0s.
    allowed_lateness: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Tumbling {
    /// The length.
    Size(Duration),
    /// In detail.
    Detailed(DetailedTumbling),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct DetailedTumbling {
    /// The length.
    size: Duration,
    /// Shift of the alignment to the epoch. Default 0s.
    offset: Option<Duration>,
}

/// Where rows go.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sink {
    /// The node that it reads.
    input: String,
    /// The plugin's sink; NAME@1.2 is one of that version, ./libmine.so#NAME that of the file.
    connector: String,
    /// Its configuration.
    with: Option<BTreeMap<String, Value>>,
    /// How rows become records; a sink of rows has none. Default json.
    format: Option<SinkFormat>,
    /// What must hold after any failure; a pipeline that cannot hold it is refused. Default: nothing is demanded.
    guarantee: Option<GuaranteeName>,
    /// Whether its plugin runs in processes of its own. Default none.
    isolation: Option<Isolation>,
    /// Subtasks.
    parallelism: Option<Count>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[allow(clippy::enum_variant_names, reason = "they are the words of the file")]
enum GuaranteeName {
    /// Every row once: a transactional sink, replayable sources, checkpoints.
    ExactlyOnce,
    /// As if once: exactly-once, or what is written again replaces itself.
    EffectivelyOnce,
    /// Nothing is lost.
    AtLeastOnce,
    /// Nothing is there twice.
    AtMostOnce,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum SinkFormat {
    /// The format's name.
    Name(FormatName),
    /// In detail.
    Detailed(DetailedSinkFormat),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct DetailedSinkFormat {
    /// The format's name.
    r#type: FormatName,
    /// csv: what stands between two fields. Default a comma.
    delimiter: Option<String>,
    /// csv: what stands around a field that holds a delimiter, a quote or a newline. Default a double quote.
    quote: Option<String>,
    /// csv: the text of a null, without quotes around it. Default empty.
    null_text: Option<String>,
    /// csv: whether each file begins with the names of its columns; for sinks that write files. Default false.
    header: Option<bool>,
    /// parquet: how its pages are compressed. Default snappy.
    compression: Option<Compression>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Compression {
    /// Not at all.
    None,
    /// Fast.
    Snappy,
    /// Small.
    Zstd,
}

#[cfg(test)]
mod tests;
