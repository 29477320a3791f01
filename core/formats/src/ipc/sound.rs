//! Whether bytes are what Arrow's reader takes for granted. It panics on types that are none and on blocks that reach out of a file, and allocates what a length says before it has read as
//! much. Format: Arrow columnar format, "Serialization and Interprocess Communication"; the schema in `Schema.fbs`.
//!
//! What is in the columns is checked by Arrow itself, behind this.

use super::NotIpc;
use arrow_ipc::{
    Block, CompressionType, DateUnit, Field, Footer, IntervalUnit, KeyValue, Message, MessageHeader, Precision, RecordBatch, Schema,
    TimeUnit, Type, UnionMode, reader::read_footer_length, root_as_footer, root_as_message,
};
use std::{collections::BTreeSet, ops::Range};

/// Bytes behind the footer of a file: its length and the magic.
pub(super) const TAIL: usize = 10;
/// Bytes that one byte of LZ4 stands for at most: lengths go on by bytes of 255.
const MOST_BY_LZ4: u64 = 255;
/// What begins a message since Arrow 0.15; before that it was its length.
const CONTINUATION: [u8; 4] = [0xff; 4];
pub(super) const SHORT: &str = "it is too short";
/// Behind it the metadata's length.
const PREFIX: usize = 8;
/// Of any column, in rows: what Arrow multiplies by the width of a value does not overflow. Columns that take no bytes (of nulls alone) have nothing else to bound them.
const MOST_ROWS: i64 = 1 << 48;

type Checked<T = ()> = Result<T, NotIpc>;

fn refuse<T>(why: impl Into<String>) -> Checked<T> {
    Err(NotIpc(why.into()))
}

fn no(why: &str) -> NotIpc {
    NotIpc(why.to_owned())
}

/// The first line: the others lead there through the file.
fn unreadable(error: impl std::fmt::Display) -> NotIpc {
    NotIpc(error.to_string().lines().next().unwrap_or_default().to_owned())
}

/// Where a footer is in a file of that length, by its last bytes.
pub(super) fn footer_place(length: u64, tail: [u8; TAIL]) -> Checked<Range<u64>> {
    let end = length.checked_sub(TAIL as u64).ok_or_else(|| no(SHORT))?;
    let footer = read_footer_length(tail).map_err(unreadable)?;
    Ok(end.checked_sub(footer as u64).ok_or_else(|| no(SHORT))?..end)
}

/// A footer, and its schema.
pub(super) fn footer(bytes: &[u8]) -> Checked<(Footer<'_>, Schema<'_>)> {
    let footer = root_as_footer(bytes).map_err(unreadable)?;
    let schema = checked_schema(footer.schema())?;
    let has_all = |metadata: KeyValue<'_>| metadata.key().is_some() && metadata.value().is_some();
    match footer.custom_metadata() {
        Some(metadata) if !metadata.iter().all(has_all) => refuse("its metadata has no text"),
        _ => Ok((footer, schema)),
    }
}

fn checked_schema(schema: Option<Schema<'_>>) -> Checked<Schema<'_>> {
    let schema = schema.ok_or_else(|| no("it has no schema"))?;
    if !schema.endianness().equals_to_target_endianness() {
        return refuse("it is of a machine of another byte order");
    }
    schema.fields().ok_or_else(|| no("its schema has no fields"))?.iter().try_for_each(check_field)?;
    Ok(schema)
}

/// A whole file.
pub(super) fn check_file(file: &[u8]) -> Checked {
    let tail = file.last_chunk::<TAIL>().ok_or_else(|| no(SHORT))?;
    let place = footer_place(file.len() as u64, *tail)?;
    let (before, rest) = file.split_at_checked(place.start as usize).ok_or_else(|| no(SHORT))?;
    let (footer, _) = footer(rest.get(..rest.len() - TAIL).unwrap_or_default())?;
    let batches = footer.recordBatches().ok_or_else(|| no("it has no list of batches"))?;
    batches.iter().chain(footer.dictionaries().into_iter().flatten()).try_for_each(|block| check_block(block, before))
}

/// A whole stream: messages behind each other, the schema first; it ends with its bytes, or with a message of no length.
pub(super) fn check_stream(mut rest: &[u8]) -> Checked {
    let mut is_first = true;
    while !rest.is_empty() {
        let behind = rest.strip_prefix(&CONTINUATION).unwrap_or(rest);
        let (length, behind) = behind.split_first_chunk::<4>().ok_or_else(|| no(SHORT))?;
        let length = unsigned(i32::from_le_bytes(*length).into())?;
        if length == 0 {
            break;
        }
        let (head, behind) = behind.split_at_checked(length).ok_or_else(|| no(SHORT))?;
        let message = root_as_message(head).map_err(unreadable)?;
        let (body, behind) = behind.split_at_checked(unsigned(message.bodyLength())?).ok_or_else(|| no(SHORT))?;
        match is_first {
            true => _ = checked_schema(message.header_as_schema())?,
            false => check_batch(batch_of(message)?, body)?,
        }
        (rest, is_first) = (behind, false);
    }
    if is_first { refuse("it has no schema") } else { Ok(()) }
}

fn unsigned(number: i64) -> Checked<usize> {
    usize::try_from(number).map_err(|_| NotIpc(format!("it has a length of {number}")))
}

fn check_block(block: &Block, file: &[u8]) -> Checked {
    let (offset, head, body) = (unsigned(block.offset())?, unsigned(block.metaDataLength().into())?, unsigned(block.bodyLength())?);
    let outside = || no("a block of it reaches out of the file");
    let (head, rest) = file.get(offset..).and_then(|rest| rest.split_at_checked(head)).ok_or_else(outside)?;
    let body = rest.get(..body).ok_or_else(outside)?;
    if head.len() < PREFIX {
        return refuse("a block of it has no message");
    }
    let message = if head.starts_with(&CONTINUATION) { &head[PREFIX..] } else { &head[CONTINUATION.len()..] };
    check_batch(batch_of(root_as_message(message).map_err(unreadable)?)?, body)
}

/// Of rows, or of the values of a dictionary.
fn batch_of(message: Message<'_>) -> Checked<RecordBatch<'_>> {
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|batch| batch.data()),
        _ => None,
    };
    batch.ok_or_else(|| no("a message of it has no batch"))
}

fn check_batch(batch: RecordBatch<'_>, body: &[u8]) -> Checked {
    let codec = batch.compression().map(|compression| compression.codec());
    if codec.is_some_and(|codec| codec != CompressionType::LZ4_FRAME) {
        return refuse("it is compressed in another way than LZ4");
    }
    let mut bytes = 0_u64;
    for buffer in batch.buffers().ok_or_else(|| no("a batch of it has no buffers"))? {
        let (offset, length) = (unsigned(buffer.offset())?, unsigned(buffer.length())?);
        let content =
            body.get(offset..).and_then(|rest| rest.get(..length)).ok_or_else(|| no("a buffer of it reaches out of its block"))?;
        bytes = bytes.saturating_add(if codec.is_some() { unpacked(content)? } else { content.len() as u64 });
    }
    for node in batch.nodes().ok_or_else(|| no("a batch of it has no columns"))? {
        let (rows, nulls) = (node.length(), node.null_count());
        if !(0..=MOST_ROWS).contains(&rows) || !(0..=rows).contains(&nulls) {
            return refuse(format!("a column of it has {rows} rows, {nulls} of them null"));
        }
    }
    // A row takes a bit at least; of columns that take nothing there is no table.
    match u64::try_from(batch.length()) {
        Ok(rows) if rows <= bytes.saturating_mul(8) => Ok(()),
        _ => refuse(format!("it has {} rows in {bytes} bytes", batch.length())),
    }
}

/// The length of what is compressed: 8 bytes say it, -1 that it is not compressed.
fn unpacked(content: &[u8]) -> Checked<u64> {
    if content.is_empty() {
        return Ok(0);
    }
    let (length, packed) = content.split_first_chunk::<8>().ok_or_else(|| no("a buffer of it has no length"))?;
    let packed = packed.len() as u64;
    match i64::from_le_bytes(*length) {
        -1 => Ok(packed),
        length => match u64::try_from(length) {
            Ok(length) if length <= packed.saturating_mul(MOST_BY_LZ4) => Ok(length),
            _ => refuse(format!("a buffer of {packed} bytes in it stands for {length}")),
        },
    }
}

/// A type that is one, with the children that it needs.
fn check_field(field: Field<'_>) -> Checked {
    let children = field.children().map(|children| children.len());
    let is_one = match field.type_type() {
        Type::Null | Type::Bool | Type::Binary | Type::BinaryView | Type::LargeBinary | Type::Utf8 | Type::Utf8View | Type::LargeUtf8 => {
            true
        }
        Type::Int => field.type_as_int().is_some_and(|int| is_width(int.bitWidth())),
        Type::FixedSizeBinary => field.type_as_fixed_size_binary().is_some_and(|binary| binary.byteWidth() >= 0),
        Type::FloatingPoint => field
            .type_as_floating_point()
            .is_some_and(|float| [Precision::HALF, Precision::SINGLE, Precision::DOUBLE].contains(&float.precision())),
        Type::Date => field.type_as_date().is_some_and(|date| [DateUnit::DAY, DateUnit::MILLISECOND].contains(&date.unit())),
        Type::Time => field.type_as_time().is_some_and(|time| match time.bitWidth() {
            32 => [TimeUnit::SECOND, TimeUnit::MILLISECOND].contains(&time.unit()),
            64 => [TimeUnit::MICROSECOND, TimeUnit::NANOSECOND].contains(&time.unit()),
            _ => false,
        }),
        Type::Timestamp => field.type_as_timestamp().is_some_and(|timestamp| is_unit(timestamp.unit())),
        Type::Duration => field.type_as_duration().is_some_and(|duration| is_unit(duration.unit())),
        Type::Interval => field.type_as_interval().is_some_and(|interval| {
            [IntervalUnit::YEAR_MONTH, IntervalUnit::DAY_TIME, IntervalUnit::MONTH_DAY_NANO].contains(&interval.unit())
        }),
        Type::Decimal => field.type_as_decimal().is_some_and(|decimal| {
            [32, 64, 128, 256].contains(&decimal.bitWidth())
                && (1..=76).contains(&decimal.precision())
                && (-76..=76).contains(&decimal.scale())
        }),
        Type::List | Type::LargeList | Type::ListView | Type::LargeListView => children == Some(1),
        Type::FixedSizeList => children == Some(1) && field.type_as_fixed_size_list().is_some_and(|list| list.listSize() >= 0),
        Type::Map => children == Some(1) && field.type_as_map().is_some(),
        Type::Struct_ => true,
        Type::RunEndEncoded => children == Some(2),
        Type::Union => field.type_as_union().is_some_and(|union| {
            let count = children.unwrap_or_default();
            // The ids that there may be, one for each child.
            let fits = union.typeIds().is_none_or(|ids| {
                let different: BTreeSet<i32> = ids.iter().filter(|id| (0..=127).contains(id)).collect();
                ids.len() == count && different.len() == count
            });
            [UnionMode::Dense, UnionMode::Sparse].contains(&union.mode()) && count <= 127 && fits
        }),
        _ => false,
    };
    let is_index = field.dictionary().is_none_or(|dictionary| dictionary.indexType().is_some_and(|int| is_width(int.bitWidth())));
    if !is_one || !is_index {
        return refuse(format!("the type of its column {:?} is none", field.name().unwrap_or_default()));
    }
    field.children().into_iter().flatten().try_for_each(check_field)
}

fn is_width(bits: i32) -> bool {
    [8, 16, 32, 64].contains(&bits)
}

fn is_unit(unit: TimeUnit) -> bool {
    [TimeUnit::SECOND, TimeUnit::MILLISECOND, TimeUnit::MICROSECOND, TimeUnit::NANOSECOND].contains(&unit)
}
