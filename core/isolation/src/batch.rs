//! A batch on its way between two processes: a description of its arrays, and their buffers, copied once, into a segment of shared memory or, if they are few bytes, into the
//! message itself. The reader makes its arrays of the memory as it is.
//!
//! What comes is checked in full (bounds, offsets, UTF-8, indices of dictionaries): whatever a plugin's process gives, the host does not read past it.

use crate::memory::{self, Mapped, Pool};
use arrow_array::{Array, RecordBatch, RecordBatchOptions, make_array};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow_data::{ArrayData, transform::MutableArrayData};
use arrow_ipc::{
    convert::{IpcSchemaEncoder, fb_to_schema},
    root_as_schema,
    writer::DictionaryTracker,
};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::VecDeque,
    io,
    ops::Range,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Buffers of fewer bytes go with the message: that costs less than the way round by a segment.
pub(crate) const INLINE: u64 = 32 << 10;
/// Buffers begin at multiples of this, as Arrow wants.
const ALIGNMENT: u64 = 64;
/// New segments that one message may bring along.
const MOST_FILES: usize = 16;
static ZEROS: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];

/// What cannot be sent or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchError {
    /// Shared memory.
    #[error("shared memory: {0}")]
    Memory(#[from] io::Error),
    /// The arrays make no sense.
    #[error("{0}")]
    Arrow(#[from] ArrowError),
    /// The description makes no sense.
    #[error("{0}")]
    Broken(&'static str),
}

/// A batch as a message describes it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Packed {
    rows: u64,
    /// From the first to the last of its buffers.
    bytes: u64,
    /// The columns, each before its children.
    pieces: Vec<Piece>,
    store: Store,
}

/// Where the buffers are.
#[derive(Debug, Serialize, Deserialize)]
enum Store {
    /// Behind the message, from there on.
    Inline(u64),
    /// In a segment of the pool; a new one comes with its file.
    Pooled { segment: u32, is_new: bool },
    /// In a segment that comes with its file and is used once.
    Once,
}

/// An array, but for its children.
#[derive(Debug, Serialize, Deserialize)]
struct Piece {
    rows: u64,
    offset: u64,
    /// Where they are, the first bit, and how many bytes.
    nulls: Option<(u64, u64, u64)>,
    /// Where they are and how many bytes.
    buffers: Vec<(u64, u64)>,
}

/// What goes along with a message.
#[derive(Default)]
pub(crate) struct Parcel {
    pub(crate) inline: Vec<u8>,
    pub(crate) files: Vec<Arc<OwnedFd>>,
}

/// The slices of a batch, with what stands between them.
#[derive(Default)]
struct Layout<'a> {
    at: u64,
    slices: Vec<Cow<'a, [u8]>>,
    pieces: Vec<Piece>,
}

impl<'a> Layout<'a> {
    fn put(&mut self, bytes: impl Into<Cow<'a, [u8]>>) -> (u64, u64) {
        let bytes = bytes.into();
        let (at, length) = (self.at, bytes.len() as u64);
        let end = (at + length).next_multiple_of(ALIGNMENT);
        self.slices.push(bytes);
        self.slices.push(ZEROS[..(end - at - length) as usize].into());
        self.at = end;
        (at, length)
    }

    fn array(&mut self, data: &'a ArrayData) {
        // Bits that begin within a byte are moved: an array with an offset would have to have its nulls at the same one.
        let moves = *data.data_type() == DataType::Boolean && data.offset() > 0;
        let buffer = |buffer: &'a Buffer| match moves {
            true => self.put(buffer.bit_slice(data.offset(), data.len()).to_vec()),
            false => self.put(buffer.as_slice()),
        };
        let buffers = data.buffers().iter().map(buffer).collect();
        let nulls = data.nulls().map(|nulls| {
            let (first, bytes) = (nulls.offset() / 8, nulls.buffer().as_slice());
            let end = (nulls.offset() + nulls.len()).div_ceil(8).min(bytes.len());
            let (at, length) = self.put(bytes.get(first..end).unwrap_or_default());
            (at, (nulls.offset() % 8) as u64, length)
        });
        let offset = if moves { 0 } else { data.offset() as u64 };
        self.pieces.push(Piece { rows: data.len() as u64, offset, nulls, buffers });
        data.child_data().iter().for_each(|child| self.array(child));
    }
}

/// Describes a batch, which must be of the schema, and puts its buffers where they go.
pub(crate) fn pack(batch: &RecordBatch, schema: &SchemaRef, pool: &mut Pool, parcel: &mut Parcel) -> Result<Packed, BatchError> {
    let fits = || {
        let (ours, theirs) = (batch.schema_ref().fields(), schema.fields());
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| ours.data_type() == theirs.data_type())
    };
    if !Arc::ptr_eq(batch.schema_ref(), schema) && !fits() {
        return Err(BatchError::Broken("a batch has other columns than were agreed"));
    }
    let columns: Vec<ArrayData> = batch.columns().iter().map(|column| compact(column.to_data())).collect();
    let mut layout = Layout::default();
    columns.iter().for_each(|column| layout.array(column));
    let Layout { at: bytes, slices, pieces } = layout;
    let store = if bytes <= INLINE || parcel.files.len() >= MOST_FILES {
        let at = parcel.inline.len() as u64;
        slices.iter().for_each(|slice| parcel.inline.extend_from_slice(slice));
        Store::Inline(at)
    } else {
        let place = pool.take(bytes)?;
        memory::write(&place.file, &slices)?;
        if !place.is_known {
            parcel.files.push(place.file);
        }
        place.segment.map_or(Store::Once, |segment| Store::Pooled { segment, is_new: !place.is_known })
    };
    Ok(Packed { rows: batch.num_rows() as u64, bytes, pieces, store })
}

/// An array whose buffers hold little that is not its own: of a small part of a large one only that part is sent.
fn compact(data: ArrayData) -> ArrayData {
    const WORTH: usize = 4096;
    fn held(data: &ArrayData) -> usize {
        let nulls = data.nulls().map_or(0, |nulls| nulls.len().div_ceil(8));
        data.buffers().iter().map(Buffer::len).sum::<usize>() + nulls + data.child_data().iter().map(held).sum::<usize>()
    }
    match needed(&data) {
        Some(needed) if held(&data) > 2 * needed + WORTH => {
            let mut copy = MutableArrayData::new(vec![&data], false, data.len());
            // Rows that are there can be copied: what cannot is sent as it is.
            match copy.try_extend(0, 0, data.len()) {
                Ok(()) => copy.freeze(),
                Err(_) => data.clone(),
            }
        }
        _ => data,
    }
}

/// Bytes that an array's rows take. Arrow itself counts all items that a list has at hand, whichever of them its rows have.
fn needed(data: &ArrayData) -> Option<usize> {
    let items = match data.data_type() {
        DataType::List(_) | DataType::Map(..) => items(data.buffer::<i32>(0), data.len()),
        DataType::LargeList(_) => items(data.buffer::<i64>(0), data.len()),
        DataType::Struct(_) => return data.child_data().iter().map(needed).sum(),
        _ => None,
    };
    match (items, data.child_data().first()) {
        (Some(Range { start, end }), Some(child)) if end <= child.len() => Some(data.len() * 8 + needed(&child.slice(start, end - start))?),
        _ => data.get_slice_memory_size().ok(),
    }
}

/// The items of so many rows.
fn items(offsets: &[impl Copy + Into<i64>], rows: usize) -> Option<Range<usize>> {
    let offset = |row: usize| usize::try_from((*offsets.get(row)?).into()).ok();
    Some(offset(0)?..offset(rows)?).filter(|items| items.start <= items.end)
}

/// Makes a batch of its description. `inline` is what came behind the message, `files` are those that came with it and are not taken yet.
pub(crate) fn unpack(
    packed: &Packed,
    schema: &SchemaRef,
    inline: &[u8],
    files: &mut VecDeque<OwnedFd>,
    mapped: &mut Mapped,
) -> Result<RecordBatch, BatchError> {
    let new = |files: &mut VecDeque<OwnedFd>| files.pop_front().ok_or(BatchError::Broken("a file is missing"));
    let buffer = match packed.store {
        Store::Inline(at) => {
            let range = usize::try_from(at).ok().zip(usize::try_from(at.saturating_add(packed.bytes)).ok());
            let bytes = range.and_then(|(begin, end)| inline.get(begin..end));
            Buffer::from_slice_ref(bytes.ok_or(BatchError::Broken("a batch is cut off"))?)
        }
        Store::Pooled { segment, is_new } => {
            let file = if is_new { Some(new(files)?) } else { None };
            Buffer::from(mapped.read(Some(segment), file)?)
        }
        Store::Once => {
            let file = new(files)?;
            Buffer::from(mapped.read(None, Some(file))?)
        }
    };
    // The Arrow library panics on some of what makes no sense.
    let built = catch_unwind(AssertUnwindSafe(|| build(packed, schema, &buffer)));
    built.unwrap_or(Err(BatchError::Broken("a batch makes no sense")))
}

fn build(packed: &Packed, schema: &SchemaRef, buffer: &Buffer) -> Result<RecordBatch, BatchError> {
    let mut pieces = packed.pieces.iter();
    let columns = schema.fields().iter().map(|field| Ok(make_array(array(field.data_type(), &mut pieces, buffer)?)));
    let columns = columns.collect::<Result<Vec<_>, BatchError>>()?;
    let rows = usize::try_from(packed.rows).map_err(|_| BatchError::Broken("too many rows"))?;
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}

fn array<'a>(data_type: &DataType, pieces: &mut impl Iterator<Item = &'a Piece>, whole: &Buffer) -> Result<ArrayData, BatchError> {
    let piece = pieces.next().ok_or(BatchError::Broken("a column is missing"))?;
    let number = |number: u64| usize::try_from(number).map_err(|_| BatchError::Broken("a number is too large"));
    let part = |at: u64, length: u64| {
        let (at, length) = (number(at)?, number(length)?);
        if at.checked_add(length).is_none_or(|end| end > whole.len()) {
            return Err(BatchError::Broken("a buffer is cut off"));
        }
        Ok(whole.slice_with_length(at, length))
    };
    let rows = number(piece.rows)?;
    let nulls = match piece.nulls {
        None => None,
        Some((at, bit, length)) => {
            let (bits, bit) = (part(at, length)?, number(bit)?);
            if rows.checked_add(bit).is_none_or(|end| end.div_ceil(8) > bits.len()) {
                return Err(BatchError::Broken("nulls are cut off"));
            }
            Some(NullBuffer::new(BooleanBuffer::new(bits, bit, rows)))
        }
    };
    let buffers = piece.buffers.iter().map(|(at, length)| part(*at, *length)).collect::<Result<Vec<_>, _>>()?;
    let children = children(data_type).into_iter().map(|child| array(child, pieces, whole)).collect::<Result<Vec<_>, _>>()?;
    let data = ArrayData::builder(data_type.clone()).len(rows).offset(number(piece.offset)?).nulls(nulls).buffers(buffers);
    // Checks the array itself; its children have been.
    Ok(data.child_data(children).build()?)
}

/// The types of an array's children, in their order.
fn children(data_type: &DataType) -> Vec<&DataType> {
    match data_type {
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.data_type()).collect(),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => vec![item.data_type()],
        DataType::Dictionary(_, values) => vec![values],
        DataType::RunEndEncoded(ends, values) => vec![ends.data_type(), values.data_type()],
        _ => Vec::new(),
    }
}

/// A schema as Arrow writes one.
pub(crate) fn schema_bytes(schema: &Schema) -> Vec<u8> {
    let mut dictionaries = DictionaryTracker::new(false);
    IpcSchemaEncoder::new().with_dictionary_tracker(&mut dictionaries).schema_to_fb(schema).finished_data().to_vec()
}

/// The schema of its bytes.
pub(crate) fn schema(bytes: &[u8]) -> Result<SchemaRef, ArrowError> {
    let schema = root_as_schema(bytes).map_err(|error| ArrowError::ParseError(error.to_string()))?;
    Ok(Arc::new(fb_to_schema(schema)))
}

#[cfg(test)]
mod tests;
