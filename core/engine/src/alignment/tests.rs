use super::*;
use crate::watermark::SplitWatermarks;
use proptest::prelude::*;
use standpipe_pipeline::plan::EventTime;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

#[test]
fn a_group_is_as_far_as_its_last_member_and_never_goes_back() {
    let mut group = Group::new(3);
    assert!(!group.says(0, 50) && !group.says(1, 70), "the third has said nothing");
    assert_eq!((group.minimum(), group.reached()), (NO_WATERMARK, NO_WATERMARK));
    assert!(group.says(2, 60) && group.reached() == 50);
    assert!(group.says(0, NOT_WAITED_FOR) && group.reached() == 60, "it is idle, or has ended");
    assert!(group.says(0, 10));
    assert_eq!((group.minimum(), group.reached()), (10, 60), "who comes back holds the others where they are");
    assert!(group.says(0, 65) && group.reached() == 60);
    for member in 0..3 {
        group.says(member, NOT_WAITED_FOR);
    }
    assert_eq!((group.minimum(), group.reached()), (NOT_WAITED_FOR, 60), "the last one that was waited for had come as far as that");
    assert!(!group.says(7, 0), "there is no such member");
    assert_eq!(Group::new(0).minimum(), NOT_WAITED_FOR, "a process without any holds nobody");
}

const IDLE_TIMEOUT: u64 = 10;

/// A split in the model: where it is read, and how far its batches come.
struct Split {
    name: Arc<str>,
    subtask: usize,
    left: VecDeque<Micros>,
    /// It ends with its last batch; else it is silent then.
    ends: bool,
    ended: bool,
    /// It has been found.
    known: bool,
}

/// A whole job: subtasks in processes, of which the first decides, and what is on its way between them.
struct Model {
    drift: Micros,
    now: Instant,
    splits: Vec<Split>,
    subtasks: Vec<SplitWatermarks>,
    /// Of each subtask its process, and which of the process' members it is.
    places: Vec<(usize, usize)>,
    /// Of each process: in the first one the others are members behind its subtasks.
    groups: Vec<Group>,
    own: Vec<usize>,
    /// What each process knows to be reached.
    reached: Vec<Micros>,
    to_first: Vec<VecDeque<Micros>>,
    from_first: Vec<VecDeque<Micros>>,
}

impl Model {
    fn new(drift: Micros, processes: usize, subtasks: usize, splits: Vec<(usize, Vec<Micros>, bool, bool)>) -> Self {
        let settings =
            EventTime { column: 0, out_of_orderness: Duration::ZERO, idle_timeout: Duration::from_secs(IDLE_TIMEOUT), alignment: None };
        let mut own = vec![0; processes];
        let mut places = Vec::new();
        for subtask in 0..subtasks {
            let process = subtask % processes;
            places.push((process, own[process]));
            own[process] += 1;
        }
        let group = |process: usize| Group::new(own[process] + if process == 0 { processes - 1 } else { 0 });
        let split = |(i, (subtask, steps, ends, known)): (usize, (usize, Vec<Micros>, bool, bool))| {
            let mut time = 0;
            let left = steps.into_iter().map(|step| {
                time += step;
                time
            });
            Split { name: format!("s{i}").into(), subtask: subtask % subtasks, left: left.collect(), ends, ended: false, known }
        };
        let mut model = Self {
            drift,
            now: Instant::now(),
            splits: splits.into_iter().enumerate().map(split).collect(),
            subtasks: (0..subtasks).map(|_| SplitWatermarks::new(Some(&settings))).collect(),
            places,
            groups: (0..processes).map(group).collect(),
            own,
            reached: vec![NO_WATERMARK; processes],
            to_first: vec![VecDeque::new(); processes],
            from_first: vec![VecDeque::new(); processes],
        };
        // A process without subtasks is no member: here it says so.
        for process in 1..processes {
            let minimum = model.groups[process].minimum();
            model.to_first[process].push_back(minimum);
        }
        for subtask in 0..subtasks {
            let found = model.splits.iter().filter(|split| split.known && split.subtask == subtask);
            let found: Vec<_> = found.map(|split| (Arc::clone(&split.name), NO_WATERMARK)).collect();
            model.subtasks[subtask].assigned(found);
            model.say(subtask);
        }
        model
    }

    /// Only process 0 knows at once.
    fn say(&mut self, subtask: usize) {
        let mark = self.subtasks[subtask].current(self.now);
        let (process, member) = self.places[subtask];
        if self.groups[process].says(member, if mark.idle { NOT_WAITED_FOR } else { mark.time }) {
            match process {
                0 => self.decided(),
                _ => {
                    let minimum = self.groups[process].minimum();
                    self.to_first[process].push_back(minimum);
                }
            }
        }
    }

    fn decided(&mut self) {
        let reached = self.groups[0].reached();
        if reached > self.reached[0] {
            self.reached[0] = reached;
            self.from_first.iter_mut().skip(1).for_each(|link| link.push_back(reached));
        }
    }

    /// A message arrives, if one is on its way.
    fn deliver(&mut self, process: usize) -> bool {
        if let Some(time) = self.from_first[process].pop_front() {
            self.reached[process] = self.reached[process].max(time);
            return true;
        }
        let Some(time) = self.to_first[process].pop_front() else { return false };
        if self.groups[0].says(self.own[0] + process - 1, time) {
            self.decided();
        }
        true
    }

    /// The reader has something of a split. It goes on, or it is held back.
    fn read(&mut self, i: usize) -> bool {
        let (now, split) = (self.now, &mut self.splits[i]);
        if split.ended || !split.known {
            return false;
        }
        let (subtask, name) = (split.subtask, Arc::clone(&split.name));
        let limit = self.reached[self.places[subtask].0].saturating_add(self.drift);
        let watermarks = &mut self.subtasks[subtask];
        let goes_on = watermarks.time_in(&name) <= limit;
        match (split.left.front().copied(), goes_on) {
            (Some(_), false) => watermarks.pause(&name),
            (Some(time), true) => {
                // Nobody is further ahead of what all have reached than it may be, whoever has heard what.
                assert!(watermarks.time_in(&name) <= self.groups[0].reached().saturating_add(self.drift));
                watermarks.resume(&name, now);
                watermarks.hint(&name, time, now);
                split.left.pop_front();
            }
            (None, _) if split.ends => {
                watermarks.ended(&name);
                split.ended = true;
            }
            (None, _) => watermarks.read_up_to_its_end(&name, now),
        }
        self.say(subtask);
        goes_on
    }

    /// Another split is found.
    fn find(&mut self) {
        if let Some(split) = self.splits.iter_mut().find(|split| !split.known) {
            split.known = true;
            let subtask = split.subtask;
            self.subtasks[subtask].assigned([(Arc::clone(&split.name), NO_WATERMARK)]);
            self.say(subtask);
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        (0..self.subtasks.len()).for_each(|subtask| self.say(subtask));
    }

    fn deliver_all(&mut self) {
        while (1..self.groups.len()).any(|process| self.deliver(process)) {}
    }

    fn rows_left(&self) -> usize {
        self.splits.iter().map(|split| split.left.len()).sum()
    }
}

fn splits() -> impl Strategy<Value = Vec<(usize, Vec<Micros>, bool, bool)>> {
    let steps = prop::collection::vec(prop_oneof![Just(0_i64), 1_i64..5, 50_i64..500], 0..12);
    prop::collection::vec((0_usize..6, steps, any::<bool>(), prop::bool::weighted(0.8)), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Over any subtasks and processes, however late they hear of each other, and whatever splits are silent, end or are found later.
    #[test]
    fn it_never_comes_to_a_standstill(
        drift in 1_i64..60, processes in 1_usize..4, subtasks in 1_usize..6, splits in splits(),
        steps in prop::collection::vec((0_u8..10, any::<prop::sample::Index>()), 0..150),
    ) {
        let mut model = Model::new(drift, processes, subtasks, splits);
        for (step, index) in steps {
            match step {
                0..=5 => _ = model.read(index.index(model.splits.len())),
                6..=7 if processes > 1 => _ = model.deliver(1 + index.index(processes - 1)),
                8 => model.find(),
                _ => model.pass(1 + index.index(4) as u64),
            }
        }
        while model.splits.iter().any(|split| !split.known) {
            model.find();
        }
        // From here on all is delivered: while all have something, one of them goes on without any time passing.
        loop {
            model.deliver_all();
            let left = model.rows_left();
            if left == 0 {
                break;
            }
            let everyone = model.splits.iter().all(|split| split.ended || !split.left.is_empty());
            (0..model.splits.len()).for_each(|split| _ = model.read(split));
            if model.rows_left() == left && !everyone {
                // Those that are silent must be it for long enough.
                model.deliver_all();
                (0..model.splits.len()).for_each(|split| _ = model.read(split));
                model.pass(IDLE_TIMEOUT + 1);
                model.deliver_all();
                (0..model.splits.len()).for_each(|split| _ = model.read(split));
            }
            model.deliver_all();
            (0..model.splits.len()).for_each(|split| _ = model.read(split));
            prop_assert!(model.rows_left() < left, "a standstill with {left} batches left, reached {:?}", model.reached);
        }
    }
}
