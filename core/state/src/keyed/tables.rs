//! Snapshot and restore of [`KeyedStates`]: a table `state.NAME` per declared state, and `timers`.
//!
//! `state.NAME` has a row per key with the column `value` (for a list: a list), for a map a row per entry with `map_key` and `value`; with a time to live also
//! `written` (timestamp). Its schema's metadata has the state's version. `timers` has `domain` (`event`, `processing`), `slot` and `time`.

use super::{KeyedStates, NEVER, Slot, Store};
use crate::key_group::KeyGroupRange;
use crate::snapshot::{SnapshotError, keyed_table, owned_rows, typed_column};
use crate::timers::DueTimer;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::{TimestampMicrosecondType, UInt32Type};
use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use std::collections::HashMap;
use std::sync::Arc;

const TIMERS: &str = "timers";
const STATE: &str = "state.";
const VERSION: &str = "standpipe.state.version";
const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

fn field(name: &str, data_type: DataType, nullable: bool) -> FieldRef {
    Arc::new(Field::new(name, data_type, nullable))
}

impl KeyedStates {
    /// All of it, as tables by name.
    ///
    /// # Errors
    /// When Arrow cannot build a table.
    pub fn snapshot(&self) -> Result<Vec<(String, RecordBatch)>, SnapshotError> {
        let mut tables = Vec::with_capacity(self.slots.len() + 1);
        for slot in &self.slots {
            tables.push((format!("{STATE}{}", slot.details.name), self.state_table(slot)?));
        }
        tables.push((TIMERS.to_owned(), self.timer_table()?));
        Ok(tables)
    }

    fn state_table(&self, slot: &Slot) -> Result<RecordBatch, SnapshotError> {
        let ids: Vec<u32> = (0..self.keys.len() as u32).filter(|id| slot.contains(*id)).collect();
        let (ids, mut columns) = match &slot.store {
            Store::Value(store) => {
                let values = store.get(&ids)?;
                (ids, vec![(field("value", values.data_type().clone(), true), values)])
            }
            Store::List(store) => {
                let values = store.get(&ids)?;
                (ids, vec![(field("value", values.data_type().clone(), true), values)])
            }
            Store::Map(store) => {
                let (entries, lengths) = store.all(&ids)?;
                let entries = entries.as_struct();
                let ids = ids.iter().zip(lengths).flat_map(|(id, length)| std::iter::repeat_n(*id, length)).collect();
                let column =
                    |at: usize, name: &str| (field(name, entries.column(at).data_type().clone(), true), entries.column(at).clone());
                (ids, vec![column(0, "map_key"), column(1, "value")])
            }
        };
        if let Some(expiry) = &slot.expiry {
            let written: TimestampMicrosecondArray =
                ids.iter().map(|id| expiry.written.get(*id as usize).copied().unwrap_or(NEVER)).collect::<Vec<_>>().into();
            columns.push((field("written", MICROS, false), Arc::new(written)));
        }
        let metadata = HashMap::from([(VERSION.to_owned(), slot.details.version.to_string())]);
        keyed_table(&self.keys, &self.key_schema.fields, &ids, self.max_parallelism, columns, metadata)
    }

    fn timer_table(&self) -> Result<RecordBatch, SnapshotError> {
        let event = self.event_timers.iter().map(|timer| ("event", timer));
        let timers: Vec<(&str, DueTimer)> = event.chain(self.processing_timers.iter().map(|timer| ("processing", timer))).collect();
        let ids: Vec<u32> = timers.iter().map(|(_, timer)| timer.id).collect();
        let domains: StringArray = timers.iter().map(|(domain, _)| Some(*domain)).collect();
        let slots: UInt32Array = timers.iter().map(|(_, timer)| timer.slot).collect();
        let times: TimestampMicrosecondArray = timers.iter().map(|(_, timer)| timer.time).collect::<Vec<_>>().into();
        let columns: Vec<(FieldRef, ArrayRef)> = vec![
            (field("domain", DataType::Utf8, false), Arc::new(domains)),
            (field("slot", DataType::UInt32, false), Arc::new(slots)),
            (field("time", MICROS, false), Arc::new(times)),
        ];
        keyed_table(&self.keys, &self.key_schema.fields, &ids, self.max_parallelism, columns, HashMap::new())
    }

    /// Adds the rows of a former subtask's tables whose key groups are in `owned`. Once per former subtask, before the first batch.
    ///
    /// # Errors
    /// When a table is of a state that is no longer declared, or of another type or version.
    pub fn restore(&mut self, tables: &[(String, RecordBatch)], owned: KeyGroupRange) -> Result<(), SnapshotError> {
        for (name, table) in tables {
            if name == TIMERS {
                self.restore_timers(table, owned)?;
            } else if let Some(state) = name.strip_prefix(STATE) {
                self.restore_state(state, table, owned).map_err(|error| error.of(&format!("state {state:?}")))?;
            }
        }
        Ok(())
    }

    fn restore_state(&mut self, name: &str, table: &RecordBatch, owned: KeyGroupRange) -> Result<(), SnapshotError> {
        let Some(at) = self.slots.iter().position(|slot| slot.details.name == name) else {
            return Err(SnapshotError::Misfit("the transform no longer declares it".to_owned()));
        };
        let (rows, keys) = owned_rows(table, &self.key_schema.fields, self.max_parallelism, owned)?;
        let mut ids = Vec::new();
        self.keys.intern(&keys, &mut ids)?;
        let slot = &mut self.slots[at];
        let version = table.schema_ref().metadata().get(VERSION).cloned().unwrap_or_default();
        if version != slot.details.version.to_string() {
            let message = format!("it has version {version} there and {} here; there is no migration", slot.details.version);
            return Err(SnapshotError::Misfit(message));
        }
        match &mut slot.store {
            Store::Value(store) => store.set(&ids, typed_column(&rows, "value", slot.field.data_type())?)?,
            Store::List(store) => {
                let lists = typed_column(&rows, "value", &DataType::List(slot.field.clone()))?.as_list::<i32>();
                let lengths = lists.offsets().lengths().enumerate();
                let ids: Vec<u32> = lengths.flat_map(|(row, length)| std::iter::repeat_n(ids[row], length)).collect();
                let (first, last) = (lists.offsets()[0] as usize, lists.offsets()[lists.len()] as usize);
                store.append(&ids, &lists.values().slice(first, last - first))?;
            }
            Store::Map(store) => {
                let entry = store.entry().clone();
                let (map_keys, values) =
                    (typed_column(&rows, "map_key", entry[0].data_type())?, typed_column(&rows, "value", entry[1].data_type())?);
                store.put(&ids, map_keys, values)?;
            }
        }
        if slot.expiry.is_some() {
            let written = typed_column(&rows, "written", &MICROS)?.as_primitive::<TimestampMicrosecondType>();
            ids.iter().zip(written.values()).for_each(|(id, written)| slot.written(std::iter::once(*id), *written));
        }
        slot.commit();
        Ok(())
    }

    fn restore_timers(&mut self, table: &RecordBatch, owned: KeyGroupRange) -> Result<(), SnapshotError> {
        let (rows, keys) = owned_rows(table, &self.key_schema.fields, self.max_parallelism, owned)?;
        let mut ids = Vec::new();
        self.keys.intern(&keys, &mut ids)?;
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
