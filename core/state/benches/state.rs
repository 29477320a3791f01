//! What keyed state costs, on one core: access in memory and on disk, memory per key, snapshots and restores: `cargo bench -p standpipe-state --bench state`. Prints,
//! asserts nothing about speed; each figure is the best of some rounds, as the machine may be busy.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark has nobody to answer to")]

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, FieldRef};
use standpipe_sdk::hosting::{KeyedState, LentColumn};
use standpipe_sdk::wire::{StateDetails, StateKind};
use standpipe_state::{Base, Cut, EncodedKeys, KeyGroupRange, KeyedStates, Ordinals, scratch::Scratch};
use std::{
    fs,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

const BATCH: usize = 8192;
const KEYS: u64 = 1_000_000;
const GROUPS: u32 = 128;

fn new_states() -> KeyedStates {
    let details = StateDetails { name: "sum".to_owned(), kind: StateKind::Value, version: 1, time_to_live_ms: None };
    let field: FieldRef = Arc::new(Field::new("sum", DataType::Int64, true));
    let key = vec![Field::new("id", DataType::Int64, false)];
    KeyedStates::new(key.into(), &[(details, field)], GROUPS).unwrap()
}

struct Subtask {
    states: KeyedStates,
    encoded: EncodedKeys,
    ids: Vec<u32>,
    ordinals: Ordinals,
    column: LentColumn,
    random: u64,
}

impl Subtask {
    fn new(states: KeyedStates) -> Self {
        let (encoded, ids, ordinals) = (EncodedKeys::new(), Vec::new(), Ordinals::default());
        Self { states, encoded, ids, ordinals, column: LentColumn::new(8, 0), random: 0x9E37_79B9_7F4A_7C15 }
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// What a transform's call does that adds to a number per key.
    fn batch(&mut self, keys: Vec<i64>) {
        self.states.compact(0).unwrap();
        let rows = keys.len();
        let keys: ArrayRef = Arc::new(Int64Array::from(keys));
        self.encoded.encode(&[keys], rows).unwrap();
        self.states.intern(&self.encoded, &mut self.ids).unwrap();
        self.ordinals.assign(&self.ids, self.states.keys().len());
        let mut call = self.states.call(self.ordinals.ids(), 0).unwrap();
        self.column.reset(8, self.ordinals.ids().len());
        call.gather(0, &mut self.column).unwrap();
        for ordinal in self.ordinals.of_row() {
            let at = *ordinal as usize;
            let bytes = &mut self.column.bytes_mut()[at * 8..at * 8 + 8];
            let sum = i64::from_le_bytes(bytes.try_into().unwrap()) + 1;
            bytes.copy_from_slice(&sum.to_le_bytes());
            self.column.validity[at] = 1;
            self.column.dirty[at] = 1;
        }
        call.scatter(0, &self.column).unwrap();
        call.commit();
    }

    fn fill(&mut self, keys: u64) {
        for first in (0..keys).step_by(BATCH) {
            self.batch((first..keys.min(first + BATCH as u64)).map(|key| key as i64).collect());
        }
    }

    /// Random ones of so many keys.
    fn updates(&mut self, rows: usize, keys: u64) {
        for _ in 0..rows / BATCH {
            let keys = (0..BATCH).map(|_| (self.next() % keys) as i64).collect();
            self.batch(keys);
        }
    }

    fn snapshot(&mut self, cut: Cut) -> (Duration, Duration, Vec<(String, RecordBatch)>) {
        let begin = Instant::now();
        let snapshot = self.states.snapshot(cut, 0).unwrap();
        let on_worker = begin.elapsed();
        let mut tables = snapshot.tables;
        tables.extend(snapshot.rest.into_iter().flatten().map(|table| table.unwrap()));
        (on_worker, begin.elapsed(), tables)
    }
}

fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn access(name: &str, subtask: &mut Subtask, keys: u64) {
    const ROWS: usize = 256 * BATCH;
    let time = |subtask: &mut Subtask| {
        let begin = Instant::now();
        subtask.updates(ROWS, keys);
        begin.elapsed()
    };
    let best = (0..5).map(|_| time(subtask)).min().unwrap_or_default().as_secs_f64();
    println!("{name:<58} {:>7.2} M rows/s {:>8.1} ns/row", ROWS as f64 / best / 1e6, best * 1e9 / ROWS as f64);
}

fn snapshots(name: &str, subtask: &mut Subtask) {
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
    let rows = |tables: &[(String, RecordBatch)]| tables.iter().map(|(_, table)| table.num_rows()).sum::<usize>();
    let (on_worker, all, tables) = subtask.snapshot(Cut { id: 1, base: Base::Nothing });
    println!("{name}: whole, {} rows: {:.1} ms on the worker, {:.1} ms in all", rows(&tables), millis(on_worker), millis(all));
    let begin = Instant::now();
    let mut restored = new_states();
    restored.restore(&tables, KeyGroupRange { start: 0, end: GROUPS as u16 }, 0).unwrap();
    println!("{name}: restored into memory in {:.1} ms", millis(begin.elapsed()));
    black_box(restored.keys().len());
    drop(tables);
    for (id, updates) in [(2, 1), (3, 100), (4, 100_000 / BATCH)] {
        subtask.updates(updates * BATCH, KEYS);
        let (on_worker, all, tables) = subtask.snapshot(Cut { id, base: Base::Checkpoint(id - 1) });
        println!(
            "{name}: after {} updates, {} rows: {:.1} ms on the worker, {:.1} ms in all",
            updates * BATCH,
            rows(&tables),
            millis(on_worker),
            millis(all)
        );
    }
}

fn main() {
    let before = resident();
    let mut memory = Subtask::new(new_states());
    memory.fill(KEYS);
    let size = memory.states.size() as u64;
    println!("{KEYS} keys of int64 with one int64: {} bytes a key, {} resident", size / KEYS, (resident() - before) / KEYS);
    access("memory: add 1 to a number, 1 M keys", &mut memory, KEYS);
    access("memory: add 1 to a number, 10 k keys", &mut memory, 10_000);
    snapshots("memory", &mut memory);
    drop(memory);

    let folder = std::env::temp_dir();
    let scratch = Scratch::open(&folder, "standpipe-bench", "state").unwrap();
    for (name, cache) in [("128 MiB", 128 << 20), ("8 MiB", 8 << 20)] {
        let mut disk = Subtask::new(new_states().on_disk(Arc::clone(&scratch), name, cache).unwrap());
        let begin = Instant::now();
        disk.fill(KEYS);
        println!("disk, cache of {name}: filled in {:.1} s", begin.elapsed().as_secs_f64());
        access(&format!("disk, cache of {name}: add 1 to a number, 1 M keys"), &mut disk, KEYS);
        access(&format!("disk, cache of {name}: add 1 to a number, 10 k keys"), &mut disk, 10_000);
        snapshots(&format!("disk, cache of {name}"), &mut disk);
    }
}
