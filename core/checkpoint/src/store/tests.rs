use super::*;
use crate::manifest::NodeState;
use arrow::array::{ArrayRef, Int64Array, UInt16Array};
use std::{collections::BTreeMap, fs, path::Path as FilePath, sync::Arc, thread};

fn store(folder: &FilePath) -> Store {
    Store::open(Location::open(&folder.display().to_string(), &[]).unwrap(), "job").unwrap()
}

fn table(node: &str, name: &str, values: Vec<i64>) -> NewTable {
    let groups: ArrayRef = Arc::new(UInt16Array::from_iter_values(values.iter().map(|value| *value as u16)));
    let values: ArrayRef = Arc::new(Int64Array::from(values));
    let batch = RecordBatch::try_from_iter([("key_group", groups), ("value", values)]).unwrap();
    NewTable { node: node.to_owned(), subtask: 0, name: name.to_owned(), piece: 0, batch, same: None }
}

fn manifest(id: u64, generation: u64, kind: Kind, files: Vec<FileRef>) -> Manifest {
    let state = NodeState { operator: "window".to_owned(), parallelism: 1, tables: BTreeMap::from([("panes".to_owned(), files)]) };
    Manifest {
        format: FORMAT,
        standpipe: "0.1.0".to_owned(),
        job: "job".to_owned(),
        job_id: "0".repeat(32),
        generation,
        id,
        kind,
        drained: false,
        triggered_micros: 1,
        took_micros: 2,
        plan: "ab".to_owned(),
        max_parallelism: 128,
        plugins: BTreeMap::new(),
        nodes: BTreeMap::from([("transforms.stats".to_owned(), state)]),
    }
}

/// Adds a checkpoint of one new file and these.
fn add(store: &Store, id: u64, generation: u64, kind: Kind, mut files: Vec<FileRef>) -> Manifest {
    files.extend(store.write(generation, id, vec![table("transforms.stats", "panes", vec![id as i64])]).unwrap());
    let manifest = manifest(id, generation, kind, files);
    store.commit(&manifest).unwrap();
    manifest
}

fn taken_over(generation: u64, base: Option<Manifest>) -> TakenOver {
    TakenOver { generation, base, elsewhere: None, first_id: 1 }
}

fn files(folder: &FilePath, below: &str) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder.join("job").join(below)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    assert!(store.latest().unwrap().is_none());
    let generation = store.claim("a").unwrap();
    assert_eq!(generation, 1);
    let tables = vec![table("transforms.stats", "panes", vec![5, 3]), table("sources.in", "splits", vec![])];
    let written = store.write(generation, 1, tables).unwrap();
    assert_eq!((written[0].rows, written[0].key_groups, written[1].rows), (2, Some((3, 5)), 0));
    let manifest = manifest(1, generation, Kind::Checkpoint, written);
    assert!(store.list().unwrap().is_empty(), "without a manifest there is no checkpoint");
    store.commit(&manifest).unwrap();

    let again = self::store(folder.path());
    let read = again.latest().unwrap().unwrap();
    assert_eq!(read, manifest);
    let first = read.files().next().unwrap();
    assert_eq!(again.table(first).unwrap(), [table("", "", vec![5, 3]).batch]);
    assert_eq!(files(folder.path(), "data").len(), 2);
    let missing = again.read(7).unwrap_err().to_string();
    assert_eq!(missing, format!("there is no checkpoint 7 in {}/job; there is 1", folder.path().display()));
}

#[test]
fn a_checkpoint_that_came_too_late_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (store(folder.path()), store(folder.path()));
    assert_eq!(old.claim("a").unwrap(), 1);
    old.begin(&taken_over(1, None)).unwrap();
    let first = add(&old, 1, 1, Kind::Checkpoint, Vec::new());
    // The other process takes over and goes on from 1; then one of the former comes.
    assert_eq!(new.claim("b").unwrap(), 2);
    new.begin(&taken_over(2, Some(first))).unwrap();
    let files = old.write(1, 2, vec![table("n", "t", vec![1])]).unwrap();
    let error = old.commit(&manifest(2, 1, Kind::Checkpoint, files)).unwrap_err();
    let place = folder.path().display();
    assert_eq!(error.to_string(), format!("another process runs this job in {place}/job: it is of generation 2, this one of 1"));
    assert_eq!((new.list().unwrap(), new.next_id().unwrap()), (vec![1], 3));
    add(&new, 2, 2, Kind::Checkpoint, Vec::new());
    add(&new, 3, 2, Kind::Checkpoint, Vec::new());
    assert_eq!(new.latest().unwrap().unwrap().generation, 2);
    assert_eq!((new.list().unwrap(), new.read(2).unwrap().generation), (vec![1, 2, 3], 2));
    // An answer may have been lost: the same once more is well.
    new.commit(&new.read(3).unwrap()).unwrap();
    assert!(matches!(new.commit(&Manifest { took_micros: 3, ..new.read(3).unwrap() }), Err(CheckpointError::Damaged { .. })));
    new.retain(1).unwrap();
    assert_eq!((files_of(folder.path()), new.list().unwrap()), (1, vec![3]));
    // Starting anew passes over everything.
    assert_eq!(new.claim("c").unwrap(), 3);
    new.begin(&taken_over(3, None)).unwrap();
    assert_eq!((new.list().unwrap(), new.next_id().unwrap()), (vec![], 4));
}

fn files_of(folder: &FilePath) -> usize {
    files(folder, "data").len()
}

#[test]
fn what_is_needed_stays_and_the_rest_goes() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let generation = store.claim("a").unwrap();
    let first = add(&store, 1, generation, Kind::Checkpoint, Vec::new());
    add(&store, 2, generation, Kind::Savepoint, Vec::new());
    let third = add(&store, 3, generation, Kind::Checkpoint, first.files().cloned().collect());
    add(&store, 4, generation, Kind::Checkpoint, third.files().cloned().collect());
    // Of one that never came to exist.
    store.write(generation, 5, vec![table("n", "t", vec![1])]).unwrap();

    store.retain(2).unwrap();
    assert_eq!(store.list().unwrap(), [2, 3, 4]);
    assert_eq!(files(folder.path(), "data").len(), 5, "checkpoint 1's file is still needed");
    store.retain(0).unwrap();
    assert_eq!(store.list().unwrap(), [2, 4], "the newest one and savepoints stay");
    assert_eq!(files(folder.path(), "data").len(), 5);

    let again = self::store(folder.path());
    again.sweep(generation, 4).unwrap();
    assert_eq!(files(folder.path(), "data").len(), 5, "checkpoint 5 is not given up");
    again.sweep(generation - 1, 9).unwrap();
    assert_eq!(files(folder.path(), "data").len(), 5, "another process may be writing it");
    again.sweep(generation, 5).unwrap();
    assert_eq!(files(folder.path(), "data").len(), 4);
    for file in again.latest().unwrap().unwrap().files() {
        assert_eq!(again.table(file).unwrap()[0].num_rows(), 1);
    }
    assert!(matches!(again.discard(4), Err(CheckpointError::Needed { id: 4, .. })), "the next one may refer to it");
    again.discard(2).unwrap();
    assert_eq!((again.list().unwrap(), files(folder.path(), "data").len()), (vec![4], 3));
    assert!(matches!(again.discard(2), Err(CheckpointError::Missing { .. })));
}

#[test]
fn a_savepoint_that_is_passed_over_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let begin = |job_id: &str, start| {
        let taken_over = store.take_over(job_id, &start).unwrap();
        store.begin(&taken_over).unwrap();
        taken_over
    };
    let generation = begin("a", Start::Fresh).generation;
    add(&store, 1, generation, Kind::Checkpoint, Vec::new());
    add(&store, 2, generation, Kind::Savepoint, Vec::new());
    add(&store, 3, generation, Kind::Checkpoint, Vec::new());
    let fresh = begin("b", Start::Fresh);
    assert_eq!((fresh.first_id, store.list().unwrap(), store.latest().unwrap()), (4, vec![2], None));
    store.retain(1).unwrap();
    store.sweep(fresh.generation, 0).unwrap();
    assert_eq!(files(folder.path(), "data").len(), 1);
    add(&store, 4, fresh.generation, Kind::Checkpoint, Vec::new());
    assert_eq!(store.latest().unwrap().unwrap().id, 4);
    let base = begin("c", Start::At(2)).base.unwrap();
    assert_eq!((base.id, store.table(base.files().next().unwrap()).unwrap()[0].num_rows()), (2, 1));
    // It is where the job goes on from now, also when it is started again before it has taken another one.
    assert_eq!((store.list().unwrap(), store.latest().unwrap().unwrap().id), (vec![2], 2));
    let again = begin("d", Start::Latest);
    assert_eq!((again.base.unwrap().id, again.first_id), (2, 5));
    add(&store, 5, again.generation, Kind::Checkpoint, Vec::new());
    assert_eq!(store.list().unwrap(), [2, 5]);
}

#[test]
fn a_job_goes_on_from_a_checkpoint_elsewhere() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (other, store) = (store(there.path()), store(here.path()));
    for generation in 1..=3 {
        assert_eq!(other.claim("a").unwrap(), generation);
    }
    other.begin(&taken_over(3, None)).unwrap();
    let saved = add(&other, 7, 3, Kind::Savepoint, Vec::new());
    add(&other, 8, 3, Kind::Checkpoint, Vec::new());
    let path = |path: &str| there.path().join("job").join(path).display().to_string();
    let begin = |job_id: &str, start: Start| {
        let taken_over = store.take_over(job_id, &start).unwrap();
        store.begin(&taken_over).unwrap();
        taken_over
    };
    // A savepoint of its own, which is passed over then.
    let first = begin("x", Start::Fresh);
    add(&store, 1, first.generation, Kind::Savepoint, Vec::new());

    let manifest = path("checkpoints/00000007-000003-savepoint.json");
    assert_eq!(FilePath::new(&other.manifest_place(&saved)), FilePath::new(&manifest));
    let taken_over = begin("b", Start::From(manifest.clone()));
    assert_eq!((taken_over.base, taken_over.generation, taken_over.first_id), (Some(saved.clone()), 4, 8));
    assert_eq!(
        FilePath::new(taken_over.elsewhere.as_deref().unwrap()).canonicalize().unwrap(),
        FilePath::new(&manifest).canonicalize().unwrap()
    );
    // Killed before it has taken one of its own.
    assert!(store.has_begun("b").unwrap() && !store.has_begun("never").unwrap());
    let error = store.has_begun("x").unwrap_err().to_string();
    assert!(error.ends_with("it is of generation 4, this one of 1"), "another run has begun since: {error}");
    assert!(store.list().unwrap() == [1] && store.latest().unwrap().is_none() && store.begun_elsewhere().unwrap().is_some());
    let again = begin("c", Start::Latest);
    assert_eq!((again.base.as_ref(), again.first_id, again.elsewhere.is_some()), (Some(&saved), 8, true));
    add(&store, 8, again.generation, Kind::Checkpoint, Vec::new());
    assert_eq!(store.begun_elsewhere().unwrap(), None);
    let own = begin("d", Start::Latest);
    assert_eq!((own.base.unwrap().id, own.elsewhere, own.generation), (8, None, 6));
    // A folder means its newest; one's own is one's own.
    let newest = store.find(&Start::From(path(""))).unwrap().unwrap();
    assert_eq!((newest.manifest.id, newest.manifest.generation), (8, 3));
    let found = store.find(&Start::From(here.path().join("job/checkpoints/00000008-000005.json").display().to_string())).unwrap().unwrap();
    assert!(found.manifest.generation == 5 && found.elsewhere.is_none());
    let passed_over =
        |base: Option<Manifest>| store.passed_over_by(&TakenOver { generation: 7, base, elsewhere: None, first_id: 9 }).unwrap().len();
    assert_eq!((passed_over(None), passed_over(Some(saved)), passed_over(Some(newest.manifest))), (2, 1, 0), "by their numbers");
    begin("e", Start::Fresh);
    assert_eq!(store.begun_elsewhere().unwrap(), None);
    for wrong in [
        path("checkpoints/00000009-000003.json"),
        path("checkpoints/x.json"),
        path("data"),
        path("nothing"),
        there.path().display().to_string(),
    ] {
        let error = store.find(&Start::From(wrong.clone())).unwrap_err().to_string();
        assert!(error.starts_with(&format!("at {wrong:?} there is no checkpoint: expected its manifest")), "{error}");
    }
}

#[test]
fn damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let generation = store.claim("a").unwrap();
    let manifest = add(&store, 1, generation, Kind::Checkpoint, Vec::new());
    let file = manifest.files().next().unwrap();
    let path = folder.path().join("job").join(&file.path);
    let mut content = fs::read(&path).unwrap();
    content[100] ^= 1;
    fs::write(&path, content).unwrap();
    let error = store.table(file).unwrap_err().to_string();
    assert_eq!(error, format!("job/{}: its content is not what was written", file.path));

    let of_manifest = folder.path().join("job/checkpoints/00000001-000001.json");
    let text = fs::read_to_string(&of_manifest).unwrap();
    fs::write(&of_manifest, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let error = store.latest().unwrap_err().to_string();
    assert_eq!(error, "job/checkpoints/00000001-000001.json: it is of format 2, by standpipe 0.1.0; this release reads up to 1");
    fs::write(&of_manifest, "{}").unwrap();
    assert!(store.latest().unwrap_err().to_string().starts_with("job/checkpoints/00000001-000001.json: missing field `format`"));
}

#[test]
fn a_table_that_is_there_already_is_not_written_again_and_stays_as_long_as_it_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let generation = store.claim("a").unwrap();
    store.begin(&taken_over(generation, None)).unwrap();
    let first = add(&store, 1, generation, Kind::Checkpoint, vec![]);
    let file = first.files().next().unwrap().clone();
    let written = |id: u64, value: i64| {
        let table = NewTable { same: Some(file.clone()), ..table("transforms.stats", "panes", vec![value]) };
        store.write(generation, id, vec![table]).unwrap().remove(0)
    };
    assert_eq!(written(2, 1), file);
    let changed = written(2, 7);
    assert_ne!(changed, file);
    assert_eq!(store.table(&changed).unwrap()[0].num_rows(), 1);

    store.commit(&manifest(2, generation, Kind::Checkpoint, vec![file.clone(), changed])).unwrap();
    store.retain(1).unwrap();
    assert_eq!(store.list().unwrap(), [2]);
    assert_eq!(files(folder.path(), "data").len(), 2, "the first checkpoint is gone, and its file is there");
    store.table(&file).unwrap();
    store.commit(&manifest(3, generation, Kind::Checkpoint, vec![])).unwrap();
    store.retain(1).unwrap();
    assert!(files(folder.path(), "data").is_empty());
}

#[test]
fn a_savepoint_is_copied_and_a_job_goes_on_from_the_copy_alone() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let own = store(folder.path());
    let generation = own.claim("a").unwrap();
    let savepoint = add(&own, 4, generation, Kind::Savepoint, Vec::new());
    let to = other.path().join("sp").display().to_string();
    own.check_target(&to).unwrap();
    let place = own.copy(&savepoint, &to).unwrap();
    assert_eq!(place, format!("{to}/savepoint-000000-000001-4/job/checkpoints/00000004-000001-savepoint.json"));
    // Asked for again, it is there.
    assert_eq!(own.copy(&savepoint, &to).unwrap(), place);
    fs::remove_dir_all(folder.path().join("job")).unwrap();
    let third = tempfile::tempdir().unwrap();
    let found = store(third.path()).find(&Start::From(place.clone())).unwrap().unwrap();
    let (from, at) = found.elsewhere.unwrap();
    assert_eq!((found.manifest.clone(), at), (savepoint, place.clone()));
    from.check_files(&found.manifest).unwrap();
    // A folder that cannot be.
    let file = third.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(own.check_target(&file.join("below").display().to_string()).is_err());
    // It is damaged: then there is no copy of it.
    let broken = from.below(&found.manifest.files().next().unwrap().path).to_string();
    let copied = FilePath::new(&to).join("savepoint-000000-000001-4").join(broken);
    fs::write(copied, "x").unwrap();
    assert!(from.copy(&found.manifest, &third.path().display().to_string()).is_err());
    assert!(store(third.path()).list().unwrap().is_empty());
}

#[test]
fn the_newest_is_found_while_others_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    add(&store, 1, 1, Kind::Checkpoint, vec![]);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for id in 2..200 {
                add(&store, id, 1, Kind::Checkpoint, vec![]);
                store.retain(1).unwrap();
            }
        });
        let mut newest = 1;
        while !writing.is_finished() {
            let found = store.latest().unwrap().unwrap().id;
            assert!(found >= newest);
            newest = found;
        }
    });
    assert_eq!(store.latest().unwrap().unwrap().id, 199);
}
