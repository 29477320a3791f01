//! A second plugin for the loader's tests: two libraries must not be taken for one. Its transform also serves as the cheapest call there is.
#![forbid(unsafe_code)]

use arrow_array::RecordBatch;
use standpipe_sdk::{Call, Context, Result, Transform, TransformDeclaration, TransformInput, transform::OutputDeclaration};

/// Passes rows on.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct PassConfig {}

struct Pass;

impl Transform for Pass {
    const NAME: &'static str = "other_pass";
    type Config = PassConfig;

    fn declare(_: &PassConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        Ok(TransformDeclaration { outputs: vec![OutputDeclaration::main(input.only()?.schema.clone())], ..Default::default() })
    }

    fn open(_: PassConfig, _: &TransformInput, _: Context) -> Result<Self> {
        Ok(Self)
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        call.emit(batch)
    }
}

standpipe_sdk::export_plugin! { transforms: [Pass] }
