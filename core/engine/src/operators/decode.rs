//! Decoding of a source's records, fused behind its reader: the column `value` becomes typed columns, the source's other columns go on beside them.
//!
//! A record that cannot be decoded ends the job (`on_error: fail`) or goes to the output `errors`, output 1. There the dataflow counts it, and drops it where
//! nothing reads that output (`skip`, or a dead letter that nobody wants).

use super::{arrow_error, data_error};
use crate::operator::{Emitter, OperatorError};
use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray, UInt32Array},
    compute::{cast, take},
    datatypes::{DataType, Field, SchemaRef},
    util::display::array_value_to_string,
};
use standpipe_formats::{Broken, Decoded, Decoder, OnError, decoder};
use standpipe_pipeline::plan::DecodeStep;
use standpipe_sdk::wire::{ROLE, ROLE_POSITION, VALUE_COLUMN};
use std::sync::Arc;

/// Decodes the batches of a source subtask.
pub(crate) struct Decode {
    node: String,
    decoder: Box<dyn Decoder>,
    on_error: OnError,
    main: SchemaRef,
    errors: SchemaRef,
}

impl Decode {
    /// `main` is the schema of the main output: the decoded columns, then the source's other ones. `errors` has the record, the reason and the split.
    ///
    /// # Errors
    /// When the format cannot hold the columns.
    pub(crate) fn new(node: &str, step: &DecodeStep, main: SchemaRef, errors: SchemaRef) -> Result<Self, OperatorError> {
        let decoder = decoder(&step.format, step.schema.clone()).map_err(|error| data_error(node, error))?;
        Ok(Self { node: node.to_owned(), decoder, on_error: step.format.on_error, main, errors })
    }

    /// Decodes a batch of a split: rows to output 0, broken records to output 1.
    ///
    /// # Errors
    /// When a record is broken under `fail`, or the batch is not the source's.
    pub(crate) fn decode(&mut self, split: &str, batch: &RecordBatch, out: &mut Emitter) -> Result<(), OperatorError> {
        let (value, records) = batch
            .schema_ref()
            .column_with_name(VALUE_COLUMN)
            .map(|(at, _)| (at, batch.column(at)))
            .ok_or_else(|| data_error(&self.node, format!("the source gives no column {VALUE_COLUMN:?} to decode")))?;
        let Decoded { batch: decoded, kept, broken } = self.decoder.decode(records).map_err(|error| data_error(&self.node, error))?;
        if let (OnError::Fail, Some(first)) = (self.on_error, broken.first()) {
            return Err(self.failure(split, batch, records, first));
        }
        if decoded.num_rows() > 0 {
            let mut columns = decoded.columns().to_vec();
            for (_, column) in batch.columns().iter().enumerate().filter(|(at, _)| *at != value) {
                columns.push(match &kept {
                    None => Arc::clone(column),
                    Some(kept) => take(column, kept, None).map_err(|source| arrow_error(&self.node, source))?,
                });
            }
            let main = RecordBatch::try_new(Arc::clone(&self.main), columns);
            out.emit(0, main.map_err(|source| arrow_error(&self.node, source))?);
        }
        if !broken.is_empty() {
            out.emit(1, self.errors(split, records, broken).map_err(|source| arrow_error(&self.node, source))?);
        }
        Ok(())
    }

    fn errors(&self, split: &str, records: &ArrayRef, broken: Vec<Broken>) -> Result<RecordBatch, arrow::error::ArrowError> {
        let rows = UInt32Array::from_iter_values(broken.iter().map(|broken| broken.row));
        let records = binary(&take(records, &rows, None)?)?;
        let splits = StringArray::from_iter_values(broken.iter().map(|_| split));
        let reasons = StringArray::from_iter_values(broken.into_iter().map(|broken| broken.reason));
        RecordBatch::try_new(Arc::clone(&self.errors), vec![records, Arc::new(reasons), Arc::new(splits)])
    }

    /// Says which record it was: its split, its position where the source gives one, how it begins.
    fn failure(&self, split: &str, batch: &RecordBatch, records: &ArrayRef, broken: &Broken) -> OperatorError {
        let row = broken.row as usize;
        let role = |field: &Field| field.metadata().get(ROLE).is_some_and(|role| role == ROLE_POSITION);
        let position = batch.schema_ref().fields().iter().position(|field| role(field)).and_then(|at| {
            let value = array_value_to_string(batch.column(at), row).ok()?;
            Some(format!("{} {value}", batch.schema_ref().field(at).name()))
        });
        let position = position.unwrap_or_else(|| format!("record {row} of a batch"));
        let text = binary(&records.slice(row, 1)).ok().map(|record| beginning(record.as_binary())).unwrap_or_default();
        data_error(&self.node, format!("split {split:?}, {position}: {}{text}", broken.reason))
    }
}

/// Records as a binary column; those of another type that the decoder takes become one.
fn binary(records: &ArrayRef) -> Result<ArrayRef, arrow::error::ArrowError> {
    match records.data_type() {
        DataType::LargeUtf8 | DataType::Utf8View => cast(&cast(records, &DataType::Utf8)?, &DataType::Binary),
        _ => cast(records, &DataType::Binary),
    }
}

const SHOWN: usize = 200;

fn beginning(record: &BinaryArray) -> String {
    match record.iter().next().flatten() {
        None => String::new(),
        Some(bytes) if bytes.len() <= SHOWN => format!(" in {}", printable(bytes)),
        Some(bytes) => format!(" in {}...", printable(&bytes[..SHOWN])),
    }
}

/// A record may hold newlines and a terminal's control sequences: a message stays one line and shows them as escapes.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        if character.is_control() { text.extend(character.escape_default()) } else { text.push(character) }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::{Int64Type, Schema};
    use standpipe_formats::{FormatKind, FormatSpec};
    use std::collections::HashMap;

    fn decode(on_error: OnError) -> Decode {
        let value = Field::new("v", DataType::Int64, true);
        let schema = Arc::new(Schema::new(vec![value.clone()]));
        let main = Schema::new(vec![value, Field::new("offset", DataType::Int64, false)]);
        let step = DecodeStep { format: FormatSpec { on_error, ..FormatKind::Json.into() }, schema };
        Decode::new("sources.readings", &step, Arc::new(main), errors_schema()).unwrap()
    }

    fn errors_schema() -> SchemaRef {
        let text = |name| Field::new(name, DataType::Utf8, false);
        Arc::new(Schema::new(vec![Field::new("record", DataType::Binary, true), text("reason"), text("split")]))
    }

    fn records(records: ArrayRef) -> RecordBatch {
        let position = HashMap::from([(ROLE.to_owned(), ROLE_POSITION.to_owned())]);
        let fields = vec![
            Field::new("offset", DataType::Int64, false).with_metadata(position),
            Field::new(VALUE_COLUMN, records.data_type().clone(), true),
        ];
        let offsets = Int64Array::from_iter_values((0..records.len() as i64).map(|row| 100 + row));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(offsets), records]).unwrap()
    }

    fn texts() -> ArrayRef {
        Arc::new(StringArray::from(vec![Some(r#"{"v":1}"#), Some(r#"{"v":"#), Some(r#"{"v":3}"#), None]))
    }

    #[test]
    fn good_records_keep_their_columns_and_broken_ones_their_reason() {
        for data_type in
            [DataType::Utf8, DataType::Binary, DataType::LargeUtf8, DataType::Utf8View, DataType::LargeBinary, DataType::BinaryView]
        {
            for policy in [OnError::Skip, OnError::DeadLetter] {
                let mut out = Emitter::default();
                decode(policy).decode("a.jsonl", &records(cast(&texts(), &data_type).unwrap()), &mut out).unwrap();
                let [(0, rows), (1, errors)] = &out.drain().collect::<Vec<_>>()[..] else { panic!("rows, then errors") };
                let column = |at: usize| rows.column(at).as_primitive::<Int64Type>().values().to_vec();
                assert_eq!((column(0), column(1)), (vec![1, 3], vec![100, 102]));
                assert_eq!(errors.schema(), errors_schema());
                let broken: Vec<_> = errors.column(0).as_binary::<i32>().iter().collect();
                assert_eq!(broken, [Some(&br#"{"v":"#[..]), None], "{data_type}");
                let reasons = errors.column(1).as_string::<i32>();
                assert!(reasons.iter().all(|reason| reason.is_some_and(|reason| !reason.is_empty())) && reasons.value(1).contains("null"));
                assert_eq!(errors.column(2).as_string::<i32>().value(1), "a.jsonl");
            }
        }
    }

    #[test]
    fn without_broken_records_the_other_columns_are_not_copied() {
        let batch = records(Arc::new(StringArray::from(vec![r#"{"v":1}"#])));
        let mut out = Emitter::default();
        decode(OnError::Fail).decode("a", &batch, &mut out).unwrap();
        let emitted: Vec<_> = out.drain().collect();
        assert_eq!(emitted.len(), 1);
        assert!(emitted[0].1.column(1).to_data().ptr_eq(&batch.column(0).to_data()));
    }

    #[test]
    fn a_failure_says_which_record() {
        let error = decode(OnError::Fail).decode("a.jsonl", &records(texts()), &mut Emitter::default()).unwrap_err().to_string();
        assert!(error.starts_with("sources.readings: split \"a.jsonl\", offset 101: ") && error.ends_with(r#" in {"v":"#), "{error}");
        let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1000)]));
        let error = decode(OnError::Fail).decode("a", &records(long), &mut Emitter::default()).unwrap_err().to_string();
        assert!(error.ends_with(&format!("{}...", "x".repeat(SHOWN))), "{error}");
        let control: ArrayRef = Arc::new(StringArray::from(vec!["{\n\u{1b}[2J\u{e9}"]));
        let error = decode(OnError::Fail).decode("a", &records(control), &mut Emitter::default()).unwrap_err().to_string();
        assert!(error.ends_with(" in {\\n\\u{1b}[2J\u{e9}"), "{error}");
    }

    #[test]
    fn a_batch_without_records_is_refused() {
        let batch = records(texts()).project(&[0]).unwrap();
        assert!(decode(OnError::Skip).decode("a", &batch, &mut Emitter::default()).is_err());
    }
}
