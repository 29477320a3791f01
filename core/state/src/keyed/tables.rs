//! Snapshot and restore of [`KeyedStates`]: a table `state.NAME` per declared state, and `timers`.
//!
//! `state.NAME` has a row per key with the column `value` (for a list: a list), for a map a row per entry with `map_key` and `value`; with a time to live also
//! `written` (timestamp). Its schema's metadata has the state's kind and version. `timers` has `domain` (`event`, `processing`), `slot` and `time`.
//!
//! A table of changes ([`crate::snapshot::since`]) also has `removed`, true in a row for a key that has nothing any more.

use super::{KeyedStates, LazyTables, NEVER, Slot, Store};
use crate::changes::{Cut, Said};
use crate::convert::widened;
use crate::key_group::KeyGroupRange;
use crate::snapshot::{KEYS_OF_A_TABLE, REMOVED, SINCE, SnapshotError, column, keyed_table, owned_rows, since, typed_column};
use crate::timers::DueTimer;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::{concat, filter_record_batch, not};
use arrow::datatypes::{TimestampMicrosecondType, UInt32Type};
use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use standpipe_sdk::wire::StateKind;
use std::collections::HashMap;
use std::sync::Arc;

const TIMERS: &str = "timers";
const STATE: &str = "state.";
const VERSION: &str = "standpipe.state.version";
const KIND: &str = "standpipe.state.kind";
const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
/// Rows that are restored at a time where state is on disk: about a batch.
const PIECE_ROWS: usize = 8192;
/// No key has it: what is asked for it is null.
const NOBODY: u32 = u32::MAX;

fn field(name: &str, data_type: DataType, nullable: bool) -> FieldRef {
    Arc::new(Field::new(name, data_type, nullable))
}

/// The word for a state's kind in its table. A reduced value is kept as a value.
fn kind(store: &Store) -> &'static str {
    match store {
        Store::Value(_) => "value",
        Store::List(_) => "list",
        Store::Map(_) => "map",
    }
}

/// Whether a table of that name is one of a declared state: what may be larger than memory.
#[must_use]
pub fn is_state(table: &str) -> bool {
    table.starts_with(STATE)
}

/// A snapshot.
#[derive(Debug, Default)]
pub struct Tables {
    /// By name.
    pub tables: Vec<(String, RecordBatch)>,
    /// Those that are still to be read from disk.
    pub rest: Option<LazyTables>,
}

/// Whether a key has something there that is to be kept.
fn holds(slot: &Slot, id: u32, now: i64) -> bool {
    slot.contains(id) && slot.expiry.as_ref().is_none_or(|expiry| !expiry.expired(id, now))
}

impl KeyedStates {
    /// What there is to say of it at a cut, as tables by name; `now` is the processing time.
    ///
    /// # Errors
    /// When Arrow cannot build a table, or state cannot be written to disk.
    pub fn snapshot(&mut self, cut: Cut, now: i64) -> Result<Tables, SnapshotError> {
        let keys = self.keys.len();
        let rest = self.tables_on_disk(cut, now)?;
        let mut tables = Vec::with_capacity(self.slots.len() + 1);
        if rest.is_none() {
            let said: Vec<Said> = self.slots.iter_mut().map(|slot| slot.changes.cut(cut, keys)).collect();
            let all: Vec<u32> = (0..keys as u32).collect();
            for (slot, said) in self.slots.iter().zip(&said) {
                let ids = if let Said::Since(_, ids) = said { ids } else { &all };
                self.tables_of_keys(slot, said, ids, now, &mut tables)?;
            }
        }
        self.note_timers();
        let said = self.timer_changes.cut(cut, keys);
        // Only from now on it is known whether changes are wanted.
        self.note_timers();
        tables.push((TIMERS.to_owned(), self.timer_table(&said)?));
        Ok(Tables { tables, rest })
    }

    /// The tables in which a state says something of some keys: several if there are many, one without rows if there is none.
    pub(super) fn tables_of_keys(
        &self,
        slot: &Slot,
        said: &Said,
        ids: &[u32],
        now: i64,
        tables: &mut Vec<(String, RecordBatch)>,
    ) -> Result<(), SnapshotError> {
        let name = || format!("{STATE}{}", slot.details.name);
        let is_whole = *said == Said::Whole;
        let ids: Vec<u32> = ids.iter().copied().filter(|id| !is_whole || holds(slot, *id, now)).collect();
        if ids.is_empty() {
            tables.push((name(), self.table_of(slot, said, Vec::new(), Vec::new())?));
        }
        for ids in ids.chunks(KEYS_OF_A_TABLE) {
            let (there, gone) = ids.iter().partition(|id| holds(slot, **id, now));
            tables.push((name(), self.table_of(slot, said, there, gone)?));
        }
        Ok(())
    }

    fn table_of(&self, slot: &Slot, said: &Said, mut ids: Vec<u32>, removed: Vec<u32>) -> Result<RecordBatch, SnapshotError> {
        let mut columns = Vec::new();
        match &slot.store {
            Store::Value(store) => {
                let values = store.get(&with_nobody(&ids, removed.len()))?;
                columns.push((field("value", values.data_type().clone(), true), values));
            }
            Store::List(store) => {
                let values = store.get(&with_nobody(&ids, removed.len()))?;
                columns.push((field("value", values.data_type().clone(), true), values));
            }
            Store::Map(store) => {
                let (entries, lengths) = store.all(&ids)?;
                let entries = entries.as_struct();
                ids = ids.iter().zip(lengths).flat_map(|(id, length)| std::iter::repeat_n(*id, length)).collect();
                for (at, name) in [(0, "map_key"), (1, "value")] {
                    let nothing = new_null_array(entries.column(at).data_type(), removed.len());
                    let column = concat(&[entries.column(at), &nothing])?;
                    columns.push((field(name, column.data_type().clone(), true), column));
                }
            }
        }
        if let Some(expiry) = &slot.expiry {
            let of = |id: &u32| expiry.written.get(*id as usize).copied().unwrap_or(NEVER);
            let written: TimestampMicrosecondArray = ids.iter().chain(&removed).map(of).collect::<Vec<_>>().into();
            columns.push((field("written", MICROS, false), Arc::new(written)));
        }
        let metadata = [(VERSION, slot.details.version.to_string()), (KIND, kind(&slot.store).to_owned())];
        self.said_table(said, ids, removed, columns, metadata.into())
    }

    /// `columns` have first the rows of `ids`, then those of `removed`.
    fn said_table(
        &self,
        said: &Said,
        mut ids: Vec<u32>,
        removed: Vec<u32>,
        mut columns: Vec<(FieldRef, ArrayRef)>,
        metadata: HashMap<&str, String>,
    ) -> Result<RecordBatch, SnapshotError> {
        let mut metadata: HashMap<String, String> = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        if let Said::Since(cut, _) = said {
            let is_removed = std::iter::repeat_n(false, ids.len()).chain(std::iter::repeat_n(true, removed.len()));
            columns.push((field(REMOVED, DataType::Boolean, false), Arc::new(is_removed.map(Some).collect::<BooleanArray>())));
            metadata.insert(SINCE.to_owned(), cut.to_string());
        }
        ids.extend(removed);
        keyed_table(&self.keys, &self.key_schema.fields, &ids, self.max_parallelism, columns, metadata)
    }

    fn timer_table(&self, said: &Said) -> Result<RecordBatch, SnapshotError> {
        let mut removed = Vec::new();
        let timers: Vec<(&str, DueTimer)> = match said {
            Said::Whole => {
                let event = self.event_timers.iter().map(|timer| ("event", timer));
                event.chain(self.processing_timers.iter().map(|timer| ("processing", timer))).collect()
            }
            Said::Since(_, ids) => {
                removed.extend(ids.iter().filter(|id| !self.event_timers.contains(**id) && !self.processing_timers.contains(**id)));
                let event = ids.iter().flat_map(|id| self.event_timers.of_key(*id).map(|timer| ("event", timer)));
                event.chain(ids.iter().flat_map(|id| self.processing_timers.of_key(*id).map(|timer| ("processing", timer)))).collect()
            }
        };
        let ids: Vec<u32> = timers.iter().map(|(_, timer)| timer.id).collect();
        let nothing = || std::iter::repeat_n(0, removed.len());
        let domains = timers.iter().map(|(domain, _)| *domain).chain(std::iter::repeat_n("", removed.len()));
        let slots = timers.iter().map(|(_, timer)| timer.slot).chain(nothing());
        let times = timers.iter().map(|(_, timer)| timer.time).chain(nothing().map(i64::from));
        let columns: Vec<(FieldRef, ArrayRef)> = vec![
            (field("domain", DataType::Utf8, false), Arc::new(StringArray::from_iter_values(domains))),
            (field("slot", DataType::UInt32, false), Arc::new(UInt32Array::from_iter_values(slots))),
            (field("time", MICROS, false), Arc::new(TimestampMicrosecondArray::from_iter_values(times))),
        ];
        self.said_table(said, ids, removed, columns, HashMap::new())
    }

    /// Adds the rows of a former subtask's tables whose key groups are in `owned`, the tables in their order: those of changes replace what former ones say of their
    /// keys. Once per former subtask, before the first batch. Gives the names of states that are no longer declared: they are left behind.
    ///
    /// A state whose declaration has changed is taken over where its values can be turned into the new ones without loss, and no other way; with a new time to live,
    /// values of which it is not known when they were written count as written `now`.
    ///
    /// # Errors
    /// When a table is of another key, or of a state whose kind, version or type has changed in a way that is not safe.
    pub fn restore(&mut self, tables: &[(String, RecordBatch)], owned: KeyGroupRange, now: i64) -> Result<Vec<String>, SnapshotError> {
        let mut dropped = Vec::new();
        for (name, table) in tables {
            if name == TIMERS {
                self.restore_timers(table, owned)?;
            } else if let Some(state) = name.strip_prefix(STATE) {
                match self.slots.iter().position(|slot| slot.details.name == state) {
                    Some(at) => self.restore_pieces(at, table, owned, now).map_err(|error| error.of(&format!("state {state:?}")))?,
                    None if dropped.iter().any(|known| known == state) => {}
                    None => dropped.push(state.to_owned()),
                }
            }
        }
        Ok(dropped)
    }

    /// Where state is on disk, a large table is taken in pieces.
    fn restore_pieces(&mut self, at: usize, table: &RecordBatch, owned: KeyGroupRange, now: i64) -> Result<(), SnapshotError> {
        if self.disk.is_none() {
            return self.restore_state(at, table, owned, now);
        }
        let (rows, keys) = owned_rows(table, &self.key_schema.fields, self.max_parallelism, owned)?;
        let mut first = 0;
        while first < rows.num_rows() {
            let mut end = rows.num_rows().min(first + PIECE_ROWS);
            // Rows of a key belong together.
            while end < rows.num_rows() && keys.key(end) == keys.key(end - 1) {
                end += 1;
            }
            self.restore_state(at, &rows.slice(first, end - first), owned, now)?;
            self.make_room()?;
            first = end;
        }
        Ok(())
    }

    fn restore_state(&mut self, at: usize, table: &RecordBatch, owned: KeyGroupRange, now: i64) -> Result<(), SnapshotError> {
        self.slots[at].check(table)?;
        let (rows, keys) = owned_rows(table, &self.key_schema.fields, self.max_parallelism, owned)?;
        let mut ids = Vec::new();
        self.keys.intern(&keys, &mut ids)?;
        self.load(&ids)?;
        let slot = &mut self.slots[at];
        let (rows, ids) = if since(table).is_some() {
            ids.iter().for_each(|id| slot.remove(*id));
            still_there(&rows, &ids)?
        } else {
            (rows, ids)
        };
        match &mut slot.store {
            Store::Value(store) => store.set(&ids, &migrated(&rows, "value", slot.field.data_type())?)?,
            Store::List(store) => {
                let values = migrated(&rows, "value", &DataType::List(slot.field.clone()))?;
                let lists = values.as_list::<i32>();
                let lengths = lists.offsets().lengths().enumerate();
                let ids: Vec<u32> = lengths.flat_map(|(row, length)| std::iter::repeat_n(ids[row], length)).collect();
                let (first, last) = (lists.offsets()[0] as usize, lists.offsets()[lists.len()] as usize);
                store.append(&ids, &lists.values().slice(first, last - first))?;
            }
            Store::Map(store) => {
                let entry = store.entry().clone();
                let (map_keys, values) =
                    (migrated(&rows, "map_key", entry[0].data_type())?, migrated(&rows, "value", entry[1].data_type())?);
                store.put(&ids, &map_keys, &values)?;
            }
        }
        if slot.expiry.is_some() {
            match typed_column(&rows, "written", &MICROS) {
                Ok(written) => {
                    let written = written.as_primitive::<TimestampMicrosecondType>();
                    ids.iter().zip(written.values()).for_each(|(id, written)| slot.written(std::iter::once(*id), *written));
                }
                Err(_) => slot.written(ids.into_iter(), now),
            }
        }
        slot.commit();
        Ok(())
    }

    fn restore_timers(&mut self, table: &RecordBatch, owned: KeyGroupRange) -> Result<(), SnapshotError> {
        let (rows, keys) = owned_rows(table, &self.key_schema.fields, self.max_parallelism, owned)?;
        let mut ids = Vec::new();
        self.keys.intern(&keys, &mut ids)?;
        let (rows, ids) = if since(table).is_some() {
            for id in &ids {
                self.event_timers.clear(*id);
                self.processing_timers.clear(*id);
            }
            still_there(&rows, &ids)?
        } else {
            (rows, ids)
        };
        let domains = typed_column(&rows, "domain", &DataType::Utf8)?.as_string::<i32>();
        let slots = typed_column(&rows, "slot", &DataType::UInt32)?.as_primitive::<UInt32Type>();
        let times = typed_column(&rows, "time", &MICROS)?.as_primitive::<TimestampMicrosecondType>();
        for (row, id) in ids.iter().enumerate() {
            let timer = DueTimer { time: times.value(row), id: *id, slot: slots.value(row) };
            if domains.value(row) == "event" { self.event_timers.set(timer) } else { self.processing_timers.set(timer) }
        }
        self.event_timers.commit();
        self.processing_timers.commit();
        Ok(())
    }
}

impl Slot {
    /// Whether a table is of this state as far as kind and version go.
    fn check(&self, table: &RecordBatch) -> Result<(), SnapshotError> {
        let metadata = table.schema_ref().metadata();
        if let Some(kind) = metadata.get(KIND).filter(|found| *found != kind(&self.store)) {
            let now = if self.details.kind == StateKind::Reducing { "reducing" } else { self::kind(&self.store) };
            return Err(SnapshotError::Misfit(format!("it was a {kind} state, and is a {now} state now; give the new one another name")));
        }
        let version = metadata.get(VERSION).cloned().unwrap_or_default();
        if version != self.details.version.to_string() {
            let message = format!(
                "it has version {version} there and {} here: its meaning has changed, which nothing can convert",
                self.details.version
            );
            return Err(SnapshotError::Misfit(message));
        }
        Ok(())
    }
}

fn with_nobody(ids: &[u32], count: usize) -> Vec<u32> {
    ids.iter().copied().chain(std::iter::repeat_n(NOBODY, count)).collect()
}

/// The rows of keys that still have something, and their ids.
fn still_there(rows: &RecordBatch, ids: &[u32]) -> Result<(RecordBatch, Vec<u32>), SnapshotError> {
    let there = not(typed_column(rows, REMOVED, &DataType::Boolean)?.as_boolean())?;
    let ids = ids.iter().zip(there.values()).filter(|(_, there)| *there).map(|(id, _)| *id).collect();
    Ok((filter_record_batch(rows, &there)?, ids))
}

/// A column in the type that is declared now.
fn migrated(rows: &RecordBatch, name: &str, data_type: &DataType) -> Result<ArrayRef, SnapshotError> {
    let found = column(rows, name)?;
    widened(found, data_type)?.ok_or_else(|| {
        let what = if name == "value" { "its values are" } else { "its keys are" };
        let from = found.data_type();
        SnapshotError::Misfit(format!(
            "{what} {from} in the checkpoint and {data_type} in the plugin: {from} cannot be turned into {data_type} without loss"
        ))
    })
}
