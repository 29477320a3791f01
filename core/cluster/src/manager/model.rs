//! Manager and task managers as a whole, in a world of plain values: a seed chooses every next step: which message arrives, late or never, who dies, who comes back, which
//! worker fails, what time it is. Whatever it chooses, no two attempts of a job ever have processes at the same time, and once nothing fails any more all jobs finish.

use super::{tests::job, *};
use crate::{
    agent::{Agent, Do},
    bundle::Bundle,
    protocol::Ready,
};
use standpipe_pipeline::RestartStrategy;
use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    time::Duration,
};

const SEEDS: u64 = 600;
/// After so many steps nothing fails any more.
const TROUBLE: u32 = 1_500;
const STEPS: u32 = 6_000;
const SETTINGS: Settings = Settings { lease: 10_000, grace: 500 };
/// A process that is killed is gone by then.
const KILLING: Millis = 1_000;
const SLOTS: [u32; 3] = [3, 2, 4];
const JOBS: [(&str, u32); 4] = [("a", 5), ("b", 1), ("c", 3), ("d", 2)];
/// Users do something to these.
const RESCALED: &str = "c";
const CANCELLED: &str = "d";

fn again() -> RestartStrategy {
    RestartStrategy::FixedDelay { attempts: 100_000, delay: Duration::from_millis(300) }
}

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

#[derive(Debug, Clone)]
struct Process {
    number: u32,
    processes: u32,
    /// It has heard of the others, or is alone.
    running: bool,
    killed: Option<Millis>,
}

/// A task manager and its processes, which die with it.
#[derive(Default)]
struct Machine {
    id: String,
    agent: Agent,
    processes: BTreeMap<Attempt, Process>,
}

enum Message {
    Beat(usize, String, Beat, Millis),
    Orders(usize, String, Orders, Millis),
}

struct World {
    random: Random,
    now: Millis,
    manager: Option<Manager>,
    generation: u64,
    kept: BTreeMap<JobId, Job>,
    /// Of a manager whose data are gone: the next one takes them anew.
    lost: BTreeMap<JobId, Job>,
    machines: Vec<Machine>,
    starts: u64,
    messages: Vec<Message>,
    submitted: usize,
    /// How often a job was asked to.
    rescaled: u64,
    /// Of data.
    losses: u64,
    /// Jobs of which a manager did not know that they had begun.
    unknown: BTreeSet<JobId>,
    /// Those of which two managers' attempts run, and since when.
    twice: BTreeMap<JobId, Millis>,
    /// How often that came about.
    overlaps: u64,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let machines = SLOTS.iter().map(|_| Machine::default()).collect();
        let mut world = Self {
            random: Random(seed),
            now: 0,
            manager: None,
            generation: 0,
            kept: BTreeMap::new(),
            lost: BTreeMap::new(),
            machines,
            starts: 0,
            messages: Vec::new(),
            submitted: 0,
            rescaled: 0,
            losses: 0,
            unknown: BTreeSet::new(),
            twice: BTreeMap::new(),
            overlaps: 0,
            log: Vec::new(),
        };
        (0..SLOTS.len()).for_each(|i| world.start_machine(i));
        world
    }

    fn say(&mut self, what: String) {
        self.log.push(format!("{}: {what}", self.now));
    }

    fn start_machine(&mut self, i: usize) {
        self.starts += 1;
        self.machines[i] = Machine { id: format!("tm{i}-{}", self.starts), ..Machine::default() };
    }

    fn start_manager(&mut self) {
        self.generation += 1;
        let kept: Vec<Job> = self.kept.values().map(|job| serde_json::from_str(&serde_json::to_string(job).unwrap()).unwrap()).collect();
        let (manager, actions) = Manager::new(SETTINGS, self.generation, kept, self.now);
        self.manager = Some(manager);
        self.follow(actions);
        self.say(format!("manager {} begins", self.generation));
        for (id, job) in std::mem::take(&mut self.lost) {
            // As is known by the claims of its processes, where this manager sees them.
            let is_known = job.next_attempt > 0 && self.random.percent(70);
            if job.next_attempt > 0 && !is_known {
                self.unknown.insert(id.clone());
            }
            let past = if is_known { Past::Begun } else { Past::Unknown };
            let anew = Job { past, ..Job::new(id, Bundle::clone(&job.bundle), job.planned, self.now) };
            let actions = self.manager.as_mut().map(|manager| manager.submit(anew, self.now)).unwrap_or_default();
            self.follow(actions);
        }
    }

    /// What is over is known elsewhere too.
    fn lose_data(&mut self) {
        self.say("its data are gone".to_owned());
        let (over, lost) = std::mem::take(&mut self.kept).into_iter().partition(|(_, job)| job.is_over());
        (self.kept, self.lost) = (over, lost);
    }

    fn follow(&mut self, actions: Vec<Action>) {
        let Some(manager) = &mut self.manager else { return };
        for action in actions {
            match action {
                Action::Save(id) => _ = self.kept.insert(id.clone(), manager.jobs()[&id].clone()),
                Action::Introduce { attempt, addresses, taken_over } => {
                    let go = Go { secret: String::new(), addresses: addresses.clone(), taken_over, tls: None };
                    manager.introduce(&attempt, addresses.iter().map(|_| go.clone()).collect());
                }
            }
        }
    }

    fn do_all(&mut self, i: usize, all: Vec<Do>) {
        for one in all {
            self.log.push(format!(
                "{}: {} {}",
                self.now,
                self.machines[i].id,
                match &one {
                    Do::Start(order) => format!("starts {:?}", order.attempt),
                    Do::Kill(attempt) => format!("kills {attempt:?}"),
                    Do::Introduce(attempt, _) => format!("introduces {attempt:?}"),
                }
            ));
            let machine = &mut self.machines[i];
            match one {
                Do::Start(order) => {
                    let processes = u32::try_from(order.slots.len()).unwrap();
                    let process = Process { number: order.process, processes, running: processes == 1, killed: None };
                    assert!(machine.processes.insert(order.attempt.clone(), process).is_none());
                    if processes == 1 {
                        machine.agent.running(&order.attempt);
                    }
                }
                Do::Kill(attempt) => {
                    if let Some(process) = machine.processes.get_mut(&attempt) {
                        process.killed = Some(self.now);
                    }
                }
                Do::Introduce(attempt, _) => {
                    if let Some(process) = machine.processes.get_mut(&attempt) {
                        process.running = true;
                    }
                }
            }
        }
    }

    fn end(&mut self, i: usize, attempt: &Attempt, code: i32) {
        let machine = &mut self.machines[i];
        let Some(process) = machine.processes.remove(attempt) else { return };
        machine.agent.ended(attempt, Ended::new(process.number, ExitStatus::from_raw(code), process.killed.is_some()));
        self.say(format!("{attempt:?} process {} ends with {code}", process.number));
    }

    /// What cannot wait: leases, and kills that have taken their time.
    fn on_time(&mut self, trouble: bool) {
        for i in 0..self.machines.len() {
            let all = self.machines[i].agent.wake(self.now);
            self.do_all(i, all);
            let killed: Vec<_> =
                self.machines[i].processes.iter().filter_map(|(attempt, process)| Some((attempt.clone(), process.killed?))).collect();
            for (attempt, since) in killed {
                if self.now >= since + KILLING || !trouble || self.random.percent(20) {
                    self.end(i, &attempt, 9);
                }
            }
        }
        let random = 0.5;
        if let Some(manager) = &mut self.manager
            && manager.deadline().is_some_and(|deadline| self.now >= deadline)
        {
            let actions = manager.wake(self.now, random);
            self.follow(actions);
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Beat(i, id, beat, sent) => {
                let Some(manager) = &mut self.manager else { return };
                let actions = manager.beat(&id, &beat, self.now, 0.5);
                self.follow(actions);
                let Some(manager) = &self.manager else { return };
                let orders = manager.orders(&id);
                self.messages.push(Message::Orders(i, id, orders, sent));
            }
            Message::Orders(i, id, orders, sent) => {
                if self.machines[i].id == id {
                    self.machines[i].agent.answered(&orders, sent);
                    let all = self.machines[i].agent.orders(&orders, sent, self.now);
                    self.do_all(i, all);
                }
            }
        }
    }

    fn beat(&mut self, i: usize) {
        let machine = &self.machines[i];
        let (seen, workers) = (machine.agent.seen(), machine.agent.report());
        let beat = Beat { slots: SLOTS[i], host: String::new(), pid: 1, seen, workers, leaving: false, answers: Vec::new() };
        self.messages.push(Message::Beat(i, machine.id.clone(), beat, self.now));
    }

    /// A process becomes ready, fails, or ends well if all of its job run.
    fn work(&mut self, trouble: bool) {
        let i = self.random.below(self.machines.len());
        let all: Vec<(Attempt, Process)> =
            self.machines[i].processes.iter().map(|(attempt, process)| (attempt.clone(), process.clone())).collect();
        if all.is_empty() {
            return;
        }
        let (attempt, process) = all[self.random.below(all.len())].clone();
        if trouble && self.random.percent(10) {
            let code = if self.random.percent(50) { 6 } else { 1 << 8 };
            return self.end(i, &attempt, code);
        }
        if process.killed.is_some() {
            return;
        }
        if !process.running {
            let ready = Ready { process: process.number, address: ([127, 0, 0, 1], 1).into(), taken_over: None };
            return self.machines[i].agent.ready(&attempt, ready);
        }
        let running = self.machines.iter().filter(|machine| machine.processes.get(&attempt).is_some_and(|process| process.running)).count();
        let is_done = process.number == 0 && running == process.processes as usize;
        // The others end when the first one has.
        let first_is_gone = !self.machines.iter().any(|machine| machine.processes.get(&attempt).is_some_and(|process| process.number == 0));
        if (is_done && self.random.percent(15)) || (process.number > 0 && first_is_gone && self.random.percent(50)) {
            self.end(i, &attempt, 0);
        }
    }

    fn step(&mut self, trouble: bool) {
        self.now += self.random.next() % 200;
        self.on_time(trouble);
        match self.random.below(17) {
            0 | 1 => {
                let i = self.random.below(self.machines.len());
                self.beat(i);
            }
            2..=9 if !self.messages.is_empty() => {
                // Late ones overtake each other.
                let i = if self.random.percent(70) { 0 } else { self.random.below(self.messages.len()) };
                let message = self.messages.remove(i);
                if !(trouble && self.random.percent(15)) {
                    self.deliver(message);
                }
            }
            10 | 11 => self.work(trouble),
            12 if self.submitted < JOBS.len() => {
                let (id, slots) = JOBS[self.submitted];
                if let Some(manager) = &mut self.manager {
                    let actions = manager.submit(job(id, slots, again(), self.now), self.now);
                    self.submitted += 1;
                    self.follow(actions);
                }
            }
            13 if trouble && self.random.percent(10) => {
                let i = self.random.below(self.machines.len());
                self.say(format!("{} dies", self.machines[i].id));
                if self.random.percent(30) {
                    // It has ended what it ran, and says so.
                    let beat = Beat {
                        slots: 0,
                        host: String::new(),
                        pid: 1,
                        seen: self.machines[i].agent.seen(),
                        workers: Vec::new(),
                        leaving: true,
                        answers: Vec::new(),
                    };
                    self.messages.push(Message::Beat(i, self.machines[i].id.clone(), beat, self.now));
                }
                self.start_machine(i);
            }
            14 if self.manager.is_none() => self.start_manager(),
            14 if trouble && self.random.percent(5) => {
                self.manager = None;
                self.say("the manager dies".to_owned());
                if self.random.percent(30) {
                    self.lose_data();
                    self.losses += 1;
                }
            }
            // A user: cancels one job, and gives another one another parallelism.
            16 if trouble && self.random.percent(20) => {
                let (cancel, slots) = (self.random.percent(5), 1 + u32::try_from(self.random.below(5)).unwrap());
                let Some(manager) = &mut self.manager else { return };
                let actions = if cancel {
                    manager.cancel(CANCELLED, self.now)
                } else {
                    let planned = job(RESCALED, slots, again(), self.now).planned;
                    let rescale = Rescale { trigger: self.now.to_string(), parallelism: slots, planned };
                    manager.rescale(RESCALED, rescale).unwrap_or_default()
                };
                self.rescaled += u64::from(!cancel && !actions.is_empty());
                self.follow(actions);
            }
            // A network that is cut, with all that was said on its way.
            15 if trouble && self.random.percent(4) => {
                for _ in 0..self.random.below(80) {
                    self.now += 200;
                    self.on_time(trouble);
                    self.check();
                }
            }
            _ => {}
        }
        self.check();
    }

    /// Processes of one attempt of a job at a time, and each of them once. Of a job of which a manager could not know that it had begun what the former one has begun may still run, by its
    /// lease and no longer.
    fn check(&mut self) {
        let mut seen: BTreeMap<&str, BTreeMap<&Attempt, Vec<u32>>> = BTreeMap::new();
        let tail = || self.log[self.log.len().saturating_sub(60)..].join("\n");
        for machine in &self.machines {
            // One whose time is up has ended, whether or not anybody has looked.
            let alive = machine.processes.iter().filter(|(_, process)| process.killed.is_none_or(|since| self.now < since + KILLING));
            for (attempt, process) in alive {
                let processes = seen.entry(&attempt.job).or_default().entry(attempt).or_default();
                assert!(!processes.contains(&process.number), "a process of {} runs twice\n{}", attempt.job, tail());
                processes.push(process.number);
            }
        }
        let mut twice = BTreeMap::new();
        for (job, attempts) in seen.iter().filter(|(_, attempts)| attempts.len() > 1) {
            let terms: BTreeSet<u64> = attempts.keys().map(|attempt| attempt.term).collect();
            assert!(self.unknown.contains(*job) && terms.len() == attempts.len(), "two attempts of {job} run\n{}", tail());
            let since = self.twice.get(*job).copied().unwrap_or(self.now);
            assert!(self.now < since + SETTINGS.lease + KILLING, "two attempts of {job} run for too long\n{}", tail());
            twice.insert((*job).to_owned(), since);
        }
        self.overlaps += twice.keys().filter(|job| !self.twice.contains_key(*job)).count() as u64;
        self.twice = twice;
    }
}

#[test]
fn whatever_happens_nothing_runs_twice_and_nothing_is_lost() {
    let (mut restarts, mut generations, mut rescaled, mut cancelled, mut losses, mut overlaps) = (0, 0, 0, 0, 0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let mut steps = 0;
        let is_done = |world: &World| {
            let jobs = world.manager.as_ref().map(Manager::jobs);
            jobs.is_some_and(|jobs| {
                jobs.len() == JOBS.len()
                    && jobs.values().all(|job| job.state() == "FINISHED" || (job.id == CANCELLED && job.state() == "CANCELED"))
            })
        };
        while steps < TROUBLE || !is_done(&world) {
            assert!(
                steps < STEPS,
                "seed {seed}: {:?}\n{}",
                world.kept.values().map(|job| (&job.id, &job.stage)).collect::<Vec<_>>(),
                world.log.join("\n")
            );
            world.step(steps < TROUBLE);
            steps += 1;
        }
        restarts += world.kept.values().map(|job| u64::from(job.restarts)).sum::<u64>();
        generations += world.generation;
        rescaled += world.rescaled;
        losses += world.losses;
        overlaps += world.overlaps;
        cancelled += u64::from(world.kept[CANCELLED].state() == "CANCELED");
    }
    assert!(rescaled > SEEDS / 10 && cancelled > SEEDS / 10, "users did something: {rescaled} rescales, {cancelled} cancelled");
    assert!(restarts > SEEDS && generations > 2 * SEEDS, "there was trouble: {restarts} restarts, {generations} managers");
    assert!(overlaps > 0, "no job was begun while a former manager's attempt ran");
    assert!(losses > SEEDS / 2, "managers lost their data: {losses} times");
}
