//! Rows as JSON lines, compared as multisets: the order between keys is not promised.

use serde_json::{Map, Value};
use std::{collections::BTreeMap, fs, path::Path};

/// A row: column -> value.
pub type Row = Map<String, Value>;

/// The rows of a text of JSON lines.
pub fn rows(text: &str) -> Vec<Row> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
    text.lines().map(parse).collect()
}

/// The rows of a file of JSON lines.
pub fn read_rows(path: impl AsRef<Path>) -> Vec<Row> {
    let path = path.as_ref();
    rows(&fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// What a stream of changes leaves at its end: the last row of each key, without `op`, unless that row is a delete.
pub fn last_rows(changes: &[Row], key: &[&str]) -> Vec<Row> {
    let mut kept: BTreeMap<String, Row> = BTreeMap::new();
    for change in changes {
        let at = key.iter().map(|column| change[*column].to_string()).collect::<Vec<_>>().join("\n");
        let mut row = change.clone();
        match row.remove("op").as_ref().and_then(Value::as_str) {
            Some("+I" | "+U") => drop(kept.insert(at, row)),
            Some("-D") => drop(kept.remove(&at)),
            Some("-U") => {}
            other => panic!("{other:?} is no kind of change: {change:?}"),
        }
    }
    kept.into_values().collect()
}

/// Panics with the rows that are missing and those that are too many. Numbers are equal to nine digits after the point: the order of a sum may differ.
pub fn assert_same_rows(what: &str, found: &[Row], expected: &[Row]) {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for row in found {
        *counts.entry(plain(row)).or_default() += 1;
    }
    for row in expected {
        *counts.entry(plain(row)).or_default() -= 1;
    }
    let differing = counts.into_iter().filter(|(_, count)| *count != 0);
    let lines: Vec<String> =
        differing.map(|(row, count)| format!("  {} {} x {row}", if count > 0 { "too many" } else { "missing" }, count.abs())).collect();
    let (ours, theirs) = (found.len(), expected.len());
    assert!(lines.is_empty(), "{what}: {ours} rows found, {theirs} expected, the difference:\n{}", lines.join("\n"));
}

/// A row as text, its columns sorted by name, fractions rounded.
fn plain(row: &Row) -> String {
    let columns: BTreeMap<&String, String> = row.iter().map(|(name, value)| (name, plain_value(value))).collect();
    columns.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn plain_value(value: &Value) -> String {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(integer) => integer.to_string(),
            None => {
                let text = format!("{:.9}", number.as_f64().unwrap_or(f64::NAN));
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rows_in_another_order_are_the_same() {
        let found = rows("{\"a\": 1.0, \"b\": \"x\"}\n{\"a\": 0.1, \"b\": \"y\"}\n");
        let expected = rows("{\"b\": \"y\", \"a\": 0.1000000000001}\n{\"b\": \"x\", \"a\": 1}\n");
        assert_same_rows("rows", &found, &expected);
    }

    #[test]
    #[should_panic(expected = "missing 1 x a=1")]
    fn a_row_that_is_twice_there_must_be_found_twice() {
        assert_same_rows("rows", &rows("{\"a\": 1}"), &rows("{\"a\": 1}\n{\"a\": 1}"));
    }

    #[test]
    fn changes_leave_their_last_rows() {
        let changes = rows(
            "{\"op\":\"+I\",\"k\":1,\"n\":1}\n{\"op\":\"+U\",\"k\":1,\"n\":2}\n{\"op\":\"+I\",\"k\":2,\"n\":7}\n{\"op\":\"-D\",\"k\":2,\"n\":7}\n",
        );
        assert_eq!(last_rows(&changes, &["k"]), rows("{\"k\":1,\"n\":2}"));
    }
}
