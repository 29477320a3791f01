//! The source `countdown`: one column, `seconds`, from a number down to 1. The example of docs/first-plugin.md.

use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::source::{Capabilities, Encoding, Poll, PollLimits, SingleSplit, Source, SourceDeclaration, Split};
use standpipe_sdk::{Context, Result};
use std::sync::Arc;

standpipe_sdk::export_plugin! { sources: [Countdown] }

/// Counts down to 1.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CountdownConfig {
    /// The first number.
    pub from: u32,
}

/// The reader: it has one split, whose position is the number of rows given so far, as text.
pub struct Countdown {
    from: i64,
    split: Option<(String, i64)>,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("seconds", DataType::Int64, false)]))
}

impl Source for Countdown {
    const NAME: &'static str = "countdown";
    type Config = CountdownConfig;
    type Enumerator = SingleSplit<CountdownConfig>;

    fn declare(_: &CountdownConfig) -> Result<SourceDeclaration> {
        let capabilities = Capabilities { bounded: true, replayable: true, ordered: true, ..Capabilities::default() };
        Ok(SourceDeclaration { encoding: Encoding::Rows, schema: schema(), capabilities, problems: Vec::new() })
    }

    fn open(config: CountdownConfig, context: Context) -> Result<Self> {
        context.host.info("counting down", &[("from", config.from.into())]);
        Ok(Self { from: config.from.into(), split: None })
    }

    fn assign(&mut self, splits: Vec<Split>) -> Result<()> {
        for split in splits {
            let given = split.position.map_or(Ok(0), |position| String::from_utf8_lossy(&position).parse())?;
            self.split = Some((split.id, given));
        }
        Ok(())
    }

    fn poll(&mut self, limits: PollLimits) -> Result<Poll> {
        let Some((split, given)) = self.split.take() else { return Ok(Poll::Idle) };
        let rows = (self.from - given).min(limits.max_rows as i64);
        if rows <= 0 {
            return Ok(Poll::EndOfSplit(split));
        }
        let first = self.from - given;
        let numbers = Int64Array::from_iter_values((0..rows).map(|row| first - row));
        let batch = RecordBatch::try_new(schema(), vec![Arc::new(numbers)])?;
        self.split = Some((split.clone(), given + rows));
        Ok(Poll::Batch { split, batch, position: (given + rows).to_string().into_bytes(), watermark: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_sdk::testing::Harness;

    #[test]
    fn it_counts_down_and_goes_on_after_a_restart() {
        let mut source = Harness::source::<Countdown>(serde_json::json!({ "from": 3 }));
        source.assign().unwrap();
        source.poll(2).unwrap();
        source.restart();
        let rest = source.read_all().unwrap();
        assert_eq!(rest[0].num_rows(), 1);
    }
}
