//! The job's end of looks at its rows: a tap of the engine for each one who looks, and what has passed it as an Arrow stream.

use super::{Answer, Look, Rows};
use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use base64::{Engine, prelude::BASE64_STANDARD};
use standpipe_engine::{JobControl, Keep, Tap, TapError, Tapped};
use standpipe_pipeline::{Plan, plan::Operator};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The longest `wait`.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Bytes of an answer, about: what is beyond is passed over.
const MOST_BYTES: usize = 8 << 20;
/// Bytes of an answer, surely.
const LONGEST: usize = 11 << 20;

/// Somebody who looks.
struct Open {
    node: String,
    newest: bool,
    tap: Arc<Tap>,
}

/// Those who look at a job of this process.
pub(crate) struct Taps {
    control: JobControl,
    bounded: bool,
    open: Mutex<BTreeMap<String, Open>>,
}

impl Taps {
    pub(crate) fn new(control: JobControl, plan: &Plan) -> Self {
        Self { control, bounded: is_bounded(plan), open: Mutex::default() }
    }

    /// Answers a look.
    pub(crate) fn answer(&self, look: &Look) -> Answer {
        if look.rows == 0 {
            drop(self.open().remove(&look.tap));
            return Answer::Rows(Rows { bounded: self.bounded, ..Rows::default() });
        }
        let most = usize::try_from(look.rows).unwrap_or(usize::MAX);
        let shown = self.tap(look, most).and_then(|(tap, opened)| {
            let tapped = tap.take(most, Duration::from_millis(look.wait).min(LONGEST_WAIT));
            self.rows(&tap, tapped).map(|rows| Rows { opened, ..rows }).map_err(Answer::Refused)
        });
        shown.map_or_else(|refused| refused, Answer::Rows)
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Open>> {
        // What is in it holds also after a panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tap of a look, and whether it was opened for it.
    fn tap(&self, look: &Look, rows: usize) -> Result<(Arc<Tap>, bool), Answer> {
        let mut open = self.open();
        open.retain(|_, open| !open.tap.is_closed());
        if let Some(found) = open.get(&look.tap) {
            if found.node != look.node {
                return Err(Answer::Refused(format!("this tap looks at {:?}: for another node choose another", found.node)));
            }
            if found.newest != look.newest {
                return Err(Answer::Refused(
                    "this tap looks at newest rows or at all, as it began: for the other choose another".to_owned(),
                ));
            }
            return Ok((Arc::clone(&found.tap), false));
        }
        let tap = self.control.tap(&look.node, Keep { rows, newest: look.newest }).map_err(|error| match error {
            TapError::Many => Answer::Busy(error.to_string()),
            _ => Answer::Refused(error.to_string()),
        })?;
        let tap = Arc::new(tap);
        open.insert(look.tap.clone(), Open { node: look.node.clone(), newest: look.newest, tap: Arc::clone(&tap) });
        Ok((tap, true))
    }

    fn rows(&self, tap: &Tap, tapped: Tapped) -> Result<Rows, String> {
        let mut writer = StreamWriter::try_new(Vec::new(), tap.schema()).map_err(failed)?;
        let (mut dropped, mut bytes) = (tapped.dropped, 0);
        for batch in &tapped.batches {
            let part = beginning(batch, MOST_BYTES - bytes);
            dropped += (batch.num_rows() - part.num_rows()) as u64;
            if part.num_rows() > 0 {
                bytes = (bytes + size(&part)).min(MOST_BYTES);
                // Of a plugin's batch the plan's columns, whatever it says of them besides.
                let part = RecordBatch::try_new(Arc::clone(tap.schema()), part.columns().to_vec()).map_err(failed)?;
                writer.write(&part).map_err(failed)?;
            }
        }
        let stream = writer.into_inner().map_err(failed)?;
        if stream.len() > LONGEST {
            return Err("the rows are too large to be shown".to_owned());
        }
        Ok(Rows { stream: BASE64_STANDARD.encode(stream), dropped, opened: false, ended: tapped.ended, bounded: self.bounded })
    }
}

fn failed(error: impl std::fmt::Display) -> String {
    format!("the rows cannot be shown: {error}")
}

/// Whether all sources end.
pub(crate) fn is_bounded(plan: &Plan) -> bool {
    plan.nodes.iter().all(|node| match &node.operator {
        Operator::Source(source) => source.validation.details.capabilities.bounded,
        _ => true,
    })
}

/// Bytes of its rows alone, about.
fn size(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())).sum()
}

/// As many of the first rows as there is room for.
fn beginning(batch: &RecordBatch, room: usize) -> RecordBatch {
    let bytes = size(batch);
    if bytes <= room {
        return batch.clone();
    }
    let rows = (batch.num_rows() as u128 * room as u128 / bytes as u128) as usize;
    batch.slice(0, rows.min(batch.num_rows()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{ArrayRef, StringArray};

    #[test]
    fn what_is_too_large_is_cut_by_rows() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1000); 100]));
        let batch = RecordBatch::try_from_iter([("text", texts)]).unwrap();
        assert_eq!(beginning(&batch, 1 << 20).num_rows(), 100);
        let part = beginning(&batch, 50_500);
        assert!((40..=50).contains(&part.num_rows()) && size(&part) <= 50_500, "{} rows", part.num_rows());
        assert_eq!(beginning(&batch, 10).num_rows(), 0);
    }
}
