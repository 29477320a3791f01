//! Lists, structs and maps: columns of columns. Each value goes through the same parser as a flat record's; the cursor bounds the depth.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, ListArray, MapArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields};
use arrow_select::filter::filter;
use hashbrown::HashMap;

use super::column::{Column, Object, Values};
use super::cursor::{Cursor, Result};
use super::scalar::Text;
use crate::FormatError;

/// From this many keys on, a map's duplicates are found by hash.
const HASHED_KEYS: usize = 16;

/// The values of a field of a nested type.
pub(super) fn values(field: &Field, path: &str) -> std::result::Result<Option<Box<dyn Values>>, FormatError> {
    Ok(Some(match field.data_type() {
        DataType::List(item) => {
            Box::new(List { offsets: Offsets::default(), item: Column::new(item, &format!("{path}[]"))?, field: Arc::clone(item) })
        }
        DataType::Struct(fields) => Box::new(Struct { object: Object::new(fields, path)?, fields: fields.clone() }),
        DataType::Map(entries, ordered) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 && *fields[0].data_type() == DataType::Utf8 => {
                Box::new(Map::new(entries, fields, *ordered, path)?)
            }
            _ => return Err(super::unsupported(field, path)),
        },
        _ => return Ok(None),
    }))
}

/// Where each value ends. A batch of records is smaller than 2 GiB, and an item has at least one byte of its own, so an offset fits.
pub(super) struct Offsets(Vec<i32>);

impl Default for Offsets {
    fn default() -> Self {
        Self(vec![0])
    }
}

impl Offsets {
    #[inline]
    pub(super) fn push(&mut self, end: usize) {
        self.0.push(end as i32);
    }

    /// The place where the value `len` starts.
    pub(super) fn start(&self, len: usize) -> usize {
        self.0[len] as usize
    }

    /// The place where the next value starts.
    pub(super) fn last(&self) -> usize {
        self.start(self.0.len() - 1)
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.0.truncate(len + 1);
    }

    pub(super) fn finish(&mut self) -> OffsetBuffer<i32> {
        let mut next = Vec::with_capacity(self.0.len());
        next.push(0);
        OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(&mut self.0, next)))
    }
}

struct List {
    offsets: Offsets,
    item: Column,
    field: FieldRef,
}

impl Values for List {
    fn decode(&mut self, cursor: &mut Cursor) -> Result<()> {
        if cursor.peek() != Some(b'[') {
            return Err(cursor.expected("an array", cursor.pos));
        }
        cursor.enter()?;
        let first = self.offsets.last();
        let mut more = !cursor.is_empty(b']');
        while more {
            self.item.decode(cursor).map_err(|fault| fault.in_item(self.item.len() - first))?;
            more = cursor.more(b']')?;
        }
        cursor.leave();
        self.offsets.push(self.item.len());
        Ok(())
    }

    fn push_masked(&mut self) {
        self.offsets.push(self.offsets.last());
    }

    fn truncate(&mut self, len: usize) {
        self.item.truncate(self.offsets.start(len));
        self.offsets.truncate(len);
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> std::result::Result<ArrayRef, ArrowError> {
        Ok(Arc::new(ListArray::try_new(Arc::clone(&self.field), self.offsets.finish(), self.item.finish()?, nulls)?))
    }
}

struct Struct {
    object: Object,
    fields: Fields,
}

impl Values for Struct {
    fn decode(&mut self, cursor: &mut Cursor) -> Result<()> {
        self.object.decode(cursor)
    }

    fn push_masked(&mut self) {
        self.object.push_masked();
    }

    fn truncate(&mut self, len: usize) {
        self.object.truncate(len);
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> std::result::Result<ArrayRef, ArrowError> {
        let len = self.object.len();
        let columns = self.object.finish()?;
        Ok(Arc::new(StructArray::try_new_with_length(self.fields.clone(), columns, nulls, len)?))
    }
}

struct Map {
    offsets: Offsets,
    keys: Text,
    values: Column,
    /// Entries whose key came again later in the same object.
    replaced: Vec<usize>,
    /// The places of the current object's keys, once there are many.
    places: HashMap<Vec<u8>, usize>,
    entries: FieldRef,
    fields: Fields,
    ordered: bool,
}

impl Map {
    fn new(entries: &FieldRef, fields: &Fields, ordered: bool, path: &str) -> std::result::Result<Self, FormatError> {
        Ok(Self {
            offsets: Offsets::default(),
            keys: Text::default(),
            values: Column::new(&fields[1], &format!("{path}{{}}"))?,
            replaced: Vec::new(),
            places: HashMap::new(),
            entries: Arc::clone(entries),
            fields: fields.clone(),
            ordered,
        })
    }

    /// Where the last of the object's entries (all of `entries`) had its key before, if anywhere.
    fn earlier(&mut self, entries: Range<usize>) -> Option<usize> {
        let last = entries.end - 1;
        if entries.len() < HASHED_KEYS {
            return (entries.start..last).rfind(|at| self.keys.get(*at) == self.keys.get(last));
        }
        if entries.len() == HASHED_KEYS {
            self.places.clear();
            for at in entries.start..last {
                self.places.insert(self.keys.get(at).to_vec(), at);
            }
        }
        self.places.insert(self.keys.get(last).to_vec(), last)
    }

    /// Ends without the replaced entries.
    fn without_replaced(
        &mut self,
        offsets: &OffsetBuffer<i32>,
        columns: Vec<ArrayRef>,
    ) -> std::result::Result<(OffsetBuffer<i32>, Vec<ArrayRef>), ArrowError> {
        let mut keep = vec![true; columns[0].len()];
        self.replaced.drain(..).for_each(|at| keep[at] = false);
        let lengths = offsets.windows(2).map(|ends| keep[ends[0] as usize..ends[1] as usize].iter().filter(|keep| **keep).count());
        let offsets = OffsetBuffer::from_lengths(lengths);
        let keep = BooleanArray::from(keep);
        let columns = columns.iter().map(|column| filter(column, &keep)).collect::<std::result::Result<_, _>>()?;
        Ok((offsets, columns))
    }
}

impl Values for Map {
    fn decode(&mut self, cursor: &mut Cursor) -> Result<()> {
        if cursor.peek() != Some(b'{') {
            return Err(cursor.expected("an object", cursor.pos));
        }
        cursor.enter()?;
        let first = self.offsets.last();
        let mut more = !cursor.is_empty(b'}');
        while more {
            let at = self.values.len();
            self.keys.decode(cursor)?;
            cursor.colon()?;
            let (keys, values) = (&self.keys, &mut self.values);
            values.decode(cursor).map_err(|fault| fault.in_field(&String::from_utf8_lossy(keys.get(at))))?;
            let replaced = self.earlier(first..at + 1);
            self.replaced.extend(replaced);
            more = cursor.more(b'}')?;
        }
        cursor.leave();
        self.offsets.push(self.values.len());
        Ok(())
    }

    fn push_masked(&mut self) {
        self.offsets.push(self.offsets.last());
    }

    fn truncate(&mut self, len: usize) {
        let entries = self.offsets.start(len);
        self.keys.truncate(entries);
        self.values.truncate(entries);
        self.replaced.retain(|at| *at < entries);
        self.offsets.truncate(len);
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> std::result::Result<ArrayRef, ArrowError> {
        let mut offsets = self.offsets.finish();
        let mut columns = vec![self.keys.finish(None)?, self.values.finish()?];
        if !self.replaced.is_empty() {
            (offsets, columns) = self.without_replaced(&offsets, columns)?;
        }
        let entries = StructArray::try_new(self.fields.clone(), columns, None)?;
        Ok(Arc::new(MapArray::try_new(Arc::clone(&self.entries), offsets, entries, nulls, self.ordered)?))
    }
}
