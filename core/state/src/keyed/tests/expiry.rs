//! Times to live, and keys that hold nothing any more.

use super::*;

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
