//! What travels on an edge: [`Item`]s in a [`Chunk`], timely's container. An item is a batch or a watermark, with the worker that it is for; the worker is chosen by
//! the sender (`edge`), so that the exchange reads one field and never touches a row.
//!
//! Within a process an item moves as it is (a batch is some `Arc`s). Between processes the sender has encoded the batch (`wire`), `ContainerBytes` copies the bytes
//! into timely's slab, and the receiver decodes them. Progress counts items, not rows: a watermark counts, and an empty batch would too.

use crate::operator::{END, Micros};
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use std::{io::Write, sync::Arc};
use timely::{
    bytes::arc::Bytes,
    container::{Accountable, DrainContainer, PushInto, SizableContainer},
    dataflow::channels::ContainerBytes,
};

/// Where the rows of a batch were read: everything of `split` after `after` up to `upto`. Rows keep it until a stateful operator takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The split's id.
    pub(crate) split: Arc<str>,
    /// The position before the batch; `None`: where the split begins.
    pub(crate) after: Option<Arc<[u8]>>,
    /// The position after the batch.
    pub(crate) upto: Arc<[u8]>,
}

/// Rows, and where they come from if one split is to name.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    pub(crate) batch: RecordBatch,
    pub(crate) origin: Option<Arc<Origin>>,
}

/// How far event time has come on one upstream subtask's part of an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// No row before it follows, late ones aside.
    pub(crate) time: Micros,
    /// Nothing comes for now: do not wait for this subtask.
    pub(crate) idle: bool,
    /// The split that holds `time` back.
    pub(crate) holder: Option<Arc<str>>,
}

impl Mark {
    /// What it means for something that comes so much later; the end stays the end.
    pub(crate) fn behind(mut self, delay: Micros) -> Self {
        if self.time != END {
            self.time = self.time.saturating_sub(delay);
        }
        self
    }
}

/// What an item carries.
#[derive(Clone)]
pub(crate) enum Payload {
    /// Rows for a worker of this process.
    Rows(Rows),
    /// Rows for a worker of another process: an Arrow IPC stream's next messages.
    Encoded { buffers: Vec<Buffer>, origin: Option<Arc<Origin>> },
    /// The same as received.
    Wire { bytes: Bytes, origin: Option<Arc<Origin>> },
    /// Event time.
    Mark(Mark),
}

/// One element of an edge.
#[derive(Clone)]
pub(crate) struct Item {
    /// The worker that takes it.
    pub(crate) target: u32,
    /// The upstream subtask that sent it.
    pub(crate) from: u32,
    pub(crate) payload: Payload,
}

/// Timely's container.
#[derive(Clone, Default)]
pub(crate) struct Chunk(pub(crate) Vec<Item>);

/// Items in a chunk before it is shipped; batches are large, so a few are enough.
const CAPACITY: usize = 8;

impl Accountable for Chunk {
    fn record_count(&self) -> i64 {
        self.0.len() as i64
    }
}

impl DrainContainer for Chunk {
    type Item<'a> = Item;
    type DrainIter<'a> = std::vec::Drain<'a, Item>;

    fn drain(&mut self) -> Self::DrainIter<'_> {
        self.0.drain(..)
    }
}

impl SizableContainer for Chunk {
    fn at_capacity(&self) -> bool {
        self.0.len() >= CAPACITY
    }

    fn ensure_capacity(&mut self, stash: &mut Option<Self>) {
        if self.0.capacity() == 0 {
            *self = stash.take().unwrap_or_default();
            self.0.clear();
            self.0.reserve(CAPACITY);
        }
    }
}

impl PushInto<Item> for Chunk {
    fn push_into(&mut self, item: Item) {
        self.0.push(item);
    }
}

const ROWS: u64 = 0;
const MARK: u64 = 1;
/// Target and sender, kind, length of the metadata, length of the body.
const HEADER: usize = 32;

/// Timely's slabs are read in words.
const fn padded(len: usize) -> usize {
    (len + 7) & !7
}

/// The origin of rows or the holder of a mark.
fn metadata(payload: &Payload) -> Vec<u8> {
    match payload {
        Payload::Rows(Rows { origin, .. }) | Payload::Encoded { origin, .. } | Payload::Wire { origin, .. } => {
            origin.as_deref().map(encode_origin).unwrap_or_default()
        }
        Payload::Mark(mark) => mark.holder.as_deref().map(|holder| holder.as_bytes().to_vec()).unwrap_or_default(),
    }
}

fn body_len(payload: &Payload) -> usize {
    match payload {
        Payload::Rows(_) => 0,
        Payload::Encoded { buffers, .. } => buffers.iter().map(Buffer::len).sum(),
        Payload::Wire { bytes, .. } => bytes.len(),
        Payload::Mark(_) => 16,
    }
}

fn encode_origin(origin: &Origin) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + origin.split.len() + origin.upto.len() * 2);
    let mut put = |bytes: Option<&[u8]>| {
        // The length of nothing at all is told from that of an empty text.
        out.extend_from_slice(&bytes.map_or(u64::MAX, |b| b.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes.unwrap_or_default());
    };
    put(Some(origin.split.as_bytes()));
    put(origin.after.as_deref());
    put(Some(&origin.upto));
    out
}

fn decode_origin(mut bytes: &[u8]) -> Option<Arc<Origin>> {
    fn take<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
        let (len, rest) = bytes.split_first_chunk::<8>()?;
        *bytes = rest;
        let len = u64::from_le_bytes(*len);
        if len == u64::MAX {
            return Some(None);
        }
        let (value, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        *bytes = rest;
        Some(Some(value))
    }
    let split = std::str::from_utf8(take(&mut bytes)??).ok()?.into();
    let after = take(&mut bytes)?.map(Into::into);
    let upto = take(&mut bytes)??.into();
    Some(Arc::new(Origin { split, after, upto }))
}

/// The bytes come from a worker of the same job and the same release (the cluster's handshake compares plan hashes), so their form is an invariant.
#[allow(clippy::expect_used, reason = "timely's trait has no errors; the peer is this very code")]
impl ContainerBytes for Chunk {
    fn length_in_bytes(&self) -> usize {
        let item = |item: &Item| HEADER + padded(metadata(&item.payload).len()) + padded(body_len(&item.payload));
        8 + self.0.iter().map(item).sum::<usize>()
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        let mut write = |bytes: &[u8]| writer.write_all(bytes).expect("timely measured the room with length_in_bytes");
        write(&(self.0.len() as u64).to_le_bytes());
        for item in &self.0 {
            let (meta, len) = (metadata(&item.payload), body_len(&item.payload));
            let kind = if matches!(item.payload, Payload::Mark(_)) { MARK } else { ROWS };
            let address = (u64::from(item.target) << 32) | u64::from(item.from);
            for word in [address, kind, meta.len() as u64, len as u64] {
                write(&word.to_le_bytes());
            }
            write(&meta);
            write(&[0; 8][..padded(meta.len()) - meta.len()]);
            match &item.payload {
                Payload::Rows(_) => unreachable!("the sender encodes rows for another process"),
                Payload::Encoded { buffers, .. } => buffers.iter().for_each(|buffer| write(buffer)),
                Payload::Wire { bytes, .. } => write(bytes),
                Payload::Mark(mark) => {
                    write(&mark.time.to_le_bytes());
                    write(&u64::from(mark.idle).to_le_bytes());
                }
            }
            write(&[0; 8][..padded(len) - len]);
        }
    }

    fn from_bytes(mut bytes: Bytes) -> Self {
        let word = |bytes: &mut Bytes| {
            let word = bytes.extract_to(8);
            u64::from_le_bytes(word[..].try_into().expect("eight bytes were taken"))
        };
        let count = word(&mut bytes);
        let items = (0..count).map(|_| {
            let [address, kind, meta_len, len] = std::array::from_fn(|_| word(&mut bytes));
            let (meta_len, len) = (meta_len as usize, len as usize);
            let meta = bytes.extract_to(padded(meta_len));
            let meta = &meta[..meta_len];
            let mut body = bytes.extract_to(padded(len));
            let payload = if kind == MARK {
                let (time, idle) = (word(&mut body) as i64, word(&mut body) != 0);
                let holder = (meta_len > 0).then(|| String::from_utf8_lossy(meta).into());
                Payload::Mark(Mark { time, idle, holder })
            } else {
                Payload::Wire { bytes: body.extract_to(len), origin: decode_origin(meta) }
            };
            Item { target: (address >> 32) as u32, from: address as u32, payload }
        });
        Self(items.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use timely::bytes::arc::BytesMut;

    fn round_trip(chunk: &Chunk) -> Chunk {
        let mut bytes = Vec::new();
        chunk.into_bytes(&mut bytes);
        assert_eq!(bytes.len(), chunk.length_in_bytes(), "timely reserves exactly this");
        assert_eq!(bytes.len() % 8, 0);
        Chunk::from_bytes(BytesMut::from(bytes).freeze())
    }

    #[test]
    fn a_chunk_crosses_as_bytes() {
        let origin = Arc::new(Origin { split: "t-3".into(), after: None, upto: b"12345".as_slice().into() });
        let sent = Chunk(vec![
            Item { target: 3, from: 1, payload: Payload::Mark(Mark { time: -5, idle: true, holder: Some("t-3".into()) }) },
            Item {
                target: 1,
                from: 2,
                payload: Payload::Encoded { buffers: vec![Buffer::from(b"abc"), Buffer::from(b"defgh")], origin: Some(origin.clone()) },
            },
            Item { target: 0, from: 0, payload: Payload::Mark(Mark { time: i64::MAX, idle: false, holder: None }) },
        ]);
        let got = round_trip(&sent);
        assert_eq!(got.record_count(), 3);
        assert_eq!((got.0[0].target, got.0[0].from), (3, 1));
        assert!(matches!(&got.0[0].payload, Payload::Mark(m) if *m == Mark { time: -5, idle: true, holder: Some("t-3".into()) }));
        let Payload::Wire { bytes, origin: got_origin } = &got.0[1].payload else { panic!("rows") };
        assert_eq!((&bytes[..], got_origin), (b"abcdefgh".as_slice(), &Some(origin)));
        assert!(matches!(&got.0[2].payload, Payload::Mark(m) if m.time == i64::MAX && m.holder.is_none()));
    }

    #[test]
    fn an_origin_keeps_an_empty_position_apart_from_none() {
        for after in [None, Some(Arc::from(b"".as_slice())), Some(Arc::from(b"9".as_slice()))] {
            let origin = Origin { split: "s".into(), after, upto: b"10".as_slice().into() };
            assert_eq!(decode_origin(&encode_origin(&origin)).as_deref(), Some(&origin));
        }
        assert_eq!(decode_origin(b""), None);
    }
}
