//! Access to keyed state, which lies in the host: by a plugin, through the host's table, and by the host itself, in the same state.

use super::{Once, nanoseconds, opened, transforms};
use anyhow::{Result, anyhow};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field};
use standpipe_loader::{Catalogue, KeyedCall, KeyedState, LentColumn, wire};
use standpipe_state::{EncodedKeys, KeyedStates};
use std::sync::Arc;

/// Keys of a batch.
const KEYS: usize = 100;

/// A batch with its keys, and the state behind them.
struct Sample {
    batch: RecordBatch,
    keys: RecordBatch,
    key_of_row: Vec<u32>,
    states: KeyedStates,
    ids: Vec<u32>,
}

impl Sample {
    fn new(rows: usize, data_type: DataType) -> Result<Self> {
        let names = |count: usize| Arc::new(StringArray::from_iter_values((0..count).map(|row| format!("key {}", row % KEYS)))) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("key", names(rows))])?;
        let keys = RecordBatch::try_from_iter([("key", names(KEYS.min(rows)))])?;
        let details = wire::StateDetails { name: "state".to_owned(), kind: wire::StateKind::Value, version: 0, time_to_live_ms: None };
        let field = Arc::new(Field::new("item", data_type, true));
        let mut states = KeyedStates::new(keys.schema().fields().clone(), &[(details, field)], 128)?;
        let (mut encoded, mut ids) = (EncodedKeys::new(), Vec::new());
        encoded.encode(keys.columns(), keys.num_rows())?;
        states.intern(&encoded, &mut ids)?;
        let key_of_row = (0..rows).map(|row| (row % KEYS) as u32).collect();
        Ok(Self { batch, keys, key_of_row, states, ids })
    }

    /// What the host does in the place of the plugin.
    fn by_the_host(&mut self, what: What) -> Result<()> {
        let mut call = self.states.call(&self.ids, 0)?;
        match what {
            What::Numbers => {
                let mut column = LentColumn::new(8, self.ids.len());
                call.gather(0, &mut column).map_err(|error| anyhow!("{error:?}"))?;
                for key in &self.key_of_row {
                    let place = *key as usize * 8;
                    if let Some(number) = column.bytes_mut().get_mut(place..).and_then(|bytes| bytes.first_chunk_mut()) {
                        *number = (i64::from_le_bytes(*number) + 1).to_le_bytes();
                    }
                    column.validity[*key as usize] = 1;
                    column.dirty[*key as usize] = 1;
                }
                call.scatter(0, &column).map_err(|error| anyhow!("{error:?}"))?;
            }
            What::Texts => {
                let ordinals: Vec<u32> = (0..self.ids.len() as u32).collect();
                let texts = call.value_get(0, &ordinals).map_err(|error| anyhow!("{error:?}"))?;
                call.value_set(0, &ordinals, transforms::longer(&texts)).map_err(|error| anyhow!("{error:?}"))?;
            }
        }
        call.commit();
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum What {
    /// Of fixed width: a column is lent for the call.
    Numbers,
    /// Read and written as arrays.
    Texts,
}

pub(super) fn run(file: &Catalogue) -> Result<()> {
    println!("A call that reads and writes the state of each of {KEYS} keys, the batch's crossing included:\n");
    println!("| state | rows | by the host, ns | by a plugin, ns | added, ns a row | plugin / host |");
    println!("|---|---|---|---|---|---|");
    for (shown, name, what, data_type) in [
        ("a number, a column lent", "calls-numbers", What::Numbers, DataType::Int64),
        ("a text, read and written", "calls-texts", What::Texts, DataType::Utf8),
    ] {
        for rows in [1_000, 8_192] {
            let mut own = Sample::new(rows, data_type.clone())?;
            let mut its = Sample::new(rows, data_type.clone())?;
            let mut instance = opened(file, name, &its.batch, &["key"])?;
            let variants: [Once<'_>; 2] = [
                Box::new(|| own.by_the_host(what)),
                Box::new(|| {
                    let mut call = its.states.call(&its.ids, 0)?;
                    let keyed = KeyedCall { key_of_row: &its.key_of_row, keys: &its.keys, state: &mut call };
                    instance.process(0, &its.batch, Some(keyed))?;
                    call.commit();
                    Ok(())
                }),
            ];
            let [host, plugin] = nanoseconds(variants)?;
            let added = (plugin - host) / rows as f64;
            println!("| {shown} | {rows} | {host:.0} | {plugin:.0} | {added:.2} | {:.2} |", plugin / host);
        }
    }
    println!();
    Ok(())
}
