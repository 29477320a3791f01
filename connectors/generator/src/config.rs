//! The generator's configuration and what may be wrong with it. What the fields give is in [`crate::columns`].

use crate::time::{parse_duration, parse_time};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::{is_reference, wire::Problem};
use std::collections::BTreeMap;

/// The time of row 0, unless the configuration says otherwise.
const DEFAULT_START: &str = "2024-01-01 00:00:00";
/// The time between two rows, unless the configuration says otherwise: one second.
const DEFAULT_STEP_MICROS: i64 = 1_000_000;
/// Rows per second at most: more than any machine makes.
const HIGHEST_RATE: f64 = 1e9;
/// The longest random string.
const LONGEST_STRING: u32 = 65_536;

/// Makes rows up: the same ones in every run with the same seed.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct GeneratorConfig {
    /// Rows per second, all splits together, 1000000000 at most. Without it rows come as fast as they are taken.
    pub rate: Option<f64>,
    /// Rows, all splits together. Without it there is no end.
    pub count: Option<u64>,
    /// Another seed gives other random values.
    #[serde(default)]
    pub seed: u64,
    /// Splits, so many subtasks can share the work. The rows are the same for any number.
    #[serde(default = "default_splits")]
    pub splits: u32,
    /// The time of the first row, for fields of time: `2024-01-31 23:59:59`, ISO 8601, or `now`, the time at which the job is first started.
    pub start: Option<String>,
    /// The time between a row and the next, for fields of time: `100ms`. By default 1 / rate, or one second without a rate.
    pub step: Option<String>,
    /// The columns by name; their order is that of the alphabet.
    #[serde(default)]
    pub fields: BTreeMap<String, FieldKind>,
    /// A set of fields that is known by a name, in place of `fields`.
    pub preset: Option<Preset>,
}

const fn default_splits() -> u32 {
    1
}

/// A known set of fields.
#[derive(Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Signals of the demo: `createTime` (text), `baselineId` (int32, one of 42, 22, 5, 11, 3), `signalValue` (float32). Blocks of 60 rows alternate between uniform
    /// noise in [-1, 1] and one period of a sine.
    Signal,
}

/// What a column holds.
#[derive(Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FieldKind {
    /// int64: `start`, `start + step`, ...
    Sequence {
        /// In the first row.
        #[serde(default)]
        start: i64,
        /// From a row to the next.
        #[serde(default = "default_sequence_step")]
        step: i64,
    },
    /// int64, each from `min` to `max`, both included, equally likely.
    UniformInt {
        /// The smallest.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// float64, from `min` up to but not including `max`.
    UniformFloat {
        /// The smallest.
        min: f64,
        /// The limit above.
        max: f64,
    },
    /// float64, normally distributed.
    Normal {
        /// The mean.
        #[serde(default)]
        mean: f64,
        /// The standard deviation.
        #[serde(default = "default_deviation")]
        deviation: f64,
    },
    /// One of the values, equally likely: all strings, integers (int64), numbers (float64) or booleans.
    Choice {
        /// The values.
        values: Vec<serde_json::Value>,
    },
    /// Random small letters.
    String {
        /// How many.
        length: u32,
    },
    /// True with a probability.
    Boolean {
        /// From 0 to 1.
        #[serde(default = "default_probability")]
        probability: f64,
    },
    /// The row's time: `start` and `step` of the generator.
    Timestamp {
        /// As text `YYYY-MM-DD HH:MM:SS` instead of a timestamp.
        #[serde(default)]
        text: bool,
    },
    /// The same value in every row: a string, integer (int64), number (float64) or boolean.
    Constant {
        /// The value.
        value: serde_json::Value,
    },
}

const fn default_sequence_step() -> i64 {
    1
}

const fn default_deviation() -> f64 {
    1.0
}

const fn default_probability() -> f64 {
    0.5
}

/// The time of the first row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// When the job is first started.
    Now,
    /// Microseconds since the epoch.
    At(i64),
}

impl GeneratorConfig {
    /// The time of the first row.
    ///
    /// # Errors
    /// When it is no time.
    pub fn start(&self) -> Result<Start, String> {
        match self.start.as_deref() {
            Some("now") => Ok(Start::Now),
            text => parse_time(text.unwrap_or(DEFAULT_START)).map(Start::At),
        }
    }

    /// The time between two rows, microseconds.
    ///
    /// # Errors
    /// When it is no duration.
    pub fn step(&self) -> Result<i64, String> {
        match (&self.step, self.rate) {
            (Some(text), _) => parse_duration(text),
            (None, Some(rate)) => Ok((1e6 / rate).round() as i64),
            (None, None) => Ok(DEFAULT_STEP_MICROS),
        }
    }

    /// Everything that is wrong.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |path: &str, message: String| problems.push(Problem { path: path.to_owned(), message, suggestion: None });
        if let Some(rate) = self.rate
            && !(rate > 0.0 && rate.is_finite())
        {
            wrong("rate", format!("{rate} is not above 0"));
        } else if let Some(rate) = self.rate.filter(|rate| *rate > HIGHEST_RATE) {
            wrong("rate", format!("{rate:e} is above {HIGHEST_RATE} rows per second; without a rate rows come as fast as they are taken"));
        }
        if self.splits == 0 {
            wrong("splits", "0 is too few".to_owned());
        }
        let is_plain = |text: &Option<String>| !text.as_deref().is_some_and(is_reference);
        if is_plain(&self.start)
            && let Err(message) = self.start()
        {
            wrong("start", message);
        }
        if is_plain(&self.step)
            && let Err(message) = self.step()
        {
            wrong("step", message);
        }
        match (self.preset, self.fields.is_empty()) {
            (None, true) => wrong("fields", "is missing: the columns by name, or a preset".to_owned()),
            (Some(_), false) => wrong("fields", "and preset exclude each other".to_owned()),
            _ => {}
        }
        for (name, kind) in &self.fields {
            if let Err((member, message)) = kind.check() {
                wrong(&format!("fields.{name}.{member}"), message);
            }
        }
        problems
    }
}

impl FieldKind {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let wrong = |member, message| Err((member, message));
        match self {
            Self::UniformInt { min, max } if min > max => wrong("max", format!("{max} is below min, {min}")),
            Self::UniformFloat { min, max } if !(min <= max && (max - min).is_finite()) => {
                wrong("max", format!("{max} is below min, {min}, or too far from it"))
            }
            Self::Normal { deviation, .. } if *deviation < 0.0 => wrong("deviation", format!("{deviation} is below 0")),
            Self::Boolean { probability } if !(0.0..=1.0).contains(probability) => {
                wrong("probability", format!("{probability} is not between 0 and 1"))
            }
            Self::String { length } if *length > LONGEST_STRING => wrong("length", format!("{length} is above {LONGEST_STRING}")),
            Self::Choice { values } => crate::columns::Values::of(values).map(drop).map_err(|message| ("values", message)),
            Self::Constant { value } => {
                crate::columns::Values::of(std::slice::from_ref(value)).map(drop).map_err(|message| ("value", message))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn problems(config: Value) -> Vec<String> {
        let config: GeneratorConfig = serde_json::from_value(config).unwrap();
        config.problems().into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn every_wrong_value_is_named_with_its_path() {
        let found = problems(json!({ "rate": 0, "splits": 0, "start": "soon", "step": "5", "fields": {
            "a": { "kind": "uniform-int", "min": 2, "max": 1 },
            "b": { "kind": "choice", "values": [] },
            "c": { "kind": "choice", "values": ["x", 1] },
            "d": { "kind": "boolean", "probability": 1.5 },
            "e": { "kind": "uniform-float", "min": 0.0, "max": -1.0 },
            "f": { "kind": "normal", "deviation": -1.0 },
            "g": { "kind": "string", "length": 100_000 },
            "h": { "kind": "constant", "value": null },
        }}));
        let paths: Vec<_> = found.iter().filter_map(|line| line.split_once(": ")).map(|(path, _)| path).collect();
        let expected = [
            "rate",
            "splits",
            "start",
            "step",
            "fields.a.max",
            "fields.b.values",
            "fields.c.values",
            "fields.d.probability",
            "fields.e.max",
            "fields.f.deviation",
            "fields.g.length",
            "fields.h.value",
        ];
        assert_eq!(paths, expected, "{found:?}");
    }

    #[test]
    fn a_rate_that_no_machine_reaches_is_refused() {
        let of = |rate: f64| problems(json!({ "rate": rate, "preset": "signal" }));
        assert_eq!(of(1e25), ["rate: 1e25 is above 1000000000 rows per second; without a rate rows come as fast as they are taken"]);
        assert_eq!(of(1e9), [""; 0]);
    }

    #[test]
    fn fields_or_a_preset_but_not_both() {
        assert_eq!(problems(json!({})), ["fields: is missing: the columns by name, or a preset"]);
        assert_eq!(
            problems(json!({ "preset": "signal", "fields": { "a": { "kind": "sequence" } } })),
            ["fields: and preset exclude each other"]
        );
        assert!(problems(json!({ "preset": "signal", "start": "now", "step": "250ms" })).is_empty());
        assert!(problems(json!({ "preset": "signal", "start": "${START}" })).is_empty(), "a reference is checked when it is known");
    }

    #[test]
    fn an_unknown_member_of_a_field_is_refused() {
        let unknown =
            serde_json::from_value::<GeneratorConfig>(json!({ "fields": { "a": { "kind": "sequence", "stepp": 1 } } })).unwrap_err();
        assert!(unknown.to_string().contains("unknown field `stepp`"), "{unknown}");
    }

    #[test]
    fn the_step_follows_the_rate() {
        let step = |config: Value| serde_json::from_value::<GeneratorConfig>(config).unwrap().step();
        assert_eq!(step(json!({ "rate": 50 })), Ok(20_000));
        assert_eq!(step(json!({ "rate": 50, "step": "1s" })), Ok(1_000_000));
        assert_eq!(step(json!({})), Ok(1_000_000));
    }
}
