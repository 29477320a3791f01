//! An aligned source's part (`max_drift:`): it keeps what its reader has given of splits that are too far ahead of the group, so that nothing of them goes on, and has the
//! reader pause them. So a split is ahead of what the group has reached by `max_drift` and one batch at most, however much was read ahead of it.
//! `dataflow::source` asks it for what comes next, and settles with it after each turn.

use crate::{
    operator::{Micros, NO_WATERMARK},
    runtime::{
        alignment::Member,
        metrics::Drift,
        reader::{ReaderCommand, ReaderEvent},
    },
    watermark::SplitWatermarks,
};
use crossbeam_channel::{Receiver, Sender};
use hashbrown::HashSet;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

/// See the module's documentation.
pub(crate) struct Aligned {
    member: Member,
    reader: Sender<ReaderCommand>,
    /// The splits that the reader was told to pause.
    told: HashSet<Arc<str>>,
    held: Held,
    /// All goes on, however far it is ahead: the job stops.
    free: bool,
}

impl Aligned {
    pub(crate) fn new(member: Member, reader: Sender<ReaderCommand>) -> Self {
        Self { member, reader, told: HashSet::new(), held: Held::default(), free: false }
    }

    /// Nothing is held back any more.
    pub(crate) const fn free(&mut self) {
        self.free = true;
    }

    fn limit(&self) -> Micros {
        if self.free { Micros::MAX } else { self.member.limit() }
    }

    /// What the source is to take next: what was kept and may go on, else what the reader gives, but for that which is too far ahead.
    pub(crate) fn next(&mut self, splits: &mut SplitWatermarks, events: &Receiver<ReaderEvent>) -> Option<ReaderEvent> {
        let limit = self.limit();
        if let Some(event) = self.held.take(|split| splits.time_in(split), limit) {
            return Some(event);
        }
        while let Ok(event) = events.try_recv() {
            if let ReaderEvent::Rows { batch, origin, .. } = &event
                && batch.num_rows() > 0
                && splits.time_in(&origin.split) > limit
            {
                // It is no longer idle if it was, since it has something.
                splits.pause(&origin.split);
                self.held.keep(Arc::clone(&origin.split), event);
            } else if let Some(event) = self.held.pass(event) {
                return Some(event);
            }
        }
        self.held.end()
    }

    /// Says how far this subtask is (`None`: nobody is to wait for it), and has the reader pause and resume what follows from how far the group is. True: there is more to take already.
    pub(crate) fn settle(&mut self, splits: &mut SplitWatermarks, time: Option<Micros>, now: Instant) -> bool {
        self.member.says(time);
        let limit = self.limit();
        let near = |(split, time): (&Arc<str>, Micros)| (time <= limit && !self.held.has(split)).then(|| Arc::clone(split));
        let near: Vec<Arc<str>> = splits.paused().filter_map(near).collect();
        near.iter().for_each(|split| splits.resume(split, now));
        splits.ahead(limit, now).iter().for_each(|split| splits.pause(split));
        self.tell(splits);
        self.member.wait_for(splits.paused().map(|(_, time)| time).min())
    }

    /// Tells the reader what is news to it. One that has ended does not hear it.
    fn tell(&mut self, splits: &SplitWatermarks) {
        let paused: HashSet<Arc<str>> = splits.paused().map(|(split, _)| Arc::clone(split)).collect();
        if paused == self.told {
            return;
        }
        let resume: Vec<Arc<str>> = self.told.difference(&paused).cloned().collect();
        let pause: Vec<Arc<str>> = paused.difference(&self.told).cloned().collect();
        self.told = paused;
        drop(self.reader.send(ReaderCommand::Align { pause, resume }));
    }

    /// Nothing comes any more: nobody is to wait for this subtask.
    pub(crate) fn ended(&self) {
        self.member.says(None);
        self.member.wait_for(None);
    }

    /// How it stands.
    pub(crate) fn drift(&self, splits: &SplitWatermarks) -> Drift {
        let (reached, furthest) = (self.member.reached(), splits.furthest().unwrap_or(NO_WATERMARK));
        let known = reached != NO_WATERMARK && furthest != NO_WATERMARK;
        Drift { paused: self.told.len() as u64, ahead: if known { furthest.saturating_sub(reached).max(0) } else { 0 } }
    }
}

/// What a reader has given and is to go on later: of each split in its order, and of all the end last.
#[derive(Default)]
struct Held {
    splits: BTreeMap<Arc<str>, VecDeque<ReaderEvent>>,
    /// [`ReaderEvent::End`]'s `complete`.
    end: Option<bool>,
}

impl Held {
    fn has(&self, split: &str) -> bool {
        self.splits.contains_key(split)
    }

    fn keep(&mut self, split: Arc<str>, event: ReaderEvent) {
        self.splits.entry(split).or_default().push_back(event);
    }

    /// The next of the split that is furthest behind, if that may go on.
    fn take(&mut self, time_in: impl Fn(&str) -> Micros, limit: Micros) -> Option<ReaderEvent> {
        let split = self.splits.keys().min_by_key(|split| time_in(split)).filter(|split| time_in(split) <= limit)?;
        let split = Arc::clone(split);
        let events = self.splits.get_mut(&split)?;
        let event = events.pop_front();
        if events.is_empty() {
            self.splits.remove(&split);
        }
        event
    }

    /// What may pass of an event that is not too far ahead itself: nothing that is behind what is held of its split.
    fn pass(&mut self, event: ReaderEvent) -> Option<ReaderEvent> {
        if self.splits.is_empty() {
            return Some(event);
        }
        match event {
            ReaderEvent::Rows { ref origin, .. } if self.has(&origin.split) => self.keep(Arc::clone(&origin.split), event),
            ReaderEvent::EndOfSplit(ref split) if self.has(split) => self.keep(Arc::clone(split), event),
            ReaderEvent::Removed(splits) => {
                let (behind, rest): (Vec<_>, Vec<_>) = splits.into_iter().partition(|split| self.has(split));
                behind.into_iter().for_each(|split| self.keep(Arc::clone(&split), ReaderEvent::Removed(vec![split])));
                return Some(ReaderEvent::Removed(rest));
            }
            ReaderEvent::Assigned(splits) => {
                let (behind, rest): (Vec<_>, Vec<_>) = splits.into_iter().partition(|split| self.has(&split.split));
                behind.into_iter().for_each(|split| self.keep(Arc::clone(&split.split), ReaderEvent::Assigned(vec![split])));
                return Some(ReaderEvent::Assigned(rest));
            }
            ReaderEvent::End { complete } => self.end = Some(complete),
            event => return Some(event),
        }
        None
    }

    /// The end, when nothing is held any more.
    fn end(&mut self) -> Option<ReaderEvent> {
        let complete = self.end.take_if(|_| self.splits.is_empty())?;
        Some(ReaderEvent::End { complete })
    }
}

#[cfg(test)]
mod tests;
