//! The keys of a batch of records: one text or binary column as it is, anything else as JSON. Made once per batch by `sink`.

use arrow_array::{Array, BinaryArray, RecordBatch, StringArray, StructArray, cast::AsArray};
use arrow_buffer::NullBuffer;
use arrow_json::writer::{EncoderOptions, make_encoder};
use arrow_schema::{DataType, Field};
use standpipe_sdk::{Error, Result};
use std::sync::Arc;

/// The keys of a batch.
pub enum Keys<'a> {
    /// No record has one.
    None,
    /// A text column.
    Text(&'a StringArray),
    /// A binary column.
    Binary(&'a BinaryArray),
    /// JSON, one after the other.
    Json {
        /// The text of all of them.
        text: Vec<u8>,
        /// Where each ends.
        ends: Vec<usize>,
        /// Which rows have none: null in the only column.
        nulls: Option<NullBuffer>,
    },
}

impl<'a> Keys<'a> {
    /// The keys that these columns make: of one column its value, of several an object.
    ///
    /// # Errors
    /// When the batch has no such column, or JSON has no form for its type.
    pub fn of(batch: &'a RecordBatch, columns: &[String]) -> Result<Self> {
        let (field, array) = match columns {
            [] => return Ok(Self::None),
            [name] => {
                let index = batch.schema_ref().index_of(name)?;
                let array = batch.column(index);
                match array.data_type() {
                    DataType::Utf8 => return Ok(Self::Text(array.as_string())),
                    DataType::Binary => return Ok(Self::Binary(array.as_binary())),
                    _ => (Arc::new(batch.schema_ref().field(index).clone()), array.clone()),
                }
            }
            names => {
                let indices = names.iter().map(|name| batch.schema_ref().index_of(name)).collect::<Result<Vec<_>, _>>()?;
                let object = StructArray::from(batch.project(&indices)?);
                (Arc::new(Field::new("key", object.data_type().clone(), false)), Arc::new(object) as _)
            }
        };
        let options = EncoderOptions::default().with_explicit_nulls(true);
        let mut encoder = make_encoder(&field, &array, &options)
            .map_err(|error| Error::unsupported(format!("a key of {}: {error}", columns.join(", "))))?;
        let mut text = Vec::with_capacity(array.len() * 8);
        let mut ends = Vec::with_capacity(array.len());
        for row in 0..array.len() {
            if !encoder.is_null(row) {
                encoder.encode(row, &mut text);
            }
            ends.push(text.len());
        }
        Ok(Self::Json { text, ends, nulls: array.nulls().cloned() })
    }

    /// The key of a row.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::None => None,
            Self::Text(array) => array.is_valid(row).then(|| array.value(row).as_bytes()),
            Self::Binary(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Json { text, ends, nulls } => {
                let begin = row.checked_sub(1).map_or(0, |before| ends[before]);
                nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)).then(|| &text[begin..ends[row]])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{ArrayRef, Int32Array};

    fn keys(columns: Vec<(&str, ArrayRef)>, names: &[&str]) -> Vec<Option<String>> {
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let keys = Keys::of(&batch, &names).unwrap();
        (0..batch.num_rows()).map(|row| keys.get(row).map(|key| String::from_utf8(key.to_vec()).unwrap())).collect()
    }

    fn sample() -> Vec<(&'static str, ArrayRef)> {
        vec![
            ("id", Arc::new(Int32Array::from(vec![Some(42), None, Some(7)])) as ArrayRef),
            ("name", Arc::new(StringArray::from(vec![Some("a \"b\""), Some(""), None])) as ArrayRef),
        ]
    }

    #[test]
    fn one_text_column_is_the_key_as_it_is() {
        assert_eq!(keys(sample(), &["name"]), [Some("a \"b\"".to_owned()), Some(String::new()), None]);
    }

    #[test]
    fn another_type_is_its_json() {
        assert_eq!(keys(sample(), &["id"]), [Some("42".to_owned()), None, Some("7".to_owned())]);
    }

    #[test]
    fn several_columns_are_an_object_in_the_order_named() {
        let expected = [r#"{"name":"a \"b\"","id":42}"#, r#"{"name":"","id":null}"#, r#"{"name":null,"id":7}"#];
        assert_eq!(keys(sample(), &["name", "id"]), expected.map(|text| Some(text.to_owned())));
    }

    #[test]
    fn no_column_is_no_key() {
        assert_eq!(keys(sample(), &[]), [None, None, None]);
    }
}
