//! What the cost `plugin-calls` calls: a transform that does nothing, and two that do next to nothing with keyed state. It is in the plugin `calls` and in the driver, which calls the same
//! functions directly too. A package of its own: so the plugin is built without what the driver needs.
#![forbid(unsafe_code)]

use arrow_array::{ArrayRef, RecordBatch, StringArray, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field};
use standpipe_sdk::{
    Call, Context, Result, Transform, TransformDeclaration, TransformInput,
    transform::{OutputDeclaration, StateDeclaration, StateKind},
};
use std::sync::Arc;

/// None.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct NoConfig {}

/// Gives each batch as it came.
pub struct Empty;

impl Transform for Empty {
    const NAME: &'static str = "calls-empty";
    type Config = NoConfig;

    fn declare(_: &NoConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        declared(input, None)
    }

    fn open(_: NoConfig, _: &TransformInput, _: Context) -> Result<Self> {
        Ok(Self)
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        call.emit(batch)
    }
}

/// Adds 1 to the number of a row's key.
pub struct Numbers;

impl Transform for Numbers {
    const NAME: &'static str = "calls-numbers";
    type Config = NoConfig;

    fn declare(_: &NoConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        declared(input, Some(DataType::Int64))
    }

    fn open(_: NoConfig, _: &TransformInput, _: Context) -> Result<Self> {
        Ok(Self)
    }

    fn process(&mut self, _: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let count = call.value::<Int64Type>(0)?;
        for key in call.keys().into_iter().flat_map(|keys| keys.key_of_row()) {
            count.set(*key, count.get(*key).unwrap_or_default() + 1);
        }
        Ok(())
    }
}

/// Reads the text of each key, and writes it longer by a character, up to ten.
pub struct Texts;

impl Transform for Texts {
    const NAME: &'static str = "calls-texts";
    type Config = NoConfig;

    fn declare(_: &NoConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        declared(input, Some(DataType::Utf8))
    }

    fn open(_: NoConfig, _: &TransformInput, _: Context) -> Result<Self> {
        Ok(Self)
    }

    fn process(&mut self, _: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let Some(keys) = call.keys() else { return Ok(()) };
        let ordinals: Vec<u32> = (0..keys.len() as u32).collect();
        let longer = longer(&call.values_get(0, &ordinals)?);
        call.values_set(0, &ordinals, &longer)
    }
}

/// What [`Texts`] makes of them.
pub fn longer(texts: &ArrayRef) -> ArrayRef {
    let texts = texts.as_string::<i32>();
    let longer = |text: Option<&str>| text.filter(|text| text.len() < 10).map_or_else(|| "x".to_owned(), |text| format!("{text}x"));
    Arc::new(StringArray::from_iter_values(texts.iter().map(longer)))
}

fn declared(input: &TransformInput, state_type: Option<DataType>) -> Result<TransformDeclaration> {
    let state = |data_type| StateDeclaration {
        name: "state".to_owned(),
        kind: StateKind::Value,
        field: Arc::new(Field::new("item", data_type, true)),
        version: 0,
        time_to_live: None,
    };
    let outputs = vec![OutputDeclaration::main(Arc::clone(&input.only()?.schema))];
    let states: Vec<_> = state_type.into_iter().map(state).collect();
    Ok(TransformDeclaration { outputs, requires_key: !states.is_empty(), states, ..Default::default() })
}
