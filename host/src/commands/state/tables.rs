//! The tables of a checkpoint: one per node and name in its manifest, `NODE.TABLE` in SQL. What is not asked for is not read, and a file is read when its turn comes,
//! so that a query over state larger than memory needs memory for one file of each worker and for what it keeps itself.

use datafusion::{
    arrow::{
        array::{Array, AsArray, BooleanArray, RecordBatch},
        compute::filter_record_batch,
        datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
        row::{OwnedRow, RowConverter, SortField},
    },
    catalog::{CatalogProvider, MemorySchemaProvider, TableProvider, streaming::StreamingTable},
    common::TableReference,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
    prelude::SessionContext,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use standpipe_checkpoint::{CheckpointError, FileRef, Manifest, Store};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

/// The struct of key columns.
const KEY: &str = "key";
/// Of a plugin's declared state: `state.NAME`.
const STATE: &str = "state.";
/// In the metadata of a table that has only what has changed since a former checkpoint, and its column of keys that have nothing any more.
const SINCE: &str = "standpipe.since";
const REMOVED: &str = "removed";

/// All tables of a checkpoint.
pub(super) struct Tables {
    store: Arc<Store>,
    checkpoint: u64,
    place: String,
    /// By the node's name and the table's.
    files: BTreeMap<(String, String), Vec<FileRef>>,
}

/// One of them.
pub(super) struct Table<'a> {
    store: &'a Arc<Store>,
    files: &'a [FileRef],
}

/// A line of the list.
#[derive(serde::Serialize)]
pub(super) struct Listed {
    /// As a query names it.
    pub(super) table: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) columns: Vec<Column>,
}

/// A column of a table.
#[derive(serde::Serialize)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) r#type: String,
}

impl Tables {
    pub(super) fn new(store: Arc<Store>, manifest: &Manifest) -> Self {
        let mut files = BTreeMap::new();
        for (path, node) in &manifest.nodes {
            // A node's name is there once in a pipeline, whatever its section.
            let name = path.rsplit_once('.').map_or(path.as_str(), |(_, name)| name);
            for (table, of_table) in &node.tables {
                let plain = table.strip_prefix(STATE).filter(|plain| !node.tables.contains_key(*plain)).unwrap_or(table);
                files.insert((name.to_owned(), plain.to_owned()), of_table.clone());
            }
        }
        Self { place: store.place(), store, checkpoint: manifest.id, files }
    }

    /// What a query means by a name; a message if it is none.
    pub(super) fn find(&self, reference: &TableReference) -> std::result::Result<Table<'_>, String> {
        let is_meant = |(node, table): &(String, String)| match reference {
            TableReference::Bare { table: wanted } => **wanted == *table,
            TableReference::Partial { schema, table: wanted } => **schema == *node && **wanted == *table,
            TableReference::Full { .. } => false,
        };
        let found: Vec<_> = self.files.iter().filter(|(name, _)| is_meant(name)).collect();
        match &found[..] {
            [(_, files)] => Ok(Table { store: &self.store, files }),
            [] => {
                let what = format!("there is no table {reference} in checkpoint {} of {}", self.checkpoint, self.place);
                Err(match self.names(self.files.keys()) {
                    names if names.is_empty() => format!("{what}; it has no state"),
                    names => format!("{what} (one without rows is not written); there are {names}"),
                })
            }
            several => Err(format!("{reference} may be {}: write which", self.names(several.iter().map(|(name, _)| *name)))),
        }
    }

    fn names<'a>(&self, names: impl Iterator<Item = &'a (String, String)>) -> String {
        names.map(|(node, table)| sql_name(node, table)).collect::<Vec<_>>().join(", ")
    }

    /// All of them, with their columns.
    pub(super) fn list(&self) -> std::result::Result<Vec<Listed>, CheckpointError> {
        let listed = |((node, table), files): (&(String, String), &Vec<FileRef>)| {
            let first = files.first().map(|file| self.store.table(file)).transpose()?;
            let schema = first.and_then(|batches| batches.first().map(RecordBatch::schema));
            let columns = schema.map(|schema| unfolded_schema(&schema)).unwrap_or_else(|| Arc::new(Schema::empty()));
            let column = |field: &FieldRef| Column { name: field.name().clone(), r#type: standpipe_formats::types::type_text(field) };
            Ok(Listed {
                table: sql_name(node, table),
                rows: files.iter().map(|file| file.rows).sum(),
                bytes: files.iter().map(|file| file.bytes).sum(),
                columns: columns.fields().iter().map(column).collect(),
            })
        };
        self.files.iter().map(listed).collect()
    }
}

/// As SQL takes it: what is no plain name is quoted.
fn sql_name(node: &str, table: &str) -> String {
    let is_plain =
        |name: &str| !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let shown = |name: &str| if is_plain(name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) };
    format!("{}.{}", shown(node), shown(table))
}

/// The schema of a node's tables.
pub(super) fn add_schema(context: &SessionContext, name: &str) -> Result<()> {
    let catalog = context.catalog_names().first().and_then(|name| context.catalog(name));
    let catalog: Arc<dyn CatalogProvider> = catalog.ok_or_else(|| DataFusionError::Internal("there is no catalog".to_owned()))?;
    if catalog.schema(name).is_none() {
        catalog.register_schema(name, Arc::new(MemorySchemaProvider::new()))?;
    }
    Ok(())
}

impl Table<'_> {
    /// For DataFusion. Reads the first file, for its columns.
    pub(super) async fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        let schema = match self.files.first() {
            Some(file) => read(Arc::clone(self.store), file.clone(), Said::default()).await?.0.first().map(RecordBatch::schema),
            None => None,
        };
        let schema = schema.unwrap_or_else(|| Arc::new(Schema::empty()));
        let mut chains: BTreeMap<u32, Vec<FileRef>> = BTreeMap::new();
        for file in self.files {
            chains.entry(file.subtask).or_default().push(file.clone());
        }
        let part = |files: Vec<FileRef>| -> Arc<dyn PartitionStream> {
            Arc::new(Part { store: Arc::clone(self.store), files, schema: Arc::clone(&schema) })
        };
        Ok(Arc::new(StreamingTable::try_new(Arc::clone(&schema), chains.into_values().map(part).collect())?))
    }
}

/// The files of a table of one subtask, in the order in which they are applied.
struct Part {
    store: Arc<Store>,
    files: Vec<FileRef>,
    schema: SchemaRef,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.files.iter().map(|file| &file.path)).finish()
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The newest file first: what it says of a key holds.
    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (store, schema) = (Arc::clone(&self.store), Arc::clone(&self.schema));
        let next = move |(mut files, said): (Vec<FileRef>, Said)| {
            let (store, schema) = (Arc::clone(&store), Arc::clone(&schema));
            async move {
                let Some(file) = files.pop() else { return Ok(None) };
                let (batches, said) = read(store, file.clone(), said).await?;
                if batches.iter().any(|batch| batch.schema_ref().fields() != schema.fields()) {
                    return Err(DataFusionError::Execution(format!("{} has other columns than the first file of its table", file.path)));
                }
                Ok(Some((stream::iter(batches).map(Ok), (files, said))))
            }
        };
        let batches = stream::try_unfold((self.files.clone(), Said::default()), next).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// The batches of a file that hold beside what newer ones have said, key columns as columns. The store's calls block.
async fn read(store: Arc<Store>, file: FileRef, mut said: Said) -> Result<(Vec<RecordBatch>, Said)> {
    let read = move || {
        let batches = store.table(&file).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let holding = said.holding(&batches)?;
        Ok((holding.iter().map(unfolded).collect::<Result<_>>()?, said))
    };
    tokio::task::spawn_blocking(read).await.map_err(|error| DataFusionError::Execution(error.to_string()))?
}

/// The keys of which tables of changes have said something: what older files say of them does not hold any more.
#[derive(Default)]
struct Said {
    keys: HashSet<OwnedRow>,
    converter: Option<RowConverter>,
}

impl Said {
    /// The rows of an older file that hold. One of changes has a note in its schema, and marks the keys that have nothing any more.
    fn holding(&mut self, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let is_change = |batch: &RecordBatch| batch.schema_ref().metadata().contains_key(SINCE);
        if self.keys.is_empty() && !batches.iter().any(is_change) {
            return Ok(batches.to_vec());
        }
        let mut added = Vec::new();
        let mut holding = Vec::with_capacity(batches.len());
        for batch in batches {
            let keys = self.keys_of(batch)?;
            let removed = batch.column_by_name(REMOVED).filter(|_| is_change(batch)).and_then(|column| column.as_boolean_opt());
            let holds = |row: usize| !self.keys.contains(&keys[row]) && removed.is_none_or(|removed| !removed.value(row));
            let mask: BooleanArray = (0..batch.num_rows()).map(|row| Some(holds(row))).collect();
            let kept: Vec<usize> = match removed {
                Some(_) => (0..batch.num_columns()).filter(|at| batch.schema_ref().field(*at).name() != REMOVED).collect(),
                None => (0..batch.num_columns()).collect(),
            };
            holding.push(filter_record_batch(&batch.project(&kept)?, &mask)?);
            if is_change(batch) {
                added.extend(keys);
            }
        }
        self.keys.extend(added);
        Ok(holding)
    }

    /// The key of every row; one table has one form of it.
    fn keys_of(&mut self, batch: &RecordBatch) -> Result<Vec<OwnedRow>> {
        let key = batch.column_by_name(KEY).ok_or_else(|| DataFusionError::Execution("a table of changes has no keys".to_owned()))?;
        let converter = match &mut self.converter {
            Some(converter) => converter,
            none => none.insert(RowConverter::new(vec![SortField::new(key.data_type().clone())])?),
        };
        Ok(converter.convert_columns(&[Arc::clone(key)])?.iter().map(|row| row.owned()).collect())
    }
}

/// The fields of `key` in the place of the struct; one whose name another column has is `key.NAME`.
fn unfolded_schema(schema: &Schema) -> SchemaRef {
    let others: HashSet<&str> = schema.fields().iter().map(|field| field.name().as_str()).filter(|name| *name != KEY).collect();
    let unfold = |field: &FieldRef| match field.data_type() {
        DataType::Struct(keys) if field.name() == KEY => {
            let renamed = |key: &FieldRef| {
                let name = if others.contains(key.name().as_str()) { format!("{KEY}.{}", key.name()) } else { key.name().clone() };
                Arc::new(Field::new(name, key.data_type().clone(), true))
            };
            keys.iter().map(renamed).collect()
        }
        data_type => vec![Arc::new(Field::new(field.name(), data_type.clone(), true))],
    };
    Arc::new(Schema::new(schema.fields().iter().flat_map(unfold).collect::<Vec<_>>()))
}

fn unfolded(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema_ref();
    let columns = schema.fields().iter().zip(batch.columns()).flat_map(|(field, column)| match column.as_struct_opt() {
        Some(keys) if field.name() == KEY => keys.columns().to_vec(),
        _ => vec![Arc::clone(column)],
    });
    Ok(RecordBatch::try_new(unfolded_schema(schema), columns.collect())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::{
        array::{ArrayRef, Int64Array, StructArray},
        datatypes::Int64Type,
    };

    /// Keys and values; `Some`: of changes, which keys have nothing any more.
    fn table(keys: &[i64], values: &[i64], removed: Option<&[bool]>) -> RecordBatch {
        let key: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
        let keys = StructArray::from(vec![(Arc::new(Field::new("k", DataType::Int64, true)), key)]);
        let mut columns: Vec<(&str, ArrayRef)> = vec![(KEY, Arc::new(keys)), ("value", Arc::new(Int64Array::from(values.to_vec())))];
        if let Some(removed) = removed {
            columns.push((REMOVED, Arc::new(BooleanArray::from(removed.to_vec()))));
        }
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let metadata = removed.map(|_| (SINCE.to_owned(), "1".to_owned()));
        let schema = Schema::new_with_metadata(batch.schema_ref().fields().clone(), metadata.into_iter().collect());
        batch.with_schema(Arc::new(schema)).unwrap()
    }

    #[test]
    fn what_the_newest_file_says_of_a_key_holds() {
        let chain = [
            table(&[1, 2, 3, 4, 4], &[10, 20, 30, 40, 41], None),
            table(&[5], &[50], None),
            table(&[2, 3, 4], &[21, 31, 0], Some(&[false, false, true])),
            table(&[3, 6, 6], &[32, 60, 61], Some(&[false, false, false])),
        ];
        let mut said = Said::default();
        let mut found = Vec::new();
        for file in chain.iter().rev() {
            for batch in said.holding(std::slice::from_ref(file)).unwrap() {
                let batch = unfolded(&batch).unwrap();
                assert_eq!(batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["k", "value"]);
                let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().values().to_vec();
                found.extend(column(0).into_iter().zip(column(1)));
            }
        }
        found.sort_unstable();
        assert_eq!(found, [(1, 10), (2, 21), (3, 32), (5, 50), (6, 60), (6, 61)]);
    }

    #[test]
    fn a_key_column_whose_name_is_taken_has_another() {
        let batch = table(&[1], &[10], None);
        let fields = unfolded_schema(&Schema::new(vec![batch.schema_ref().field(0).clone(), Field::new("k", DataType::Int64, true)]));
        assert_eq!(fields.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["key.k", "k"]);
    }

    #[test]
    fn names_are_quoted_where_sql_wants_it() {
        assert_eq!(sql_name("counts", "keys"), "counts.keys");
        assert_eq!(sql_name("the-windows", "a\"b"), "\"the-windows\".\"a\"\"b\"");
    }
}
