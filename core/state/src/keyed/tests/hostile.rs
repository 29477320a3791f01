//! Tables that somebody has damaged so that Arrow still takes them: other values, names, types, lengths. What is restored from one works, or it is refused; nothing panics.

use super::*;
use arrow::ipc::writer::FileWriter;
use standpipe_formats::ipc::read_file;
use standpipe_hostile::{bytes, cases};
use std::sync::LazyLock;

/// Of every state, and timers of both domains.
static TAKEN: LazyLock<Vec<(String, RecordBatch)>> = LazyLock::new(|| {
    let mut states = subtask(Some(1_000));
    let keys: Vec<u8> = (0..12).collect();
    let mut ids = Vec::new();
    states.intern(&encoded(&keys), &mut ids).unwrap();
    let mut call = states.call(&ids, 0).unwrap();
    for ordinal in 0..12 {
        let mut truth = Truth::default();
        for op in [
            Op::Add(7),
            Op::Text(Some(3)),
            Op::Append(1),
            Op::Append(2),
            Op::Put(1, 2),
            Op::Put(3, 4),
            Op::Timer(true, true, 5, 0),
            Op::Timer(true, false, 9, 1),
        ] {
            apply(&op, ordinal, &mut call, &mut truth);
        }
    }
    call.commit();
    taken(&mut states, Cut::ALONE, 0)
});

/// The table after changes of its bytes, if it still is one; not packed, so that bytes are values.
fn damaged(table: &RecordBatch, changes: &[bytes::Change]) -> Option<RecordBatch> {
    let mut writer = FileWriter::try_new(Vec::new(), table.schema_ref()).unwrap();
    writer.write(table).unwrap();
    read_file(bytes::changed(&writer.into_inner().unwrap(), changes)).ok()?.pop()
}

fn use_all(states: &mut KeyedStates) {
    let mut ids = Vec::new();
    states.intern(&encoded(&(0..12).collect::<Vec<u8>>()), &mut ids).unwrap();
    let mut call = states.call(&ids, 0).unwrap();
    let ordinals: Vec<u32> = (0..12).collect();
    let _ = (call.value_get(COUNT, &ordinals), call.value_get(TEXT, &ordinals), call.list_get(LOG, &ordinals));
    let _ = call.map_scan(TABLE, 3, None, usize::MAX);
    for ordinal in 0..12 {
        let at = [ordinal];
        let _ = (
            call.list_append(LOG, &at, integers(1)),
            call.map_put(TABLE, &at, integers(1), strings("x")),
            call.value_set(TEXT, &at, strings("y")),
        );
    }
    call.commit();
    let _ = states.next_processing_time();
    taken(states, Cut::ALONE, i64::MAX);
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn damaged_tables_are_restored_or_refused(which in 0..TAKEN.len(), changes in bytes::changes(&["removed", "written", "value", "key"]), disk in prop::bool::weighted(0.02)) {
        let mut tables = TAKEN.clone();
        if let Some(table) = damaged(&tables[which].1, &changes) {
            tables[which].1 = table;
            let folder = disk.then(Backend::both);
            let mut states = match &folder {
                Some((_, [_, on_disk])) => on_disk.subtask(Some(1_000)),
                None => Backend::Memory.subtask(Some(1_000)),
            };
            match states.restore(&tables, range_of(0, 1, GROUPS), 0) {
                Ok(_) => use_all(&mut states),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn a_chain_of_them_is_merged_or_refused(which in 0..TAKEN.len(), changes in bytes::changes(&["removed", "standpipe.since"])) {
        if let Some(table) = damaged(&TAKEN[which].1, &changes) {
            let _ = merged(&[TAKEN[which].1.clone(), table]);
        }
    }
}
