//! Arrow IPC that somebody has damaged: batches or an error on one line; never a panic, and never more memory than the bytes can stand for. Files, packed, are in core/checkpoint's tests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

use arrow_array::{ArrayRef, DictionaryArray, Int64Array, NullArray, RecordBatch, StringArray, StructArray, types::Int32Type};
use arrow_ipc::{
    CompressionType,
    writer::{FileWriter, IpcWriteOptions, StreamWriter},
};
use arrow_schema::{DataType, Field};
use proptest::prelude::*;
use rustix::process::{Resource, Rlimit, setrlimit};
use standpipe_formats::ipc::{read_file, read_stream};
use standpipe_hostile::{bytes, cases};
use std::sync::{Arc, LazyLock, Once};

/// Of the whole process: a length that is believed takes more, and an allocation that fails ends it.
const MEMORY: u64 = 2 << 30;

fn with_little_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| setrlimit(Resource::As, Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) }).unwrap());
}

fn batch() -> RecordBatch {
    let numbers = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef;
    let inner = (Arc::new(Field::new("n", DataType::Int64, true)), Arc::clone(&numbers));
    let nulls = Some(vec![true, false, true].into());
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", numbers),
        ("text", Arc::new(StringArray::from(vec!["a", "", "a longer one"]))),
        ("inner", Arc::new(StructArray::new(vec![inner.0].into(), vec![inner.1], nulls))),
        ("word", Arc::new(["a", "b", "a"].into_iter().collect::<DictionaryArray<Int32Type>>())),
        ("nothing", Arc::new(NullArray::new(3))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn stream(packed: bool) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(packed.then_some(CompressionType::LZ4_FRAME)).unwrap();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch().schema(), options).unwrap();
    writer.write(&batch()).unwrap();
    writer.write(&batch().slice(1, 1)).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

static STREAMS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [stream(false), stream(true)]);

fn check(said: Result<usize, String>) -> Result<(), TestCaseError> {
    if let Err(why) = said {
        prop_assert!(!why.is_empty() && why.len() < 2_000 && !why.contains(char::is_control), "{why:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(4_000))]

    #[test]
    fn streams_whose_bytes_are_others(packed in any::<bool>(), changes in bytes::changes(&[])) {
        with_little_memory();
        let bytes = bytes::changed(&STREAMS[usize::from(packed)], &changes);
        check(read_stream(&bytes).map(|(_, batches)| batches.len()).map_err(|error| error.to_string()))?;
    }

    #[test]
    fn files_that_are_not_packed(changes in bytes::changes(&[])) {
        with_little_memory();
        let mut writer = FileWriter::try_new(Vec::new(), &batch().schema()).unwrap();
        writer.write(&batch()).unwrap();
        let bytes = bytes::changed(&writer.into_inner().unwrap(), &changes);
        check(read_file(bytes).map(|batches| batches.len()).map_err(|error| error.to_string()))?;
    }

    #[test]
    fn any_bytes(noise in prop::collection::vec(any::<u8>(), 0..300), behind in any::<bool>()) {
        with_little_memory();
        let begin: &[u8] = if behind { &STREAMS[0][..8] } else { b"" };
        prop_assert!(read_stream(&[begin, &noise].concat()).is_err());
        prop_assert!(read_file(noise).is_err());
    }
}

#[test]
fn what_is_right_is_read() {
    for stream in STREAMS.iter() {
        let (schema, batches) = read_stream(stream).unwrap();
        assert_eq!((schema, batches.as_slice()), (batch().schema(), &[batch(), batch().slice(1, 1)][..]));
        // An end may be left out.
        assert_eq!(read_stream(&stream[..stream.len() - 8]).unwrap().1.len(), 2);
    }
    let empty = StreamWriter::try_new(Vec::new(), &batch().schema()).unwrap().into_inner().unwrap();
    assert_eq!(read_stream(&empty).unwrap().1, []);
    let error = |bytes: &[u8]| read_stream(bytes).unwrap_err().to_string();
    assert_eq!((error(b"").as_str(), error(b"\xff\xff\xff\xff").as_str()), ("it has no schema", "it is too short"));
}
