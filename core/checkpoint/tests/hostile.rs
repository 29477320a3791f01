//! Checkpoints that somebody has damaged, by accident or not: an error that names the object, or what was written; never a panic, and never more memory than a file can stand for.
//!
//! `PROPTEST_CASES` says how many cases there are instead of the few that every run can afford.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use arrow::{
    array::{
        ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, Int64Array, ListArray, MapBuilder, NullArray, RecordBatch, StringArray,
        StringBuilder, StructArray, TimestampMicrosecondArray, UInt16Array,
    },
    datatypes::{DataType, Field, Int32Type},
};
use proptest::prelude::*;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::Value;
use standpipe_checkpoint::{
    CheckpointError, FileRef, Kind, Location, Manifest, NodeState, PluginUsed, Start, Store, store::NewTable, table,
};
use standpipe_hostile::{bytes, cases, json};
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, LazyLock, Once},
};

/// Of the whole process: a length that is believed takes more, and an allocation that fails ends it.
const MEMORY: u64 = 2 << 30;

fn with_little_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| setrlimit(Resource::As, Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) }).unwrap());
}

/// A column of every form that Arrow builds in another way.
fn batch() -> RecordBatch {
    let texts = || StringArray::from(vec![Some("one"), None, Some("three"), Some("a longer one, that is not like the others")]);
    let numbers = || Arc::new(Int64Array::from(vec![Some(1), None, Some(-3), Some(i64::MAX)])) as ArrayRef;
    let part = |name: &str, array: ArrayRef| (Arc::new(Field::new(name, array.data_type().clone(), true)), array);
    let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for row in 0..4 {
        (0..row).for_each(|i| {
            map.keys().append_value(i.to_string());
            map.values().append_value("value");
        });
        map.append(row != 2).unwrap();
    }
    let nulls = Some(vec![true, false, true, true].into());
    let inner = vec![part("n", numbers()), part("t", Arc::new(texts()))];
    let (fields, arrays): (Vec<_>, Vec<_>) = inner.into_iter().unzip();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("key_group", Arc::new(UInt16Array::from(vec![0, 3, 9, 127]))),
        ("key", Arc::new(StructArray::new(fields.into(), arrays, nulls))),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3, 4]))),
        ("price", Arc::new(Decimal128Array::from(vec![1, 2, 3, 4]).with_precision_and_scale(12, 2).unwrap())),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>((0..4).map(|n| Some(vec![Some(7); n]))))),
        ("map", Arc::new(map.finish())),
        ("word", Arc::new(["a", "b", "a", "a"].into_iter().collect::<DictionaryArray<Int32Type>>())),
        ("nothing", Arc::new(NullArray::new(4))),
        // Long enough to be worth packing.
        ("text", Arc::new(StringArray::from_iter_values((0..4).map(|row| format!("{row}").repeat(500))))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

static TABLE: LazyLock<::bytes::Bytes> = LazyLock::new(|| table::encode("keys", &batch()).unwrap());

/// A job's folder with one checkpoint of one table.
struct Taken {
    _folder: tempfile::TempDir,
    store: Store,
    file: FileRef,
    of_table: PathBuf,
    of_manifest: PathBuf,
    of_base: PathBuf,
    manifest: Value,
}

impl Taken {
    fn new() -> Self {
        with_little_memory();
        let folder = tempfile::tempdir().unwrap();
        let location = Location::open(&folder.path().display().to_string(), &[]).unwrap();
        let store = Store::open(location, "job").unwrap();
        let taken_over = store.take_over("a", &Start::Fresh).unwrap();
        store.begin(&taken_over).unwrap();
        let new =
            NewTable { node: "transforms.stats".to_owned(), subtask: 0, name: "panes".to_owned(), piece: 0, batch: batch(), same: None };
        let files = store.write(1, 1, vec![new]).unwrap();
        let file = files[0].clone();
        let state = NodeState { operator: "window".to_owned(), parallelism: 2, tables: BTreeMap::from([("panes".to_owned(), files)]) };
        let used = || PluginUsed {
            kind: "kafka".to_owned(),
            plugin: "standpipe-kafka".to_owned(),
            version: "0.1.0".to_owned(),
            sha256: "ab".repeat(32),
        };
        let manifest = Manifest {
            format: 1,
            standpipe: "0.1.0".to_owned(),
            job: "job".to_owned(),
            job_id: "0".repeat(32),
            generation: 1,
            id: 1,
            kind: Kind::Checkpoint,
            drained: true,
            triggered_micros: 1,
            took_micros: 2,
            plan: "ab".to_owned(),
            max_parallelism: 128,
            plugins: BTreeMap::from([("sources.in".to_owned(), used())]),
            nodes: BTreeMap::from([("transforms.stats".to_owned(), state)]),
        };
        store.commit(&manifest).unwrap();
        let at = |path: &str| folder.path().join("job").join(path);
        Self {
            store,
            of_table: at(&file.path),
            of_manifest: at("checkpoints/00000001-000001.json"),
            of_base: at("generations/000001.base"),
            file,
            manifest: serde_json::to_value(&manifest).unwrap(),
            _folder: folder,
        }
    }
}

fn one_line(error: &CheckpointError, object: &str) -> Result<(), TestCaseError> {
    let text = error.to_string();
    prop_assert!(text.contains(object) && !text.contains(char::is_control), "{text:?}");
    Ok(())
}

/// Does with a manifest what is done with it: it may be of a checkpoint that is not there.
fn use_manifest(taken: &Taken) -> Result<(), TestCaseError> {
    match taken.store.latest() {
        Err(error) => one_line(&error, "00000001-000001.json")?,
        Ok(found) => {
            let manifest = found.unwrap();
            prop_assert_eq!((manifest.id, manifest.generation), (1, 1));
            let _ = (manifest.sizes(), manifest.files_of("transforms.stats", "panes", 0), manifest.paths());
            let _ = taken.store.check_files(&manifest);
            for file in manifest.files() {
                let _ = taken.store.schema(file);
                if let Ok(tables) = taken.store.table(file) {
                    prop_assert_eq!(tables, [batch()]);
                }
            }
        }
    }
    prop_assert!(taken.store.list().unwrap() == [1]);
    Ok(())
}

/// Words of manifests.
const WORDS: &[&str] =
    &["\"", "\\u0000", "\\ud800", "null", "1e999", "-1", "99999999999999999999", "{", "}", "[", "]", ",", ":", "savepoint"];

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn manifests_whose_values_are_others(changes in json::changes()) {
        let taken = TAKEN.lock();
        fs::write(&taken.of_manifest, json::changed(&taken.manifest, &changes).to_string()).unwrap();
        use_manifest(&taken)?;
    }

    #[test]
    fn manifests_whose_bytes_are_others(changes in bytes::changes(WORDS)) {
        let taken = TAKEN.lock();
        fs::write(&taken.of_manifest, bytes::changed(taken.manifest.to_string().as_bytes(), &changes)).unwrap();
        use_manifest(&taken)?;
    }

    /// Where the manifest says what the content's hash is, it is what was written or an error.
    #[test]
    fn files_that_are_not_what_was_written(changes in bytes::changes(&[])) {
        let taken = TAKEN.lock();
        fs::write(&taken.of_table, bytes::changed(&TABLE, &changes)).unwrap();
        match taken.store.table(&taken.file) {
            Ok(tables) => prop_assert_eq!(tables, [batch()]),
            Err(error) => one_line(&error, &taken.file.path)?,
        }
        // The columns alone are read without it.
        if let Err(error) = taken.store.schema(&taken.file) {
            one_line(&error, &taken.file.path)?;
        }
        fs::write(&taken.of_table, &*TABLE).unwrap();
    }
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn notes_of_generations(note in prop_oneof!["[0-9]{0,24}( [ -~]{0,40})?", "\\PC{0,20}"]) {
        let taken = Taken::new();
        fs::write(&taken.of_base, &note).unwrap();
        let _ = (taken.store.begun_elsewhere(), taken.store.has_begun("a"), taken.store.list(), taken.store.next_id());
    }
}

proptest! {
    #![proptest_config(cases(4_000))]

    /// Where whoever has damaged a file has written its hash anew.
    #[test]
    fn tables_whose_bytes_are_others(changes in bytes::changes(&[])) {
        with_little_memory();
        if let Err(error) = table::decode("data/x.arrow", bytes::changed(&TABLE, &changes).into()) {
            one_line(&error, "data/x.arrow: ")?;
        }
    }

    #[test]
    fn any_bytes(noise in prop::collection::vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>()) {
        with_little_memory();
        prop_assert!(table::decode("data/x.arrow", noise.clone().into()).is_err());
        // With a real end, so that it is read.
        let end = [noise.as_slice(), &TABLE[cut.index(TABLE.len())..]].concat();
        if let Err(error) = table::decode("data/x.arrow", end.into()) {
            one_line(&error, "data/x.arrow: ")?;
        }
    }
}

static TAKEN: LazyLock<Shared> = LazyLock::new(|| Shared(std::sync::Mutex::new(Taken::new())));

/// One folder for all cases; a case that fails has said why.
struct Shared(std::sync::Mutex<Taken>);

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        let taken = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        fs::write(&taken.of_manifest, taken.manifest.to_string()).unwrap();
        taken
    }
}

#[test]
fn the_sample_is_right() {
    assert_eq!(table::decode("x", TABLE.clone()).unwrap(), [batch()]);
    let taken = Taken::new();
    assert_eq!(taken.store.latest().unwrap().unwrap().files().count(), 1);
    assert_eq!(taken.store.table(&taken.file).unwrap(), [batch()]);
    assert_eq!(*taken.store.schema(&taken.file).unwrap(), *batch().schema());
    let types: Vec<DataType> = batch().schema().fields().iter().map(|field| field.data_type().clone()).collect();
    assert!(types.iter().any(|found| matches!(found, DataType::Map(..))) && types.contains(&DataType::Null));
}

#[test]
fn a_manifest_that_is_nested_deeply() {
    let taken = Taken::new();
    fs::write(&taken.of_manifest, json::nested("[", "1", "]", 1_000_000)).unwrap();
    assert!(taken.store.latest().unwrap_err().to_string().ends_with("invalid type: sequence, expected u32 at line 1 column 1"));
    fs::write(&taken.of_manifest, json::nested("{\"nodes\":", "1", "}", 1_000_000)).unwrap();
    assert!(taken.store.latest().unwrap_err().to_string().contains("missing field `format`"));
}
