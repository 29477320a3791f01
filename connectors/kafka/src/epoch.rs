//! The records of one checkpoint, kept until it is durable: an Arrow IPC stream that `exactly_once` gives to the host as what it has prepared. It says by itself
//! where its records belong, so that a later run, whatever its configuration, can commit it; and other tools can read it.

use crate::records::{Columns, Record};
use arrow_array::{
    ArrayRef, RecordBatch, UInt32Array,
    builder::{BinaryBuilder, Int64Builder},
};
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use standpipe_sdk::{Error, Result, wire::VALUE_COLUMN};
use std::{collections::HashMap, io::Cursor, sync::Arc};

/// Columns of the log, beside `value`.
const KEY: &str = "key";
const PARTITION: &str = "partition";
const TIMESTAMP: &str = "timestamp";
const HEADERS: &str = "headers";

/// How an IPC stream ends.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Keys of the schema's metadata.
const TRANSACTIONAL_ID: &str = "standpipe.transactional_id";
const RUN: &str = "standpipe.run";
const TOPIC: &str = "standpipe.topic";

/// Where the records of an epoch belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Whose transaction commits them.
    pub transactional_id: String,
    /// The start of the job that prepared them.
    pub run: String,
    /// The topic.
    pub topic: String,
}

/// Records of a batch on their way into a [`Log`].
#[derive(Default)]
pub struct Rows {
    rows: Vec<u32>,
    value: BinaryBuilder,
    key: BinaryBuilder,
    partition: Int64Builder,
    timestamp: Int64Builder,
}

impl Rows {
    /// Adds the record of that row.
    pub fn push(&mut self, row: u32, record: &Record<'_>) {
        self.rows.push(row);
        self.value.append_option(record.value);
        self.key.append_option(record.key);
        self.partition.append_option(record.partition);
        self.timestamp.append_option(record.timestamp);
    }
}

/// The records since the last checkpoint.
pub struct Log {
    schema: SchemaRef,
    /// `None`: no record yet.
    writer: Option<StreamWriter<Vec<u8>>>,
}

impl Log {
    /// An empty one, for records with headers of that type.
    #[must_use]
    pub fn new(address: &Address, headers: Option<&DataType>) -> Self {
        let mut fields = vec![
            Field::new(VALUE_COLUMN, DataType::Binary, true),
            Field::new(KEY, DataType::Binary, true),
            Field::new(PARTITION, DataType::Int64, true),
            Field::new(TIMESTAMP, DataType::Int64, true),
        ];
        fields.extend(headers.map(|data_type| Field::new(HEADERS, data_type.clone(), true)));
        let Address { transactional_id, run, topic } = address.clone();
        let metadata = HashMap::from([(TRANSACTIONAL_ID, transactional_id), (RUN, run), (TOPIC, topic)].map(|(k, v)| (k.to_owned(), v)));
        Self { schema: Arc::new(Schema::new_with_metadata(fields, metadata)), writer: None }
    }

    /// Adds records of a batch, whose headers are in that column.
    ///
    /// # Errors
    /// When the batch is not what was declared.
    pub fn append(&mut self, rows: Rows, batch: &RecordBatch, headers: Option<&str>) -> Result<()> {
        if rows.rows.is_empty() {
            return Ok(());
        }
        let Rows { rows, mut value, mut key, mut partition, mut timestamp } = rows;
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(value.finish()), Arc::new(key.finish()), Arc::new(partition.finish()), Arc::new(timestamp.finish())];
        if let Some(headers) = headers.and_then(|name| batch.column_by_name(name)) {
            columns.push(arrow_select::take::take(headers, &UInt32Array::from(rows), None)?);
        }
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(StreamWriter::try_new(Vec::new(), &self.schema)?),
        };
        Ok(writer.write(&batch)?)
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.writer.as_ref().map_or(0, |writer| writer.get_ref().len())
    }

    /// What was added since the last time, as it is kept in the checkpoint; nothing if there was nothing.
    ///
    /// # Errors
    /// Never, as far as memory is there.
    pub fn take(&mut self) -> Result<Vec<u8>> {
        let Some(mut writer) = self.writer.take() else { return Ok(Vec::new()) };
        writer.finish()?;
        Ok(writer.into_inner()?)
    }
}

/// What was prepared for a checkpoint, read back.
pub struct Epoch<'a> {
    /// Where it belongs.
    pub address: Address,
    reader: StreamReader<Cursor<&'a [u8]>>,
}

impl<'a> Epoch<'a> {
    /// Opens it; `None`: it has no record.
    ///
    /// # Errors
    /// When that is no epoch of this sink.
    pub fn open(bytes: &'a [u8]) -> Result<Option<Self>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        // A reader takes a stream that breaks off between two batches for one that has ended.
        let is_whole = bytes.ends_with(&END);
        let foreign = |what: String| Error::data(format!("what a checkpoint holds for this sink cannot be read: {what}"));
        let reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|error| foreign(error.to_string()))?;
        let schema = reader.schema();
        let text = |name: &str| schema.metadata().get(name).cloned().ok_or_else(|| foreign(format!("it has no {name}")));
        if !is_whole {
            return Err(foreign("it ends too early".to_owned()));
        }
        let address = Address { transactional_id: text(TRANSACTIONAL_ID)?, run: text(RUN)?, topic: text(TOPIC)? };
        Ok(Some(Self { address, reader }))
    }

    /// Which columns its records are in.
    #[must_use]
    pub fn columns(&self) -> Columns {
        let has_headers = self.reader.schema().field_with_name(HEADERS).is_ok();
        Columns {
            key: vec![KEY.to_owned()],
            partition: Some(PARTITION.to_owned()),
            timestamp: Some(TIMESTAMP.to_owned()),
            headers: has_headers.then(|| HEADERS.to_owned()),
            row_kind: None,
        }
    }
}

impl Iterator for Epoch<'_> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.reader.next()?.map_err(Error::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Records;
    use arrow_array::{
        Array, BinaryArray, Int32Array, StringArray,
        builder::{MapBuilder, StringBuilder},
    };
    use rdkafka::message::Headers;

    fn address() -> Address {
        Address { transactional_id: "job-out-0".to_owned(), run: "r1".to_owned(), topic: "t".to_owned() }
    }

    fn append(log: &mut Log, batch: &RecordBatch, columns: &Columns, only: &[u32]) {
        let (records, mut rows) = (Records::of(batch, columns).unwrap(), Rows::default());
        for row in only {
            if let Some(record) = records.get(*row as usize) {
                rows.push(*row, &record);
            }
        }
        log.append(rows, batch, columns.headers.as_deref()).unwrap();
    }

    type Row = (Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>);

    fn rows(bytes: &[u8]) -> Vec<Row> {
        let epoch = Epoch::open(bytes).unwrap().unwrap();
        let columns = epoch.columns();
        let mut all = Vec::new();
        for batch in epoch {
            let batch = batch.unwrap();
            let records = Records::of(&batch, &columns).unwrap();
            all.extend((0..batch.num_rows()).filter_map(|row| records.get(row)).map(|record| {
                let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                (bytes(record.key), bytes(record.value), record.partition)
            }));
        }
        all
    }

    #[test]
    fn records_come_back_as_they_were_and_where_they_belong() {
        let columns = Columns { key: vec!["id".to_owned()], partition: Some("p".to_owned()), ..Columns::default() };
        let batch = RecordBatch::try_from_iter_with_nullable([
            (VALUE_COLUMN, Arc::new(BinaryArray::from_opt_vec(vec![Some(b"a".as_slice()), None, Some(b"c")])) as ArrayRef, true),
            ("id", Arc::new(StringArray::from(vec![Some("1"), Some("2"), None])) as ArrayRef, true),
            ("p", Arc::new(Int32Array::from(vec![None, Some(3), Some(4)])) as ArrayRef, true),
        ])
        .unwrap();
        let mut log = Log::new(&address(), None);
        assert_eq!((log.bytes(), log.take().unwrap()), (0, Vec::new()));
        append(&mut log, &batch, &columns, &[0, 1, 2]);
        append(&mut log, &batch, &columns, &[]);
        append(&mut log, &batch, &columns, &[2]);
        assert!(log.bytes() > 0);
        let bytes = log.take().unwrap();
        assert_eq!(log.bytes(), 0);
        let torn = Epoch::open(&bytes[..bytes.len() - 8]).err().unwrap();
        assert!(torn.message.contains("it ends too early"), "{}", torn.message);
        assert_eq!(Epoch::open(&bytes).unwrap().unwrap().address, address());
        let some = |text: &str| Some(text.as_bytes().to_vec());
        let last = (None, some("c"), Some(4));
        assert_eq!(rows(&bytes), [(some("1"), some("a"), None), (some("2"), None, Some(3)), last.clone(), last]);
    }

    #[test]
    fn deletes_are_tombstones_and_old_values_are_left_out() {
        let columns = Columns { key: vec!["id".to_owned()], row_kind: Some("op".to_owned()), ..Columns::default() };
        let batch = RecordBatch::try_from_iter([
            (VALUE_COLUMN, Arc::new(BinaryArray::from_vec(vec![b"a", b"b", b"c", b"d"])) as ArrayRef),
            ("id", Arc::new(StringArray::from(vec!["1", "2", "2", "1"])) as ArrayRef),
            ("op", Arc::new(StringArray::from(vec!["+I", "-U", "+U", "-D"])) as ArrayRef),
        ])
        .unwrap();
        let mut log = Log::new(&address(), None);
        append(&mut log, &batch, &columns, &[0, 1, 2, 3]);
        let some = |text: &str| Some(text.as_bytes().to_vec());
        let expected = [(some("1"), some("a"), None), (some("2"), some("c"), None), (some("1"), None, None)];
        assert_eq!(rows(&log.take().unwrap()), expected);
    }

    #[test]
    fn headers_stay_with_their_records() {
        let mut headers = MapBuilder::new(None, StringBuilder::new(), BinaryBuilder::new());
        for name in ["a", "b"] {
            headers.keys().append_value(name);
            headers.values().append_value(name);
            headers.append(true).unwrap();
        }
        headers.append(false).unwrap();
        let columns = Columns { headers: Some("h".to_owned()), ..Columns::default() };
        let headers = Arc::new(headers.finish()) as ArrayRef;
        let data_type = headers.data_type().clone();
        let batch = RecordBatch::try_from_iter_with_nullable([
            (VALUE_COLUMN, Arc::new(BinaryArray::from_vec(vec![b"1", b"2", b"3"])) as ArrayRef, true),
            ("h", headers, true),
        ])
        .unwrap();
        let mut log = Log::new(&address(), Some(&data_type));
        append(&mut log, &batch, &columns, &[1, 2]);
        let bytes = log.take().unwrap();
        let mut epoch = Epoch::open(&bytes).unwrap().unwrap();
        let (columns, batch) = (epoch.columns(), epoch.next().unwrap().unwrap());
        let records = Records::of(&batch, &columns).unwrap();
        let names = |row| {
            records.get(row).unwrap().headers.map(|headers| headers.owned().iter().map(|header| header.key.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!((names(0), names(1)), (Some(vec!["b".to_owned()]), None));
    }

    #[test]
    fn what_is_no_epoch_is_refused() {
        assert!(Epoch::open(b"").unwrap().is_none());
        let message = |bytes: &[u8]| Epoch::open(bytes).err().unwrap().message;
        assert!(message(b"{}").contains("cannot be read"), "{}", message(b"{}"));
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        assert!(message(&writer.into_inner().unwrap()).contains("it has no standpipe.transactional_id"));
    }
}
