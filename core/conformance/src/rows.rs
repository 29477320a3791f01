//! Rows as texts, which is how they are compared: what counts is what a user would see, not which buffers it lies in.

use crate::check::Stop;
use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};

/// What a null is shown as: no text of a row.
const NULL: &str = "\u{2205}";

/// The rows of a batch, each a text. The batch must have been looked at by [`valid`].
pub(crate) fn texts(batch: &RecordBatch) -> Result<Vec<String>, Stop> {
    let options = FormatOptions::default().with_null(NULL);
    let failed = |error: arrow_schema::ArrowError| Stop::fail(format!("its rows cannot be shown: {error}"));
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options)).collect::<Result<Vec<_>, _>>();
    let columns = columns.map_err(failed)?;
    let row = |row: usize| {
        let cells = columns.iter().map(|column| column.value(row).try_to_string()).collect::<Result<Vec<_>, _>>();
        cells.map(|cells| cells.join("|")).map_err(failed)
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Whether all that the buffers of a batch hold is what its types say: offsets within bounds, text in UTF-8, keys of dictionaries. The host takes that on trust.
pub(crate) fn valid(what: &str, batch: &RecordBatch) -> Result<(), Stop> {
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let data = column.to_data();
        data.validate_full().map_err(|error| Stop::fail(format!("{what}: the column {:?} is no valid Arrow: {error}", field.name())))?;
        if !field.is_nullable() && data.null_count() > 0 {
            return Err(Stop::fail(format!("{what}: the column {:?} is declared not null, and has {} nulls", field.name(), data.null_count())));
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

/// How often the buffers of a batch are held, by whomever: what was lent and has not come back holds them once more.
pub(crate) fn references(batch: &RecordBatch) -> usize {
    fn count(data: &arrow_data::ArrayData) -> usize {
        let own: usize = data.buffers().iter().map(arrow_buffer::Buffer::strong_count).sum();
        own + data.child_data().iter().map(count).sum::<usize>()
    }
    batch.columns().iter().map(|column| count(&column.to_data())).sum()
}
