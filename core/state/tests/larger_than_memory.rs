//! State of many times the memory that it may take: in a process of its own, whose resident size is watched.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, Field, FieldRef};
use standpipe_sdk::hosting::KeyedState;
use standpipe_sdk::wire::{StateDetails, StateKind};
use standpipe_state::{Base, Cut, EncodedKeys, KeyGroupRange, KeyedStates, scratch::Scratch};
use std::{collections::BTreeMap, fs, sync::Arc};

const BUDGET: usize = 8 << 20;
const KEYS: i64 = 200_000;
const BATCH: i64 = 4_000;
/// Some 200 MB in all.
const TEXT: usize = 1_000;

fn states(scratch: &Arc<Scratch>, name: &str) -> KeyedStates {
    let declared = |name: &str, kind, data_type| -> (StateDetails, FieldRef) {
        (StateDetails { name: name.to_owned(), kind, version: 1, time_to_live_ms: None }, Arc::new(Field::new("item", data_type, true)))
    };
    let all = [declared("text", StateKind::Value, DataType::Utf8), declared("count", StateKind::Reducing, DataType::Int64)];
    let key = vec![Field::new("id", DataType::Int64, false)];
    KeyedStates::new(key.into(), &all, 128).unwrap().on_disk(Arc::clone(scratch), name, BUDGET).unwrap()
}

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// The text of a key after so many rounds: what compresses badly.
fn text(id: i64, round: i64) -> String {
    let mut random = (id * 31 + round) as u64 | 1;
    let letter = |_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        char::from(b'a' + (random % 26) as u8)
    };
    (0..TEXT).map(letter).collect()
}

struct Subtask {
    states: KeyedStates,
    peak: usize,
}

impl Subtask {
    /// Checks what each of these keys has from the round before, and writes that of this round.
    fn round(&mut self, ids: &[i64], before: Option<i64>, round: i64) {
        self.states.compact(0).unwrap();
        let (mut keys, mut numbers) = (EncodedKeys::new(), Vec::new());
        let column: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
        keys.encode(&[column], ids.len()).unwrap();
        self.states.intern(&keys, &mut numbers).unwrap();
        let ordinals: Vec<u32> = (0..ids.len() as u32).collect();
        let mut call = self.states.call(&numbers, 0).unwrap();
        let texts = call.value_get(0, &ordinals).unwrap();
        let counts = call.value_get(1, &ordinals).unwrap();
        for (row, id) in ids.iter().enumerate() {
            match before {
                None => assert!(texts.is_null(row) && counts.is_null(row)),
                Some(before) => {
                    assert_eq!(texts.as_string::<i32>().value(row), text(*id, before));
                    assert_eq!(counts.as_primitive::<Int64Type>().value(row), id + before);
                }
            }
        }
        call.value_set(0, &ordinals, Arc::new(StringArray::from_iter_values(ids.iter().map(|id| text(*id, round))))).unwrap();
        call.value_set(1, &ordinals, Arc::new(Int64Array::from_iter_values(ids.iter().map(|id| id + round)))).unwrap();
        call.commit();
        self.peak = self.peak.max(resident());
    }

    /// Every key, in an order in which neighbours are far apart.
    fn all(&mut self, before: Option<i64>, round: i64) {
        for first in 0..KEYS / BATCH {
            let ids: Vec<i64> = (0..BATCH).map(|i| first + i * (KEYS / BATCH)).collect();
            self.round(&ids, before, round);
        }
    }

    fn snapshot(&mut self, cut: Cut) -> (BTreeMap<String, usize>, Vec<(String, RecordBatch)>) {
        let snapshot = self.states.snapshot(cut, 0).unwrap();
        let (mut rows, mut kept): (BTreeMap<String, usize>, Vec<_>) = Default::default();
        for table in snapshot.tables.into_iter().map(Ok).chain(snapshot.rest.into_iter().flatten()) {
            let (name, table) = table.unwrap();
            assert!(table.get_array_memory_size() < 64 << 20);
            *rows.entry(name.clone()).or_default() += table.num_rows();
            self.peak = self.peak.max(resident());
            if cut.base != Base::Alone {
                kept.push((name, table));
            }
        }
        (rows, kept)
    }
}

#[test]
fn state_of_many_times_the_budget_takes_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = Scratch::open(folder.path(), "job", "test").unwrap();
    let before = resident();
    let mut subtask = Subtask { states: states(&scratch, "one"), peak: 0 };
    let report = |what: &str, subtask: &Subtask| println!("{what}: at most {} MB", (subtask.peak.saturating_sub(before)) >> 20);
    subtask.all(None, 0);
    report("filled", &subtask);
    subtask.all(Some(0), 1);
    report("written anew", &subtask);
    let rows = |text: i64, count: i64| {
        BTreeMap::from([("state.text", text), ("state.count", count), ("timers", 0)].map(|(name, rows)| (name.to_owned(), rows as usize)))
    };
    assert_eq!(subtask.snapshot(Cut::ALONE).0, rows(KEYS, KEYS));

    report("a snapshot", &subtask);

    // It goes on from pieces, one after the other, and has what was there.
    let mut restored = Subtask { states: states(&scratch, "two"), peak: 0 };
    let all = KeyGroupRange { start: 0, end: 128 };
    let snapshot = subtask.states.snapshot(Cut { id: 1, base: Base::Nothing }, 0).unwrap();
    for piece in snapshot.rest.into_iter().flatten() {
        restored.states.restore(&[piece.unwrap()], all, 0).unwrap();
        restored.peak = restored.peak.max(resident());
    }
    report("another one restored", &restored);
    for first in 0..10 {
        let ids: Vec<i64> = (0..BATCH).map(|i| first + i * (KEYS / BATCH)).collect();
        restored.round(&ids, Some(1), 2);
    }

    // Few keys change: few are said.
    subtask.round(&[5, 50_000, KEYS - 1], Some(1), 7);
    let (changed, tables) = subtask.snapshot(Cut { id: 2, base: Base::Checkpoint(1) });
    assert_eq!(changed, rows(3, 3));
    assert!(tables.iter().all(|(_, table)| standpipe_state::snapshot::since(table).is_some() || table.num_rows() == 0));

    let took = subtask.peak.max(restored.peak) - before;
    let size = KEYS as usize * TEXT;
    println!("{} MB of state, twice, in {} MB of memory and {} MB on disk", size >> 20, took >> 20, scratch.size().unwrap() >> 20);
    assert!(size > 10 * BUDGET && took < size, "{took} bytes of memory for {size} bytes of state, twice");
}
