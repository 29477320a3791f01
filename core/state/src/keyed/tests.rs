//! Against a naive model, on both backends: random calls, some of which fail, with checkpoints and restores at random parallelism in between.

use super::*;
use crate::changes::{Base, Cut};
use crate::key_group::{KeyGroupRange, key_group, range_of, subtask_of};
use crate::snapshot::{merged, since};
use arrow::array::*;
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, Field};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

mod declarations;
mod expiry;
mod hostile;

const GROUPS: u32 = 16;
const COUNT: u32 = 0;
const TEXT: u32 = 1;
const LOG: u32 = 2;
const TABLE: u32 = 3;
const MILLI: i64 = 1000;

fn declared(name: &str, kind: StateKind, data_type: DataType, time_to_live_ms: Option<u64>) -> (StateDetails, FieldRef) {
    (StateDetails { name: name.to_owned(), kind, version: 1, time_to_live_ms }, Arc::new(Field::new("item", data_type, true)))
}

fn states(time_to_live_ms: Option<u64>) -> Vec<(StateDetails, FieldRef)> {
    let entry = DataType::Struct(vec![Field::new("key", DataType::Int64, false), Field::new("value", DataType::Utf8, true)].into());
    vec![
        declared("count", StateKind::Value, DataType::Int64, time_to_live_ms),
        declared("text", StateKind::Value, DataType::Utf8, None),
        declared("log", StateKind::List, DataType::Int64, time_to_live_ms),
        declared("table", StateKind::Map, entry, time_to_live_ms),
    ]
}

fn key_fields() -> Fields {
    vec![Field::new("name", DataType::Utf8, true), Field::new("value", DataType::Int64, false)].into()
}

fn subtask(time_to_live_ms: Option<u64>) -> KeyedStates {
    KeyedStates::new(key_fields(), &states(time_to_live_ms), GROUPS).unwrap()
}

/// Where state is kept.
#[derive(Clone)]
enum Backend {
    Memory,
    Disk(Arc<Scratch>),
}

impl Backend {
    /// Both, with the folder of the latter.
    fn both() -> (tempfile::TempDir, [Self; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::open(folder.path(), "job", "test").unwrap();
        (folder, [Self::Memory, Self::Disk(scratch)])
    }

    /// On disk, nothing may stay in memory.
    fn subtask(&self, time_to_live_ms: Option<u64>) -> KeyedStates {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let states = subtask(time_to_live_ms);
        match self {
            Self::Memory => states,
            Self::Disk(scratch) => states.on_disk(Arc::clone(scratch), &NEXT.fetch_add(1, Relaxed).to_string(), 0).unwrap(),
        }
    }
}

/// Forgets what need not be in memory.
fn tidy(states: &mut KeyedStates, now: i64) {
    match states.disk {
        Some(_) => _ = states.make_room().unwrap(),
        None => states.forget_empty_keys(now),
    }
}

/// All tables of a snapshot.
fn taken(states: &mut KeyedStates, cut: Cut, now: i64) -> Vec<(String, RecordBatch)> {
    let Tables { mut tables, rest } = states.snapshot(cut, now).unwrap();
    // What happens before they are read changes nothing of them.
    tidy(states, now);
    tables.extend(rest.into_iter().flatten().map(|table| table.unwrap()));
    tables.sort_by(|(one, _), (other, _)| one.cmp(other));
    tables
}

fn encoded(keys: &[u8]) -> EncodedKeys {
    let names: StringArray = keys.iter().map(|key| (key % 2 == 0).then(|| format!("k{}", key / 3))).collect();
    let values: Int64Array = keys.iter().map(|key| Some(i64::from(*key))).collect();
    let mut encoded = EncodedKeys::new();
    encoded.encode(&[Arc::new(names), Arc::new(values)], keys.len()).unwrap();
    encoded
}

fn strings(text: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![text]))
}

fn integers(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Truth {
    count: Option<i64>,
    text: Option<String>,
    log: Vec<i64>,
    table: BTreeMap<i64, String>,
    timers: BTreeSet<(bool, i64, u32)>,
}

#[derive(Debug, Clone)]
enum Op {
    Add(i64),
    Forget,
    Text(Option<u8>),
    Append(i64),
    Clear,
    Put(i64, u8),
    Remove(i64),
    Timer(bool, bool, i64, u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (-3_i64..9).prop_map(Op::Add),
        Just(Op::Forget),
        prop::option::of(0_u8..5).prop_map(Op::Text),
        (0_i64..9).prop_map(Op::Append),
        Just(Op::Clear),
        (0_i64..4, 0_u8..9).prop_map(|(key, value)| Op::Put(key, value)),
        (0_i64..4).prop_map(Op::Remove),
        (any::<bool>(), any::<bool>(), 0_i64..20, 0_u32..2).prop_map(|(set, event, time, slot)| Op::Timer(set, event, time, slot)),
    ]
}

fn domain(event: bool) -> TimeDomain {
    if event { TimeDomain::EventTime } else { TimeDomain::ProcessingTime }
}

fn apply(op: &Op, ordinal: u32, call: &mut CallState<'_>, truth: &mut Truth) {
    let at = [ordinal];
    match op {
        Op::Add(n) => {
            let mut column = LentColumn::new(8, call.ids.len());
            call.gather(COUNT, &mut column).unwrap();
            let place = ordinal as usize * 8..(ordinal as usize + 1) * 8;
            let old = i64::from_le_bytes(column.bytes()[place.clone()].try_into().unwrap());
            assert_eq!((column.validity[ordinal as usize] != 0).then_some(old), truth.count);
            column.bytes_mut()[place].copy_from_slice(&(old + n).to_le_bytes());
            column.validity[ordinal as usize] = 1;
            column.dirty[ordinal as usize] = 1;
            call.scatter(COUNT, &column).unwrap();
            truth.count = Some(old + n);
        }
        Op::Forget => {
            call.value_set(COUNT, &at, Arc::new(Int64Array::from(vec![None]))).unwrap();
            truth.count = None;
        }
        Op::Text(text) => {
            let text = text.map(|text| "t".repeat(usize::from(text)));
            call.value_set(TEXT, &at, Arc::new(StringArray::from(vec![text.clone()]))).unwrap();
            truth.text = text;
        }
        Op::Append(n) => {
            call.list_append(LOG, &at, integers(*n)).unwrap();
            truth.log.push(*n);
        }
        Op::Clear => {
            call.list_clear(LOG, &at).unwrap();
            truth.log.clear();
        }
        Op::Put(key, value) => {
            call.map_put(TABLE, &at, integers(*key), strings(&value.to_string())).unwrap();
            truth.table.insert(*key, value.to_string());
        }
        Op::Remove(key) => {
            call.map_remove(TABLE, &at, integers(*key)).unwrap();
            truth.table.remove(key);
        }
        Op::Timer(set, event, time, slot) => {
            let timer = if *set { CallState::timer_set } else { CallState::timer_delete };
            timer(call, domain(*event), *slot, &at, &[*time]).unwrap();
            let timer = (*event, *time, *slot);
            if *set {
                truth.timers.insert(timer)
            } else {
                truth.timers.remove(&timer)
            };
        }
    }
}

/// What the states say of each ordinal.
fn read(call: &mut CallState<'_>) -> Vec<Truth> {
    let ordinals: Vec<u32> = (0..call.ids.len() as u32).collect();
    let counts = call.value_get(COUNT, &ordinals).unwrap();
    let texts = call.value_get(TEXT, &ordinals).unwrap();
    let logs = call.list_get(LOG, &ordinals).unwrap();
    let timers = |states: &KeyedStates, id: u32| {
        let all = [(true, &states.event_timers), (false, &states.processing_timers)];
        let of =
            |(event, timers): (bool, &Timers)| timers.iter().filter(|t| t.id == id).map(|t| (event, t.time, t.slot)).collect::<Vec<_>>();
        all.into_iter().flat_map(of).collect()
    };
    let of_ordinal = |ordinal: &u32| {
        let row = *ordinal as usize;
        let entries = call.map_scan(TABLE, *ordinal, None, usize::MAX).unwrap();
        let entries = entries.as_struct();
        let (keys, values) = (entries.column(0).as_primitive::<Int64Type>(), entries.column(1).as_string::<i32>());
        Truth {
            count: counts.is_valid(row).then(|| counts.as_primitive::<Int64Type>().value(row)),
            text: texts.is_valid(row).then(|| texts.as_string::<i32>().value(row).to_owned()),
            log: logs.as_list::<i32>().value(row).as_primitive::<Int64Type>().values().to_vec(),
            table: keys.values().iter().copied().zip(values.iter().map(|value| value.unwrap().to_owned())).collect(),
            timers: timers(call.states, call.ids[row]),
        }
    };
    ordinals.iter().map(of_ordinal).collect()
}

#[derive(Debug, Clone)]
enum Step {
    /// A call for these keys: operations by ordinal; whether it succeeds.
    Call(Vec<u8>, Vec<(prop::sample::Index, Op)>, bool),
    /// A checkpoint, which is given up or becomes durable.
    Checkpoint(bool),
    /// A savepoint.
    Savepoint,
    /// Another checkpoint, then restore from it with that parallelism.
    Rescale(u32),
}

/// The tables of one former subtask, in the order in which they are applied, each with its checkpoint: what a manifest has.
type Chain = Vec<(u64, String, RecordBatch)>;

/// What a manifest has of a subtask after a snapshot.
fn chained(base: Option<&Chain>, id: u64, tables: Vec<(String, RecordBatch)>) -> Chain {
    let mut chain = Chain::new();
    let mut begun = BTreeSet::new();
    for (name, table) in tables {
        if let Some(cut) = since(&table).filter(|_| begun.insert(name.clone())) {
            let base = base.expect("changes need something to be changes of");
            chain.extend(base.iter().filter(|(of, former, _)| *of <= cut && *former == name).cloned());
        }
        if table.num_rows() > 0 {
            chain.push((id, name, table));
        }
    }
    chain
}

/// Every key's row, whatever the order: what `merged` makes of the chain of a table.
fn rows(chain: &Chain) -> BTreeSet<String> {
    let names: BTreeSet<&String> = chain.iter().map(|(_, name, _)| name).collect();
    let text = |name: &String| {
        let tables: Vec<RecordBatch> = chain.iter().filter(|(_, of, _)| of == name).map(|(_, _, table)| table.clone()).collect();
        let of_table = |table: &RecordBatch| {
            (0..table.num_rows()).map(|row| format!("{name} {:?}", table.slice(row, 1).columns())).collect::<Vec<_>>()
        };
        merged(&tables).unwrap().iter().flat_map(of_table).collect::<Vec<_>>()
    };
    names.into_iter().flat_map(text).collect()
}

fn step() -> impl Strategy<Value = Step> {
    let keys = prop::collection::btree_set(0_u8..12, 1..6).prop_map(|keys| keys.into_iter().collect::<Vec<_>>()).prop_shuffle();
    prop_oneof![
        4 => (keys, prop::collection::vec((any::<prop::sample::Index>(), op()), 0..8), any::<bool>()).prop_map(|(keys, ops, ok)| Step::Call(keys, ops, ok)),
        3 => any::<bool>().prop_map(Step::Checkpoint),
        1 => Just(Step::Savepoint),
        1 => (1_u32..5).prop_map(Step::Rescale),
    ]
}

fn owner(encoded: &EncodedKeys, row: usize, parallelism: usize) -> usize {
    subtask_of(key_group(encoded.hashes()[row], GROUPS), parallelism as u32, GROUPS) as usize
}

/// Makes a call on every subtask for those of the keys that it owns, and compares what it reads before, in and after it.
fn call_all(
    subtasks: &mut [KeyedStates],
    truth: &mut BTreeMap<u8, Truth>,
    keys: &[u8],
    ops: &[(prop::sample::Index, Op)],
    succeeds: bool,
) -> Result<(), TestCaseError> {
    let parallelism = subtasks.len();
    let all = encoded(keys);
    for (at, states) in subtasks.iter_mut().enumerate() {
        let mine: Vec<u8> = (0..keys.len()).filter(|row| owner(&all, *row, parallelism) == at).map(|row| keys[row]).collect();
        if mine.is_empty() {
            continue;
        }
        let mut ids = Vec::new();
        tidy(states, 0);
        states.intern(&encoded(&mine), &mut ids).unwrap();
        let before: Vec<Truth> = mine.iter().map(|key| truth.get(key).cloned().unwrap_or_default()).collect();
        let mut during = before.clone();
        let mut call = states.call(&ids, 0).unwrap();
        prop_assert_eq!(&read(&mut call), &before);
        for (index, op) in ops {
            let ordinal = index.index(mine.len());
            apply(op, ordinal as u32, &mut call, &mut during[ordinal]);
        }
        prop_assert_eq!(&read(&mut call), &during);
        if succeeds {
            call.commit()
        } else {
            call.rollback()
        }
        let after = if succeeds { during } else { before };
        prop_assert_eq!(&read(&mut call), &after);
        truth.extend(mine.into_iter().zip(after));
    }
    Ok(())
}

/// Gives the rows that there are at the end.
fn run(backend: &Backend, steps: Vec<Step>) -> Result<BTreeSet<String>, TestCaseError> {
    let mut truth: BTreeMap<u8, Truth> = BTreeMap::new();
    let mut subtasks = vec![backend.subtask(None)];
    let (mut id, mut durable): (u64, Option<(u64, Vec<Chain>)>) = (0, None);
    for step in steps {
        id += 1;
        let base = durable.as_ref().map_or(Base::Nothing, |(id, _)| Base::Checkpoint(*id));
        let mut cut = |base: Base| -> Vec<Chain> {
            let former = |at: usize| durable.as_ref().map(|(_, chains)| &chains[at]);
            let chain = |(at, states): (usize, &mut KeyedStates)| chained(former(at), id, taken(states, Cut { id, base }, 0));
            subtasks.iter_mut().enumerate().map(chain).collect()
        };
        match step {
            Step::Call(keys, ops, ok) => call_all(&mut subtasks, &mut truth, &keys, &ops, ok)?,
            Step::Checkpoint(succeeds) => {
                let chains = cut(base);
                if succeeds {
                    let alone = cut(Base::Alone);
                    chains.iter().zip(&alone).for_each(|(chain, alone)| assert_eq!(rows(chain), rows(alone)));
                    durable = Some((id, chains));
                }
            }
            Step::Savepoint => {
                let chains = cut(Base::Alone);
                prop_assert!(chains.iter().flatten().all(|(of, _, table)| *of == id && since(table).is_none()));
            }
            Step::Rescale(parallelism) => {
                let chains = cut(base);
                let restored = |at: u32| {
                    let mut states = backend.subtask(None);
                    for chain in &chains {
                        let tables: Vec<_> = chain.iter().map(|(_, name, table)| (name.clone(), table.clone())).collect();
                        let dropped = states.restore(&tables, range_of(at, parallelism, GROUPS), 0).unwrap();
                        assert!(dropped.is_empty());
                    }
                    states
                };
                subtasks = (0..parallelism).map(restored).collect();
                durable = None;
            }
        }
    }
    let keys: Vec<u8> = truth.keys().copied().collect();
    call_all(&mut subtasks, &mut truth, &keys, &[], true)?;
    for states in &subtasks {
        prop_assert!(states.keys.len() <= keys.len());
    }
    Ok(subtasks.iter_mut().flat_map(|states| rows(&chained(None, 1, taken(states, Cut::ALONE, 0)))).collect())
}

proptest! {
    #[test]
    fn states_are_what_was_written_wherever_they_run(steps in prop::collection::vec(step(), 1..25)) {
        run(&Backend::Memory, steps)?;
    }
}

proptest! {
    // Each one makes and removes a database's folders again and again.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn both_backends_have_the_same(steps in prop::collection::vec(step(), 1..25)) {
        let (_folder, [memory, disk]) = Backend::both();
        let rows = run(&memory, steps.clone())?;
        prop_assert_eq!(run(&disk, steps)?, rows);
    }
}

#[test]
fn what_cannot_be_stored_is_refused_with_its_name() {
    let refused = |state| KeyedStates::new(key_fields(), &[state], GROUPS).unwrap_err().message;
    let map = refused(declared("m", StateKind::Map, DataType::Int64, None));
    assert!(map.starts_with("state \"m\": ") && map.contains("a struct of key and value"), "{map}");
    let forever = refused(declared("ttl", StateKind::Value, DataType::Int64, Some(u64::MAX)));
    assert!(forever.contains("is too long"), "{forever}");
}

#[test]
fn ordinals_and_slots_of_others_are_out_of_range() {
    let mut states = subtask(None);
    let mut call = states.call(&[0], 0).unwrap();
    assert_eq!(call.value_get(COUNT, &[1]).unwrap_err().code, ErrorCode::OUT_OF_RANGE);
    assert_eq!(call.value_get(9, &[0]).unwrap_err().code, ErrorCode::OUT_OF_RANGE);
    assert_eq!(call.list_get(COUNT, &[0]).unwrap_err().code, ErrorCode::OUT_OF_RANGE);
    assert_eq!(call.gather(TEXT, &mut LentColumn::new(8, 1)).unwrap_err().code, ErrorCode::OUT_OF_RANGE);
    assert_eq!(call.gather(COUNT, &mut LentColumn::new(4, 1)).unwrap_err().code, ErrorCode::OUT_OF_RANGE);
    assert_eq!(call.timer_set(TimeDomain::EventTime, 0, &[0], &[]).unwrap_err().code, ErrorCode::OUT_OF_RANGE);
}

#[test]
fn looking_for_empty_keys_is_worth_it_from_some_number_on() {
    let mut states = subtask(None);
    let mut keys = EncodedKeys::new();
    let mut ids = Vec::new();
    for (first, expected) in [(0, 1000), (1000, 4095), (4095, 0)] {
        let last = if first == 4095 { 4096 } else { expected };
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(first..last));
        keys.encode(&[Arc::new(StringArray::from_iter_values((first..last).map(|_| "k"))), values], (last - first) as usize).unwrap();
        states.intern(&keys, &mut ids).unwrap();
        states.compact(0).unwrap();
        assert_eq!(states.keys().len(), expected as usize);
    }
}
