//! Transforms through the tables: state, timers, several outputs, panics, wrong batches.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use arrow_array::{Array, ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use serde::Deserialize;
use serde_json::json;
use standpipe_sdk::{
    Call, Context, Error, ErrorCode, Result, TimeDomain, Timer, Transform, TransformDeclaration, TransformInput,
    testing::Harness,
    transform::{ChangeMode, OutputDeclaration, StateDeclaration, StateKind, TypeClass},
};
use std::sync::Arc;

/// Counts rows per key.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct CountConfig {
    /// Microseconds after the first row of a key at which its count is given.
    #[serde(default)]
    after: i64,
    #[serde(default)]
    panic_at: String,
    #[serde(default)]
    fail_after_emit: bool,
}

struct Count {
    config: CountConfig,
    context: Context,
}

fn output() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("key", DataType::Utf8, true), Field::new("count", DataType::Int64, false)]))
}

impl Transform for Count {
    const NAME: &'static str = "count";
    type Config = CountConfig;

    fn declare(config: &CountConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        assert!(config.panic_at != "declare", "declare it is");
        if config.after < 0 {
            return Err(Error::config("after", "must not be negative"));
        }
        input.only()?;
        let state = |name: &str, kind, data_type| StateDeclaration {
            name: name.to_owned(),
            kind,
            field: Arc::new(Field::new("value", data_type, true)),
            version: 0,
            time_to_live: None,
        };
        let entry = Fields::from(vec![Field::new("key", DataType::Int64, false), Field::new("value", DataType::Utf8, true)]);
        let late = OutputDeclaration { name: "raw".to_owned(), schema: input.only()?.schema.clone(), mode: ChangeMode::Append };
        Ok(TransformDeclaration {
            outputs: vec![OutputDeclaration::main(output()), late],
            states: vec![
                state("count", StateKind::Value, DataType::Int64),
                state("last", StateKind::Value, DataType::Utf8),
                state("all", StateKind::List, DataType::Int64),
                state("entries", StateKind::Map, DataType::Struct(entry)),
                state("seen", StateKind::Value, DataType::Boolean),
            ],
            requires_key: true,
            timers: true,
            accepts: vec![ChangeMode::Upsert],
            types: vec![TypeClass::View],
            ..Default::default()
        })
    }

    fn open(config: CountConfig, _: &TransformInput, context: Context) -> Result<Self> {
        assert!(config.panic_at != "open", "open it is");
        Ok(Self { config, context })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let keys = call.keys().ok_or_else(|| Error::unsupported("needs keys"))?;
        let count = call.value::<Int64Type>(0)?;
        let again = call.value::<Int64Type>(0)?;
        let seen = call.boolean(4)?;
        let numbers = batch.column(1).as_primitive::<Int64Type>();
        for (row, &key) in keys.key_of_row().iter().enumerate() {
            if count.get(key).is_none() {
                let first = call.watermark().unwrap_or_default() + self.config.after;
                call.set_timer(TimeDomain::EventTime, 7, &[key], &[first])?;
            }
            // Two handles of one slot share the column.
            count.set(key, again.get(key).unwrap_or_default() + 1);
            seen.set(key, true);
            call.list_append(2, &[key], &numbers.slice(row, 1))?;
            call.map_put(3, &[key], &numbers.slice(row, 1), &StringArray::from(vec![format!("n{}", numbers.value(row))]))?;
        }
        let last: Vec<u32> = keys.key_of_row().to_vec();
        let texts: StringArray = (0..batch.num_rows()).map(|row| Some(format!("row {row}"))).collect();
        call.values_set(1, &last, &texts)?;
        call.emit_to(1, batch)?;
        self.context.host.counter("batches", &[]).add(1);
        assert!(self.config.panic_at != "process", "process it is");
        if self.config.fail_after_emit {
            return Err(Error::data("no more"));
        }
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, timers: &[Timer], call: &mut Call<'_>) -> Result<()> {
        assert!(timers.iter().all(|timer| timer.slot == 7 && Some(timer.time) <= call.watermark()));
        let keys = call.keys().ok_or_else(|| Error::unsupported("needs keys"))?;
        let count = call.value::<Int64Type>(0)?;
        let counts: Int64Array = (0..keys.len() as u32).map(|key| count.get(key)).collect();
        let names: ArrayRef = keys.batch()?.column(0).clone();
        for key in 0..keys.len() as u32 {
            count.clear(key);
        }
        call.emit(RecordBatch::try_new(output(), vec![names, Arc::new(counts)])?)
    }
}

fn rows(keys: &[&str], numbers: &[i64]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(StringArray::from(keys.to_vec()));
    let numbers: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
    RecordBatch::try_from_iter([("key", keys), ("number", numbers)]).unwrap()
}

fn key(text: &str) -> RecordBatch {
    rows(&[text], &[0]).project(&[0]).unwrap()
}

fn count(config: serde_json::Value) -> standpipe_sdk::testing::TransformHarness {
    Harness::transform::<Count>(config, rows(&[], &[]).schema()).keyed(&["key"])
}

#[test]
fn state_of_every_kind_is_kept_by_key() {
    let mut count = count(json!({}));
    let raw = count.process_input(0, &rows(&["a", "b", "a"], &[1, 2, 3])).unwrap();
    assert_eq!((raw[0].output, raw[0].batch.num_rows()), (1, 3));
    count.process(&rows(&["b", "a"], &[9, 4])).unwrap();
    let number = |key: &str| {
        let value = count.state().value("count", &self::key(key)).unwrap();
        value.as_primitive::<Int64Type>().value(0)
    };
    assert_eq!((number("a"), number("b")), (3, 2));
    assert_eq!(count.state().value("last", &key("a")).unwrap().as_string::<i32>().value(0), "row 1");
    assert!(count.state().value("seen", &key("a")).unwrap().as_boolean().value(0));
    let list = count.state().list("all", &key("a")).unwrap();
    assert_eq!(list.as_primitive::<Int64Type>().values(), &[1, 3, 4]);
    assert_eq!(count.state().map_len("entries", &key("b")), 2);
    assert_eq!(count.state().values_len("count"), 2);
    assert_eq!(count.host.metric("batches"), Some(2.0));
}

#[test]
fn timers_fire_once_in_time_order() {
    let mut count = count(json!({ "after": 10 }));
    count.process(&rows(&["a", "b", "a"], &[1, 2, 3])).unwrap();
    assert_eq!(count.state().timers(), [(TimeDomain::EventTime, 7, 10); 2]);
    assert!(count.advance_watermark(9).unwrap().is_empty());
    count.process(&rows(&["c"], &[1])).unwrap();
    let fired = count.advance_watermark(20).unwrap();
    let counts: Vec<_> = fired.iter().map(|emitted| emitted.batch.clone()).collect();
    let expected = |names: &[&str], counts: &[i64]| {
        let names = Arc::new(StringArray::from(names.to_vec()));
        RecordBatch::try_new(output(), vec![names, Arc::new(Int64Array::from(counts.to_vec()))]).unwrap()
    };
    assert_eq!(counts, [expected(&["a", "b"], &[2, 1]), expected(&["c"], &[1])]);
    assert_eq!(count.state().values_len("count"), 0);
    assert!(count.advance_watermark(30).unwrap().is_empty());
}

#[test]
fn a_failed_call_has_never_been() {
    let mut count = count(json!({ "fail_after_emit": true }));
    let error = count.process(&rows(&["a"], &[1])).unwrap_err();
    assert_eq!(error.to_string(), "transforms.node: count: no more");
    assert_eq!((count.state().values_len("count"), count.state().timers().len()), (0, 0));
}

#[test]
fn a_panic_is_an_error_with_its_place_and_poisons() {
    let mut count = count(json!({ "panic_at": "process" }));
    let error = count.process(&rows(&["a"], &[1])).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("transforms.node: plugin \"count\" panicked in process: process it is at core/sdk/tests/transform.rs:"),
        "{text}"
    );
    assert_eq!(error.code, ErrorCode::PANIC);
    assert!(error.location().unwrap().starts_with("core/sdk/tests/transform.rs:"));
    assert_eq!(count.state().values_len("count"), 0);
    let text = count.process(&rows(&["a"], &[1])).unwrap_err().to_string();
    assert!(text.contains("plugin \"count\" is poisoned, it panicked in process before: process it is at"), "{text}");
}

#[test]
fn panics_in_declare_and_open_are_errors() {
    let text = count(json!({ "panic_at": "declare" })).validate().unwrap_err().to_string();
    assert!(text.contains("panicked in validate: declare it is at"), "{text}");
    let text = count(json!({ "panic_at": "open" })).open().unwrap_err().to_string();
    assert!(text.contains("panicked in open: open it is at"), "{text}");
}

#[test]
fn what_a_transform_takes_reaches_the_host() {
    let details = count(json!({})).validate().unwrap().details;
    assert_eq!((details.accepts, details.types), (vec![ChangeMode::Upsert], vec![TypeClass::View]));
}

#[test]
fn wrong_configurations_are_problems() {
    let problems = |config| {
        let details = count(config).validate().unwrap().details;
        details.problems.into_iter().map(|p| (p.path, p.message, p.suggestion)).collect::<Vec<_>>()
    };
    assert_eq!(problems(json!({ "after": -1 })), [("after".to_owned(), "must not be negative".to_owned(), None)]);
    assert_eq!(problems(json!({ "aftr": 1 })), [("aftr".to_owned(), "is not known".to_owned(), Some("after".to_owned()))]);
    let text = count(json!({ "aftr": 1 })).open().unwrap_err().to_string();
    assert_eq!(text, "transforms.node: count: aftr: is not known, did you mean \"after\"?");
}

/// Uses its state wrongly.
struct Wrong(String);

#[derive(Deserialize, schemars::JsonSchema)]
struct WrongConfig {
    what: String,
}

impl Transform for Wrong {
    const NAME: &'static str = "wrong";
    type Config = WrongConfig;

    fn declare(config: &WrongConfig, _: &TransformInput) -> Result<TransformDeclaration> {
        let field = Arc::new(Field::new("value", DataType::Int64, true));
        let name = config.what.strip_prefix("name ").unwrap_or("count").to_owned();
        let count = StateDeclaration { name, kind: StateKind::Value, field, version: 0, time_to_live: None };
        Ok(TransformDeclaration { outputs: vec![OutputDeclaration::main(output())], states: vec![count], ..Default::default() })
    }

    fn open(config: WrongConfig, _: &TransformInput, _: Context) -> Result<Self> {
        Ok(Self(config.what))
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let one = Int64Array::from(vec![1]);
        match self.0.as_str() {
            "ordinal" => call.values_set(0, &[99], &one),
            "slot" => call.values_set(3, &[0], &one),
            "kind" => call.list_append(0, &[0], &one),
            "type" => call.values_set(0, &[0], &StringArray::from(vec!["x"])),
            "length" => call.values_set(0, &[0, 0], &one),
            "index" => call.value::<Int64Type>(0).map(|state| state.set(99, 1)),
            "emit" => call.emit(batch),
            "output" => call.emit_to(4, batch),
            _ => Ok(()),
        }
    }
}

#[test]
fn wrong_uses_are_refused() {
    let said = |what: &str| {
        let mut wrong = Harness::transform::<Wrong>(json!({ "what": what }), rows(&[], &[]).schema()).keyed(&["key"]);
        wrong.process(&rows(&["a"], &[1])).unwrap_err().message
    };
    assert_eq!(said("ordinal"), "ordinal 99 is not below 1, the number of keys in this call");
    assert_eq!(said("slot"), "there is no state 3, only 1 are declared");
    assert_eq!(said("kind"), "state \"count\" is a value state, used as another");
    assert_eq!(said("type"), "state 0 (\"count\") is declared as Int64, used as Utf8");
    assert_eq!(said("length"), "2 ordinals, but 1 values");
    assert!(
        said("index").starts_with("panicked in process: ordinal 99 is not below 1, the number of keys in this call at core/sdk/tests/")
    );
    assert_eq!(said("emit"), "output \"main\": a batch has the column \"number\" of type Int64 where \"count\" of type Int64 is declared");
    assert_eq!(said("output"), "there is no output 4, only 1");
    for name in ["", "a/b", "a.1", "größe"] {
        let said = said(&format!("name {name}"));
        assert!(said.contains(&format!("declares the state {name:?}: a name has up to 64 ASCII letters, digits, `_` and `-`")), "{said}");
    }
}

#[test]
fn lists_and_maps_read_back_what_was_written() {
    struct Reader;
    #[derive(Deserialize, schemars::JsonSchema)]
    struct NoConfig {}
    impl Transform for Reader {
        const NAME: &'static str = "reader";
        type Config = NoConfig;
        fn declare(_: &NoConfig, input: &TransformInput) -> Result<TransformDeclaration> {
            Count::declare(&CountConfig { after: 0, panic_at: String::new(), fail_after_emit: false }, input)
        }
        fn open(_: NoConfig, _: &TransformInput, _: Context) -> Result<Self> {
            Ok(Self)
        }
        fn process(&mut self, _: RecordBatch, call: &mut Call<'_>) -> Result<()> {
            let keys = Int64Array::from(vec![5, -3, 8]);
            call.map_put(3, &[0, 0, 0], &keys, &StringArray::from(vec!["five", "minus three", "eight"]))?;
            let found = call.map_get(3, &[0, 0], &Int64Array::from(vec![8, 9]))?;
            assert_eq!(found.as_string::<i32>(), &StringArray::from(vec![Some("eight"), None]));
            call.map_remove(3, &[0], &Int64Array::from(vec![8]))?;
            let all = call.map_scan(3, 0, None, 10)?;
            assert_eq!(all.as_struct().column(0).as_primitive::<Int64Type>().values(), &[-3, 5]);
            let from = call.map_scan(3, 0, Some(&Int64Array::from(vec![0])), 10)?;
            assert_eq!(from.as_struct().column(1).as_string::<i32>().value(0), "five");
            call.list_append(2, &[0, 0, 1], &Int64Array::from(vec![1, 2, 3]))?;
            let lists = call.list_get(2, &[1, 0])?;
            let lists: &ListArray = lists.as_list();
            assert_eq!(lists.value(1).as_primitive::<Int64Type>().values(), &[1, 2]);
            call.list_clear(2, &[0])?;
            assert!(call.list_get(2, &[0])?.is_null(0));
            // A lent column and the functions see each other's writes.
            let count = call.value::<Int64Type>(0)?;
            count.set(0, 41);
            assert_eq!(call.values_get(0, &[0])?.as_primitive::<Int64Type>().value(0), 41);
            call.values_set(0, &[0], &Int64Array::from(vec![42]))?;
            assert_eq!((count.get(0), count.get(1)), (Some(42), None));
            call.delete_timer(TimeDomain::EventTime, 0, &[0], &[1])
        }
    }
    let mut reader = Harness::transform::<Reader>(json!({}), rows(&[], &[]).schema()).keyed(&["key"]);
    reader.process(&rows(&["a", "b"], &[1, 2])).unwrap();
    assert_eq!(reader.state().value("count", &key("a")).unwrap().as_primitive::<Int64Type>().value(0), 42);
}
