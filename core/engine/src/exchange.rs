//! Splits a batch by key over the subtasks of the next operator: hash of the key -> key group -> subtask (`standpipe_state`). Whole batches go through without a
//! copy where one subtask gets all of their rows. `dataflow::output` calls it for every keyed edge; order within a subtask stays.

use crate::operator::OperatorError;
use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take_record_batch,
    datatypes::SchemaRef,
    error::ArrowError,
};
use standpipe_state::{EncodedKeys, KeyGroup, key, key_group, subtask_of};

/// From this many subtasks on, one `take` in the order of subtasks and slices of it are faster than a `take` per subtask (measured: `notes/engine-on-timely.md`).
const ONE_TAKE_FROM: usize = 16;

/// Splits the batches of one edge. Its index buffers are kept from batch to batch.
#[derive(Debug)]
pub struct Splitter {
    node: String,
    columns: Vec<usize>,
    max_parallelism: u32,
    /// The subtask of each key group.
    subtask_of_group: Vec<u32>,
    keys: EncodedKeys,
    /// The subtask of each row.
    targets: Vec<u32>,
    /// Rows of each subtask.
    counts: Vec<usize>,
    cursors: Vec<usize>,
    rows: Vec<u32>,
}

impl Splitter {
    /// Splits batches of `schema` by `columns` over `parallelism` subtasks of `node`.
    ///
    /// # Errors
    /// When a column cannot be a key.
    pub fn new(node: &str, schema: &SchemaRef, columns: &[usize], max_parallelism: u32, parallelism: u32) -> Result<Self, OperatorError> {
        let refused = |message: String| OperatorError::Data { node: node.to_owned(), message };
        for column in columns {
            let field = schema.fields().get(*column).ok_or_else(|| refused(format!("there is no key column {column}")))?;
            key::check_type(field.data_type()).map_err(|error| refused(format!("key {:?}: {error}", field.name())))?;
        }
        Ok(Self {
            node: node.to_owned(),
            columns: columns.to_vec(),
            max_parallelism,
            subtask_of_group: (0..max_parallelism).map(|group| subtask_of(KeyGroup(group as u16), parallelism, max_parallelism)).collect(),
            keys: EncodedKeys::new(),
            targets: Vec::new(),
            counts: vec![0; parallelism as usize],
            cursors: Vec::new(),
            rows: Vec::new(),
        })
    }

    /// Gives each subtask its rows, in the order of subtasks; one without rows gets nothing.
    ///
    /// # Errors
    /// When a key column is not what the schema says.
    pub fn split(&mut self, batch: RecordBatch, mut give: impl FnMut(u32, RecordBatch)) -> Result<(), OperatorError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if let [_] = self.counts[..] {
            give(0, batch);
            return Ok(());
        }
        self.route(&batch)?;
        if let Some(only) = self.counts.iter().position(|count| *count == batch.num_rows()) {
            give(only as u32, batch);
            return Ok(());
        }
        self.give_parts(&batch, &mut give).map_err(|source| OperatorError::Arrow { node: self.node.clone(), source })
    }

    /// Finds each row's subtask and counts them.
    fn route(&mut self, batch: &RecordBatch) -> Result<(), OperatorError> {
        let columns: Vec<_> = self.columns.iter().map(|column| batch.column(*column).clone()).collect();
        let encoded = self.keys.encode(&columns, batch.num_rows());
        encoded.map_err(|error| OperatorError::Data { node: self.node.clone(), message: error.to_string() })?;
        let Self { subtask_of_group, max_parallelism, keys, targets, counts, .. } = self;
        targets.clear();
        targets.extend(keys.hashes().iter().map(|hash| subtask_of_group[usize::from(key_group(*hash, *max_parallelism).0)]));
        counts.fill(0);
        targets.iter().for_each(|target| counts[*target as usize] += 1);
        Ok(())
    }

    /// A counting sort of the row numbers by subtask, then the rows of each.
    fn give_parts(&mut self, batch: &RecordBatch, give: &mut impl FnMut(u32, RecordBatch)) -> Result<(), ArrowError> {
        self.cursors.clear();
        let mut next = 0;
        for count in &self.counts {
            self.cursors.push(next);
            next += count;
        }
        let mut rows = std::mem::take(&mut self.rows);
        rows.resize(batch.num_rows(), 0);
        for (row, target) in self.targets.iter().enumerate() {
            let cursor = &mut self.cursors[*target as usize];
            rows[*cursor] = row as u32;
            *cursor += 1;
        }
        let rows = UInt32Array::from(rows);
        let sorted = if self.counts.len() < ONE_TAKE_FROM { None } else { Some(take_record_batch(batch, &rows)?) };
        let mut start = 0;
        for (subtask, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let part = match &sorted {
                Some(sorted) => sorted.slice(start, *count),
                None => take_record_batch(batch, &rows.slice(start, *count))?,
            };
            give(subtask as u32, part);
            start += count;
        }
        self.rows = rows.into_parts().1.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{DataType, Field, Schema};
    use proptest::prelude::*;
    use standpipe_state::range_of;
    use std::{collections::BTreeMap, sync::Arc};

    fn batch(keys: &[Option<u8>]) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("key", DataType::Utf8, true)]);
        let names: StringArray = keys.iter().map(|key| key.map(|key| format!("host-{key}"))).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(0..keys.len() as i64)), Arc::new(names)];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn parts(splitter: &mut Splitter, batch: &RecordBatch) -> Vec<(u32, RecordBatch)> {
        let mut parts = Vec::new();
        splitter.split(batch.clone(), |subtask, part| parts.push((subtask, part))).unwrap();
        parts
    }

    proptest! {
        #[test]
        fn every_row_reaches_the_owner_of_its_key_in_order(
            batches in prop::collection::vec(prop::collection::vec(prop::option::of(0_u8..40), 0..80), 1..4),
            parallelism in prop_oneof![1_u32..6, 14_u32..20],
        ) {
            let schema = batch(&[]).schema();
            let mut splitter = Splitter::new("transforms.stats", &schema, &[1], 128, parallelism).unwrap();
            for keys in &batches {
                let whole = batch(keys);
                let parts = parts(&mut splitter, &whole);
                prop_assert!(parts.iter().all(|(_, part)| part.num_rows() > 0));
                let numbers = |part: &RecordBatch| part["n"].as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
                let mut owner: BTreeMap<Option<u8>, u32> = BTreeMap::new();
                for (subtask, part) in &parts {
                    let rows = numbers(part);
                    prop_assert!(rows.is_sorted());
                    for row in rows {
                        prop_assert_eq!(*owner.entry(keys[row as usize]).or_insert(*subtask), *subtask, "one owner per key");
                    }
                    let mut encoded = EncodedKeys::new();
                    encoded.encode(&[part["key"].clone()], part.num_rows()).unwrap();
                    let range = range_of(*subtask, parallelism, 128);
                    prop_assert!(encoded.hashes().iter().all(|hash| range.contains(key_group(*hash, 128))));
                }
                let together = concat_batches(&schema, parts.iter().map(|(_, part)| part)).unwrap();
                let mut rows = numbers(&together);
                rows.sort_unstable();
                prop_assert_eq!(rows, (0..keys.len() as i64).collect::<Vec<_>>());
                for (at, n) in numbers(&together).into_iter().enumerate() {
                    prop_assert_eq!(together.slice(at, 1), whole.slice(n as usize, 1), "rows stay together");
                }
            }
        }
    }

    #[test]
    fn rows_of_one_subtask_are_not_copied() {
        let whole = batch(&[Some(1); 50]);
        for parallelism in [1, 4, 20] {
            let mut splitter = Splitter::new("sinks.out", &whole.schema(), &[1], 128, parallelism).unwrap();
            let parts = parts(&mut splitter, &whole);
            assert_eq!(parts.len(), 1);
            assert!(parts[0].1.column(1).to_data().ptr_eq(&whole.column(1).to_data()));
        }
    }

    #[test]
    fn a_key_that_cannot_be_one_is_refused_before_any_row() {
        let list = DataType::new_list(DataType::Utf8, true);
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("tags", list, true)]));
        let error = Splitter::new("transforms.stats", &schema, &[0], 128, 2).unwrap_err().to_string();
        assert!(error.starts_with("transforms.stats: key \"tags\": a column of type List("), "{error}");
        assert!(Splitter::new("transforms.stats", &schema, &[7], 128, 2).is_err());
    }
}
