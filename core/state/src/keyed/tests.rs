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

const GROUPS: u32 = 16;
const COUNT: u32 = 0;
const TEXT: u32 = 1;
const LOG: u32 = 2;
const TABLE: u32 = 3;

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

const MILLI: i64 = 1000;

#[test]
fn a_time_to_live_counts_from_the_last_write() {
    let (_folder, backends) = Backend::both();
    backends.iter().for_each(lives_from_the_last_write);
}

/// The ids of some keys as they are now.
fn ids_of(states: &mut KeyedStates, keys: &[u8]) -> Vec<u32> {
    let mut ids = Vec::new();
    states.intern(&encoded(keys), &mut ids).unwrap();
    ids
}

fn lives_from_the_last_write(backend: &Backend) {
    let mut states = backend.subtask(Some(10));
    let write = |states: &mut KeyedStates, keys: &[u8], now: i64| {
        let ids = ids_of(states, keys);
        let mut call = states.call(&ids, now).unwrap();
        for ordinal in 0..keys.len() {
            let mut truth = read(&mut call)[ordinal].clone();
            for op in [Op::Add(1), Op::Text(Some(1)), Op::Append(1), Op::Put(1, 1)] {
                apply(&op, ordinal as u32, &mut call, &mut truth);
            }
        }
        call.commit();
        tidy(states, now);
    };
    write(&mut states, &[1, 2], 0);
    write(&mut states, &[2], 5 * MILLI);
    let counts = |states: &mut KeyedStates, now: i64| {
        let ids = ids_of(states, &[1, 2]);
        let truths = read(&mut states.call(&ids, now).unwrap());
        truths.iter().map(|truth| (truth.count, truth.log.len(), truth.table.len())).collect::<Vec<_>>()
    };
    assert_eq!(counts(&mut states, 10 * MILLI - 1), [(Some(1), 1, 1), (Some(2), 2, 1)]);

    let mut restored = backend.subtask(Some(10));
    restored.restore(&taken(&mut states, Cut::ALONE, 5 * MILLI), range_of(0, 1, GROUPS), 5 * MILLI).unwrap();
    for states in [&mut states, &mut restored] {
        assert_eq!(counts(states, 10 * MILLI), [(None, 0, 0), (Some(2), 2, 1)]);
        let ids = ids_of(states, &[1]);
        let text = read(&mut states.call(&ids, 10 * MILLI).unwrap())[0].text.clone();
        assert_eq!(text, Some("t".to_owned()), "a state without a time to live stays");
        assert_eq!(counts(states, 15 * MILLI), [(None, 0, 0), (None, 0, 0)]);
    }
}

#[test]
fn keys_that_hold_nothing_are_forgotten() {
    let mut states = subtask(Some(10));
    let mut ids = Vec::new();
    states.intern(&encoded(&[1, 2, 3, 4]), &mut ids).unwrap();
    let mut call = states.call(&ids, 0).unwrap();
    call.value_set(COUNT, &[1], integers(7)).unwrap();
    call.timer_set(TimeDomain::ProcessingTime, 0, &[3], &[99]).unwrap();
    call.commit();
    states.forget_empty_keys(0);
    assert_eq!(states.keys().len(), 2);
    states.intern(&encoded(&[4, 2]), &mut ids).unwrap();
    assert_eq!(ids, [1, 0]);
    let truth = read(&mut states.call(&ids, 0).unwrap());
    assert_eq!((truth[0].timers.len(), truth[1].count), (1, Some(7)));
    states.forget_empty_keys(10 * MILLI);
    assert_eq!(states.keys().len(), 1, "the value has expired");
}

#[test]
fn what_has_expired_is_in_no_snapshot() {
    let (_folder, backends) = Backend::both();
    backends.iter().for_each(expires_in_snapshots);
}

fn expires_in_snapshots(backend: &Backend) {
    let mut states = backend.subtask(Some(10));
    let write = |states: &mut KeyedStates, keys: &[u8], now: i64| {
        let ids = ids_of(states, keys);
        let mut call = states.call(&ids, now).unwrap();
        for ordinal in 0..keys.len() as u32 {
            call.value_set(COUNT, &[ordinal], integers(7)).unwrap();
            call.list_append(LOG, &[ordinal], integers(7)).unwrap();
            call.map_put(TABLE, &[ordinal], integers(7), strings("seven")).unwrap();
        }
        call.commit();
    };
    write(&mut states, &[1], 0);
    write(&mut states, &[2, 3, 4, 5, 6, 7, 8], 5 * MILLI);
    let rows = |tables: &[(String, RecordBatch)]| tables.iter().map(|(_, table)| table.num_rows()).collect::<Vec<_>>();
    assert_eq!(rows(&taken(&mut states, Cut { id: 1, base: Base::Nothing }, 9 * MILLI)), [8, 8, 8, 0, 0]);
    assert_eq!(rows(&taken(&mut states, Cut::ALONE, 10 * MILLI)), [7, 7, 7, 0, 0]);
    // A later call finds it gone, and the next checkpoint says so.
    let ids = ids_of(&mut states, &[1]);
    assert_eq!(read(&mut states.call(&ids, 10 * MILLI).unwrap())[0].count, None);
    let changed = taken(&mut states, Cut { id: 2, base: Base::Checkpoint(1) }, 10 * MILLI);
    assert_eq!((since(&changed[0].1), changed[0].1.num_rows()), (Some(1), 1));
    assert!(changed[0].1.column_by_name("removed").unwrap().as_boolean().value(0));
    assert_eq!(rows(&taken(&mut states, Cut::ALONE, 15 * MILLI)), [0, 0, 0, 0, 0]);
}

/// A snapshot of one key with a value in every state.
fn filled(states: &[(StateDetails, FieldRef)]) -> Vec<(String, RecordBatch)> {
    let mut states = KeyedStates::new(key_fields(), states, GROUPS).unwrap();
    let mut ids = Vec::new();
    states.intern(&encoded(&[1]), &mut ids).unwrap();
    let mut call = states.call(&ids, 0).unwrap();
    call.value_set(COUNT, &[0], integers(7)).unwrap();
    call.list_append(LOG, &[0], integers(8)).unwrap();
    call.map_put(TABLE, &[0], integers(9), strings("nine")).unwrap();
    call.commit();
    taken(&mut states, Cut::ALONE, 0)
}

const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: 16 };

#[test]
fn a_changed_declaration_is_taken_over_where_that_is_safe() {
    let narrow =
        |data_type: DataType| DataType::Struct(vec![Field::new("key", data_type, false), Field::new("value", DataType::Utf8, true)].into());
    let mut old = states(None);
    old[0].1 = Arc::new(Field::new("item", DataType::Int64, true));
    old.push(declared("gone", StateKind::Value, DataType::Int64, None));
    let tables = filled(&old);

    let mut new = states(Some(10));
    // What was int64 keeps its values in an int64 of another kind; a time to live comes, a state goes, another comes.
    new[0].0.kind = StateKind::Reducing;
    new.push(declared("came", StateKind::List, DataType::Utf8, None));
    let mut restored = KeyedStates::new(key_fields(), &new, GROUPS).unwrap();
    assert_eq!(restored.restore(&tables, ALL, 100 * MILLI).unwrap(), ["gone"]);
    let mut ids = Vec::new();
    restored.intern(&encoded(&[1]), &mut ids).unwrap();
    let found = read(&mut restored.call(&ids, 109 * MILLI).unwrap()).remove(0);
    assert_eq!((found.count, found.log, found.table), (Some(7), vec![8], BTreeMap::from([(9, "nine".to_owned())])));
    assert_eq!(
        read(&mut restored.call(&ids, 110 * MILLI).unwrap()).remove(0),
        Truth::default(),
        "a new time to live counts from the restore"
    );

    // The same from int32.
    let mut small = states(None);
    small[0].1 = Arc::new(Field::new("item", DataType::Int32, true));
    small[3].1 = Arc::new(Field::new("item", narrow(DataType::Int32), true));
    let mut narrow = KeyedStates::new(key_fields(), &small, GROUPS).unwrap();
    narrow.intern(&encoded(&[1]), &mut ids).unwrap();
    let mut call = narrow.call(&ids, 0).unwrap();
    call.value_set(COUNT, &[0], Arc::new(Int32Array::from(vec![-5]))).unwrap();
    call.map_put(TABLE, &[0], Arc::new(Int32Array::from(vec![-6])), strings("six")).unwrap();
    call.commit();
    let mut wide = subtask(None);
    wide.restore(&taken(&mut narrow, Cut::ALONE, 0), ALL, 0).unwrap();
    let found = read(&mut wide.call(&ids, 0).unwrap()).remove(0);
    assert_eq!((found.count, found.table), (Some(-5), BTreeMap::from([(-6, "six".to_owned())])));
}

#[test]
fn a_changed_declaration_is_refused_with_both_where_it_is_not_safe() {
    let tables = filled(&states(None));
    let restore = |states: Vec<(StateDetails, FieldRef)>, keys: Fields| {
        KeyedStates::new(keys, &states, GROUPS).unwrap().restore(&tables, ALL, 0).unwrap_err().to_string()
    };
    let changed = |at: usize, change: fn(&mut (StateDetails, FieldRef))| {
        let mut states = states(None);
        change(&mut states[at]);
        restore(states, key_fields())
    };
    let misfit = "the snapshot does not fit: state \"count\": ";
    assert_eq!(
        changed(0, |state| state.0.version = 2),
        format!("{misfit}it has version 1 there and 2 here: its meaning has changed, which nothing can convert")
    );
    assert_eq!(
        changed(0, |state| state.1 = Arc::new(Field::new("item", DataType::Int32, true))),
        format!("{misfit}its values are Int64 in the checkpoint and Int32 in the plugin: Int64 cannot be turned into Int32 without loss")
    );
    assert_eq!(
        changed(0, |state| state.0.kind = StateKind::List),
        format!("{misfit}it was a value state, and is a list state now; give the new one another name")
    );
    let entry = changed(3, |state| {
        let entry = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
        state.1 = Arc::new(Field::new("item", DataType::Struct(entry.into()), true));
    });
    assert_eq!(
        entry,
        "the snapshot does not fit: state \"table\": its keys are Int64 in the checkpoint and Utf8 in the plugin: Int64 cannot be turned into Utf8 without loss"
    );
    let fewer: Fields = vec![Field::new("name", DataType::Utf8, true)].into();
    assert!(restore(self::states(None), fewer).contains("its key is Struct("));
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
