//! One growing Arrow column per field of the schema, and the fields of an object.
//!
//! A [`Column`] has as many values as records were read. When a record turns out to be broken, [`Column::truncate`] takes back what it had
//! appended, down to the leaves. What a column's type means in JSON is the business of its [`Values`]: `scalar` and `nested`.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_buffer::{NullBuffer, NullBufferBuilder};
use arrow_schema::{ArrowError, Field};
use hashbrown::HashMap;

use super::cursor::{Cursor, Fault, Result};
use super::{nested, scalar};
use crate::{FormatError, block::Fixed};

/// The values of a column, without its nulls.
pub(super) trait Values: Send {
    /// Appends the value at the cursor, which is not null. On a fault a part of it may stay until the next [`Self::truncate`].
    fn decode(&mut self, cursor: &mut Cursor) -> Result<()>;

    /// Appends the value that a text as a whole stands for, without the quotes of JSON; it is UTF-8. `Err`: what was expected. Columns of values in parts have no
    /// such text.
    fn decode_text(&mut self, _text: &[u8]) -> std::result::Result<(), String> {
        Err("expected a value without parts".to_owned())
    }

    /// Appends a value that is masked by a null.
    fn push_masked(&mut self);

    /// Takes back all but the first `len` values, and every part of a value.
    fn truncate(&mut self, len: usize);

    /// Gives the values away and starts anew, with room for as many.
    fn finish(&mut self, nulls: Option<NullBuffer>) -> std::result::Result<ArrayRef, ArrowError>;
}

/// A column and its nulls; also of the CSV codec.
pub(crate) struct Column {
    name: String,
    nullable: bool,
    validity: NullBufferBuilder,
    values: Box<dyn Values>,
}

impl Column {
    /// `path` is the column's place for messages.
    pub(crate) fn new(field: &Field, path: &str) -> std::result::Result<Self, FormatError> {
        let values = match nested::values(field, path)? {
            Some(values) => values,
            None => scalar::values(field).ok_or_else(|| super::unsupported(field, path))?,
        };
        Ok(Self { name: field.name().clone(), nullable: field.is_nullable(), validity: NullBufferBuilder::new(0), values })
    }

    pub(super) fn len(&self) -> usize {
        self.validity.len()
    }

    /// Appends the value at the cursor.
    #[inline]
    pub(super) fn decode(&mut self, cursor: &mut Cursor) -> Result<()> {
        if cursor.peek() == Some(b'n') {
            cursor.literal("null")?;
            return self.push_missing();
        }
        self.values.decode(cursor)?;
        self.validity.append_non_null();
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Appends the value of a text; without one a null, if the column takes one. `Err`: what was expected.
    #[inline]
    pub(crate) fn decode_text(&mut self, text: Option<&[u8]>) -> std::result::Result<(), String> {
        let Some(text) = text else {
            if !self.nullable {
                return Err("the column is not nullable".to_owned());
            }
            self.push_masked();
            return Ok(());
        };
        self.values.decode_text(text)?;
        self.validity.append_non_null();
        Ok(())
    }

    /// Appends a null, if the column takes one.
    fn push_missing(&mut self) -> Result<()> {
        if !self.nullable {
            return Err(Fault::missing());
        }
        self.push_masked();
        Ok(())
    }

    /// Appends a null; in a column that takes none it must be masked by a null of the struct around it.
    pub(super) fn push_masked(&mut self) {
        self.values.push_masked();
        self.validity.append_null();
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.validity.truncate(len);
    }

    pub(crate) fn finish(&mut self) -> std::result::Result<ArrayRef, ArrowError> {
        // A null that was taken back leaves a buffer without nulls.
        let nulls = self.validity.finish().filter(|nulls| nulls.null_count() > 0);
        self.values.finish(nulls)
    }
}

/// The columns that the fields of an object go to: a record's, or a struct's.
pub(super) struct Object {
    columns: Vec<Column>,
    /// The columns' names as JSON strings, with quotes, as most writers write them.
    quoted: Vec<Fixed>,
    by_name: HashMap<Vec<u8>, usize>,
    /// The column that the n-th key of the last object went to: most likely this one's too.
    predicted: Vec<usize>,
    /// The object in which a column was last seen.
    seen: Vec<u64>,
    objects: u64,
    len: usize,
}

impl Object {
    pub(super) fn new<'a>(fields: impl IntoIterator<Item = &'a Arc<Field>>, path: &str) -> std::result::Result<Self, FormatError> {
        let fields: Vec<_> = fields.into_iter().collect();
        let columns =
            fields.iter().map(|field| Column::new(field, &super::join(path, field.name()))).collect::<std::result::Result<Vec<_>, _>>()?;
        let quoted = fields.iter().map(|field| Fixed::new(super::encode::quoted(field.name()))).collect();
        let by_name = fields.iter().enumerate().map(|(at, field)| (field.name().as_bytes().to_vec(), at)).collect();
        let predicted = (0..columns.len()).collect();
        Ok(Self { seen: vec![0; columns.len()], columns, quoted, by_name, predicted, objects: 0, len: 0 })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends the object at the cursor. On a fault some columns may be longer than others until the next [`Self::truncate`].
    pub(super) fn decode(&mut self, cursor: &mut Cursor) -> Result<()> {
        if cursor.peek() != Some(b'{') {
            return Err(cursor.expected("an object", cursor.pos));
        }
        cursor.enter()?;
        self.objects += 1;
        let mut missing = self.columns.len();
        let mut nth = 0;
        let mut more = !cursor.is_empty(b'}');
        while more {
            match self.key(cursor, nth)? {
                Some(at) => {
                    missing -= usize::from(self.seen[at] != self.objects);
                    self.value(cursor, at)?;
                }
                None => cursor.skip_value()?,
            }
            nth += 1;
            more = cursor.more(b'}')?;
        }
        cursor.leave();
        if missing > 0 {
            self.push_missing()?;
        }
        self.len += 1;
        Ok(())
    }

    /// Goes past a key and its colon and gives its column.
    #[inline]
    fn key(&mut self, cursor: &mut Cursor, nth: usize) -> Result<Option<usize>> {
        if let Some(&at) = self.predicted.get(nth)
            && let Some(quoted) = self.quoted.get(at)
            && quoted.begins(cursor.rest())
        {
            cursor.pos += quoted.len();
            cursor.colon()?;
            return Ok(Some(at));
        }
        self.other_key(cursor, nth)
    }

    fn other_key(&mut self, cursor: &mut Cursor, nth: usize) -> Result<Option<usize>> {
        let at = self.by_name.get(cursor.string()?.as_ref()).copied();
        if let Some(at) = at
            && let Some(predicted) = self.predicted.get_mut(nth)
        {
            *predicted = at;
        }
        cursor.colon()?;
        Ok(at)
    }

    #[inline]
    fn value(&mut self, cursor: &mut Cursor, at: usize) -> Result<()> {
        let column = &mut self.columns[at];
        if self.seen[at] == self.objects {
            column.truncate(self.len);
        }
        self.seen[at] = self.objects;
        column.decode(cursor).map_err(|fault| fault.in_field(&column.name))
    }

    fn push_missing(&mut self) -> Result<()> {
        for (column, seen) in self.columns.iter_mut().zip(&self.seen) {
            if *seen != self.objects {
                column.push_missing().map_err(|fault| fault.in_field(&column.name))?;
            }
        }
        Ok(())
    }

    /// Appends a null to every column, masked by a null of the struct.
    pub(super) fn push_masked(&mut self) {
        self.columns.iter_mut().for_each(Column::push_masked);
        self.len += 1;
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(len));
        self.len = len;
    }

    pub(super) fn finish(&mut self) -> std::result::Result<Vec<ArrayRef>, ArrowError> {
        self.len = 0;
        self.columns.iter_mut().map(Column::finish).collect()
    }
}
