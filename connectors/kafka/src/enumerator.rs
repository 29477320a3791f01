//! Finds the partitions of the topics. It decides, once for the job, where a partition starts (`start`) and ends (`bounded`), and remembers both in its snapshot, so
//! that a restart neither skips nor adds records. Called by the host on a thread of its own; the splits it finds go to the readers in `source`.

use crate::{
    client::{self, Callbacks, Role},
    cluster::{self, Asker},
    config::{MissingPosition, SourceConfig, Start},
    split::Partition,
    values::StartTime,
};
use rdkafka::{
    Offset,
    consumer::{BaseConsumer, Consumer},
};
use standpipe_sdk::{
    Context, Enumerator, Error, Result,
    source::{Discovery, SplitDescription},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long a sleeping enumerator takes to notice that the host cancels.
const NAP: Duration = Duration::from_millis(100);

/// The enumerator of the Kafka source.
pub struct KafkaEnumerator {
    config: SourceConfig,
    context: Context,
    consumer: BaseConsumer<Callbacks>,
    /// By split id.
    known: BTreeMap<String, Partition>,
    /// Whether this goes on from an earlier start of the job.
    restored: bool,
    /// When to look again; `None`: nothing has been discovered yet.
    next: Option<Instant>,
    /// Why the last look failed, as the host was told.
    trouble: Option<String>,
}

impl KafkaEnumerator {
    /// The partitions of all topics now.
    fn partitions(&self) -> Result<Vec<Partition>> {
        let callbacks = self.consumer.context();
        let asker = Asker {
            client: self.consumer.client(),
            callbacks,
            serve: &|| while self.consumer.poll(Duration::ZERO).is_some() {},
            bootstrap: &self.config.bootstrap,
            deadline: Instant::now() + self.config.connect_timeout.0,
        };
        let mut found = Vec::new();
        for topic in self.config.topics() {
            let count = asker.partitions(topic)?;
            found.extend((0..count).map(|partition| Partition { topic: topic.to_owned(), partition, start: None, end: None }));
        }
        Ok(found)
    }

    /// Remembers the partitions that are new, with their start and end, and gives their ids.
    fn learn(&mut self, found: Vec<Partition>, first: bool) -> Result<Vec<String>> {
        let mut new: Vec<Partition> = found.into_iter().filter(|partition| !self.known.contains_key(&partition.id())).collect();
        // A partition that was added after the job's first start is read from its oldest record, whatever `start` says: it was not there before.
        let start = if first && !self.restored { self.config.start } else { Start::Earliest };
        let names: Vec<(&str, i32)> = new.iter().map(|one| (one.topic.as_str(), one.partition)).collect();
        let ask = |which| cluster::offsets(&self.consumer, &names, which, self.config.connect_timeout.0);
        if start != Start::Earliest || self.config.bounded {
            let ends = ask(Offset::End)?;
            let starts = match start {
                // An empty partition is at its end at once, without a fetch that waits for records.
                Start::Earliest => {
                    ask(Offset::Beginning)?.into_iter().zip(&ends).map(|(start, end)| (start >= *end).then_some(*end)).collect()
                }
                Start::Latest => ends.iter().copied().map(Some).collect(),
                Start::Timestamp(time) => self.since(&names, time, &ends)?,
                Start::Group => self.stored(&names, &ends)?,
            };
            for (partition, (start, end)) in new.iter_mut().zip(starts.into_iter().zip(ends)) {
                partition.start = start;
                partition.end = self.config.bounded.then_some(end);
            }
        }
        let ids = new.iter().map(Partition::id).collect();
        self.known.extend(new.into_iter().map(|partition| (partition.id(), partition)));
        Ok(ids)
    }

    /// The first record that is not older; the end, where all are.
    fn since(&self, names: &[(&str, i32)], time: StartTime, ends: &[i64]) -> Result<Vec<Option<i64>>> {
        let found = cluster::offsets_at(&self.consumer, names, Offset::Offset(time.0), self.config.connect_timeout.0)?;
        Ok(found.into_iter().zip(ends).map(|(start, end)| start.or(Some(*end))).collect())
    }

    /// Where the group stands.
    fn stored(&self, names: &[(&str, i32)], ends: &[i64]) -> Result<Vec<Option<i64>>> {
        let found = cluster::committed(&self.consumer, names, Instant::now() + self.config.connect_timeout.0)?;
        let start = |((stored, (topic, partition)), end): ((Option<i64>, &(&str, i32)), &i64)| match (stored, self.config.missing_position)
        {
            (Some(stored), _) => Ok(Some(stored)),
            (None, None | Some(MissingPosition::Earliest)) => Ok(None),
            (None, Some(MissingPosition::Latest)) => Ok(Some(*end)),
            (None, Some(MissingPosition::Fail)) => {
                let group = self.config.group.as_deref().unwrap_or_default();
                Err(Error::external(format!(
                    "the group {group:?} has no position in {topic}-{partition} (`missing_position` can say where to begin)"
                )))
            }
        };
        found.into_iter().zip(names).zip(ends).map(start).collect()
    }

    fn describe(&self, ids: impl IntoIterator<Item = String>) -> Result<Vec<SplitDescription>> {
        let known = ids.into_iter().filter_map(|id| self.known.get(&id).map(|partition| (id, partition)));
        known.map(|(split, partition)| Ok(SplitDescription { split, details: serde_json::to_string(partition)? })).collect()
    }

    /// Sleeps until it is time to look again, for `wait` at most; whether it is time.
    fn rest(&self, next: Instant, wait: Duration) -> bool {
        let until = next.min(Instant::now() + wait);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.context.host.cancelled() {
                return Instant::now() >= next;
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}

impl Enumerator for KafkaEnumerator {
    type Config = SourceConfig;

    fn open(config: SourceConfig, context: Context) -> Result<Self> {
        let mut settings = client::settings(Role::Consumer, &config.bootstrap, &config.properties);
        if let Some(group) = config.group.as_ref().filter(|_| config.start == Start::Group) {
            settings.set("group.id", group);
        }
        let consumer = settings
            .create_with_context(Callbacks::new(context.host.clone(), config.oauth_token.clone()))
            .map_err(|error| client::creation_error(&error))?;
        let enumerator = Self { config, context, consumer, known: BTreeMap::new(), restored: false, next: None, trouble: None };
        enumerator.partitions()?;
        Ok(enumerator)
    }

    fn discover(&mut self, wait: Duration) -> Result<Discovery> {
        let interval = self.config.discovery_interval.0;
        let Some(next) = self.next else {
            // A bounded source ends where the job's first start found the ends: a partition that is newer is no part of it.
            if !(self.restored && self.config.bounded) {
                let found = self.partitions()?;
                self.learn(found, true)?;
            }
            self.next = Some(Instant::now() + interval);
            // Those of the snapshot too: the host knows them by their ids.
            return Ok(Discovery {
                added: self.describe(self.known.keys().cloned())?,
                removed: Vec::new(),
                exhausted: self.config.bounded,
            });
        };
        if self.config.bounded || !self.rest(next, wait) {
            return Ok(Discovery { exhausted: self.config.bounded, ..Discovery::default() });
        }
        self.next = Some(Instant::now() + interval);
        // Unreachable later is no failure: the next look may find more.
        let new = match self.partitions().and_then(|found| self.learn(found, false)) {
            Ok(new) => {
                self.trouble = None;
                new
            }
            Err(error) => {
                // Once for a reason, not at every look.
                if self.trouble.as_ref() != Some(&error.message) {
                    self.context.host.warn("cannot look for new partitions", &[("reason", error.message.clone().into())]);
                    self.trouble = Some(error.message);
                }
                Vec::new()
            }
        };
        if !new.is_empty() {
            self.context.host.info("new partitions", &[("splits", new.clone().into())]);
        }
        Ok(Discovery { added: self.describe(new)?, ..Discovery::default() })
    }

    fn snapshot(&mut self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(&self.known)?)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<()> {
        if !snapshot.is_empty() {
            self.known = serde_json::from_slice(snapshot).map_err(|error| Error::data(format!("the enumerator's snapshot: {error}")))?;
            self.restored = true;
        }
        Ok(())
    }
}
