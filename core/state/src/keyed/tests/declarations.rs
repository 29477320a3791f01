//! States whose declaration has changed since they were written: taken over where that is safe, else refused.

use super::*;

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
