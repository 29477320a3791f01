//! Batches between processes: one Arrow IPC stream per edge, sending subtask and receiving worker, so that a schema (and a dictionary that stays) crosses once.
//! The sender encodes before the item enters timely, the receiver decodes in the operator that takes it; items of a sender arrive in order.

use super::chunk::{Item, Mark, Payload, Rows};
use arrow::{array::RecordBatch, buffer::Buffer, error::ArrowError};
use arrow_ipc::{reader::StreamDecoder, writer::StreamEncoder};
use timely::bytes::arc::Bytes;

/// The sending end of a stream.
#[derive(Default)]
pub(crate) struct BatchEncoder(Option<StreamEncoder>);

impl BatchEncoder {
    /// The messages of the batch, those of the schema before the first.
    pub(crate) fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<Buffer>, ArrowError> {
        let encoder = match &mut self.0 {
            Some(encoder) => encoder,
            none => none.insert(StreamEncoder::try_new(&batch.schema())?),
        };
        encoder.encode(batch)
    }
}

/// An item as its receiver uses it.
#[derive(Debug)]
pub(crate) enum Received {
    Rows(Rows),
    Mark(Mark),
}

/// The receiving ends of an edge, by sending subtask.
pub(crate) struct BatchDecoders(Vec<StreamDecoder>);

/// Timely's bytes as an owner that Arrow's buffers can hold.
struct Slab(Bytes);

impl AsRef<[u8]> for Slab {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl BatchDecoders {
    pub(crate) fn new(senders: usize) -> Self {
        Self((0..senders).map(|_| StreamDecoder::new()).collect())
    }

    /// Decodes what is encoded. Must see every item of a sender, in order.
    pub(crate) fn receive(&mut self, item: Item) -> Result<Received, ArrowError> {
        let (buffer, origin) = match item.payload {
            Payload::Rows(rows) => return Ok(Received::Rows(rows)),
            Payload::Mark(mark) => return Ok(Received::Mark(mark)),
            // Only where a test sends encoded items within a process.
            Payload::Encoded { buffers, origin } => {
                (Buffer::from_vec(buffers.iter().flat_map(|b| b.iter().copied()).collect::<Vec<u8>>()), origin)
            }
            Payload::Wire { bytes, origin } => (Buffer::from(bytes::Bytes::from_owner(Slab(bytes))), origin),
        };
        let decoder = self
            .0
            .get_mut(item.from as usize)
            .ok_or_else(|| ArrowError::IpcError(format!("a batch of the unknown subtask {}", item.from)))?;
        let mut rest = buffer;
        let batch = decoder.decode(&mut rest)?.ok_or_else(|| ArrowError::IpcError("an item without a batch".to_owned()))?;
        Ok(Received::Rows(Rows { batch, origin }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflow::chunk::Chunk;
    use arrow::array::{ArrayRef, DictionaryArray, Int64Array, StringArray};
    use arrow::datatypes::Int32Type;
    use std::sync::Arc;
    use timely::{bytes::arc::BytesMut, dataflow::channels::ContainerBytes};

    fn batch(rows: std::ops::Range<i64>) -> RecordBatch {
        let names: StringArray = rows.clone().map(|i| (i % 3 != 0).then(|| format!("name-{i}"))).collect();
        let kinds: DictionaryArray<Int32Type> = rows.clone().map(|i| if i % 2 == 0 { "even" } else { "odd" }).collect();
        let columns: [(&str, ArrayRef); 3] =
            [("n", Arc::new(Int64Array::from_iter_values(rows))), ("name", Arc::new(names)), ("kind", Arc::new(kinds))];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn crossed(item: Item) -> Item {
        let mut bytes = Vec::new();
        Chunk(vec![item]).into_bytes(&mut bytes);
        Chunk::from_bytes(BytesMut::from(bytes).freeze()).0.remove(0)
    }

    #[test]
    fn batches_cross_a_process_boundary() {
        let (mut encoder, mut decoders) = (BatchEncoder::default(), BatchDecoders::new(2));
        let mut sizes = Vec::new();
        for i in 0..4 {
            let sent = batch(i * 100..i * 100 + 50);
            let buffers = encoder.encode(&sent).unwrap();
            sizes.push(buffers.iter().map(Buffer::len).sum::<usize>());
            let item = Item { target: 1, from: 1, payload: Payload::Encoded { buffers, origin: None } };
            let Received::Rows(got) = decoders.receive(crossed(item)).unwrap() else { panic!("rows were sent") };
            assert_eq!(got.batch, sent);
        }
        assert!(sizes[1] < sizes[0], "the schema crosses once: {sizes:?}");
        let mark = Item { target: 1, from: 1, payload: Payload::Mark(Mark { time: 1, idle: false, holder: None }) };
        assert!(matches!(decoders.receive(crossed(mark)).unwrap(), Received::Mark(m) if m.time == 1));
    }

    #[test]
    fn a_broken_message_is_an_error() {
        let mut decoders = BatchDecoders::new(1);
        let item =
            |from| Item { target: 0, from, payload: Payload::Encoded { buffers: vec![Buffer::from(b"not an ipc message")], origin: None } };
        decoders.receive(item(0)).unwrap_err();
        decoders.receive(item(7)).unwrap_err();
    }
}
