//! CSV records to record batches: the decoder that the engine calls after a source. It knows no policy: broken records are reported.

use arrow_array::{Array, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, SchemaRef};

use super::Dialect;
use super::split::{self, Fields};
use crate::json::Column;
use crate::records::{RecordVisitor, TOMBSTONE, each_record};
use crate::{Decoded, Decoder, FormatError, FormatSpec, OnNull};

/// The most text of a record that a message repeats.
const MAX_FOUND: usize = 40;
/// Some writers begin a file with it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The decoder of the format `csv`.
pub(crate) struct CsvDecoder {
    schema: SchemaRef,
    on_null: OnNull,
    rows: Rows,
}

impl CsvDecoder {
    pub(crate) fn new(spec: &FormatSpec, schema: SchemaRef) -> Result<Self, FormatError> {
        super::check(&schema)?;
        let columns = schema.fields().iter().map(|field| column(field)).collect::<Result<_, _>>()?;
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok(Self { rows: Rows { dialect: Dialect::new(spec)?, columns, names, rows: 0 }, on_null: spec.on_null, schema })
    }
}

fn column(field: &Field) -> Result<Column, FormatError> {
    Column::new(field, field.name()).map_err(|_| super::unsupported(field))
}

impl Decoder for CsvDecoder {
    fn decode(&mut self, records: &dyn Array) -> Result<Decoded, FormatError> {
        // What a failed call has left behind.
        self.rows.truncate(0);
        let outcome = each_record(records, self.on_null, &mut self.rows)?;
        let rows = RecordBatchOptions::new().with_row_count(Some(self.rows.rows));
        self.rows.rows = 0;
        let columns = self.rows.columns.iter_mut().map(Column::finish).collect::<Result<_, _>>()?;
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &rows)?;
        Ok(Decoded { batch, kept: outcome.kept, broken: outcome.broken })
    }
}

struct Rows {
    dialect: Dialect,
    columns: Vec<Column>,
    names: Vec<String>,
    rows: usize,
}

impl RecordVisitor for Rows {
    #[inline]
    fn record(&mut self, bytes: &[u8]) -> Result<bool, String> {
        if self.dialect.header && self.is_header(bytes)? {
            return Ok(false);
        }
        match self.row(bytes) {
            Ok(()) => {
                self.rows += 1;
                Ok(true)
            }
            Err(reason) => {
                self.truncate(self.rows);
                Err(reason)
            }
        }
    }

    fn null(&mut self) -> Result<(), String> {
        if self.columns.iter_mut().any(|column| column.decode_text(None).is_err()) {
            self.truncate(self.rows);
            return Err(TOMBSTONE.to_owned());
        }
        self.rows += 1;
        Ok(())
    }
}

impl Rows {
    fn row(&mut self, bytes: &[u8]) -> Result<(), String> {
        if let Err(error) = std::str::from_utf8(bytes) {
            return Err(format!("invalid UTF-8 at byte {}", error.valid_up_to()));
        }
        let count = self.columns.len();
        let mut fields = Fields::new(&self.dialect, bytes);
        for (at, column) in self.columns.iter_mut().enumerate() {
            let Some(field) = fields.next() else { return Err(wrong_count(count, at, &self.names)) };
            let field = field?;
            let is_null = !field.quoted && *field.text == *self.dialect.null;
            column.decode_text((!is_null).then_some(&*field.text)).map_err(|expected| fault(column.name(), &field, expected))?;
        }
        match fields.next() {
            None => Ok(()),
            Some(_) => {
                let mut all = Fields::new(&self.dialect, bytes);
                let found = std::iter::from_fn(|| all.next()?.ok()).count();
                Err(wrong_count(count, found, &self.names))
            }
        }
    }

    /// Whether the record is the names of the columns.
    fn is_header(&self, bytes: &[u8]) -> Result<bool, String> {
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        let mut fields = Fields::new(&self.dialect, bytes);
        let Some(Ok(first)) = fields.next() else { return Ok(false) };
        // Nearly every row differs here.
        let is_named = |text: &[u8]| self.names.iter().any(|name| name.as_bytes() == text);
        if !is_named(&first.text) {
            return Ok(false);
        }
        let mut all = vec![first.text.into_owned()];
        while let Some(field) = fields.next() {
            let Ok(field) = field else { return Ok(false) };
            all.push(field.text.into_owned());
        }
        if all.iter().map(Vec::as_slice).eq(self.names.iter().map(String::as_bytes)) {
            return Ok(true);
        }
        if self.names.iter().all(|name| all.iter().any(|text| text == name.as_bytes())) {
            let found: Vec<_> = all.iter().map(|text| String::from_utf8_lossy(text)).collect();
            let (found, names) = (found.join(", "), self.names.join(", "));
            return Err(format!("a header of the columns {found}; the schema has {names}, and needs them all in the order of the file"));
        }
        Ok(false)
    }

    fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        self.rows = rows;
    }
}

#[cold]
fn wrong_count(columns: usize, found: usize, names: &[String]) -> String {
    let fields = if found == 1 { "1 field".to_owned() } else { format!("{found} fields") };
    match names.get(found) {
        Some(missing) => format!("expected {columns} fields, found {fields}: nothing for column {missing:?}"),
        None => format!("expected {columns} fields, found {fields}"),
    }
}

#[cold]
fn fault(column: &str, field: &split::Field<'_>, expected: String) -> String {
    let text = String::from_utf8_lossy(&field.text);
    let text = match text.char_indices().nth(MAX_FOUND) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into_owned(),
    };
    format!("column {column:?}: {expected}, found {text:?} at byte {}", field.at)
}
