//! Expressions against a table of what they give or how they are refused.

use super::*;
use crate::diagnostic::Span;
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int8Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    cast::AsArray,
    types::{Float64Type, Int64Type},
};
use arrow_schema::{Schema, TimeUnit};

fn schema() -> SchemaRef {
    let ts = Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true)
        .with_metadata([("standpipe.text".to_owned(), "iso".to_owned())].into());
    Arc::new(Schema::new(vec![
        Field::new("host", DataType::Utf8, true),
        Field::new("Value", DataType::Float64, true),
        Field::new("n", DataType::Int64, false),
        ts,
        Field::new("list", DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true))), true),
        Field::new("point", DataType::Struct(vec![Field::new("x", DataType::Int64, true)].into()), true),
        Field::new("price", DataType::Decimal128(10, 2), true),
    ]))
}

fn text(text: &str) -> Text {
    Text { value: text.to_owned(), written: text.to_owned(), span: Span::default(), secret: false }
}

fn batch() -> RecordBatch {
    let schema = Arc::new(schema().project(&[0, 1, 2, 3]).unwrap());
    RecordBatch::try_new(
        schema,
        vec![
            Arc::new(StringArray::from(vec![Some("a"), None])),
            Arc::new(Float64Array::from(vec![1.5, 91.0])),
            Arc::new(Int64Array::from(vec![7, 8])),
            Arc::new(TimestampMillisecondArray::from(vec![0, 1_000])),
        ],
    )
    .unwrap()
}

fn shown(fault: Fault) -> String {
    fault.hint.map_or(fault.message.clone(), |hint| format!("{}: {hint}", fault.message))
}

fn column(expression: &str) -> Result<(String, bool), String> {
    let compiled = Expressions::new(Vec::new()).column("c", &text(expression), &Scope::new(&schema()).unwrap()).map_err(shown)?;
    Ok((type_name(compiled.field.data_type()), compiled.field.is_nullable()))
}

#[test]
fn columns_have_types() {
    let cases = [
        ("host", "string", true),
        ("n", "int64", false),
        ("Value * 9 / 5 + 32", "float64", true),
        ("n + 1", "int64", false),
        ("upper(host)", "string", true),
        ("UPPER(host) || '!'", "string", true),
        ("substr(host, 1, 2)", "string", true),
        ("concat(host, n)", "string", true),
        ("arrow_cast(host, 'Utf8View')", "string", true),
        ("coalesce(host, 'x')", "string", false),
        ("case when n > 3 then 'many' else 'few' end", "string", false),
        ("date_trunc('minute', ts)", "timestamp_ms", true),
        ("now()", "timestamp_us", true),
        ("current_timestamp", "timestamp_us", true),
        ("current_date", "date", true),
        ("point.x", "int64", true),
        ("point['x'] + list[1]", "int64", true),
        ("array_length(list)", "uint64", true),
        ("sha256(host)", "binary", true),
        ("regexp_like(host, '^a')", "bool", true),
        ("cast(n as varchar)", "string", false),
        ("1", "int64", false),
        ("\"Value\"", "float64", true),
        // Division of floating-point numbers by zero is infinite, and the rows decide whether a product is too large.
        ("Value / 0", "float64", true),
        ("n * 9223372036854775807", "int64", false),
    ];
    let found = cases.map(|(expression, ..)| (expression, column(expression)));
    assert_eq!(found, cases.map(|(expression, expected, nullable)| (expression, Ok((expected.to_owned(), nullable)))));
}

#[test]
fn a_bare_column_keeps_what_it_is() {
    let scope = Scope::new(&schema()).unwrap();
    let bare = Expressions::new(Vec::new()).column("time", &text("ts"), &scope).unwrap();
    assert_eq!(bare.bare, Some(3));
    assert_eq!(bare.field, schema().field(3).clone().with_name("time"));
    assert_eq!(Expressions::new(Vec::new()).column("x", &text("n + 0.5"), &scope).unwrap().bare, None);
}

#[test]
fn an_expression_computes() {
    let scope = Scope::new(&batch().schema()).unwrap();
    let filter = Expressions::new(Vec::new()).predicate(&text("\"Value\" > 90 and n < 1 + 8"), &scope).unwrap();
    let rows = filter.physical.evaluate(&batch()).unwrap().into_array(2).unwrap();
    assert_eq!(rows.as_boolean(), &BooleanArray::from(vec![false, true]));
    let sum = Expressions::new(Vec::new()).column("s", &text("Value + n"), &scope).unwrap();
    let rows = sum.physical.evaluate(&batch()).unwrap().into_array(2).unwrap();
    assert_eq!(rows.as_primitive::<arrow_array::types::Float64Type>(), &Float64Array::from(vec![8.5, 99.0]));
    let now = Expressions::new(Vec::new()).column("t", &text("now()"), &scope).unwrap();
    let time = || now.physical.evaluate(&batch()).unwrap().into_array(2).unwrap();
    let first = time();
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert_ne!(&first, &time(), "the time of the batch, not of the plan");
}

/// The values of a column `n` to those of an expression, or the error.
fn computed(expression: &Text, values: ArrayRef) -> Result<ArrayRef, String> {
    let batch = RecordBatch::try_from_iter([("n", values)]).unwrap();
    let scope = Scope::new(&batch.schema()).unwrap();
    let compiled = Expressions::new(Vec::new()).column("c", expression, &scope).map_err(shown)?;
    match compiled.physical.evaluate(&batch) {
        Ok(value) => Ok(value.into_array(batch.num_rows()).unwrap()),
        Err(DataFusionError::External(error)) if error.is::<EvaluationError>() => Err(error.to_string()),
        Err(other) => panic!("{other} does not say which expression"),
    }
}

#[test]
fn whole_numbers_that_overflow_are_an_error() {
    let least = || Arc::new(Int64Array::from(vec![Some(7), None, Some(i64::MIN)])) as ArrayRef;
    for expression in [
        "-n",
        "n * 2",
        "n - 1",
        "0 - n",
        "case when n < 9 then n - 1 else 0 end",
        "coalesce(n - 1, 0)",
        "n + n",
        "array_length([n - 1, n])",
    ] {
        let found = computed(&text(expression), least()).unwrap_err();
        assert!(found.starts_with(&format!("{expression:?} fails on a row: ")) && found.contains("verflow"), "{found}");
    }
    for (expression, expected) in [("n + 1", i64::MIN + 1), ("n * 1", i64::MIN), ("-(n + 1)", i64::MAX), ("n % 2", 0)] {
        assert_eq!(computed(&text(expression), least()).unwrap().as_primitive::<Int64Type>().value(2), expected, "{expression}");
    }
    // Types of fewer bits are not widened, and nulls have no value that could overflow.
    let small = || Arc::new(Int8Array::from(vec![Some(i8::MIN), Some(1)])) as ArrayRef;
    assert!(computed(&text("n * n"), small()).is_err() && computed(&text("-n"), small()).is_err());
    assert!(computed(&text("cast(n as tinyint unsigned)"), small()).unwrap_err().contains("-128"));
    assert!(computed(&text("cast(n as int) * n"), small()).is_ok());
    assert_eq!(computed(&text("-n"), Arc::new(Float64Array::from(vec![0.5]))).unwrap().as_primitive::<Float64Type>().value(0), -0.5);
}

#[test]
fn an_error_on_a_row_shows_no_secret() {
    let hosts = || Arc::new(StringArray::from(vec!["a"])) as ArrayRef;
    let plain = text("cast(concat(n, 'hunter2') as bigint)");
    assert_eq!(
        computed(&plain, hosts()).unwrap_err(),
        "\"cast(concat(n, 'hunter2') as bigint)\" fails on a row: Cast error: Cannot cast string 'ahunter2' to value of Int64 type"
    );
    let secret = Text { written: "cast(concat(n, '${PW}') as bigint)".to_owned(), secret: true, ..plain };
    assert_eq!(
        computed(&secret, hosts()).unwrap_err(),
        "\"cast(concat(n, '${PW}') as bigint)\" fails on a row; the message is withheld because the expression has a secret"
    );
}

#[test]
fn what_is_too_deep_is_refused() {
    let chain = |term: &dyn Fn(usize) -> String, between: &str, terms: usize| (0..terms).map(term).collect::<Vec<_>>().join(between);
    let numbers = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let n = |_: usize| "n".to_owned();
    let equal = |i: usize| format!("n = {i}");
    assert!(computed(&text(&chain(&n, " + ", 500)), numbers()).is_ok());
    for terms in [501, 3000, 100_000] {
        let found = computed(&text(&chain(&n, " + ", terms)), numbers()).unwrap_err();
        assert_eq!(found, "the expression is more than 500 operators deep: compute parts of it in a select before");
        let found = computed(&text(&chain(&equal, " or ", terms)), numbers()).unwrap_err();
        assert_eq!(found, "the expression is more than 500 operators deep: write a chain of a = 1 or a = 2 as: a in (1, 2)");
    }
    let list = chain(&|i| i.to_string(), ", ", 20_000);
    assert!(computed(&text(&format!("n in ({list})")), numbers()).is_ok());
    let branches = chain(&|i| format!("when n = {i} then {i}"), " ", 3000);
    assert!(computed(&text(&format!("case {branches} end")), numbers()).is_ok());
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let cases = [
        ("valu", "unknown column \"valu\", did you mean \"Value\"?"),
        ("value", "unknown column \"value\", did you mean \"Value\"?"),
        ("zzzzzz", "unknown column \"zzzzzz\"; columns: host, Value, n, ts, list, point, price"),
        ("host = \"hosts\"", "unknown column \"hosts\", did you mean \"host\": if it is a text, write 'hosts'"),
        ("uper(host)", "unknown function \"uper\", did you mean \"upper\"?"),
        ("n +", "expected an expression, the expression ends in \"n +\""),
        ("n + (1", "expected ), the expression ends in \"n + (1\""),
        ("n n2 n3", "expected end of expression, found n2 at character 3 in \"n n2 n3\""),
        ("n as m", "the name of a column is its key, not an AS"),
        ("host + 1", "cannot compute string + int64"),
        ("ts + 1", "cannot compute timestamp_ms + int64"),
        ("host and n", "cannot compute string AND int64"),
        ("1 / 0", "division by zero"),
        ("n % 0", "division by zero"),
        ("case when n > 1 then 1 / 0 else 1 end", "division by zero"),
        ("9223372036854775807 + 1", "Arithmetic overflow: Overflow happened on: 9223372036854775807 + 1"),
        ("n + (3 - 4) * 9223372036854775807 * 2", "Arithmetic overflow: Overflow happened on: -9223372036854775807 * 2"),
        ("cast('x' as int)", "Cast error: Cannot cast string 'x' to value of int32 type"),
        ("n = 'x'", "Cast error: Cannot cast string 'x' to value of int64 type"),
        ("host ~ '('", "regex parse error: ( ^ error: unclosed group"),
        (
            "date_trunc('minut', ts)",
            "Unsupported date_trunc granularity: 'minut'. Supported values are: microsecond, millisecond, second, minute, hour, day, week, month, quarter, year",
        ),
        ("round(host)", "round() takes decimal, integer, float32 or float64, not string"),
        ("upper(list)", "upper() takes string, not List(int64)"),
        ("sqrt('a')", "sqrt() does not take the arguments (string)"),
        ("power(n)", "power() takes 2 arguments, not 1"),
        ("count(*)", "count() is an aggregate function, which only aggregate: can compute"),
        ("row_number() over ()", "unknown function \"row_number\""),
        ("sum(n) over ()", "OVER is not supported; use aggregate: with window:"),
        ("(select 1)", "queries inside of an expression are not supported"),
        ("unnest(list)", "unnest() makes several rows of one, which an expression cannot"),
        ("null", "the expression is always null and has no type; write cast(null as ...)"),
        ("$1", "placeholders are not supported; write the value"),
        ("upper(n, n)", "upper() takes 1 argument, not 2"),
        ("cast(host as nonsense)", "Unsupported SQL type nonsense"),
        ("", "the expression is empty"),
        ("  ", "the expression is empty"),
    ];
    let found = cases.map(|(expression, _)| (expression, column(expression)));
    assert_eq!(found, cases.map(|(expression, message)| (expression, Err(message.to_owned()))));
}

#[test]
fn a_filter_is_a_condition() {
    let scope = Scope::new(&schema()).unwrap();
    let fault = Expressions::new(Vec::new()).predicate(&text("n + 1"), &scope).unwrap_err();
    assert_eq!(fault.message, "a filter is a condition (bool), this is int64");
}

#[test]
fn a_secret_is_not_in_the_message() {
    let scope = Scope::new(&schema()).unwrap();
    let secret = Text { value: "host = hunter2".to_owned(), written: "host = ${PASSWORD}".to_owned(), span: Span::default(), secret: true };
    let fault = Expressions::new(Vec::new()).predicate(&secret, &scope).unwrap_err();
    assert_eq!(fault.message, "\"host = ${PASSWORD}\" is no valid expression with what it refers to");
}
