//! Schemas, types and rows as the command line of `plugin check` gives them.

use crate::exit::{Code, Failure};
use anyhow::Context as _;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use standpipe_formats::{FormatKind, FormatSpec, decoder, types::parse_field};
use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

/// Rows of a batch, and rows at most: what is tried is tried again and again.
const ROWS: usize = 64;
const MOST: usize = 2048;

fn usage(message: impl ToString) -> anyhow::Error {
    Failure::error(Code::Usage, message)
}

/// `id:int64 not null, price:decimal(10, 2)`.
pub(super) fn schema(text: &str) -> anyhow::Result<SchemaRef> {
    let field = |column: &str| -> anyhow::Result<Field> {
        let (name, data_type) = column.split_once(':').ok_or_else(|| usage(format!("--schema: expected COLUMN:TYPE, found {column:?}")))?;
        let (data_type, is_nullable) = data_type.trim().strip_suffix("not null").map_or((data_type, true), |data_type| (data_type, false));
        let field = parse_field(name.trim(), data_type.trim()).map_err(|error| usage(format!("--schema: {}: {error}", name.trim())))?;
        Ok(field.with_nullable(is_nullable))
    };
    let fields = parts(text).into_iter().map(field).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// `int64, list<string>`.
pub(super) fn types(text: &str) -> anyhow::Result<Vec<DataType>> {
    let data_type = |text: &str| parse_field("argument", text).map(|field| field.data_type().clone());
    parts(text).into_iter().map(|part| data_type(part).map_err(|error| usage(format!("--arguments: {error}")))).collect()
}

/// What lies between the commas that are in no brackets.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0_i32, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' | '<' => depth += 1,
            ')' | '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[begin..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

/// The first rows of a file.
pub(super) fn rows(path: &Path, schema: Option<SchemaRef>) -> anyhow::Result<Vec<RecordBatch>> {
    let shown = path.display();
    let outside = |error: std::io::Error| Failure::error(Code::Outside, format!("--input {shown}: {error}"));
    let batches = match path.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => {
            let file = File::open(path).map_err(outside)?;
            let reader =
                ParquetRecordBatchReaderBuilder::try_new(file).and_then(|reader| reader.with_batch_size(ROWS).with_limit(MOST).build());
            let reader = reader.map_err(|error| usage(format!("--input {shown}: {error}")))?;
            reader.collect::<Result<Vec<_>, _>>().with_context(|| format!("--input {shown}"))?
        }
        Some(extension @ ("jsonl" | "ndjson" | "json" | "csv")) => {
            let kind = if extension == "csv" { FormatKind::Csv } else { FormatKind::Json };
            let why = "its lines do not say which types their columns have: --schema does, or --pipeline";
            let schema = schema.ok_or_else(|| usage(format!("--input {shown}: {why}")))?;
            lines(path, &fs::read_to_string(path).map_err(outside)?, kind, &schema)?
        }
        _ => return Err(usage(format!("--input {shown}: expected a file that ends with .parquet, .jsonl or .csv"))),
    };
    match batches.iter().any(|batch| batch.num_rows() > 0) {
        true => Ok(batches),
        false => Err(usage(format!("--input {shown}: it has no rows"))),
    }
}

fn lines(path: &Path, text: &str, kind: FormatKind, schema: &SchemaRef) -> anyhow::Result<Vec<RecordBatch>> {
    let mut decoder = decoder(&FormatSpec::from(kind), schema.clone())?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).take(MOST).collect();
    let mut batches = Vec::new();
    for (at, part) in lines.chunks(ROWS).enumerate() {
        let records: ArrayRef = Arc::new(StringArray::from(part.to_vec()));
        let decoded = decoder.decode(records.as_ref())?;
        if let Some(broken) = decoded.broken.first() {
            let line = at * ROWS + broken.row as usize + 1;
            return Err(usage(format!("--input {}: row {line}: {}", path.display(), broken.reason)));
        }
        batches.push(decoded.batch);
    }
    Ok(batches)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;

    #[test]
    fn columns_and_types_are_read() {
        let schema = schema("id: int64 not null, price:decimal(10, 2),tags:list<string>").unwrap();
        assert!(!schema.field(0).is_nullable() && schema.field(1).is_nullable());
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["id", "price", "tags"]);
        assert_eq!(schema.field(1).data_type(), &DataType::Decimal128(10, 2));
        assert_eq!(types("int64, string").unwrap(), [DataType::Int64, DataType::Utf8]);
        assert_eq!(super::schema("id").unwrap_err().to_string(), "--schema: expected COLUMN:TYPE, found \"id\"");
        assert!(types("strng").unwrap_err().to_string().contains("did you mean \"string\"?"));
    }
}
