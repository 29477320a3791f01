//! Rows as texts, which is how they are compared: what counts is what a user would see, not which buffers it lies in.

use crate::check::Stop;
use arrow_array::{Array, RecordBatch, UInt32Array, make_array};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType, Field};
use std::sync::Arc;

/// What a null is shown as: no text of a row.
const NULL: &str = "\u{2205}";

/// The rows of a batch, each a text. The batch must have been looked at by [`valid`].
pub(crate) fn texts(batch: &RecordBatch) -> Result<Vec<String>, Stop> {
    let options = FormatOptions::default().with_null(NULL);
    let failed = |error: ArrowError| Stop::fail(format!("its rows cannot be shown: {error}"));
    let plain = batch
        .columns()
        .iter()
        .map(|column| if has_zone(column.data_type()) { without_zones(column.to_data()).map(make_array) } else { Ok(Arc::clone(column)) });
    let plain = plain.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let columns = plain.iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options)).collect::<Result<Vec<_>, _>>();
    let columns = columns.map_err(failed)?;
    let row = |row: usize| {
        let cells = columns.iter().map(|column| column.value(row).try_to_string()).collect::<Result<Vec<_>, _>>();
        cells.map(|cells| cells.join("|")).map_err(failed)
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Whether there is a timestamp with a time zone in it: its name means nothing to a formatter without a table of time zones.
fn has_zone(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(_, zone) => zone.is_some(),
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) | DataType::Map(field, _) => {
            has_zone(field.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| has_zone(field.data_type())),
        _ => false,
    }
}

/// The same instants, as they are in UTC.
fn without_zones(data: ArrayData) -> Result<ArrayData, ArrowError> {
    let data_type = zoneless(data.data_type());
    let children = data.child_data().iter().cloned().map(without_zones).collect::<Result<Vec<_>, _>>()?;
    data.into_builder().data_type(data_type).child_data(children).build()
}

fn zoneless(data_type: &DataType) -> DataType {
    let plain = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_data_type(zoneless(field.data_type())));
    match data_type {
        DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, None),
        DataType::List(field) => DataType::List(plain(field)),
        DataType::LargeList(field) => DataType::LargeList(plain(field)),
        DataType::FixedSizeList(field, width) => DataType::FixedSizeList(plain(field), *width),
        DataType::Map(field, sorted) => DataType::Map(plain(field), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain).collect()),
        other => other.clone(),
    }
}

/// Whether all that the buffers of a batch hold is what its types say: offsets within bounds, text in UTF-8, keys of dictionaries. The host takes that on trust.
pub(crate) fn valid(what: &str, batch: &RecordBatch) -> Result<(), Stop> {
    // Nothing is read of an array without rows, and Arrow's own import leaves offsets in it that point nowhere.
    let rows = batch.num_rows();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()).filter(|_| rows > 0) {
        let data = column.to_data();
        data.validate_full().map_err(|error| Stop::fail(format!("{what}: the column {:?} is no valid Arrow: {error}", field.name())))?;
        if !field.is_nullable() && data.null_count() > 0 {
            return Err(Stop::fail(format!(
                "{what}: the column {:?} is declared not null, and has {} nulls",
                field.name(),
                data.null_count()
            )));
        }
    }
    Ok(())
}

/// Where rows differ from those expected, in order.
pub(crate) fn difference(expected: &[String], found: &[String]) -> Option<String> {
    let at = expected.iter().zip(found).position(|(expected, found)| expected != found);
    match at {
        Some(at) => Some(format!("row {at} is {:?} instead of {:?}", shorten(&found[at]), shorten(&expected[at]))),
        None if expected.len() > found.len() => {
            let (missing, first) = (expected.len() - found.len(), &expected[found.len()]);
            Some(format!("{missing} of {} rows are missing, the first of them {:?}", expected.len(), shorten(first)))
        }
        None if expected.len() < found.len() => {
            let (more, first) = (found.len() - expected.len(), &found[expected.len()]);
            Some(format!("{more} rows too many, the first of them {:?}", shorten(first)))
        }
        None => None,
    }
}

/// As [`difference`], whatever the order.
pub(crate) fn difference_unordered(expected: &[String], found: &[String]) -> Option<String> {
    let sorted = |rows: &[String]| {
        let mut rows = rows.to_vec();
        rows.sort();
        rows
    };
    difference(&sorted(expected), &sorted(found))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// How often the columns of a batch and their buffers are held, by whomever: what was lent and has not come back holds either once more.
pub(crate) fn references(batch: &RecordBatch) -> usize {
    fn count(data: &ArrayData) -> usize {
        let own: usize = data.buffers().iter().map(arrow_buffer::Buffer::strong_count).sum();
        own + data.child_data().iter().map(count).sum::<usize>()
    }
    batch.columns().iter().map(|column| Arc::strong_count(column) + count(&column.to_data())).sum()
}

/// The same rows in memory of their own, which nobody else holds.
pub(crate) fn fresh(batches: &[RecordBatch]) -> Result<Vec<RecordBatch>, Stop> {
    let copy = |batch: &RecordBatch| {
        let all = UInt32Array::from_iter_values(0..batch.num_rows() as u32);
        arrow_select::take::take_record_batch(batch, &all).map_err(|error| Stop::skip(format!("its rows cannot be copied: {error}")))
    };
    batches.iter().map(copy).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;
    use arrow_array::{ArrayRef, Int64Array, TimestampSecondArray};

    #[test]
    fn instants_with_a_zone_are_shown_and_so_are_those_in_a_list() {
        let at = TimestampSecondArray::from(vec![Some(0), None]).with_timezone("Europe/Vienna");
        let field = Arc::new(Field::new("item", at.data_type().clone(), true));
        let lists = arrow_array::ListArray::new(field, arrow_buffer::OffsetBuffer::from_lengths([0, 2]), Arc::new(at.clone()), None);
        let columns: [(&str, ArrayRef); 2] = [("at", Arc::new(at)), ("lists", Arc::new(lists))];
        let shown = texts(&RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        assert_eq!(shown, ["1970-01-01T00:00:00|[]", "\u{2205}|[1970-01-01T00:00:00, \u{2205}]"]);
    }

    #[test]
    fn what_is_held_elsewhere_is_counted() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        let batch = fresh(&[batch]).unwrap().remove(0);
        let before = references(&batch);
        let lent = batch.column(0).to_data();
        assert_eq!(references(&batch), before + 1);
        drop(lent);
        assert_eq!(references(&batch), before);
    }

    #[test]
    fn differences_name_the_first_row() {
        let rows = |rows: &[&str]| rows.iter().map(|row| (*row).to_owned()).collect::<Vec<_>>();
        let (one, other) = (rows(&["a", "b"]), rows(&["b", "a"]));
        assert_eq!(difference(&one, &other).unwrap(), "row 0 is \"b\" instead of \"a\"");
        assert_eq!(difference_unordered(&one, &other), None);
        assert_eq!(difference(&one, &rows(&["a"])).unwrap(), "1 of 2 rows are missing, the first of them \"b\"");
        assert_eq!(difference(&rows(&["a"]), &one).unwrap(), "1 rows too many, the first of them \"b\"");
    }
}
