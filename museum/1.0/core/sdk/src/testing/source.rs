//! A source in a test.

use super::{TestHost, context};
use crate::{
    hosting::{PluginError, Polled, SourceEnumerator, SourceKind, SourceReader, SourceValidation, SplitPosition},
    wire::Discovery,
};
use arrow_array::RecordBatch;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A source with one reader and its enumerator. Made and opened at first use.
pub struct SourceHarness {
    /// What it told its host.
    pub host: Arc<TestHost>,
    kind: SourceKind,
    config: Value,
    running: Option<(SourceEnumerator, SourceReader)>,
    positions: BTreeMap<String, Vec<u8>>,
}

impl SourceHarness {
    pub(super) fn new(kind: SourceKind, config: Value) -> Self {
        Self { host: Arc::default(), kind, config, running: None, positions: BTreeMap::new() }
    }

    /// What the source declares, and everything that is wrong with its configuration.
    ///
    /// # Errors
    /// As the source says.
    pub fn validate(&self) -> Result<SourceValidation, PluginError> {
        self.kind.validate("node", &self.config)
    }

    /// Makes and opens the enumerator and the reader. The other methods do so if it has not been done.
    ///
    /// # Errors
    /// As the source says.
    pub fn open(&mut self) -> Result<(), PluginError> {
        self.running().map(|_| ())
    }

    fn running(&mut self) -> Result<&mut (SourceEnumerator, SourceReader), PluginError> {
        if let Some(ref mut running) = self.running {
            return Ok(running);
        }
        let mut enumerator = self.kind.enumerator(&self.config, &context(), self.host.clone())?;
        enumerator.open()?;
        let mut reader = self.kind.reader(&self.config, &context(), self.host.clone())?;
        reader.open()?;
        Ok(self.running.insert((enumerator, reader)))
    }

    /// The reader.
    ///
    /// # Errors
    /// As `open`.
    pub fn reader(&mut self) -> Result<&mut SourceReader, PluginError> {
        Ok(&mut self.running()?.1)
    }

    /// The enumerator.
    ///
    /// # Errors
    /// As `open`.
    pub fn enumerator(&mut self) -> Result<&mut SourceEnumerator, PluginError> {
        Ok(&mut self.running()?.0)
    }

    /// What the enumerator finds.
    ///
    /// # Errors
    /// As the enumerator says.
    pub fn discover(&mut self) -> Result<Discovery, PluginError> {
        self.enumerator()?.discover(Duration::ZERO)
    }

    /// Discovers, and assigns what is new, from the positions that were reached before a [`SourceHarness::restart`].
    ///
    /// # Errors
    /// As the source says.
    pub fn assign(&mut self) -> Result<Discovery, PluginError> {
        let found = self.discover()?;
        let split = |split: &crate::wire::SplitDescription| SplitPosition {
            split: split.split.clone(),
            details: split.details.clone(),
            position: self.positions.get(&split.split).cloned(),
        };
        let splits: Vec<_> = found.added.iter().map(split).collect();
        self.reader()?.assign(&splits)?;
        Ok(found)
    }

    /// One poll of at most that many rows; remembers the position.
    ///
    /// # Errors
    /// As the source says.
    pub fn poll(&mut self, max_rows: u32) -> Result<Polled, PluginError> {
        let polled = self.reader()?.poll(max_rows, u64::MAX, Duration::ZERO)?;
        if let Polled::Batch { split, position, .. } = &polled {
            self.positions.insert(split.clone(), position.clone());
        }
        Ok(polled)
    }

    /// Discovers, then reads until every split has ended, or until the source has been idle a thousand times in a row.
    ///
    /// # Errors
    /// As the source says.
    pub fn read_all(&mut self) -> Result<Vec<RecordBatch>, PluginError> {
        let mut open = self.assign()?.added.len();
        let (mut batches, mut idle) = (Vec::new(), 0);
        while open > 0 && idle < 1000 {
            match self.poll(1024)? {
                Polled::Batch { batch, .. } => {
                    idle = 0;
                    batches.push(batch);
                }
                Polled::EndOfSplit(_) => open -= 1,
                Polled::Idle => {
                    idle += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        Ok(batches)
    }

    /// Positions by split, after what was polled.
    #[must_use]
    pub const fn positions(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.positions
    }

    /// Drops enumerator and reader, as a failure would; the next use makes new ones, which go on from the positions reached.
    pub fn restart(&mut self) {
        self.running = None;
    }
}
