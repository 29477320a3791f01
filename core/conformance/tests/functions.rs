//! Each check of a function fails for the function that does wrong what it looks at. One test: memory is the whole process'.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

#[allow(dead_code, reason = "each kind uses its part")]
mod support;

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, FieldRef};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use standpipe_conformance::Suite;
use standpipe_sdk::{
    Error, Result, Volatility,
    function::{Accumulator, AggregateFunction, Bound, ScalarFunction},
    testing::Harness,
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};
use support::{Loose, every_check_can_fail, trouble_with_release, trouble_with_rows};

/// How often something was bound.
static BOUND: AtomicI64 = AtomicI64::new(0);

#[derive(Deserialize, JsonSchema, Clone)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    trouble: String,
    #[serde(default)]
    loose: Loose,
}

fn checked(config: &Config, arguments: &[FieldRef]) -> Result<Volatility> {
    if let Some(problem) = config.loose.problem(&config.trouble) {
        return Err(Error::config(problem.path, problem.message));
    }
    assert!(arguments.len() < 10 || config.trouble != "arguments", "who needs so many?");
    if arguments.len() != 1 {
        return Err(Error::data("takes one number"));
    }
    let changes = config.trouble == "bind" && BOUND.fetch_add(1, SeqCst) % 2 == 1;
    Ok(if changes { Volatility::Stable } else { Volatility::Immutable })
}

fn held(arguments: &[ArrayRef]) -> RecordBatch {
    RecordBatch::try_from_iter([("held", Arc::clone(&arguments[0]))]).unwrap()
}

/// The number after.
struct Next {
    trouble: String,
    chance: i64,
    busy: AtomicBool,
}

impl ScalarFunction for Next {
    const NAME: &'static str = "next";
    type Config = Config;

    fn bind(config: Config, arguments: &[FieldRef]) -> Result<Bound<Self>> {
        let volatility = checked(&config, arguments)?;
        let chance = if config.trouble == "immutable" { BOUND.fetch_add(1, SeqCst) } else { 0 };
        let next = Self { trouble: config.trouble, chance, busy: AtomicBool::new(false) };
        Ok(Bound::new(next, [DataType::Int64], DataType::Int64).with_volatility(volatility))
    }

    fn invoke(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        trouble_with_rows(&self.trouble);
        trouble_with_release(&self.trouble, &held(arguments));
        if self.trouble == "result" && rows == 0 {
            return Ok(Arc::new(Int64Array::from(vec![0])));
        }
        if self.trouble == "concurrent" {
            if self.busy.swap(true, SeqCst) {
                return Err(Error::data("one after another, please"));
            }
            thread::sleep(Duration::from_millis(1));
            self.busy.store(false, SeqCst);
        }
        let alone = i64::from(self.trouble == "rows" && rows == 1);
        let next: Int64Array = arguments[0].as_primitive::<Int64Type>().unary(|value| value.wrapping_add(1 + self.chance + alone));
        Ok(Arc::new(next))
    }
}

/// The sum of numbers; none of no rows.
struct Sum(String);

impl AggregateFunction for Sum {
    const NAME: &'static str = "summed";
    type Config = Config;
    type Accumulator = Sums;

    fn bind(config: Config, arguments: &[FieldRef]) -> Result<Bound<Self>> {
        let volatility = checked(&config, arguments)?;
        let number = DataType::Int64;
        let bound = Bound::new(Self(config.trouble), [number.clone()], number.clone()).with_state([("sum", number)]);
        Ok(bound.with_volatility(volatility))
    }

    fn accumulator(&self) -> Result<Sums> {
        Ok(Sums { trouble: self.0.clone(), sums: RefCell::default() })
    }
}

struct Sums {
    trouble: String,
    sums: RefCell<BTreeMap<u32, i64>>,
}

impl Sums {
    fn is(&self, trouble: &str) -> bool {
        self.trouble == trouble
    }

    fn of(&self, groups: &[u32]) -> ArrayRef {
        let sums = self.sums.borrow();
        Arc::new(groups.iter().map(|group| sums.get(group).copied()).collect::<Int64Array>())
    }
}

impl Accumulator for Sums {
    fn update(&mut self, groups: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        trouble_with_rows(&self.trouble);
        trouble_with_release(&self.trouble, &held(arguments));
        let alone = i64::from(self.is("batch-sizes") && groups.len() == 1);
        let bounded = self.is("groups");
        let sums = self.sums.get_mut();
        for (group, value) in groups.iter().zip(arguments[0].as_primitive::<Int64Type>()) {
            if let Some(value) = value.filter(|_| *group < 1000 || !bounded) {
                *sums.entry(*group).or_default() += value + alone;
            }
        }
        Ok(())
    }

    fn retract(&mut self, groups: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        if self.is("retract") {
            return Ok(());
        }
        let sums = self.sums.get_mut();
        for (group, value) in groups.iter().zip(arguments[0].as_primitive::<Int64Type>()) {
            *sums.entry(*group).or_default() -= value.unwrap_or(0);
        }
        Ok(())
    }

    fn merge(&mut self, groups: &[u32], states: &[ArrayRef]) -> Result<()> {
        assert!(states[0].null_count() < groups.len() || groups.len() > 2 || !self.is("nonsense"), "no state of mine");
        let forgets = self.is("merge");
        let sums = self.sums.get_mut();
        for (group, sum) in groups.iter().zip(states[0].as_primitive::<Int64Type>()) {
            match sum {
                Some(sum) if forgets => _ = sums.insert(*group, sum),
                Some(sum) => *sums.entry(*group).or_default() += sum,
                None => {}
            }
        }
        Ok(())
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let state = self.of(groups);
        if self.is("consumes-nothing") {
            self.sums.borrow_mut().clear();
        }
        Ok(vec![state])
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        if groups.is_empty() && self.is("result") {
            return Err(Error::data("no groups"));
        }
        Ok(self.of(groups))
    }

    fn forget(&mut self, groups: &[u32]) {
        if !self.is("forget") {
            groups.iter().for_each(|group| _ = self.sums.get_mut().remove(group));
        }
    }
}

#[test]
fn every_check_fails_for_what_it_looks_at() {
    every_check_can_fail(Harness::scalar_kind::<Next>(), &[], |_| json!({}), |suite| suite);
    every_check_can_fail(Harness::aggregate_kind::<Sum>(), &[], |_| json!({}), |suite| suite.arguments(&[DataType::Int64]));

    let report = Suite::new(Harness::scalar_kind::<Next>(), json!({})).arguments(&[DataType::Int64, DataType::Utf8]).run();
    assert_eq!(report.finding("configuration").unwrap().message, "next: takes one number");
}
