//! What a source remembers: which splits its enumerator has found, how far each has been read, and how far event time has come in it. Written by the source's
//! operators and its enumerator, read by the enumerator of the next run, which deals the splits out anew, whatever the parallelism is then.

use crate::{
    operator::{Micros, NO_WATERMARK},
    runtime::reader::Assignment,
};
use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema},
    error::ArrowError,
};
use standpipe_loader::SplitPosition;
use standpipe_state::snapshot::{SnapshotError, typed_column};
use std::{collections::BTreeMap, sync::Arc};

/// Tables of a source: of each reader, and the two of the enumerator.
pub(crate) const SPLITS: &str = "splits";
pub(super) const FOUND: &str = "found";
pub(super) const ENUMERATOR: &str = "enumerator";

const SPLIT: &str = "split";
const POSITION: &str = "position";
const WATERMARK: &str = "watermark";
const ENDED: &str = "ended";
const DETAILS: &str = "details";
const SNAPSHOT: &str = "snapshot";

/// How far splits have been read.
pub(crate) type Positions = Vec<(String, Vec<u8>)>;

/// A split that a subtask reads or has read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadSplit {
    pub(crate) split: Arc<str>,
    /// After the last row before the cut; `None`: none was read.
    pub(crate) position: Option<Arc<[u8]>>,
    pub(crate) watermark: Micros,
    pub(crate) ended: bool,
}

/// A split as an enumerator knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FoundSplit {
    /// What the plugin said besides; `None`: a former run has read it, and it has not been found again.
    pub(crate) details: Option<String>,
    /// It had been read to its end when the job was restored.
    pub(crate) ended: bool,
    /// From where it is read in this run.
    pub(crate) start: Option<(Option<Vec<u8>>, Micros)>,
}

/// What an enumerator remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EnumeratorState {
    /// Its own bytes.
    pub(crate) snapshot: Vec<u8>,
    pub(crate) found: BTreeMap<String, FoundSplit>,
}

/// Splits of a reader as a table.
pub(crate) fn read_table(splits: &[ReadSplit]) -> Result<RecordBatch, ArrowError> {
    let schema = Schema::new(vec![
        Field::new(SPLIT, DataType::Utf8, false),
        Field::new(POSITION, DataType::Binary, true),
        Field::new(WATERMARK, DataType::Int64, true),
        Field::new(ENDED, DataType::Boolean, false),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(splits.iter().map(|split| &split.split))),
        Arc::new(splits.iter().map(|split| split.position.as_deref()).collect::<BinaryArray>()),
        Arc::new(splits.iter().map(|split| Some(split.watermark).filter(|time| *time != NO_WATERMARK)).collect::<Int64Array>()),
        Arc::new(splits.iter().map(|split| Some(split.ended)).collect::<BooleanArray>()),
    ];
    RecordBatch::try_new(Arc::new(schema), columns)
}

impl EnumeratorState {
    pub(super) fn tables(&self) -> Result<Vec<(String, RecordBatch)>, ArrowError> {
        let schema = Schema::new(vec![
            Field::new(SPLIT, DataType::Utf8, false),
            Field::new(DETAILS, DataType::Utf8, true),
            Field::new(ENDED, DataType::Boolean, false),
            Field::new(POSITION, DataType::Binary, true),
            Field::new(WATERMARK, DataType::Int64, true),
        ]);
        let splits = self.found.values();
        let starts = || splits.clone().map(|split| split.start.as_ref());
        let watermarks = starts().map(|start| start.map(|(_, time)| *time).filter(|time| *time != NO_WATERMARK));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(self.found.keys())),
            Arc::new(splits.clone().map(|split| split.details.as_deref()).collect::<StringArray>()),
            Arc::new(splits.clone().map(|split| Some(split.ended)).collect::<BooleanArray>()),
            Arc::new(starts().map(|start| start.and_then(|(position, _)| position.as_deref())).collect::<BinaryArray>()),
            Arc::new(watermarks.collect::<Int64Array>()),
        ];
        let found = RecordBatch::try_new(Arc::new(schema), columns)?;
        let own: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&self.snapshot]));
        Ok(vec![(FOUND.to_owned(), found), (ENUMERATOR.to_owned(), RecordBatch::try_from_iter([(SNAPSHOT, own)])?)])
    }
}

/// Where a source goes on.
#[derive(Debug, Clone, Default)]
pub(crate) struct RestoredSource {
    /// The enumerator's own bytes.
    pub(crate) snapshot: Vec<u8>,
    /// Every split that a former run knew.
    pub(crate) splits: BTreeMap<String, FoundSplit>,
}

impl RestoredSource {
    pub(super) fn read<'a>(tables: impl Iterator<Item = &'a (String, RecordBatch)>) -> Result<Self, SnapshotError> {
        let (mut restored, mut read) = (Self::default(), Vec::new());
        for (name, table) in tables {
            match name.as_str() {
                // What readers say is newer than what the enumerator told them.
                SPLITS => read.push(table),
                FOUND => restored.read_found(table)?,
                ENUMERATOR => {
                    let snapshot = typed_column(table, SNAPSHOT, &DataType::Binary)?.as_binary::<i32>();
                    restored.snapshot = snapshot.iter().flatten().next().unwrap_or_default().to_vec();
                }
                other => return Err(SnapshotError::Misfit(format!("a source has no table {other:?}"))),
            }
        }
        read.into_iter().try_for_each(|table| restored.read_splits(table))?;
        Ok(restored)
    }

    fn read_found(&mut self, table: &RecordBatch) -> Result<(), SnapshotError> {
        let names = typed_column(table, SPLIT, &DataType::Utf8)?.as_string::<i32>();
        let details = typed_column(table, DETAILS, &DataType::Utf8)?.as_string::<i32>();
        let (ended, starts) = progress(table)?;
        for (row, start) in starts.into_iter().enumerate() {
            let details = details.is_valid(row).then(|| details.value(row).to_owned());
            self.splits.insert(names.value(row).to_owned(), FoundSplit { details, ended: ended.value(row), start: Some(start) });
        }
        Ok(())
    }

    fn read_splits(&mut self, table: &RecordBatch) -> Result<(), SnapshotError> {
        let names = typed_column(table, SPLIT, &DataType::Utf8)?.as_string::<i32>();
        let (ended, starts) = progress(table)?;
        for (row, start) in starts.into_iter().enumerate() {
            let split = self.splits.entry(names.value(row).to_owned()).or_default();
            (split.start, split.ended) = (Some(start), split.ended || ended.value(row));
        }
        Ok(())
    }

    /// The splits that are dealt out at once, without waiting until they are found again.
    pub(crate) fn known(&self) -> Vec<Assignment> {
        let open = self.splits.iter().filter(|(_, split)| !split.ended);
        open.filter_map(|(name, split)| Some(split.assignment(name, split.details.clone()?))).collect()
    }
}

impl FoundSplit {
    /// To be read from where it was left.
    pub(crate) fn assignment(&self, name: &str, details: String) -> Assignment {
        let (position, time) = self.start.clone().unwrap_or((None, NO_WATERMARK));
        Assignment { split: SplitPosition { split: name.to_owned(), details, position }, time }
    }
}

type Start = (Option<Vec<u8>>, Micros);

/// The columns of progress, by row.
fn progress(table: &RecordBatch) -> Result<(&BooleanArray, Vec<Start>), SnapshotError> {
    let positions = typed_column(table, POSITION, &DataType::Binary)?.as_binary::<i32>();
    let times = typed_column(table, WATERMARK, &DataType::Int64)?.as_primitive::<Int64Type>();
    let ended = typed_column(table, ENDED, &DataType::Boolean)?.as_boolean();
    let start = |(position, time): (Option<&[u8]>, Option<Micros>)| (position.map(<[u8]>::to_vec), time.unwrap_or(NO_WATERMARK));
    Ok((ended, positions.iter().zip(times).map(start).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(split: &str, position: Option<&[u8]>, watermark: Micros, ended: bool) -> ReadSplit {
        ReadSplit { split: split.into(), position: position.map(Into::into), watermark, ended }
    }

    fn found(split: &str, ended: bool, start: Option<Start>) -> (String, FoundSplit) {
        (split.to_owned(), FoundSplit { details: Some(format!("of {split}")), ended, start })
    }

    fn at(position: &[u8], time: Micros) -> Option<Start> {
        Some((Some(position.to_vec()), time))
    }

    #[test]
    fn splits_of_all_subtasks_come_back_in_one_place() {
        let found = [found("a", false, None), found("b", false, at(b"5", 5)), found("c", true, None), found("d", false, at(b"4", 4))];
        let mut state = EnumeratorState { snapshot: b"own".to_vec(), found: found.into() };
        state.found.insert("gone".to_owned(), FoundSplit { details: None, ended: false, start: at(b"9", 9) });
        let mut tables = state.tables().unwrap();
        let first = [read("a", Some(b"1"), 10, false), read("b", Some(b"6"), NO_WATERMARK, true)];
        let second = [read("late", Some(b"7"), 30, false)];
        tables.insert(0, (SPLITS.to_owned(), read_table(&first).unwrap()));
        tables.push((SPLITS.to_owned(), read_table(&second).unwrap()));
        let restored = RestoredSource::read(tables.iter()).unwrap();
        assert_eq!(restored.snapshot, b"own");
        let ended: Vec<&str> = restored.splits.iter().filter(|(_, split)| split.ended).map(|(name, _)| name.as_str()).collect();
        assert_eq!(ended, ["b", "c"]);
        let known: Vec<_> = restored.known().into_iter().map(|a| (a.split.split, a.split.details, a.split.position, a.time)).collect();
        let expected = [("a", Some(b"1".to_vec()), 10), ("d", Some(b"4".to_vec()), 4)];
        assert_eq!(known, expected.map(|(split, position, time)| (split.to_owned(), format!("of {split}"), position, time)));
        // These wait until they are found again.
        for (split, position, time) in [("late", b"7", 30), ("gone", b"9", 9)] {
            let found = &restored.splits[split];
            assert_eq!((found.details.as_deref(), &found.start), (None, &at(position, time)));
        }
    }

    proptest::proptest! {
        #![proptest_config(standpipe_hostile::cases(500))]

        #[test]
        fn damaged_tables_are_read_or_refused(which in 0..3_usize, changes in standpipe_hostile::bytes::changes(&["position", "ended"])) {
            let state = EnumeratorState { snapshot: b"own".to_vec(), found: [found("a", false, None), found("b", true, at(b"5", 5))].into() };
            let mut tables = state.tables().unwrap();
            let splits = [read("a", Some(b"1"), 10, false), read("b", None, NO_WATERMARK, true)];
            tables.push((SPLITS.to_owned(), read_table(&splits).unwrap()));
            if let Some(table) = crate::operators::testing::damaged(&tables[which].1, &changes) {
                tables[which].1 = table;
                if let Ok(restored) = RestoredSource::read(tables.iter()) {
                    restored.known();
                }
            }
        }
    }

    #[test]
    fn what_is_no_table_of_a_source_is_refused() {
        let table = read_table(&[]).unwrap();
        let error = RestoredSource::read([("panes".to_owned(), table.clone())].iter()).unwrap_err();
        assert_eq!(error.to_string(), "the snapshot does not fit: a source has no table \"panes\"");
        let error = RestoredSource::read([(FOUND.to_owned(), table)].iter()).unwrap_err();
        assert_eq!(error.to_string(), "the snapshot does not fit: it has no column \"details\"");
    }
}
