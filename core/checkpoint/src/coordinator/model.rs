//! The protocol as a whole, in a world of plain values: two sources, an operator that aligns them, a sink that prepares and commits, and one that is idempotent. A seed
//! chooses every next step: who moves, which request is answered and how, what time it is, when the process dies, and what one that was thought dead still does.
//! Whatever it chooses, every row comes out once, none that a checkpoint does not cover is seen, and upstream never knows more than what is durable.

use super::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const SOURCES: usize = 2;
const ROWS: u64 = 12;
const OPERATOR: Part = Part::Subtask(1, 0);
const SINK: Part = Part::Subtask(2, 0);
const SEEDS: u64 = 4_000;
/// After so many steps nothing fails any more: then the job must come to its end.
const TROUBLE: u32 = 400;
const STEPS: u32 = 6_000;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn percent(&mut self, p: u64) -> bool {
        self.next() % 100 < p
    }
}

type Transaction = (u64, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Prepared,
    Committed,
    Aborted,
}

#[derive(Debug, Clone, Default)]
struct Checkpoint {
    positions: [u64; SOURCES],
    /// The operator's state: how many rows it has seen.
    count: u64,
    uncommitted: Vec<Transaction>,
}

/// What outlives a process.
#[derive(Debug, Default)]
struct World {
    newest: u64,
    bases: BTreeMap<u64, u64>,
    /// By number and generation.
    manifests: BTreeMap<(u64, u64), Checkpoint>,
    transactions: BTreeMap<Transaction, (Vec<u64>, Fate)>,
    visible: Vec<u64>,
    upserts: BTreeSet<u64>,
    upstream: [u64; SOURCES],
}

impl World {
    fn valid(&self) -> impl Iterator<Item = (&(u64, u64), &Checkpoint)> {
        self.manifests.iter().filter(|((id, generation), _)| self.bases.range(generation + 1..).all(|(_, base)| id <= base))
    }

    fn commit(&mut self, transaction: Transaction) -> bool {
        let (rows, fate) = self.transactions.get_mut(&transaction).unwrap();
        match *fate {
            Fate::Prepared => {
                *fate = Fate::Committed;
                self.visible.append(rows);
                true
            }
            Fate::Committed => true,
            Fate::Aborted => false,
        }
    }

    fn check(&self) {
        let mut seen = BTreeSet::new();
        let covered = self.valid().fold([0; SOURCES], |all, (_, one)| std::array::from_fn(|i| all[i].max(one.positions[i])));
        for row in &self.visible {
            assert!(seen.insert(row), "row {row} twice");
            assert!(row % 100 < covered[(row / 100) as usize], "row {row} is visible, {covered:?} are durable");
        }
        for (source, known) in self.upstream.iter().enumerate() {
            for row in (0..*known).map(|row| source as u64 * 100 + row) {
                assert!(seen.contains(&row), "upstream knows {:?}, row {row} is not out", self.upstream);
            }
        }
        self.manifests.values().for_each(|one| assert_eq!(one.count, one.positions.iter().sum::<u64>(), "the cut is not consistent"));
    }
}

#[derive(Debug, Clone, Copy)]
enum Item {
    Row(u64),
    Cut(u64),
}

/// A request that is on its way.
#[derive(Debug, Clone, Copy)]
enum Task {
    Part(u64, Part),
    Write(u64),
    /// The manifest is there: is this still the newest generation?
    Look(u64),
    CommitSinks(u64),
    CommitUpstream(u64),
}

/// A process that runs the job, or thinks it does.
struct Process {
    generation: u64,
    coordinator: Coordinator,
    now: Micros,
    positions: [u64; SOURCES],
    triggers: [VecDeque<(u64, Reason)>; SOURCES],
    stopped: [bool; SOURCES],
    edges: [VecDeque<Item>; SOURCES],
    aligning: [Option<u64>; SOURCES],
    count: u64,
    out: VecDeque<Item>,
    open: Vec<u64>,
    uncommitted: Vec<Transaction>,
    parts: BTreeMap<u64, Checkpoint>,
    written: BTreeMap<u64, Checkpoint>,
    tasks: Vec<Task>,
    ended: bool,
    dead: bool,
}

impl Process {
    /// A claimed generation begins.
    fn start(world: &mut World, generation: u64) -> Self {
        let (base, from) = world.valid().last().map_or((0, Checkpoint::default()), |((id, _), one)| (*id, one.clone()));
        world.bases.insert(generation, base);
        for transaction in &from.uncommitted {
            assert!(world.commit(*transaction), "what a checkpoint covers was aborted");
        }
        for (transaction, (_, fate)) in &mut world.transactions {
            if *fate == Fate::Prepared && transaction.0 < generation {
                *fate = Fate::Aborted;
            }
        }
        let next = world.manifests.keys().map(|(id, _)| *id).max().unwrap_or(0) + 1;
        let settings = Settings { interval: Some(30), min_pause: 5, retry_pause: 0, timeout: 60, tolerated_failures: 2 };
        let sources = (0..SOURCES).map(|i| Part::Subtask(0, i as u32));
        let parts = sources.chain([Part::Enumerator(0), OPERATOR, SINK]);
        Self {
            generation,
            coordinator: Coordinator::new(settings, parts, [SINK], next, 0),
            now: 0,
            positions: from.positions,
            triggers: Default::default(),
            stopped: [false; SOURCES],
            edges: Default::default(),
            aligning: [None; SOURCES],
            count: from.count,
            out: VecDeque::new(),
            open: Vec::new(),
            uncommitted: Vec::new(),
            parts: BTreeMap::new(),
            written: BTreeMap::new(),
            tasks: Vec::new(),
            ended: false,
            dead: false,
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ask(id, _) => self.tasks.push(Task::Part(id, Part::Enumerator(0))),
                Action::Trigger(id, reason) => self.triggers.iter_mut().for_each(|triggers| triggers.push_back((id, reason))),
                Action::Write(id, _) => self.tasks.push(Task::Write(id)),
                Action::CommitSinks(id) => self.tasks.push(Task::CommitSinks(id)),
                Action::CommitUpstream(id) => self.tasks.push(Task::CommitUpstream(id)),
                Action::GiveUp(id, _) => _ = self.parts.remove(&id),
                Action::Fail(_) => self.dead = true,
                Action::End => self.ended = true,
            }
        }
    }

    fn tell(&mut self, event: Event) {
        let actions = self.coordinator.on(self.now, event);
        self.act(actions);
    }

    fn step(&mut self, world: &mut World, random: &mut Random, trouble: bool) {
        let i = random.below(SOURCES);
        match random.below(8) {
            0 => self.emit(i),
            1 => self.cut_source(i),
            2 | 3 => self.operate(i),
            4 => self.sink(world),
            5 => {
                self.now += 1 + random.below(6) as Micros;
                let actions = self.coordinator.wake(self.now);
                self.act(actions);
            }
            _ if !self.tasks.is_empty() => {
                let task = self.tasks.swap_remove(random.below(self.tasks.len()));
                self.answer(world, task, random, trouble);
            }
            _ => {}
        }
    }

    fn emit(&mut self, i: usize) {
        if !self.stopped[i] && self.positions[i] < ROWS {
            self.edges[i].push_back(Item::Row(i as u64 * 100 + self.positions[i]));
            self.positions[i] += 1;
        }
        if self.positions.iter().all(|position| *position == ROWS) {
            self.tell(Event::Ending);
        }
    }

    fn cut_source(&mut self, i: usize) {
        if let Some((id, reason)) = self.triggers[i].pop_front() {
            self.parts.entry(id).or_default().positions[i] = self.positions[i];
            self.stopped[i] = reason == Reason::Last;
            self.edges[i].push_back(Item::Cut(id));
            self.tasks.push(Task::Part(id, Part::Subtask(0, i as u32)));
        }
    }

    fn operate(&mut self, i: usize) {
        if self.aligning[i].is_some() {
            return;
        }
        match self.edges[i].pop_front() {
            Some(Item::Row(row)) => {
                self.count += 1;
                self.out.push_back(Item::Row(row));
            }
            Some(Item::Cut(id)) => {
                self.aligning[i] = Some(id);
                if self.aligning.iter().all(|aligning| *aligning == Some(id)) {
                    self.parts.entry(id).or_default().count = self.count;
                    self.aligning = [None; SOURCES];
                    self.out.push_back(Item::Cut(id));
                    self.tasks.push(Task::Part(id, OPERATOR));
                }
            }
            None => {}
        }
    }

    fn sink(&mut self, world: &mut World) {
        match self.out.pop_front() {
            Some(Item::Row(row)) => {
                self.open.push(row);
                world.upserts.insert(row);
            }
            Some(Item::Cut(id)) => {
                let transaction = (self.generation, id);
                world.transactions.insert(transaction, (std::mem::take(&mut self.open), Fate::Prepared));
                self.uncommitted.push(transaction);
                self.parts.entry(id).or_default().uncommitted.clone_from(&self.uncommitted);
                self.tasks.push(Task::Part(id, SINK));
            }
            None => {}
        }
    }

    fn answer(&mut self, world: &mut World, task: Task, random: &mut Random, trouble: bool) {
        let fails = trouble && random.percent(4);
        match task {
            Task::Part(id, _) if fails => self.tell(Event::PartFailed(id, "no room".to_owned())),
            Task::Part(id, part) => self.tell(Event::Part(id, part)),
            Task::Write(id) => {
                // One that was given up in between has no parts any more; a request that is on its way is not called back.
                let Some(checkpoint) = self.parts.remove(&id) else { return };
                let is_there = !fails || random.percent(50);
                if is_there {
                    world.manifests.insert((id, self.generation), checkpoint.clone());
                    self.written.insert(id, checkpoint);
                }
                if fails {
                    self.tell(Event::WriteFailed(id, "no answer".to_owned()));
                } else {
                    self.tasks.push(Task::Look(id));
                }
            }
            Task::Look(_) if world.newest > self.generation => self.dead = true,
            Task::Look(id) => self.tell(Event::Written(id)),
            Task::CommitSinks(id) => {
                while let Some(transaction) = self.uncommitted.first().copied().filter(|transaction| transaction.1 <= id) {
                    if !world.commit(transaction) {
                        self.dead = true;
                        return;
                    }
                    self.uncommitted.remove(0);
                    if trouble && random.percent(10) {
                        // The rest is another request.
                        self.tasks.push(task);
                        return;
                    }
                }
                self.tell(Event::Committed(id, SINK));
            }
            Task::CommitUpstream(id) => {
                let known = &self.written[&id].positions;
                (0..SOURCES).for_each(|i| world.upstream[i] = world.upstream[i].max(known[i]));
            }
        }
    }
}

fn run(seed: u64) -> u32 {
    let (mut world, mut random) = (World::default(), Random(seed));
    world.newest = 1;
    let mut process = Process::start(&mut world, 1);
    let mut ghosts: Vec<Process> = Vec::new();
    let mut claimed = None;
    let mut starts = 1;
    for step in 0..STEPS {
        let trouble = step < TROUBLE;
        match claimed {
            // Between the claim and the look for the newest checkpoint others move.
            Some(generation) if random.percent(30) => {
                claimed = None;
                starts += 1;
                process = Process::start(&mut world, generation);
            }
            Some(_) => {}
            None => process.step(&mut world, &mut random, trouble),
        }
        if let Some(ghost) = ghosts.last_mut() {
            ghost.step(&mut world, &mut random, trouble);
        }
        ghosts.retain(|ghost| !ghost.dead);
        world.check();
        if process.ended && process.tasks.is_empty() {
            let rows: Vec<u64> = (0..SOURCES as u64).flat_map(|i| (0..ROWS).map(move |row| i * 100 + row)).collect();
            world.visible.sort_unstable();
            assert_eq!(world.visible, rows);
            assert_eq!(world.upserts.into_iter().collect::<Vec<_>>(), rows);
            assert_eq!(world.upstream, [ROWS; SOURCES]);
            return starts;
        }
        if claimed.is_none() && (process.dead || (trouble && random.percent(2))) {
            // Thought dead, it may go on for a while.
            world.newest += 1;
            claimed = Some(world.newest);
            if !process.dead && random.percent(50) {
                let ghost = std::mem::replace(&mut process, Process::start_nothing());
                ghosts = vec![ghost];
            }
        }
    }
    panic!("the job has not come to its end");
}

impl Process {
    /// In the place of one that became a ghost, until the next starts.
    fn start_nothing() -> Self {
        Self::start(&mut World::default(), 0)
    }
}

#[test]
fn every_row_comes_out_once_whatever_happens() {
    let mut starts = 0;
    for seed in 0..SEEDS {
        let result = std::panic::catch_unwind(|| run(seed));
        starts += result.unwrap_or_else(|_| panic!("seed {seed}"));
    }
    assert!(starts > 3 * SEEDS as u32, "the model is too peaceful: {starts} starts");
}
