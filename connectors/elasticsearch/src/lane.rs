//! A queue of items with one request under way at most. All items of an id are in one lane, in order; what must be sent again goes back to the front: so no write of a
//! document overtakes an earlier one. Where a later write of an id does not make up for an earlier one (`create`, `update`), a request has one item of it: a second one could be taken though the first was not. Items that stay refused (a blocked index) go along with newer ones until they fill a request; then the lane waits for them, as
//! the acknowledgements do anyway. Owned by `sender`.

use crate::{
    bulk::{Items, TARGET},
    progress::Permit,
    response::{Fate, Fault},
};
use bytes::Bytes;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};
use tokio::time::Instant;

/// The items of a batch that belong to a lane.
pub(crate) struct Chunk {
    pub(crate) seq: u64,
    pub(crate) items: Items,
    pub(crate) arrived: Instant,
    /// Room in the buffer until the last item is done.
    pub(crate) _permit: Permit,
}

impl Chunk {
    fn start(&self, item: usize) -> usize {
        if item == 0 { 0 } else { self.items.ends[item - 1] }
    }

    fn bytes(&self, from: usize, to: usize) -> &[u8] {
        &self.items.bytes[self.start(from)..self.start(to)]
    }

    /// The index and id of an action line, up to its end: what two items of a document have in common, whatever they do.
    pub(crate) fn target(&self, item: usize) -> &[u8] {
        let bytes = self.bytes(item, item + 1);
        let line = &bytes[..bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len())];
        let start = line.windows(TARGET.len()).position(|window| window == TARGET).unwrap_or(0);
        &line[start..]
    }

    /// The row of an item.
    pub(crate) fn row(&self, item: usize) -> u32 {
        self.items.rows[item]
    }
}

/// Items of a chunk that follow each other.
#[derive(Clone)]
struct Run {
    chunk: Arc<Chunk>,
    from: usize,
    to: usize,
}

/// What is sent at once.
pub(crate) struct Request {
    runs: Vec<Run>,
    pub(crate) docs: usize,
    pub(crate) body: Bytes,
}

/// An item of a request.
pub(crate) struct Place {
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) item: usize,
}

/// What an answer means for the items of a request.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Rows that are delivered, by batch.
    pub(crate) ok: Vec<(u64, usize)>,
    pub(crate) rejected: Vec<(Place, Box<Fault>)>,
    /// Items that are back in the queue, those answered 429 among them, and why one of them is.
    pub(crate) retried: usize,
    pub(crate) busy: usize,
    pub(crate) cause: Option<Box<Fault>>,
}

/// A queue.
#[derive(Default)]
pub(crate) struct Lane {
    pending: VecDeque<Run>,
    docs: usize,
    bytes: usize,
    pub(crate) is_sending: bool,
    /// Nothing is sent before.
    pub(crate) paused_until: Option<Instant>,
    /// Requests in a row of which no item was done.
    pub(crate) attempt: u32,
    /// Requests in a row after which something was sent again for another reason than 429.
    pub(crate) troubled: u32,
    /// The size of the next request after one that could not be read.
    split: Option<usize>,
    /// A request has one item of an id at most.
    one_per_id: bool,
    hasher: RandomState,
}

impl Lane {
    pub(crate) fn new(one_per_id: bool) -> Self {
        Self { one_per_id, ..Self::default() }
    }

    pub(crate) fn push(&mut self, chunk: Chunk) {
        let (to, bytes) = (chunk.items.ends.len(), chunk.items.bytes.len());
        if to > 0 {
            self.pending.push_back(Run { chunk: Arc::new(chunk), from: 0, to });
            self.docs += to;
            self.bytes += bytes;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && !self.is_sending
    }

    /// When the lane may send next: at once if there is enough, or hurry; else when its first item is old enough. `None`: not on its own.
    pub(crate) fn due(&self, limit: Limit, hurry: bool) -> Option<Instant> {
        let first = self.pending.front().filter(|_| !self.is_sending)?;
        let is_full = self.docs >= limit.docs || self.bytes >= limit.bytes;
        let due = if hurry || is_full { first.chunk.arrived } else { first.chunk.arrived + limit.age };
        Some(self.paused_until.map_or(due, |paused| paused.max(due)))
    }

    /// The next request.
    pub(crate) fn take(&mut self, limit: Limit) -> Request {
        let max_docs = self.split.map_or(limit.docs, |split| split.min(limit.docs)).max(1);
        let (mut runs, mut docs, mut bytes) = (Vec::<Run>::new(), 0, 0);
        // Of hashes: two ids that share one are sent after each other, as if they were one.
        let mut targets = HashSet::new();
        while let Some(run) = self.pending.pop_front() {
            let mut to = run.from;
            while to < run.to && docs < max_docs {
                let size = run.chunk.bytes(to, to + 1).len();
                if docs > 0 && bytes + size > limit.bytes {
                    break;
                }
                if self.one_per_id && !targets.insert(self.hasher.hash_one(run.chunk.target(to))) {
                    break;
                }
                (docs, bytes, to) = (docs + 1, bytes + size, to + 1);
            }
            let is_whole = to == run.to;
            if to < run.to {
                self.pending.push_front(Run { from: to, ..run.clone() });
            }
            if to > run.from {
                runs.push(Run { to, ..run });
            }
            if !is_whole || docs == max_docs {
                break;
            }
        }
        self.docs -= docs;
        self.bytes -= bytes;
        let mut body = Vec::with_capacity(bytes);
        for run in &runs {
            body.extend_from_slice(run.chunk.bytes(run.from, run.to));
        }
        self.is_sending = true;
        self.paused_until = None;
        Request { runs, docs, body: body.into() }
    }

    /// The request as a whole is to be sent again.
    pub(crate) fn put_back(&mut self, request: Request) {
        self.is_sending = false;
        self.requeue(request.runs);
    }

    /// The request could not be read: it is sent again in halves, until a single item is found that is to blame, which is given back.
    pub(crate) fn halve(&mut self, request: Request) -> Option<Place> {
        self.is_sending = false;
        if let ([run], 1) = (request.runs.as_slice(), request.docs) {
            return Some(Place { chunk: Arc::clone(&run.chunk), item: run.from });
        }
        self.split = Some(request.docs / 2);
        self.requeue(request.runs);
        None
    }

    /// The request was read: sorts its items out. `full` is the size of a request at most, `last_wins` whether a later item of an id makes up for an earlier one.
    pub(crate) fn settle(&mut self, request: Request, fates: Vec<Fate>, full: usize, last_wins: bool) -> Outcome {
        self.is_sending = false;
        self.split = self.split.map(|split| split * 2).filter(|split| *split < full);
        let mut outcome = Outcome::default();
        let places = || request.runs.iter().flat_map(|run| (run.from..run.to).map(move |item| (run, item)));
        // A later write of the same document that was taken makes an earlier one that was not needless, and sending it now would undo the later one.
        let mut overtaken = HashMap::new();
        if last_wins && fates.iter().any(|fate| matches!(fate, Fate::Retry(_))) {
            let done = places().zip(&fates).enumerate().filter(|(_, (_, fate))| **fate == Fate::Done);
            overtaken.extend(done.map(|(number, ((run, item), _))| (run.chunk.target(item), number)));
        }
        let mut again: Vec<Run> = Vec::new();
        for (number, ((run, item), fate)) in places().zip(fates).enumerate() {
            let seq = run.chunk.seq;
            match fate {
                Fate::Retry(fault) if overtaken.get(run.chunk.target(item)).is_none_or(|later| *later < number) => {
                    outcome.retried += 1;
                    outcome.busy += usize::from(fault.is_busy());
                    outcome.cause = outcome.cause.filter(|cause| !cause.is_busy()).or(Some(fault));
                    match again.last_mut().filter(|last| Arc::ptr_eq(&last.chunk, &run.chunk) && last.to == item) {
                        Some(last) => last.to += 1,
                        None => again.push(Run { chunk: Arc::clone(&run.chunk), from: item, to: item + 1 }),
                    }
                }
                Fate::Done | Fate::Retry(_) => match outcome.ok.last_mut().filter(|last| last.0 == seq) {
                    Some(last) => last.1 += 1,
                    None => outcome.ok.push((seq, 1)),
                },
                Fate::Rejected(fault) => outcome.rejected.push((Place { chunk: Arc::clone(&run.chunk), item }, fault)),
            }
        }
        drop(overtaken);
        self.requeue(again);
        outcome
    }

    fn requeue(&mut self, runs: Vec<Run>) {
        for run in runs.into_iter().rev() {
            self.docs += run.to - run.from;
            self.bytes += run.chunk.bytes(run.from, run.to).len();
            self.pending.push_front(run);
        }
    }
}

/// How much a request may be, and how long its first item waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) docs: usize,
    pub(crate) bytes: usize,
    pub(crate) age: std::time::Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Shared;
    use proptest::prelude::*;
    use standpipe_sdk::{Context, Result, Sink, SinkDeclaration, SinkInput, Written, testing::Harness};
    use std::time::Duration;

    /// A permit needs a host; the harness makes one for a sink that does nothing else.
    struct Hostess(Arc<Shared>);

    thread_local! {
        static SHARED: std::cell::RefCell<Option<Arc<Shared>>> = const { std::cell::RefCell::new(None) };
    }

    impl Sink for Hostess {
        const NAME: &'static str = "hostess";
        type Config = crate::Config;

        fn declare(_: &crate::Config, _: &SinkInput) -> Result<SinkDeclaration> {
            Ok(SinkDeclaration::default())
        }

        fn open(_: crate::Config, _: &SinkInput, context: Context) -> Result<Self> {
            let shared = Shared::new(context.host, 1 << 20);
            SHARED.with(|slot| *slot.borrow_mut() = Some(Arc::clone(&shared)));
            Ok(Self(shared))
        }

        fn write(&mut self, _: u64, _: &arrow_array::RecordBatch) -> Result<Written> {
            Ok(Written::Taken)
        }

        fn flush(&mut self, _: u64) -> Result<()> {
            self.0.check()
        }
    }

    fn shared() -> Arc<Shared> {
        let schema = Arc::new(arrow_schema::Schema::empty());
        Harness::sink::<Hostess>(serde_json::json!({ "hosts": [], "index": "i" }), schema).open().unwrap();
        SHARED.with(|slot| slot.borrow_mut().take()).unwrap()
    }

    const LIMIT: Limit = Limit { docs: 4, bytes: 1 << 20, age: Duration::from_millis(200) };

    fn chunk(shared: &Arc<Shared>, seq: u64, ids: &[u32]) -> Chunk {
        let mut items = Items::default();
        for (row, id) in ids.iter().enumerate() {
            items.bytes.extend_from_slice(format!("{{\"index\":{{\"_index\":\"i\",\"_id\":\"{id}\"}}}}\n{{\"row\":{row}}}\n").as_bytes());
            items.ends.push(items.bytes.len());
            items.rows.push(u32::try_from(row).unwrap());
        }
        let permit = shared.take_room(items.bytes.len());
        Chunk { seq, items, arrived: Instant::now(), _permit: permit }
    }

    /// The ids and rows of a body.
    fn sent(request: &Request) -> Vec<(u32, u32)> {
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        let lines: Vec<serde_json::Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let number = |value: &serde_json::Value| u32::try_from(value.as_u64().unwrap()).unwrap();
        lines.chunks(2).map(|pair| (pair[0]["index"]["_id"].as_str().unwrap().parse().unwrap(), number(&pair[1]["row"]))).collect()
    }

    fn busy() -> Fate {
        Fate::Retry(Box::new(Fault::new(429, "busy", "")))
    }

    #[test]
    fn what_is_to_be_sent_again_goes_first() {
        let shared = shared();
        let mut lane = Lane::default();
        lane.push(chunk(&shared, 1, &[1, 2, 3]));
        lane.push(chunk(&shared, 2, &[4, 5, 6]));
        let request = lane.take(LIMIT);
        assert_eq!(sent(&request), [(1, 0), (2, 1), (3, 2), (4, 0)]);
        let fates = vec![busy(), Fate::Done, busy(), Fate::Rejected(Box::new(Fault::new(400, "bad", "")))];
        let outcome = lane.settle(request, fates, 4, true);
        assert_eq!((outcome.ok, outcome.retried, outcome.busy), (vec![(1, 1)], 2, 2));
        assert_eq!(outcome.rejected.iter().map(|(place, _)| (place.chunk.seq, place.chunk.row(place.item))).collect::<Vec<_>>(), [(2, 0)]);
        assert_eq!(sent(&lane.take(LIMIT)), [(1, 0), (3, 2), (5, 1), (6, 2)]);
    }

    #[test]
    fn a_write_that_a_later_one_replaced_is_not_sent_again() {
        let shared = shared();
        let mut lane = Lane::default();
        lane.push(chunk(&shared, 1, &[7, 8, 7, 7]));
        let request = lane.take(LIMIT);
        let outcome = lane.settle(request, vec![busy(), busy(), Fate::Done, busy()], 4, true);
        assert_eq!((outcome.ok, outcome.retried), (vec![(1, 2)], 2));
        assert_eq!(sent(&lane.take(LIMIT)), [(8, 1), (7, 3)]);
    }

    #[test]
    fn a_first_write_that_must_stand_has_its_request_to_itself() {
        let shared = shared();
        let mut lane = Lane::new(true);
        lane.push(chunk(&shared, 1, &[7, 8, 7]));
        lane.push(chunk(&shared, 2, &[7, 9, 8]));
        let request = lane.take(LIMIT);
        assert_eq!(sent(&request), [(7, 0), (8, 1)]);
        // With the second row of 7 in the same request, that one would have been created now, and the first be in its place for good.
        let outcome = lane.settle(request, vec![busy(), Fate::Done], 4, true);
        assert_eq!((outcome.ok, outcome.retried), (vec![(1, 1)], 1));
        let mut order = Vec::new();
        while !lane.is_empty() {
            let request = lane.take(LIMIT);
            order.push(sent(&request));
            let fates = vec![Fate::Done; request.docs];
            lane.settle(request, fates, 4, true);
        }
        assert_eq!(order, [vec![(7, 0)], vec![(7, 2)], vec![(7, 0), (9, 1), (8, 2)]]);
        assert_eq!((lane.docs, lane.bytes), (0, 0));
    }

    #[test]
    fn an_unreadable_request_is_halved_until_the_item_is_found() {
        let shared = shared();
        let mut lane = Lane::default();
        lane.push(chunk(&shared, 1, &[0, 1, 2, 3]));
        let mut guilty = None;
        let mut sizes = Vec::new();
        while guilty.is_none() {
            let request = lane.take(LIMIT);
            sizes.push(request.docs);
            let ids = sent(&request);
            if ids.iter().any(|(id, _)| *id == 1) {
                guilty = lane.halve(request).map(|place| place.item);
            } else {
                let fates = vec![Fate::Done; request.docs];
                lane.settle(request, fates, 4, true);
            }
        }
        assert_eq!((guilty, sizes), (Some(1), vec![4, 2, 1, 2, 1]));
        assert_eq!(sent(&lane.take(LIMIT)), [(2, 2)]);
    }

    #[test]
    fn a_lane_waits_for_enough_or_for_its_first_item_to_be_old() {
        let shared = shared();
        let mut lane = Lane::default();
        assert_eq!(lane.due(LIMIT, true), None);
        let first = chunk(&shared, 1, &[1]);
        let arrived = first.arrived;
        lane.push(first);
        assert_eq!(lane.due(LIMIT, false), Some(arrived + LIMIT.age));
        assert_eq!(lane.due(LIMIT, true), Some(arrived));
        lane.push(chunk(&shared, 2, &[1, 2, 3]));
        assert_eq!(lane.due(LIMIT, false), Some(arrived));
        let request = lane.take(LIMIT);
        assert_eq!(lane.due(LIMIT, true), None);
        lane.put_back(request);
        lane.paused_until = Some(arrived + Duration::from_secs(9));
        assert_eq!(lane.due(LIMIT, true), Some(arrived + Duration::from_secs(9)));
    }

    proptest! {
        /// Against a model of the server: whatever is refused for a while, each document ends as its last row, and each row has one fate.
        #[test]
        fn every_document_ends_as_its_last_row(batches in proptest::collection::vec(proptest::collection::vec(0_u32..6, 1..9), 1..6), faults in proptest::collection::vec(0_u8..10, 400)) {
            let shared = shared();
            let mut lane = Lane::default();
            let mut expected = HashMap::new();
            for (seq, ids) in (1..).zip(&batches) {
                lane.push(chunk(&shared, seq, ids));
                expected.extend((0..).zip(ids).map(|(row, id)| (*id, (seq, row))));
            }
            let mut faults = faults.into_iter();
            let (mut server, mut ok) = (HashMap::new(), 0);
            while !lane.is_empty() {
                let request = lane.take(LIMIT);
                if faults.next() == Some(0) {
                    lane.put_back(request);
                    continue;
                }
                let runs = request.runs.iter().flat_map(|run| (run.from..run.to).map(|item| (run.chunk.seq, run.chunk.row(item))));
                let places: Vec<_> = runs.collect();
                let mut fates = Vec::new();
                for ((id, row), (seq, same)) in sent(&request).into_iter().zip(places) {
                    prop_assert_eq!(row, same);
                    if faults.next().is_some_and(|fault| fault < 4) {
                        fates.push(busy());
                    } else {
                        server.insert(id, (seq, row));
                        fates.push(Fate::Done);
                    }
                }
                ok += lane.settle(request, fates, 4, true).ok.iter().map(|(_, rows)| rows).sum::<usize>();
            }
            prop_assert_eq!(server, expected);
            prop_assert_eq!(ok, batches.iter().map(Vec::len).sum::<usize>());
            prop_assert_eq!(lane.docs + lane.bytes, 0);
        }
    }
}
