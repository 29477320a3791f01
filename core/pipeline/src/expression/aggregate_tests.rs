//! The calls of `aggregate:` against a table of what they give or how they are refused.

use crate::{
    diagnostic::Span,
    expression::{Expressions, Fault, Scope, type_name},
    plan::{Folding, RunningFunction},
    text::Text,
};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion_common::ScalarValue;
use standpipe_formats::{TEXT_ISO, TEXT_KEY};
use std::sync::Arc;

fn schema() -> SchemaRef {
    let ts = Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true)
        .with_metadata([(TEXT_KEY.to_owned(), TEXT_ISO.to_owned())].into());
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    Arc::new(Schema::new(vec![
        Field::new("host", DataType::Utf8, true),
        Field::new("value", DataType::Float64, true),
        Field::new("n", DataType::Int32, false),
        Field::new("flags", DataType::UInt8, true),
        ts,
        Field::new("price", DataType::Decimal128(10, 2), true),
        Field::new("list", list, true),
    ]))
}

fn text(text: &str) -> Text {
    Text { value: text.to_owned(), written: text.to_owned(), span: Span::default(), secret: false }
}

fn shown(fault: Fault) -> String {
    fault.hint.map_or(fault.message.clone(), |hint| format!("{}: {hint}", fault.message))
}

fn windowed(call: &str) -> Result<String, String> {
    let windowed = Expressions::new(Vec::new()).windowed("c", &text(call), &Scope::new(&schema()).unwrap()).map_err(shown)?;
    Ok(described(&windowed.field))
}

fn running(call: &str) -> Result<String, String> {
    let running = Expressions::new(Vec::new()).running("c", &text(call), &Scope::new(&schema()).unwrap()).map_err(shown)?;
    let argument = running.arguments.first().map(|argument| type_name(&argument.data_type(&schema()).unwrap()));
    let Folding::BuiltIn(function) = running.function else { panic!("there are no plugins") };
    Ok(format!("{function:?} of {} is {}", argument.as_deref().unwrap_or("nothing"), described(&running.field)))
}

fn described(field: &Field) -> String {
    let text = standpipe_formats::types::type_text(field);
    format!("{text}{}", if field.is_nullable() { "" } else { " not null" })
}

#[track_caller]
fn check(calls: impl Fn(&str) -> Result<String, String>, cases: &[(&str, Result<&str, &str>)]) {
    let found: Vec<_> = cases.iter().map(|(call, _)| (*call, calls(call))).collect();
    let expected: Vec<_> = cases.iter().map(|(call, result)| (*call, result.map(str::to_owned).map_err(str::to_owned))).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_window_has_every_aggregate() {
    check(
        windowed,
        &[
            ("count(*)", Ok("int64 not null")),
            ("count(value)", Ok("int64 not null")),
            ("count(distinct host)", Ok("int64 not null")),
            ("avg(value)", Ok("float64")),
            ("sum(n + 1)", Ok("int64")),
            ("sum(price)", Ok("decimal(20, 2)")),
            ("stddev(value)", Ok("float64")),
            ("median(value)", Ok("float64")),
            ("approx_percentile_cont(value, 0.9)", Ok("float64")),
            ("array_agg(host)", Ok("list<string>")),
            ("first_value(host)", Ok("string")),
            ("min(ts)", Ok("timestamp")),
            ("max(case when value > 3 then n end)", Ok("int32")),
            ("COUNT(*)", Ok("int64 not null")),
            (
                "value",
                Err("expected one aggregate function such as avg(value), found \"value\": compute with its result in a select behind"),
            ),
            (
                "avg(value) + 1",
                Err(
                    "expected one aggregate function such as avg(value), found \"avg(value) + 1\": compute with its result in a select behind",
                ),
            ),
            ("avg(sum(value))", Err("sum() is an aggregate function, which only aggregate: can compute")),
            (
                "count(*) filter (where n > 1)",
                Err("FILTER is not supported: write the condition as case when ... then ... end in the argument"),
            ),
            ("first_value(host order by ts)", Err("ORDER BY is not supported; rows are aggregated in the order in which they arrive")),
            ("avg(host)", Err("avg() takes decimal, duration or float64, not string")),
            ("avg(value, value)", Err("avg() takes 1 argument, not 2")),
            ("stddev(host)", Err("stddev() does not take the arguments (string)")),
            ("first_value(*)", Err("only count() takes *")),
            ("sum(1 / 0)", Err("division by zero")),
        ],
    );
}

#[test]
fn without_a_window_there_are_running_ones() {
    check(
        running,
        &[
            ("count(*)", Ok("Count of nothing is int64 not null")),
            ("count(1)", Ok("Count of nothing is int64 not null")),
            ("count(value)", Ok("Count of float64 is int64 not null")),
            ("sum(n)", Ok("Sum of int64 is int64")),
            ("sum(flags)", Ok("Sum of uint64 is uint64")),
            ("sum(value * 2)", Ok("Sum of float64 is float64")),
            ("avg(n)", Ok("Avg of float64 is float64")),
            ("mean(price)", Ok("Avg of float64 is float64")),
            ("min(host)", Ok("Min of string is string")),
            ("max(ts)", Ok("Max of timestamp_us is timestamp")),
            ("first_value(list)", Ok("First of list<int64> is list<int64>")),
            ("last_value(n)", Ok("Last of int32 is int32")),
            ("sum(price)", Err("sum() without a window takes numbers that are no decimals, this is decimal(10, 2)")),
            ("max(list)", Err("min() and max() need values with an order, this is list<int64>")),
            ("median(value)", Err("median() needs a window; without one there are count, sum, min, max, avg, first_value, last_value")),
            ("count(distinct host)", Err("DISTINCT, IGNORE NULLS and several arguments need a window")),
            ("last_value(host) ignore nulls", Err("DISTINCT, IGNORE NULLS and several arguments need a window")),
        ],
    );
    let last = Expressions::new(Vec::new()).running("c", &text("last_value(host)"), &Scope::new(&schema()).unwrap()).unwrap();
    assert!(matches!(last.function, Folding::BuiltIn(RunningFunction::Last)));
}

#[test]
fn an_aggregate_computes() {
    let columns: [(&str, ArrayRef); 3] = [
        ("host", Arc::new(StringArray::from(vec!["a", "b", "a"]))),
        ("value", Arc::new(Float64Array::from(vec![Some(1.0), None, Some(5.0)]))),
        ("n", Arc::new(Int64Array::from(vec![1, 2, 3]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let scope = Scope::new(&batch.schema()).unwrap();
    let result = |call: &str| {
        let windowed = Expressions::new(Vec::new()).windowed("c", &text(call), &scope).unwrap();
        let arguments: Vec<ArrayRef> = windowed
            .function
            .expressions()
            .iter()
            .map(|argument| argument.evaluate(&batch).unwrap().into_array(batch.num_rows()).unwrap())
            .collect();
        let mut accumulator = windowed.function.create_accumulator().unwrap();
        accumulator.update_batch(&arguments).unwrap();
        let value = accumulator.evaluate().unwrap();
        assert_eq!(value.data_type(), *windowed.field.data_type(), "{call}");
        value
    };
    assert_eq!(result("count(*)"), ScalarValue::Int64(Some(3)));
    assert_eq!(result("count(value)"), ScalarValue::Int64(Some(2)));
    assert_eq!(result("count(distinct host)"), ScalarValue::Int64(Some(2)));
    assert_eq!(result("sum(n * 2)"), ScalarValue::Int64(Some(12)));
    assert_eq!(result("avg(value + n)"), ScalarValue::Float64(Some(5.0)));
    assert_eq!(result("max(case when n < 3 then value end)"), ScalarValue::Float64(Some(1.0)));
    assert_eq!(result("string_agg(host, '-')"), ScalarValue::LargeUtf8(Some("a-b-a".to_owned())));
}
