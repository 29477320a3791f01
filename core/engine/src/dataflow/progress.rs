//! How far a source's subtask has come in each of its splits, as its operator has taken it: what it reports to a checkpoint. The reader's thread is ahead of it by what
//! waits in the queue between them.

use crate::{
    operator::OperatorError,
    runtime::checkpoints::{
        Report,
        splits::{self, ReadSplit},
    },
    watermark::SplitWatermarks,
};
use std::{collections::BTreeMap, sync::Arc};

/// The position after the last row that was taken; `None`: none was.
type Position = Option<Arc<[u8]>>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// By split.
    reading: BTreeMap<Arc<str>, Position>,
    ended: Vec<Arc<str>>,
    /// The last positions of splits that have ended since the last report.
    left: Vec<(Arc<str>, Position)>,
    /// Its output has ended before its splits had, as a stop with draining wants it.
    drained: bool,
}

impl Progress {
    pub(crate) fn assigned(&mut self, splits: &[ReadSplit]) {
        self.reading.extend(splits.iter().map(|split| (Arc::clone(&split.split), split.position.clone())));
    }

    /// Everything of the split up to that position has been taken.
    pub(crate) fn taken(&mut self, split: &str, upto: &Arc<[u8]>) {
        if let Some(position) = self.reading.get_mut(split) {
            *position = Some(Arc::clone(upto));
        }
    }

    pub(crate) fn ended(&mut self, split: Arc<str>) {
        if let Some(position) = self.reading.remove(&split) {
            self.left.push((Arc::clone(&split), position));
        }
        self.ended.push(split);
    }

    pub(crate) const fn drained(&mut self) {
        self.drained = true;
    }

    /// It is not this subtask's any more, and is forgotten.
    pub(crate) fn removed(&mut self, split: &str) {
        self.reading.remove(split);
    }

    /// What a checkpoint holds of it.
    ///
    /// # Errors
    /// When Arrow refuses.
    pub(crate) fn report(&mut self, node: &str, watermarks: &SplitWatermarks) -> Result<Report, OperatorError> {
        let reading = self.reading.iter().map(|(split, position)| ReadSplit {
            split: Arc::clone(split),
            position: position.clone(),
            watermark: watermarks.time_of(split),
            ended: false,
        });
        let ended = self.ended.iter().map(|split| ReadSplit {
            split: Arc::clone(split),
            position: None,
            watermark: crate::operator::NO_WATERMARK,
            ended: true,
        });
        let splits: Vec<ReadSplit> = reading.chain(ended).collect();
        let table = splits::read_table(&splits).map_err(|source| OperatorError::Arrow { node: node.to_owned(), source })?;
        let at = |(split, position): (&Arc<str>, &Position)| Some((split.to_string(), position.as_deref()?.to_vec()));
        let left = std::mem::take(&mut self.left);
        let positions = left.iter().map(|(split, position)| (split, position)).chain(&self.reading).filter_map(at).collect();
        Ok(Report { tables: vec![(splits::SPLITS.to_owned(), table)], rest: None, positions, drained: self.drained })
    }
}
