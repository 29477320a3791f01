//! The keys of the job as a whole: `name`, `parallelism`, `plugins`, `engine`, `checkpoint`, `restart`, `functions`, and the three sections of nodes.

use super::{
    PipelineFile, Unread, functions, nodes,
    reader::{Item, Section},
    verbs,
};
use crate::{
    deployment,
    diagnostic::{At, Diagnostics, Report, Span},
    text::Text,
    yaml::{Data, Node, Value},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

pub(crate) const JOB_KEYS: [&str; 11] =
    ["name", "parallelism", "plugins", "engine", "checkpoint", "restart", "deployment", "functions", "sources", "transforms", "sinks"];
pub(crate) const ENGINE_KEYS: [&str; 6] = ["max_parallelism", "batch_rows", "in_flight_bytes", "flush_interval", "state", "metrics"];
pub(crate) const STATE_KEYS: [&str; 3] = ["backend", "dir", "cache"];
/// Schemes of the URLs of object stores, as the object store library knows them, and of folders.
const PLACES: [&str; 10] = ["file", "s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "https"];
pub(crate) const CHECKPOINT_KEYS: [&str; 6] = ["interval", "dir", "timeout", "min_pause", "keep", "tolerated_failures"];
pub(crate) const RESTART_KEYS: [&str; 8] =
    ["strategy", "attempts", "delay", "initial_delay", "max_delay", "multiplier", "failures", "interval"];

/// Bytes of a job's name: folders and files are called by it, with something behind it.
const LONGEST_NAME: usize = 200;
/// Key groups are numbered in 16 bits.
pub(crate) const MOST_SUBTASKS: u32 = 32_768;
/// Nodes of a pipeline: far more than anybody writes, few enough for every walk over the graph.
const MOST_NODES: usize = 1_000;
/// Rows of a batch: more than this only costs memory.
const MOST_BATCH_ROWS: u32 = 1_000_000;

/// `engine:`, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EngineSettings {
    pub(crate) max_parallelism: u32,
    pub(crate) batch_rows: u32,
    pub(crate) in_flight_bytes: u64,
    pub(crate) flush_interval: Duration,
    pub(crate) state: StateBackend,
    pub(crate) metrics: Option<SocketAddr>,
}

/// `engine.state`: where plugins' keyed state is kept while the job runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StateBackend {
    /// In memory.
    #[default]
    Memory,
    /// On this machine's disk, what was used last in memory.
    Disk(DiskState),
}

/// Keyed state on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskState {
    pub(crate) dir: Option<Text>,
    /// What each subtask may have in memory, bytes.
    pub cache: u64,
}

impl DiskState {
    /// In that directory, with so many bytes of each subtask's in memory.
    #[must_use]
    pub fn new(dir: &str, cache: u64) -> Self {
        let span = Span { line: 1, column: 1, ..Span::default() };
        Self { dir: Some(Text { value: dir.to_owned(), written: dir.to_owned(), secret: false, span }), cache }
    }

    /// The directory, which may hold a secret: it has a folder per job and run.
    #[must_use]
    pub fn dir(&self) -> &str {
        self.dir.as_ref().map_or(STATE_DIR, |dir| dir.value.as_str())
    }

    /// The directory as people are shown it: references as written.
    #[must_use]
    pub fn written(&self) -> &str {
        self.dir.as_ref().map_or(STATE_DIR, |dir| dir.written.as_str())
    }
}

/// Where state on disk is if nobody says.
const STATE_DIR: &str = "state";
/// What each subtask has of it in memory if nobody says, and the least that makes sense.
const STATE_CACHE: u64 = 64 << 20;
const LEAST_CACHE: u64 = 1 << 20;

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            max_parallelism: 128,
            batch_rows: 8192,
            in_flight_bytes: 64 << 20,
            flush_interval: Duration::from_millis(10),
            state: StateBackend::Memory,
            metrics: None,
        }
    }
}

/// `checkpoint:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// From the start of one to the start of the next.
    pub interval: Duration,
    /// Where they are kept: a directory or an object store's URL.
    pub(crate) dir: Option<Text>,
    /// When one is given up.
    pub timeout: Duration,
    /// From the end of one to the start of the next, at least.
    pub min_pause: Duration,
    /// How many are kept.
    pub keep: u32,
    /// How many in a row may fail before the job does; `None`: any number.
    pub tolerated_failures: Option<u32>,
}

/// Where checkpoints are kept if nobody says.
const CHECKPOINT_DIR: &str = "checkpoints";
/// How long one may take if nobody says.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(600);
/// How many are kept if nobody says.
const CHECKPOINTS_KEPT: u32 = 3;
/// Checkpoints that are kept: more are to be savepoints.
const MOST_CHECKPOINTS: u32 = 1_000;

/// `restart:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Restart {
    /// When and how often the job is started again.
    pub strategy: RestartStrategy,
    /// Where it is written.
    pub(crate) span: Span,
}

/// When a failed job is started again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are named as the keys of the file")]
pub enum RestartStrategy {
    /// Never.
    None,
    /// So many times, after the same delay.
    FixedDelay { attempts: u32, delay: Duration },
    /// For ever, after a delay that grows by `multiplier` with each failure in a row.
    ExponentialDelay { initial_delay: Duration, max_delay: Duration, multiplier: f64 },
    /// As long as there are no more than so many failures in an interval.
    FailureRate { failures: u32, interval: Duration, delay: Duration },
}

impl Checkpoint {
    /// Where they are kept: a directory or an object store's URL, which may hold a secret.
    #[must_use]
    pub fn dir(&self) -> &str {
        self.dir.as_ref().map_or(CHECKPOINT_DIR, |dir| dir.value.as_str())
    }

    /// The same as people are shown it: references as written.
    #[must_use]
    pub fn written(&self) -> &str {
        self.dir.as_ref().map_or(CHECKPOINT_DIR, |dir| dir.written.as_str())
    }
}

/// A key of `deployment:`, which people write beside it.
const MISPLACED: [&str; 1] = ["deployment_mode"];

/// The file as far as it can be read, and a report of what cannot. An error: there is nothing to plan.
pub(super) fn read(root: &Node, report: Report) -> Result<PipelineFile, Diagnostics> {
    let item = Item { report: &report, path: String::new(), key_span: Span { line: 1, column: 1, ..root.span }, node: root };
    let Some(job) = Section::open_but(item, &JOB_KEYS, &MISPLACED, "") else { return Err(report.failed()) };
    for key in MISPLACED.iter().filter_map(|key| root.get(key)) {
        let hint = format!("write deployment: {{{}: ...}}", key.key);
        report.error_with_hint(key.key_span, "", format!("{:?} is a key of deployment", key.key), hint);
    }
    let name = job.required("name").and_then(name);
    let parallelism = job.get("parallelism").and_then(|item| item.count(MOST_SUBTASKS));
    let plugins = job.get("plugins").and_then(plugins).unwrap_or_default();
    let engine = job.get("engine").and_then(engine).unwrap_or_default();
    let checkpoint = job.get("checkpoint").and_then(checkpoint);
    let restart = job.get("restart").and_then(restart);
    let deployment = job.get("deployment").map(deployment::settings).unwrap_or_default();
    let (functions, declared_functions) = job.get("functions").and_then(functions::read).unwrap_or_default();
    let mut unread = Unread { names: double_names(&job), sections: false };
    let mut sources = nodes_of(&job, "sources", nodes::source, &mut unread);
    let mut transforms = nodes_of(&job, "transforms", verbs::transform, &mut unread);
    let mut sinks = nodes_of(&job, "sinks", nodes::sink, &mut unread);
    sources.retain(|block| !unread.names.contains(&block.name.name));
    transforms.retain(|block| !unread.names.contains(&block.name.name));
    sinks.retain(|block| !unread.names.contains(&block.name.name));
    let nodes = sources.len() + transforms.len() + sinks.len();
    if nodes > MOST_NODES {
        report.error(job.span, "", format!("a pipeline has at most {MOST_NODES} nodes, this one has {nodes}"));
        return Err(report.failed());
    }
    let overridden = Vec::new();
    Ok(PipelineFile {
        report,
        name,
        parallelism,
        plugins,
        engine,
        checkpoint,
        restart,
        deployment,
        overridden,
        functions,
        declared_functions,
        sources,
        transforms,
        sinks,
        unread,
    })
}

/// Paths are shown wherever a plugin is not found; what a reference stands for must not be.
fn plugins(item: Item<'_>) -> Option<Vec<Text>> {
    let texts = item.texts()?;
    for text in texts.iter().filter(|text| text.secret) {
        let hint = "write it out, or use --plugin-path or STANDPIPE_PLUGIN_PATH";
        item.report.error_with_hint(text.span, &item.path, format!("{text:?}: a reference cannot be in the path of a plugin"), hint);
    }
    Some(texts)
}

/// Reads every node of a section, which must have one, except for transforms.
fn nodes_of<'a, T>(job: &Section<'a>, section: &str, read: impl Fn(&str, Item<'a>) -> Option<T>, unread: &mut Unread) -> Vec<T> {
    let optional = section == "transforms";
    let item = if optional { job.get(section) } else { job.required(section) };
    let Some(nodes) = item.and_then(Section::open_any) else {
        unread.sections |= section == "sources" || job.has(section) || job.is_meant(section);
        return Vec::new();
    };
    if nodes.items().next().is_none() && !optional {
        let what = section.trim_end_matches('s');
        nodes.report.error(nodes.span, &nodes.path, format!("a pipeline has at least one {what}"));
    }
    let mut found = Vec::new();
    for (name, item) in nodes.items() {
        match if check_name(name, &item) { read(name, item) } else { None } {
            Some(node) => found.push(node),
            None => _ = unread.names.insert(name.to_owned()),
        }
    }
    found
}

fn check_name(name: &str, item: &Item<'_>) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let good = first && rest && name.len() <= 100;
    if !good {
        let message = "a name begins with a letter and has letters, digits, _ and -, at most 100 of them";
        item.report.error(item.key_span, &item.path, message);
    }
    good
}

/// A name stands for one node, whatever the section: `NAME.errors` is of a source or a sink. Gives the names of several, reported.
fn double_names(job: &Section<'_>) -> HashSet<String> {
    let mut seen: HashMap<&str, String> = HashMap::new();
    let mut double = HashSet::new();
    for section in ["sources", "transforms", "sinks"] {
        let Some(entries) = job.get(section).and_then(|item| item.node.as_map()) else { continue };
        for entry in entries {
            let path = format!("{section}.{}", entry.key);
            if let Some(first) = seen.get(entry.key.as_str()) {
                job.report.error(entry.key_span, &path, format!("the name {:?} is taken by {first}", entry.key));
                double.insert(entry.key.clone());
            } else {
                seen.insert(&entry.key, path);
            }
        }
    }
    double
}

fn engine(item: Item<'_>) -> Option<EngineSettings> {
    let section = Section::open(item, &ENGINE_KEYS)?;
    let mut settings = EngineSettings::default();
    if let Some(value) = section.get("max_parallelism").and_then(|item| item.count(MOST_SUBTASKS)) {
        settings.max_parallelism = value.value;
    }
    if let Some(value) = section.get("batch_rows").and_then(|item| item.count(MOST_BATCH_ROWS)) {
        settings.batch_rows = value.value;
    }
    if let Some(item) = section.get("in_flight_bytes") {
        match item.size() {
            Some(At { value: 0, .. }) => item.error("must be more than 0B"),
            Some(size) => settings.in_flight_bytes = size.value,
            None => {}
        }
    }
    if let Some(item) = section.get("flush_interval") {
        match item.duration() {
            Some(At { value, .. }) if !(Duration::from_millis(1)..=Duration::from_secs(60)).contains(&value) => {
                item.error("must be from 1ms to 1m")
            }
            Some(interval) => settings.flush_interval = interval.value,
            None => {}
        }
    }
    if let Some(state) = section.get("state").and_then(state) {
        settings.state = state;
    }
    settings.metrics = section.get("metrics").and_then(address);
    Some(settings)
}

fn address(item: Item<'_>) -> Option<SocketAddr> {
    let text = item.text()?;
    let address = text.value.parse().ok();
    if address.is_none() {
        item.error("expected an address and a port, such as 127.0.0.1:9249");
    }
    address
}

fn state(item: Item<'_>) -> Option<StateBackend> {
    let section = Section::open(item, &STATE_KEYS)?;
    let on_disk = section.required("backend")?.word(&[("memory", false), ("disk", true)])?.value;
    let dir = section.get("dir").and_then(|item| item.text());
    let cache = section.get("cache").and_then(|item| {
        let size = item.size()?.value;
        if size < LEAST_CACHE {
            item.error("must be at least 1MiB");
        }
        Some(size)
    });
    if on_disk {
        return Some(StateBackend::Disk(DiskState { dir, cache: cache.unwrap_or(STATE_CACHE) }));
    }
    for (key, item) in section.items().filter(|(key, _)| ["dir", "cache"].contains(key)) {
        item.report.error(item.key_span, &section.path, format!("{key:?} means nothing to the backend memory"));
    }
    Some(StateBackend::Memory)
}

/// The job's name, which is in places of checkpoints, bundles and other machines' lists.
fn name(item: Item<'_>) -> Option<Text> {
    let name = item.text()?;
    if name.value.len() > LONGEST_NAME || name.value.chars().any(char::is_control) {
        item.error(format!("a job's name has up to {LONGEST_NAME} bytes and no control characters"));
        return None;
    }
    Some(name)
}

fn checkpoint(item: Item<'_>) -> Option<Checkpoint> {
    let section = Section::open(item, &CHECKPOINT_KEYS)?;
    let duration = |key: &str| section.get(key).and_then(positive);
    let min_pause = section.get("min_pause").and_then(|item| item.duration()).map(|pause| pause.value);
    let count = |key: &str, most| section.get(key).and_then(|item| item.count(most)).map(|count| count.value);
    let timeout = duration("timeout").unwrap_or(CHECKPOINT_TIMEOUT);
    let keep = count("keep", MOST_CHECKPOINTS).unwrap_or(CHECKPOINTS_KEPT);
    let tolerated_failures = count("tolerated_failures", u32::MAX);
    let dir = section.get("dir").and_then(|item| item.text());
    if let Some(dir) = dir.as_ref().filter(|dir| dir.value.is_empty()) {
        section.report.error(dir.span, &format!("{}.dir", section.path), "is empty");
    }
    if let Some(dir) = &dir
        && dir.value.split_once("://").is_some_and(|(scheme, rest)| !PLACES.contains(&scheme) || rest.is_empty())
    {
        let message = format!("{:?} is no place for checkpoints: use a folder, file://, s3://, gs:// or az://", dir.written);
        section.report.error(dir.span, &format!("{}.dir", section.path), message);
    }
    let interval = section.required("interval").and_then(positive)?;
    Some(Checkpoint { interval, dir, timeout, min_pause: min_pause.unwrap_or_default(), keep, tolerated_failures })
}

fn positive(item: Item<'_>) -> Option<Duration> {
    let duration = item.duration()?;
    if duration.value.is_zero() {
        item.error("must be more than 0s");
        return None;
    }
    Some(duration.value)
}

/// The strategies and the keys that each has.
const STRATEGIES: [(&str, &[&str]); 4] = [
    ("none", &["strategy"]),
    ("fixed-delay", &["strategy", "attempts", "delay"]),
    ("exponential-delay", &["strategy", "initial_delay", "max_delay", "multiplier"]),
    ("failure-rate", &["strategy", "failures", "interval", "delay"]),
];

fn restart(item: Item<'_>) -> Option<Restart> {
    let section = Section::open(item, &RESTART_KEYS)?;
    let (strategy, own) = section.required("strategy")?.word(&STRATEGIES.map(|strategy| (strategy.0, strategy)))?.value;
    for (key, item) in section.items().filter(|(key, _)| RESTART_KEYS.contains(key) && !own.contains(key)) {
        let message = format!("{key:?} means nothing to the strategy {strategy}, which has {}", own.join(", "));
        item.report.error(item.key_span, &section.path, message);
    }
    let count = |key: &str| section.required(key).and_then(|item| item.count(u32::MAX)).map(|count| count.value);
    let duration = |key: &str| section.required(key).and_then(|item| item.duration()).map(|duration| duration.value);
    let strategy = match strategy {
        "fixed-delay" => {
            let (attempts, delay) = (count("attempts"), duration("delay"));
            RestartStrategy::FixedDelay { attempts: attempts?, delay: delay? }
        }
        "exponential-delay" => {
            let (initial_delay, max_delay) = (duration("initial_delay"), duration("max_delay"));
            let multiplier = section.optional("multiplier", multiplier)?.unwrap_or(2.0);
            RestartStrategy::ExponentialDelay { initial_delay: initial_delay?, max_delay: max_delay?, multiplier }
        }
        "failure-rate" => {
            let (failures, interval, delay) = (count("failures"), duration("interval"), duration("delay"));
            RestartStrategy::FailureRate { failures: failures?, interval: interval?, delay: delay? }
        }
        _ => RestartStrategy::None,
    };
    Some(Restart { strategy, span: section.span })
}

#[allow(clippy::cast_precision_loss, reason = "a multiplier of that size is no multiplier")]
fn multiplier(item: Item<'_>) -> Option<f64> {
    let number = match &item.node.data {
        Data::Scalar(scalar) => match scalar.value {
            Value::Integer(number) => Some(number as f64),
            Value::Float(number) => Some(number),
            _ => None,
        },
        _ => None,
    };
    if !number.is_some_and(|number| number >= 1.0) {
        item.expected("a number from 1 on");
        return None;
    }
    number
}
