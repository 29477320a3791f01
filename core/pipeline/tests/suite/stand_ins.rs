//! The examples of the repository, and plugins that declare about as much as the real ones do, which this crate must not depend on.

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema};
use serde_json::Value;
use standpipe_loader::Catalogue;
use standpipe_sdk::{
    Call, Context, Error, Result, SingleSplit, Sink, SinkDeclaration, SinkInput, Source, SourceDeclaration, Split, Transform,
    TransformDeclaration, TransformInput, Written,
    export::Kind,
    source::{Capabilities, Encoding, Poll, PollLimits},
    transform::OutputDeclaration,
    wire::ChangeMode,
};
use std::{collections::BTreeMap, sync::Arc};

/// `examples/*.yaml`.
pub(crate) const EXAMPLES: [(&str, &str); 5] = [
    ("design", include_str!("../../../../examples/design.yaml")),
    ("signal-quality", include_str!("../../../../examples/signal-quality.yaml")),
    ("signal-quality-file", include_str!("../../../../examples/signal-quality-file.yaml")),
    ("word-count", include_str!("../../../../examples/word-count.yaml")),
    ("word-count-changes", include_str!("../../../../examples/word-count-changes.yaml")),
];

/// Everything that the examples name.
pub(crate) fn catalogue() -> Catalogue {
    let kinds = [
        Kind::source::<FileSource>(),
        Kind::source::<KafkaSource>(),
        Kind::transform::<SplitWords>(),
        Kind::transform::<Flag>(),
        Kind::transform::<RunLength>(),
        Kind::sink::<FileSink>(),
        Kind::sink::<PrintSink>(),
        Kind::sink::<ElasticsearchSink>(),
    ];
    Catalogue::linked("stand-ins", &kinds)
}

type Anything = BTreeMap<String, Value>;

fn never<T>() -> Result<T> {
    Err(Error::unsupported("declared, never run"))
}

/// The columns that `metadata` names: a list, or a map to names of one's own.
fn metadata(config: &Anything) -> Vec<Field> {
    let names: Vec<&str> = match config.get("metadata") {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(Value::Object(names)) => names.values().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    names.into_iter().map(|name| Field::new(name, DataType::Int64, false)).collect()
}

macro_rules! source {
    ($Kind:ident, $name:literal, $bounded:literal) => {
        struct $Kind;

        impl Source for $Kind {
            const NAME: &'static str = $name;
            type Config = Anything;
            type Enumerator = SingleSplit<Anything>;

            fn declare(config: &Anything) -> Result<SourceDeclaration> {
                let mut fields = vec![Field::new("value", DataType::Binary, false)];
                fields.extend(metadata(config));
                let capabilities = Capabilities { bounded: $bounded, replayable: true, ..Default::default() };
                Ok(SourceDeclaration {
                    encoding: Encoding::Records,
                    schema: Arc::new(Schema::new(fields)),
                    capabilities,
                    problems: Vec::new(),
                })
            }

            fn open(_: Anything, _: Context) -> Result<Self> {
                never()
            }

            fn assign(&mut self, _: Vec<Split>) -> Result<()> {
                never()
            }

            fn poll(&mut self, _: PollLimits) -> Result<Poll> {
                never()
            }
        }
    };
}

source!(FileSource, "file", true);
source!(KafkaSource, "kafka", false);

macro_rules! transform {
    ($Kind:ident, $name:literal, $fields:expr) => {
        struct $Kind;

        impl Transform for $Kind {
            const NAME: &'static str = $name;
            type Config = Anything;

            fn declare(config: &Anything, input: &TransformInput) -> Result<TransformDeclaration> {
                let fields: fn(&Anything, &Schema) -> Vec<Field> = $fields;
                let main = OutputDeclaration::main(Arc::new(Schema::new(fields(config, &input.only()?.schema))));
                Ok(TransformDeclaration { outputs: vec![main], ..Default::default() })
            }

            fn open(_: Anything, _: &TransformInput, _: Context) -> Result<Self> {
                never()
            }

            fn process(&mut self, _: RecordBatch, _: &mut Call<'_>) -> Result<()> {
                never()
            }
        }
    };
}

fn with(schema: &Schema, name: &str, data_type: DataType) -> Vec<Field> {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone());
    fields.chain([Field::new(name, data_type, true)]).collect()
}

transform!(SplitWords, "split-words", |_, _| vec![Field::new("word", DataType::Utf8, false)]);
transform!(Flag, "flag", |_, schema| with(schema, "flag", DataType::Int32));
transform!(RunLength, "run-length", |_, schema| with(schema, "length", DataType::Int64));

macro_rules! sink {
    ($Kind:ident, $name:literal, $encoding:expr, $accepts:expr) => {
        struct $Kind;

        impl Sink for $Kind {
            const NAME: &'static str = $name;
            type Config = Anything;

            fn declare(_: &Anything, _: &SinkInput) -> Result<SinkDeclaration> {
                Ok(SinkDeclaration { encoding: $encoding, accepts: $accepts.to_vec(), ..Default::default() })
            }

            fn open(_: Anything, _: &SinkInput, _: Context) -> Result<Self> {
                never()
            }

            fn write(&mut self, _: u64, _: &RecordBatch) -> Result<Written> {
                never()
            }

            fn flush(&mut self, _: u64) -> Result<()> {
                never()
            }
        }
    };
}

sink!(FileSink, "file", Encoding::Records, [ChangeMode::Append, ChangeMode::Upsert, ChangeMode::Retract]);
sink!(PrintSink, "print", Encoding::Records, [ChangeMode::Append, ChangeMode::Upsert, ChangeMode::Retract]);
sink!(ElasticsearchSink, "elasticsearch", Encoding::Rows, [ChangeMode::Append, ChangeMode::Upsert]);
