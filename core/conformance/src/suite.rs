//! The suite: a kind, what it is tried with, and the checks in their order.

use crate::{
    aggregate,
    check::{Check, try_check},
    data::Random,
    deployment,
    process::Endurance,
    report::{Finding, Report, Verdict},
    scalar, sink, source, transform,
    watch::Secrets,
};
use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use serde_json::{Value, json};
use standpipe_sdk::{
    hosting::{AggregateKind, DeploymentKind, InstanceContext, ScalarKind, SinkKind, SourceKind, TransformKind},
    wire::{Capabilities, ChangeMode},
};
use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Jobs that were played. Each has a name that none had before: what a former run has left behind is not its own.
static JOBS: AtomicU64 = AtomicU64::new(0);
/// When this process began to play them, microseconds since the epoch.
static BEGUN: LazyLock<u64> =
    LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or_default()));

/// What is tried: a kind of any plugin, of a file or of a type in the same program.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Subject {
    /// A source with its enumerator.
    Source(SourceKind),
    /// A transform.
    Transform(TransformKind),
    /// A sink.
    Sink(SinkKind),
    /// A scalar function.
    Scalar(ScalarKind),
    /// An aggregate function.
    Aggregate(AggregateKind),
    /// A deployment mode.
    Deployment(DeploymentKind),
}

macro_rules! subject {
    ($($Kind:ident => $Variant:ident, $word:literal;)*) => {
        $(impl From<$Kind> for Subject {
            fn from(kind: $Kind) -> Self {
                Self::$Variant(kind)
            }
        })*

        impl Subject {
            /// `source`, `transform`, `sink`, `scalar`, `aggregate` or `deployment`.
            #[must_use]
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$Variant(_) => $word,)*
                }
            }

            /// The name in pipelines.
            #[must_use]
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$Variant(kind) => kind.name(),)*
                }
            }

            /// The JSON Schema of its configuration.
            #[must_use]
            pub fn config_schema(&self) -> &Value {
                match self {
                    $(Self::$Variant(kind) => kind.config_schema(),)*
                }
            }
        }
    };
}

subject! {
    SourceKind => Source, "source";
    TransformKind => Transform, "transform";
    SinkKind => Sink, "sink";
    ScalarKind => Scalar, "scalar";
    AggregateKind => Aggregate, "aggregate";
    DeploymentKind => Deployment, "deployment";
}

/// The kind cannot be tried: its configuration is refused, or no input was found that it takes. One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable(pub String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// What a suite is told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) config: Value,
    pub(crate) schema: Option<SchemaRef>,
    pub(crate) rows: Vec<RecordBatch>,
    pub(crate) key: Vec<String>,
    pub(crate) mode: ChangeMode,
    pub(crate) format: Option<Value>,
    pub(crate) arguments: Option<Vec<DataType>>,
    pub(crate) seed: u64,
    pub(crate) endurance: Endurance,
    pub(crate) deadline: Duration,
    pub(crate) secrets: Secrets,
}

impl Settings {
    pub(crate) const fn random(&self) -> Random {
        Random::new(self.seed)
    }

    /// A subtask alone: of a new job at its first start, else of the last one.
    pub(crate) fn context(&self, generation: u64) -> InstanceContext {
        let job = JOBS.fetch_add(u64::from(generation == 1), SeqCst) + u64::from(generation == 1);
        InstanceContext {
            job_id: format!("{:016x}{job:016x}", *BEGUN),
            job_name: format!("conformance-{:x}-{job}", *BEGUN),
            node: "node".to_owned(),
            subtask: 0,
            parallelism: 1,
            max_parallelism: 128,
            generation,
            restored: generation > 1,
        }
    }
}

/// Tries a kind: with its configuration, and what it is given.
///
/// ```
/// # use standpipe_sdk::{Call, Context, Result, Transform, TransformDeclaration, TransformInput, transform::{Capabilities, OutputDeclaration}};
/// # #[derive(serde::Deserialize, schemars::JsonSchema)]
/// # #[serde(deny_unknown_fields)]
/// # struct PassConfig {}
/// # struct Pass;
/// # impl Transform for Pass {
/// #     const NAME: &'static str = "pass";
/// #     type Config = PassConfig;
/// #     fn declare(_: &PassConfig, input: &TransformInput) -> Result<TransformDeclaration> {
/// #         let main = OutputDeclaration::main(input.only()?.schema.clone());
/// #         let capabilities = Capabilities { deterministic: true, ..Default::default() };
/// #         Ok(TransformDeclaration { outputs: vec![main], capabilities, ..Default::default() })
/// #     }
/// #     fn open(_: PassConfig, _: &TransformInput, _: Context) -> Result<Self> { Ok(Self) }
/// #     fn process(&mut self, batch: arrow_array::RecordBatch, call: &mut Call<'_>) -> Result<()> { call.emit(batch) }
/// # }
/// use standpipe_conformance::Suite;
/// use standpipe_sdk::testing::Harness;
///
/// // In a test of the crate that has the transform `Pass`.
/// let report = Suite::new(Harness::transform_kind::<Pass>(), serde_json::json!({})).batches(500).run();
/// report.assert_passed();
/// ```
pub struct Suite {
    subject: Subject,
    settings: Settings,
    only: Vec<String>,
}

impl Suite {
    /// A kind with that configuration.
    pub fn new(subject: impl Into<Subject>, config: Value) -> Self {
        let settings = Settings {
            config,
            schema: None,
            rows: Vec::new(),
            key: Vec::new(),
            mode: ChangeMode::Append,
            format: Some(json!({"type": "json"})),
            arguments: None,
            seed: 1,
            endurance: Endurance { batches: 20_000, time: Some(Duration::from_secs(20)) },
            deadline: Duration::from_secs(5),
            secrets: Secrets::default(),
        };
        Self { subject: subject.into(), settings, only: Vec::new() }
    }

    /// The columns of its input, of which rows are made up. Without it a schema is sought that the plugin takes.
    #[must_use]
    pub fn schema(mut self, schema: SchemaRef) -> Self {
        self.settings.schema = Some(schema);
        self
    }

    /// Its input, in place of rows that are made up. All batches are of one schema.
    #[must_use]
    pub fn input(mut self, batches: Vec<RecordBatch>) -> Self {
        self.settings.schema = batches.first().map(RecordBatch::schema).or(self.settings.schema);
        self.settings.rows = batches;
        self
    }

    /// The columns of `key_by`, or of the key of an upsert stream.
    #[must_use]
    pub fn key(mut self, columns: &[&str]) -> Self {
        self.settings.key = columns.iter().map(|column| (*column).to_owned()).collect();
        self
    }

    /// The change mode of its input.
    #[must_use]
    pub const fn mode(mut self, mode: ChangeMode) -> Self {
        self.settings.mode = mode;
        self
    }

    /// The pipeline's `format` in its long form, for a sink that writes files; JSON if nobody says.
    #[must_use]
    pub fn format(mut self, format: Option<Value>) -> Self {
        self.settings.format = format;
        self
    }

    /// The types of a function's arguments. Without it some are sought that it takes.
    #[must_use]
    pub fn arguments(mut self, types: &[DataType]) -> Self {
        self.settings.arguments = Some(types.to_vec());
        self
    }

    /// Another seed gives other rows.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// How many batches the search for leaks takes. Without it 20000, or as many as fit in 20 seconds.
    #[must_use]
    pub const fn batches(mut self, batches: u64) -> Self {
        self.settings.endurance = Endurance { batches, time: None };
        self
    }

    /// Within what a call comes back that has been cancelled, or is to wait no longer. 5 seconds if nobody says.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// What references in the configuration (`${env:PASSWORD}`) stand for. Without it none can be resolved.
    #[must_use]
    pub fn secrets(mut self, resolve: impl Fn(&str) -> Result<(String, u64), String> + Send + Sync + 'static) -> Self {
        self.settings.secrets = Secrets(Arc::new(resolve));
        self
    }

    /// These checks alone; none: all.
    #[must_use]
    pub fn only(mut self, checks: &[&str]) -> Self {
        self.only = checks.iter().map(|check| (*check).to_owned()).collect();
        self
    }

    /// What is tried.
    #[must_use]
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The columns of its input, if it was told any.
    #[must_use]
    pub fn input_schema(&self) -> Option<SchemaRef> {
        self.settings.schema.clone()
    }

    /// Tries everything. What cannot be tried at all is a failure of the check `configuration`.
    #[must_use]
    pub fn run(self) -> Report {
        let (kind, name) = (self.subject.kind().to_owned(), self.subject.name().to_owned());
        let findings = match self.prepare() {
            Ok(ready) => ready.checks().iter().map(|check| ready.run(check.name)).collect(),
            Err(why) => vec![Finding::new("configuration", Verdict::Failed, why.0)],
        };
        Report { kind, name, findings }
    }

    /// Asks the plugin about the configuration and looks for an input that it takes.
    ///
    /// # Errors
    /// When there is none: one line.
    pub fn prepare(self) -> Result<Ready, Unusable> {
        let missing = crate::configuration::missing(&self.settings.config, self.subject.config_schema());
        if !missing.is_empty() {
            let keys = missing.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join(", ");
            return Err(Unusable(format!("it needs a configuration: {keys} must be given")));
        }
        let tried: Box<dyn Tried + Send> = match self.subject {
            Subject::Source(kind) => Tries::boxed(source::case(kind, self.settings)?, source::CHECKS),
            Subject::Transform(kind) => Tries::boxed(transform::case(kind, self.settings)?, transform::CHECKS),
            Subject::Sink(kind) => Tries::boxed(sink::case(kind, self.settings)?, sink::CHECKS),
            Subject::Scalar(kind) => Tries::boxed(scalar::case(kind, self.settings)?, scalar::CHECKS),
            Subject::Aggregate(kind) => Tries::boxed(aggregate::case(kind, self.settings)?, aggregate::CHECKS),
            Subject::Deployment(kind) => Tries::boxed(deployment::case(kind, self.settings)?, deployment::CHECKS),
        };
        Ok(Ready { tried, only: self.only })
    }
}

/// A check that a suite has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its name: `positions`.
    pub name: &'static str,
    /// What a host relies on.
    pub about: &'static str,
}

/// The checks of a kind of plugin: `source`, `transform`, `sink`, `scalar`, `aggregate` or `deployment`; of any other there are none.
#[must_use]
pub fn checks(kind: &str) -> Vec<Listed> {
    match kind {
        "source" => listed(source::CHECKS),
        "transform" => listed(transform::CHECKS),
        "sink" => listed(sink::CHECKS),
        "scalar" => listed(scalar::CHECKS),
        "aggregate" => listed(aggregate::CHECKS),
        "deployment" => listed(deployment::CHECKS),
        _ => Vec::new(),
    }
}

fn listed<C>(checks: &[Check<C>]) -> Vec<Listed> {
    checks.iter().map(|check| Listed { name: check.name, about: check.about }).collect()
}

/// A kind whose configuration and input are good: it can be tried, check by check.
pub struct Ready {
    tried: Box<dyn Tried + Send>,
    only: Vec<String>,
}

impl Ready {
    /// The checks that are to be run, in their order.
    #[must_use]
    pub fn checks(&self) -> Vec<Listed> {
        let mut checks = self.tried.checks();
        checks.retain(|check| self.only.is_empty() || self.only.iter().any(|only| only == check.name));
        checks
    }

    /// What the kind declares with this configuration, a word each: `bounded`, `replayable`, `takes upsert`.
    #[must_use]
    pub fn declares(&self) -> Vec<String> {
        self.tried.declares()
    }

    /// Runs a check. One that there is not is skipped.
    #[must_use]
    pub fn run(&self, check: &str) -> Finding {
        self.tried.run(check)
    }
}

trait Tried {
    fn declares(&self) -> Vec<String>;
    fn checks(&self) -> Vec<Listed>;
    fn run(&self, check: &str) -> Finding;
}

/// A case, as its checks look at it.
struct Tries<C: 'static> {
    case: Arc<C>,
    checks: &'static [Check<C>],
    patience: Duration,
}

/// What a case has been told.
pub(crate) trait Case: Send + Sync + 'static {
    /// How long a check may take besides some deadlines: it makes some dozen calls, of which hardly any waits.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn settings(&self) -> &Settings;
    /// See [`Ready::declares`].
    fn declares(&self) -> Vec<String>;
}

/// Capabilities that a kind has, as words of the contract.
pub(crate) fn capabilities(can: Capabilities) -> Vec<String> {
    let words = [
        ("bounded", can.bounded),
        ("replayable", can.replayable),
        ("rewinds", can.rewinds),
        ("transactional", can.transactional),
        ("idempotent", can.idempotent),
        ("ordered", can.ordered),
        ("needs_log", can.needs_log),
        ("deterministic", can.deterministic),
    ];
    words.into_iter().filter(|(_, has)| *has).map(|(word, _)| word.to_owned()).collect()
}

/// Change modes besides append that a kind takes.
pub(crate) fn modes(accepts: &[ChangeMode]) -> impl Iterator<Item = String> {
    accepts.iter().filter(|mode| **mode != ChangeMode::Append).map(|mode| format!("takes {}", format!("{mode:?}").to_lowercase()))
}

impl<C: Case> Tries<C> {
    fn boxed(case: C, checks: &'static [Check<C>]) -> Box<dyn Tried + Send> {
        let patience = case.settings().deadline.saturating_mul(6) + C::PATIENCE;
        Box::new(Self { case: Arc::new(case), checks, patience })
    }
}

impl<C: Case> Tried for Tries<C> {
    fn declares(&self) -> Vec<String> {
        self.case.declares()
    }

    fn checks(&self) -> Vec<Listed> {
        listed(self.checks)
    }

    fn run(&self, name: &str) -> Finding {
        let Some(check) = self.checks.iter().find(|check| check.name == name) else {
            return Finding::new(name, Verdict::Skipped, "there is no such check");
        };
        let patience = match name {
            crate::LEAKS => Duration::from_secs(24 * 3600),
            // It has been told to come back.
            crate::CANCELLATION => self.case.settings().deadline + crate::UNTIL_CANCELLED + Duration::from_secs(2),
            _ => self.patience,
        };
        try_check(check, &self.case, patience)
    }
}
