//! Values of any Arrow type as bytes of their own, one per value: how state holds what has no fixed width, without pinning the batch it came from.
//!
//! The bytes are arrow-row's. They stay in memory: a snapshot holds Arrow columns, never these (they may change between releases of arrow-row).

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::cast;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use arrow_schema::DataType;

/// One value. Bytes compare as the values do, null first.
pub type RowBytes = Box<[u8]>;

/// Between an array of one type and its values' bytes.
#[derive(Debug)]
pub struct RowCodec {
    data_type: DataType,
    converter: RowConverter,
    null: RowBytes,
}

impl RowCodec {
    /// A codec for values of this type.
    ///
    /// # Errors
    /// When arrow-row has no form for the type.
    pub fn new(data_type: DataType) -> Result<Self, ArrowError> {
        let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
        let null = converter.convert_columns(&[new_null_array(&data_type, 1)])?.row(0).data().into();
        Ok(Self { data_type, converter, null })
    }

    /// The type of the values.
    #[must_use]
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The bytes of each value of an array of the codec's type.
    ///
    /// # Errors
    /// When the array is of another type.
    pub fn encode(&self, values: &ArrayRef) -> Result<Rows, ArrowError> {
        self.converter.convert_columns(std::slice::from_ref(values))
    }

    /// An array of the codec's type from its values' bytes; `None` gives null.
    ///
    /// # Errors
    /// When Arrow cannot build the array.
    pub fn decode<'a>(&'a self, values: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ArrayRef, ArrowError> {
        let parser = self.converter.parser();
        let rows: Vec<_> = values.map(|value| parser.parse(value.unwrap_or(&self.null))).collect();
        let mut columns = self.converter.convert_rows(rows)?;
        let column = columns.pop().ok_or_else(|| ArrowError::ComputeError("no column for one field".to_owned()))?;
        // Dictionaries come back as plain values.
        if column.data_type() == &self.data_type { Ok(column) } else { cast(&column, &self.data_type) }
    }
}
