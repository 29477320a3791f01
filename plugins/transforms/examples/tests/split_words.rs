//! `split-words` as the host runs it, against the obvious way to do it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use arrow_array::{ArrayRef, Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray, cast::AsArray, types::Int64Type};
use proptest::prelude::*;
use serde_json::{Value, json};
use standpipe_sdk::testing::{Harness, TransformHarness};
use standpipe_transforms_examples::SplitWords;
use std::sync::Arc;

fn batch(texts: ArrayRef) -> RecordBatch {
    let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(0..texts.len() as i64));
    RecordBatch::try_from_iter_with_nullable([("text", texts, true), ("row", rows, true)]).unwrap()
}

fn strings(texts: &[Option<String>]) -> RecordBatch {
    batch(Arc::new(StringArray::from_iter(texts)))
}

fn split(config: Value, input: &RecordBatch) -> Vec<RecordBatch> {
    Harness::transform::<SplitWords>(config, input.schema()).process(input).unwrap()
}

fn words(batches: &[RecordBatch]) -> Vec<String> {
    let column = |batch: &RecordBatch| {
        batch.column_by_name("word").unwrap().as_string::<i32>().iter().map(|word| word.unwrap().to_owned()).collect::<Vec<_>>()
    };
    batches.iter().flat_map(column).collect()
}

fn naive(text: &str, letters: bool, lowercase: bool) -> Vec<String> {
    let words = text.split(|c: char| if letters { !c.is_ascii_alphabetic() } else { c.is_ascii_whitespace() || c == '\x0b' });
    words.filter(|word| !word.is_empty()).map(|word| if lowercase { word.to_ascii_lowercase() } else { word.to_owned() }).collect()
}

fn texts() -> impl Strategy<Value = Vec<Option<String>>> {
    let piece = prop_oneof![4 => "[a-zA-Z]{1,9}", 3 => "[ \\t\\n\\x0b\\x0c\\r]{1,3}", 2 => "[^a-zA-Z ]{1,3}", 1 => any::<char>().prop_map(String::from)];
    let text = prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
    prop::collection::vec(prop::option::weighted(0.9, text), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn words_are_those_of_the_obvious_way(texts in texts(), letters: bool, lowercase: bool) {
        let separator = if letters { "non-letters" } else { "whitespace" };
        let config = json!({ "column": "text", "separator": separator, "lowercase": lowercase, "keep": ["row"] });
        let found = split(config, &strings(&texts));
        let expected: Vec<(i64, String)> = (0..).zip(&texts).flat_map(|(row, text)| {
            naive(text.as_deref().unwrap_or_default(), letters, lowercase).into_iter().map(move |word| (row, word))
        }).collect();
        let rows = found.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec());
        prop_assert_eq!(rows.zip(words(&found)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn every_string_type_gives_the_same(texts in texts()) {
        let config = json!({ "column": "text" });
        let expected = words(&split(config.clone(), &strings(&texts)));
        prop_assert_eq!(&words(&split(config.clone(), &batch(Arc::new(LargeStringArray::from_iter(&texts))))), &expected);
        prop_assert_eq!(&words(&split(config, &batch(Arc::new(StringViewArray::from_iter(&texts))))), &expected);
    }
}

#[test]
fn memory_is_used_again_without_traces_of_the_batch_before() {
    let first = strings(&[Some("a long first batch with many words".to_owned())]);
    let second = strings(&[Some("b".to_owned()), None, Some(" c ".to_owned())]);
    let mut transform = Harness::transform::<SplitWords>(json!({ "column": "text" }), first.schema());
    assert_eq!(words(&transform.process(&first).unwrap()).len(), 7);
    assert_eq!(words(&transform.process(&second).unwrap()), ["b", "c"]);
    assert!(transform.process(&strings(&[None, Some(" \n".to_owned())])).unwrap().is_empty(), "no words, no batch");
    let sliced = first.slice(0, 0);
    assert!(transform.process(&sliced).unwrap().is_empty());
}

#[test]
fn the_output_has_the_name_and_the_columns_asked_for() {
    let input = strings(&[Some("a b".to_owned())]);
    let config = json!({ "column": "text", "output": "w", "keep": ["row", "text"] });
    let found = split(config, &input);
    assert_eq!(found[0].schema_ref().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["row", "text", "w"]);
    assert_eq!(found[0].column(1).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("a b"), Some("a b")]);
}

#[test]
fn wrong_values_are_named_with_their_path() {
    let input = strings(&[]);
    let problems = |config: Value| {
        let transform: TransformHarness = Harness::transform::<SplitWords>(config, input.schema());
        transform
            .validate()
            .unwrap()
            .details
            .problems
            .into_iter()
            .map(|p| (format!("{}: {}", p.path, p.message), p.suggestion))
            .collect::<Vec<_>>()
    };
    assert_eq!(problems(json!({ "column": "txt" })), [("column: the input has no column \"txt\"".to_owned(), Some("text".to_owned()))]);
    assert_eq!(problems(json!({ "column": "row" }))[0].0, "column: \"row\" has the type Int64, which is no string");
    assert_eq!(problems(json!({ "column": "text", "keep": ["rwo"] }))[0].0, "keep[0]: the input has no column \"rwo\"");
    assert_eq!(problems(json!({ "column": "text", "keep": ["row", "row"] }))[0].0, "keep[1]: there would be two columns \"row\"");
    assert_eq!(problems(json!({ "column": "text", "output": "row", "keep": ["row"] }))[0].0, "keep[0]: there would be two columns \"row\"");
    assert!(problems(json!({ "column": "text", "separator": "comma" }))[0].0.starts_with("separator: unknown variant `comma`"));
}
