//! A kind of a plugin: its tables, what it says about a configuration, and how instances of it are made. Cheap to clone.

use super::{
    DeploymentInstance, HostServices, InstanceContext, Origin, PluginError, SinkInstance, SourceEnumerator, SourceReader, Tables,
    TransformInstance, shield,
};
use crate::{Error, ErrorCode, Result, convert, wire, words};
use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use serde_json::Value;
use standpipe_abi::{
    self as abi, ArrowSchema, Buffer, Slice, Status, Validation, ValidationInput,
    deployment::DeploymentTable,
    sink::SinkTable,
    source::{EnumeratorTable, SourceTable},
    transform::TransformTable,
    validate::ValidateFn,
};
use std::{fmt, sync::Arc};

/// An input of a node, as `validate` and `open` are told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInput {
    /// Its columns.
    pub schema: SchemaRef,
    /// Where it comes from, its change mode, its key.
    pub details: wire::InputDetails,
}

/// What a source says about a configuration.
#[derive(Debug, Clone)]
pub struct SourceValidation {
    /// The columns of its batches; none if there are problems.
    pub schema: SchemaRef,
    /// Capabilities, encoding, problems.
    pub details: wire::ValidationDetails,
}

/// What a transform says about a configuration and its inputs.
#[derive(Debug, Clone)]
pub struct TransformValidation {
    /// The main output first; none if there are problems.
    pub outputs: Vec<(wire::OutputDetails, SchemaRef)>,
    /// Keyed state by slot.
    pub states: Vec<(wire::StateDetails, FieldRef)>,
    /// Capabilities, problems.
    pub details: wire::ValidationDetails,
}

/// What a sink says about a configuration and its input.
#[derive(Debug, Clone)]
pub struct SinkValidation {
    /// Capabilities, encoding, what it accepts, problems.
    pub details: wire::ValidationDetails,
}

/// The two tables of a source.
#[derive(Clone, Copy)]
pub(super) struct SourceTables {
    pub(super) reader: SourceTable,
    pub(super) enumerator: EnumeratorTable,
}

struct Kind<T> {
    origin: Arc<Origin>,
    config_schema: Value,
    table: T,
}

macro_rules! kind {
    ($(#[$doc:meta])* $Name:ident, $Table:ty, $section:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $Name(Arc<Kind<$Table>>);

        impl $Name {
            /// The name in pipelines.
            #[must_use]
            pub fn name(&self) -> &str {
                &self.0.origin.kind
            }

            /// The JSON Schema of its configuration.
            #[must_use]
            pub fn config_schema(&self) -> &Value {
                &self.0.config_schema
            }

            /// Which plugin it is of.
            #[must_use]
            pub fn origin(&self) -> &Arc<Origin> {
                &self.0.origin
            }

            fn make(plugin: &str, description: &wire::KindDescription, table: $Table) -> Self {
                let origin = Origin { plugin: plugin.to_owned(), section: $section, kind: description.name.clone() };
                Self(Arc::new(Kind { origin: Arc::new(origin), config_schema: description.config_schema.clone(), table }))
            }

            fn failure(&self, node: &str, error: Error) -> PluginError {
                PluginError::new(&self.0.origin, node, error)
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($Name), "({:?} of {})"), self.name(), self.0.origin.plugin)
            }
        }
    };
}

kind!(
    /// A source: validation, readers, enumerators.
    SourceKind,
    SourceTables,
    "sources"
);
kind!(
    /// A transform.
    TransformKind,
    TransformTable,
    "transforms"
);
kind!(
    /// A sink.
    SinkKind,
    SinkTable,
    "sinks"
);
kind!(
    /// A deployment mode.
    DeploymentKind,
    DeploymentTable,
    "deployments"
);

impl SourceKind {
    /// The source of these tables.
    ///
    /// # Errors
    /// When a table is missing, or a function in it: one line.
    pub fn new(plugin: &str, description: &wire::KindDescription, tables: &Tables<'_>) -> Result<Self, String> {
        Ok(Self::make(plugin, description, SourceTables { reader: tables.read("source/1")?, enumerator: tables.read("enumerator/1")? }))
    }

    /// Checks a configuration, references to secrets as written.
    ///
    /// # Errors
    /// When the plugin cannot say anything; wrong values are in `details.problems`.
    pub fn validate(&self, node: &str, config: &Value) -> Result<SourceValidation, PluginError> {
        let question = Question::new(node, &[], false).map_err(|error| self.failure(node, error))?;
        let answer = question.ask(&self.0.origin, node, self.0.table.reader.validate, config)?;
        let schema = match answer.outputs.into_iter().next() {
            Some((_, schema)) => schema,
            None if answer.details.problems.is_empty() => return Err(self.failure(node, broken("declares no output"))),
            None => Arc::new(Schema::empty()),
        };
        Ok(SourceValidation { schema, details: answer.details })
    }

    /// A reader, not open yet.
    ///
    /// # Errors
    /// When the configuration is wrong, or a secret cannot be resolved.
    pub fn reader(&self, config: &Value, context: &InstanceContext, host: Arc<dyn HostServices>) -> Result<SourceReader, PluginError> {
        let validation = self.validate(&context.node, config)?;
        no_problems(&self.0.origin, &context.node, &validation.details)?;
        SourceReader::create(self.0.origin.clone(), self.0.table.reader, validation.schema, config, context, host)
    }

    /// An enumerator, not open yet.
    ///
    /// # Errors
    /// As `reader`.
    pub fn enumerator(
        &self,
        config: &Value,
        context: &InstanceContext,
        host: Arc<dyn HostServices>,
    ) -> Result<SourceEnumerator, PluginError> {
        SourceEnumerator::create(self.0.origin.clone(), self.0.table.enumerator, config, context, host)
    }
}

impl TransformKind {
    /// The transform of this table.
    ///
    /// # Errors
    /// When the table is missing, or a function in it: one line.
    pub fn new(plugin: &str, description: &wire::KindDescription, tables: &Tables<'_>) -> Result<Self, String> {
        Ok(Self::make(plugin, description, tables.read("transform/1")?))
    }

    /// Checks a configuration against the inputs.
    ///
    /// # Errors
    /// When the plugin cannot say anything; wrong values are in `details.problems`.
    pub fn validate(&self, node: &str, config: &Value, inputs: &[NodeInput], keyed: bool) -> Result<TransformValidation, PluginError> {
        let question = Question::new(node, inputs, keyed).map_err(|error| self.failure(node, error))?;
        let answer = question.ask(&self.0.origin, node, self.0.table.validate, config)?;
        if answer.outputs.is_empty() && answer.details.problems.is_empty() {
            return Err(self.failure(node, broken("declares no output")));
        }
        Ok(TransformValidation { outputs: answer.outputs, states: answer.states, details: answer.details })
    }

    /// An instance, not open yet.
    ///
    /// # Errors
    /// When the configuration is wrong, or a secret cannot be resolved.
    pub fn instance(
        &self,
        config: &Value,
        node: &str,
        inputs: &[NodeInput],
        keyed: bool,
        context: &InstanceContext,
        host: Arc<dyn HostServices>,
    ) -> Result<TransformInstance, PluginError> {
        let validation = self.validate(node, config, inputs, keyed)?;
        no_problems(&self.0.origin, node, &validation.details)?;
        let question = Question::new(node, inputs, keyed).map_err(|error| self.failure(node, error))?;
        TransformInstance::create(self.0.origin.clone(), self.0.table, question, validation, config, context, host)
    }
}

impl SinkKind {
    /// The sink of this table.
    ///
    /// # Errors
    /// When the table is missing, or a function in it: one line.
    pub fn new(plugin: &str, description: &wire::KindDescription, tables: &Tables<'_>) -> Result<Self, String> {
        Ok(Self::make(plugin, description, tables.read("sink/1")?))
    }

    /// Checks a configuration against the rows of the input.
    ///
    /// # Errors
    /// When the plugin cannot say anything; wrong values are in `details.problems`.
    pub fn validate(&self, config: &Value, input: &NodeInput, node: &str) -> Result<SinkValidation, PluginError> {
        let question = Question::new(node, std::slice::from_ref(input), false).map_err(|error| self.failure(node, error))?;
        Ok(SinkValidation { details: question.ask(&self.0.origin, node, self.0.table.validate, config)?.details })
    }

    /// An instance, not open yet. `input` has the columns of the batches that it will get: rows, or `value` and the columns that it asked for.
    ///
    /// # Errors
    /// When the configuration is wrong, or a secret cannot be resolved.
    pub fn instance(
        &self,
        config: &Value,
        node: &str,
        input: &NodeInput,
        context: &InstanceContext,
        host: Arc<dyn HostServices>,
    ) -> Result<SinkInstance, PluginError> {
        let question = Question::new(node, std::slice::from_ref(input), false).map_err(|error| self.failure(node, error))?;
        SinkInstance::create(self.0.origin.clone(), self.0.table, question, input.schema.clone(), config, context, host)
    }
}

macro_rules! validate_bytes {
    ($Name:ident, |$table:ident| $validate:expr) => {
        impl $Name {
            /// As `validate`, with a configuration that may be any bytes, and so may be the JSON that tells of the inputs; none: as it is. What a plugin does with nonsense.
            ///
            /// # Errors
            /// When the plugin cannot say anything; wrong values are in `problems`.
            pub fn validate_bytes(
                &self,
                config: &[u8],
                inputs: &[NodeInput],
                told: Option<&[u8]>,
            ) -> Result<wire::ValidationDetails, PluginError> {
                let keyed = inputs.iter().any(|input| !input.details.key.is_empty());
                let mut question = Question::new("node", inputs, keyed).map_err(|error| self.failure("node", error))?;
                if let Some(told) = told {
                    question.details = told.to_vec();
                }
                let $table = &self.0.table;
                Ok(question.ask_bytes(&self.0.origin, "node", $validate, config)?.details)
            }
        }
    };
}

validate_bytes!(SourceKind, |tables| tables.reader.validate);
validate_bytes!(TransformKind, |table| table.validate);
validate_bytes!(SinkKind, |table| table.validate);

impl DeploymentKind {
    /// The mode of this table.
    ///
    /// # Errors
    /// When the table is missing, or a function in it: one line.
    pub fn new(plugin: &str, description: &wire::KindDescription, tables: &Tables<'_>) -> Result<Self, String> {
        Ok(Self::make(plugin, description, tables.read("deployment/1")?))
    }

    /// Checks a configuration, a JSON object of flat dotted keys. No I/O.
    ///
    /// # Errors
    /// When the plugin cannot say anything; wrong values are in `problems`.
    pub fn validate(&self, config: &Value) -> Result<wire::DeploymentDetails, PluginError> {
        self.validate_bytes(config.to_string().as_bytes())
    }

    /// As `validate`, of any bytes: what a plugin does with nonsense.
    ///
    /// # Errors
    /// As `validate`.
    pub fn validate_bytes(&self, config: &[u8]) -> Result<wire::DeploymentDetails, PluginError> {
        let (mut out, mut error) = (Buffer::EMPTY, abi::Error::empty());
        // SAFETY: the plugin's function, called as its contract says.
        let status = unsafe { (self.0.table.validate)(Slice::new(config), &raw mut out, &raw mut error) };
        if status != Status::OK {
            return Err(PluginError::read(&self.0.origin, "", &error));
        }
        let unknown = |error: serde_json::Error| self.failure("", broken(&format!("answers validate with unknown JSON: {error}")));
        serde_json::from_slice(out.as_bytes()).map_err(unknown)
    }

    /// An instance with that configuration, in which `${` stands for a reference and `$${` for itself.
    ///
    /// # Errors
    /// When the configuration is wrong, or a reference in it cannot be resolved.
    pub fn instance(&self, config: &Value, host: Arc<dyn HostServices>) -> Result<DeploymentInstance, PluginError> {
        DeploymentInstance::create(self.0.origin.clone(), self.0.table, config, host)
    }
}

/// What `validate` and `open` are asked: schemas and details of the inputs in their C form.
pub(super) struct Question {
    pub(super) node: String,
    pub(super) keyed: bool,
    pub(super) schemas: Vec<SchemaRef>,
    exported: Vec<ArrowSchema>,
    details: Vec<u8>,
}

/// What `validate` answered.
struct Answer {
    details: wire::ValidationDetails,
    outputs: Vec<(wire::OutputDetails, SchemaRef)>,
    states: Vec<(wire::StateDetails, FieldRef)>,
}

impl Question {
    fn new(node: &str, inputs: &[NodeInput], keyed: bool) -> Result<Self> {
        let details = wire::ValidationInputDetails {
            node: node.to_owned(),
            inputs: inputs.iter().map(|input| input.details.clone()).collect(),
            keyed,
        };
        Ok(Self {
            node: node.to_owned(),
            keyed,
            schemas: inputs.iter().map(|input| input.schema.clone()).collect(),
            exported: inputs.iter().map(|input| convert::export_schema(&input.schema)).collect::<Result<_>>()?,
            details: serde_json::to_vec(&details)?,
        })
    }

    /// Lends the question to a call.
    pub(super) fn lend<R>(&self, call: impl FnOnce(&ValidationInput) -> R) -> R {
        let inputs: Vec<*const ArrowSchema> = self.exported.iter().map(std::ptr::from_ref).collect();
        call(&ValidationInput {
            size: size_of::<ValidationInput>() as u32,
            n_inputs: inputs.len() as u32,
            inputs: inputs.as_ptr(),
            details: Slice::new(&self.details),
        })
    }

    fn ask(&self, origin: &Arc<Origin>, node: &str, validate: ValidateFn, config: &Value) -> Result<Answer, PluginError> {
        self.ask_bytes(origin, node, validate, config.to_string().as_bytes())
    }

    fn ask_bytes(&self, origin: &Arc<Origin>, node: &str, validate: ValidateFn, config: &[u8]) -> Result<Answer, PluginError> {
        let (mut out, mut error) = (Validation::empty(), abi::Error::empty());
        let status = self.lend(|input| {
            // SAFETY: the plugin's function, called as its contract says.
            unsafe { validate(Slice::new(config), input, &raw mut out, &raw mut error) }
        });
        if status != Status::OK {
            return Err(PluginError::read(origin, node, &error));
        }
        sensible(|| Answer::read(&origin.plugin, &out)).map_err(|error| PluginError::new(origin, node, error))
    }
}

impl Answer {
    fn read(plugin: &str, out: &Validation) -> Result<Self> {
        let details = out.details.as_bytes();
        let mut details: wire::ValidationDetails = match details {
            [] => wire::ValidationDetails::default(),
            details => words::answer(plugin, details)?,
        };
        // SAFETY: the plugin keeps the rules of the Arrow C data interface.
        let (outputs, states) = unsafe { (convert::import_fields(&raw const out.outputs)?, convert::import_fields(&raw const out.state)?) };
        if details.outputs.is_empty() {
            let named = |field: &FieldRef| wire::OutputDetails { name: field.name().clone(), mode: wire::ChangeMode::Append };
            details.outputs = outputs.iter().map(named).collect();
        }
        let (n_outputs, n_states) = (details.outputs.len(), details.states.len());
        if outputs.len() != n_outputs || states.len() != n_states {
            let counts = format!("{n_outputs} outputs and {n_states} states with {} and {} schemas", outputs.len(), states.len());
            return Err(broken(&format!("declares {counts}")));
        }
        let outputs = details
            .outputs
            .iter()
            .cloned()
            .zip(outputs)
            .map(|(output, field)| match field.data_type() {
                DataType::Struct(fields) => {
                    Ok((output, Arc::new(Schema::new_with_metadata(fields.clone(), field.metadata().clone())) as SchemaRef))
                }
                other => Err(broken(&format!("declares the output {:?} as {other}, not as a struct", output.name))),
            })
            .collect::<Result<Vec<_>>>()?;
        let names: Vec<&str> = details.states.iter().map(|state| state.name.as_str()).collect();
        // A checkpoint has files of that name.
        let is_name = |name: &str| {
            !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        if let Some(name) = names.iter().find(|name| !is_name(name) || names.iter().filter(|other| other == name).count() > 1) {
            return Err(broken(&format!(
                "declares the state {name:?}: a name has up to 64 ASCII letters, digits, `_` and `-`, and is there once"
            )));
        }
        let states = details.states.iter().cloned().zip(states).collect();
        Ok(Self { details, outputs, states })
    }
}

/// Reads what a plugin gave. The Arrow library panics on some of what makes no sense.
pub(super) fn sensible<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    shield(None, || Some(read())).unwrap_or_else(|| Err(broken("gives Arrow data that makes no sense")))
}

/// A plugin that does not keep the contract.
pub(super) fn broken(what: &str) -> Error {
    Error::new(ErrorCode::OTHER, format!("breaks the plugin contract: it {what}"))
}

fn no_problems(origin: &Arc<Origin>, node: &str, details: &wire::ValidationDetails) -> Result<(), PluginError> {
    match details.problems.first() {
        None => Ok(()),
        Some(problem) => {
            let mut error = Error::config(problem.path.clone(), problem.message.clone());
            if let Some(suggestion) = &problem.suggestion {
                error = error.with("suggestion", suggestion.as_str());
            }
            Err(PluginError::new(origin, node, error))
        }
    }
}
