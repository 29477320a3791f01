use super::*;
use crate::{
    bundle::{Bundle, File, Hash, Options},
    protocol::Ready,
};
use standpipe_pipeline::RestartStrategy;
use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

pub(super) fn job(id: &str, slots: u32, restart: RestartStrategy, now: Millis) -> Job {
    let bundle = Bundle {
        standpipe: env!("CARGO_PKG_VERSION").to_owned(),
        name: id.to_owned(),
        pipeline: File { path: "a.yaml".to_owned(), hash: Hash::of(b""), bytes: 0 },
        plugins: Vec::new(),
        resources: Vec::new(),
        configuration: BTreeMap::new(),
        options: Options::default(),
    };
    let planned = Planned { slots, restart, checkpoints: true, bounded: false, nodes: Vec::new(), settings: Vec::new() };
    Job::new(id.to_owned(), bundle, planned, now)
}

fn manager() -> Manager {
    Manager::new(Settings { lease: 10_000, grace: 2_000 }, 1, [], 0).0
}

fn beat(manager: &Manager, slots: u32, workers: Vec<Worker>) -> Beat {
    Beat { slots, host: "here".to_owned(), pid: 1, seen: manager.version(), workers, leaving: false, answers: Vec::new() }
}

fn worker(number: u32, process: u32, phase: Phase) -> Worker {
    Worker { attempt: Attempt { job: "j".to_owned(), term: 1, number }, process, phase, status: None }
}

fn exited(process: u32, code: i32) -> Phase {
    Phase::Ended(Ended::new(process, ExitStatus::from_raw(code << 8), false))
}

fn ready(process: u32) -> Phase {
    Phase::Ready(Ready { process, address: ([127, 0, 0, 1], 1000 + u16::try_from(process).unwrap()).into(), taken_over: None })
}

const AGAIN: RestartStrategy = RestartStrategy::FixedDelay { attempts: 2, delay: Duration::from_secs(1) };

#[test]
fn a_job_waits_for_slots_says_how_many_and_goes_on_when_capacity_joins() {
    let mut manager = manager();
    manager.submit(job("j", 5, RestartStrategy::None, 0), 0);
    assert_eq!(manager.waits(&manager.jobs["j"]).unwrap(), "needs 5, has 0");
    manager.beat("three", &beat(&manager, 3, vec![]), 1, 0.5);
    assert_eq!((manager.waits(&manager.jobs["j"]).unwrap(), manager.jobs["j"].state()), ("needs 5, has 3".to_owned(), "CREATED"));
    let actions = manager.beat("two", &beat(&manager, 2, vec![]), 2, 0.5);
    assert_eq!(actions, [Action::Save("j".to_owned())]);
    let placed: Vec<_> = manager.jobs["j"].members().iter().map(|member| (member.task_manager.as_str(), member.slots)).collect();
    assert_eq!(placed, [("three", 3), ("two", 2)]);
    assert_eq!(manager.orders("two").workers[0].slots, [3, 2]);
    assert_eq!((manager.free("three"), manager.free("two"), manager.jobs["j"].state()), (0, 0, "INITIALIZING"));
}

#[test]
fn one_task_manager_that_is_just_large_enough_is_taken_and_a_small_job_passes_a_large_one() {
    let mut manager = manager();
    for (id, slots) in [("a", 8), ("b", 3), ("c", 2)] {
        manager.beat(id, &beat(&manager, slots, vec![]), 0, 0.5);
    }
    manager.submit(job("huge", 100, RestartStrategy::None, 1), 1);
    manager.submit(job("j", 3, RestartStrategy::None, 2), 2);
    assert_eq!(manager.jobs["j"].members()[0].task_manager, "b");
    assert_eq!(manager.waits(&manager.jobs["huge"]).unwrap(), "needs 100, has 10");
}

#[test]
fn of_equal_task_managers_those_that_came_first_are_taken() {
    let mut manager = manager();
    for (now, id) in ["c", "a", "b"].into_iter().enumerate() {
        manager.beat(id, &beat(&manager, 2, vec![]), now as u64, 0.5);
    }
    manager.submit(job("two", 3, RestartStrategy::None, 3), 3);
    let placed: Vec<_> = manager.jobs["two"].members().iter().map(|member| (member.task_manager.as_str(), member.slots)).collect();
    assert_eq!(placed, [("c", 2), ("a", 1)]);
    manager.submit(job("one", 1, RestartStrategy::None, 4), 4);
    assert_eq!(manager.jobs["one"].members()[0].task_manager, "a", "it fills that one");
    manager.submit(job("other", 1, RestartStrategy::None, 5), 5);
    assert_eq!(manager.jobs["other"].members()[0].task_manager, "b");
}

#[test]
fn processes_of_a_job_hear_of_each_other_when_all_are_ready() {
    let mut manager = manager();
    manager.submit(job("j", 2, RestartStrategy::None, 0), 0);
    manager.beat("b", &beat(&manager, 1, vec![]), 0, 0.5);
    manager.beat("a", &beat(&manager, 1, vec![]), 1, 0.5);
    // The emptier one, or the one that came first, has process 0.
    assert_eq!(manager.orders("b").workers[0].process, 0);
    assert_eq!(manager.beat("b", &beat(&manager, 1, vec![worker(0, 0, ready(0))]), 1, 0.5), []);
    let actions = manager.beat("a", &beat(&manager, 1, vec![worker(0, 1, ready(1))]), 2, 0.5);
    let [Action::Introduce { attempt, addresses, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!((attempt.number, addresses.len()), (0, 2));
    let go = Go { secret: String::new(), addresses: addresses.clone(), taken_over: None, tls: None };
    manager.introduce(attempt, vec![go.clone(), go]);
    assert!(manager.orders("a").workers[0].go.is_some());
    manager.beat("a", &beat(&manager, 1, vec![worker(0, 1, Phase::Running)]), 3, 0.5);
    assert_eq!(manager.jobs["j"].state(), "INITIALIZING");
    manager.beat("b", &beat(&manager, 1, vec![worker(0, 0, Phase::Running)]), 3, 0.5);
    assert_eq!(manager.jobs["j"].state(), "RUNNING");
}

#[test]
fn a_failure_is_followed_by_the_restart_strategy_and_says_why() {
    let mut manager = manager();
    manager.submit(job("j", 1, AGAIN, 0), 0);
    manager.beat("a", &beat(&manager, 1, vec![]), 0, 0.5);
    for (number, state) in [(0, "RESTARTING"), (1, "RESTARTING"), (2, "FAILED")] {
        let now = u64::from(number) * 5_000;
        manager.wake(now, 0.5);
        assert_eq!(manager.orders("a").workers[0].attempt.number, number);
        let mut ended = Ended::new(0, ExitStatus::from_raw(1 << 8), false);
        ended.said = Some("error: the disk is full".to_owned());
        manager.beat("a", &beat(&manager, 1, vec![worker(number, 0, Phase::Ended(ended))]), now + 1, 0.5);
        assert_eq!(manager.jobs["j"].state(), state);
        assert_eq!(manager.jobs["j"].why(), Some("it has failed: error: the disk is full"));
    }
    // A wrong configuration is not tried again.
    manager.submit(job("k", 1, AGAIN, 0), 20_000);
    let mut ended = worker(0, 0, exited(0, 2));
    ended.attempt.job = "k".to_owned();
    manager.beat("a", &beat(&manager, 1, vec![ended]), 20_001, 0.5);
    assert_eq!(manager.jobs["k"].state(), "FAILED");
}

#[test]
fn what_was_said_before_a_farewell_and_comes_after_it_is_not_heard() {
    let mut manager = manager();
    let before = beat(&manager, 1, vec![]);
    manager.beat("a", &before, 0, 0.5);
    manager.beat("b", &before, 0, 0.5);
    manager.beat("a", &Beat { leaving: true, ..before.clone() }, 1, 0.5);
    assert_eq!(manager.beat("a", &before, 2, 0.5), []);
    assert!(manager.task_managers().keys().eq(["b"]));
    manager.submit(job("j", 2, RestartStrategy::None, 3), 3);
    assert_eq!(manager.waits(&manager.jobs["j"]).unwrap(), "needs 2, has 1");
}

#[test]
fn the_loss_of_a_task_manager_is_the_cause_of_what_the_others_have_failed_of() {
    let mut manager = manager();
    for id in ["a", "b"] {
        manager.beat(id, &beat(&manager, 1, vec![]), 0, 0.5);
    }
    manager.submit(job("j", 2, AGAIN, 0), 0);
    let (first, other) = (manager.jobs["j"].members()[0].task_manager.clone(), manager.jobs["j"].members()[1].task_manager.clone());
    let mut ended = Ended::new(0, ExitStatus::from_raw(1 << 8), false);
    ended.said = Some("error: the connection to process 1 is broken".to_owned());
    manager.beat(&first, &beat(&manager, 1, vec![worker(0, 0, Phase::Ended(ended))]), 1_000, 0.5);
    manager.wake(3_000, 0.5);
    assert!(matches!(&manager.jobs["j"].stage, Stage::Deployed { killed: Some(Killed::Grace), .. }), "{:?}", manager.jobs["j"].stage);
    manager.beat(&first, &beat(&manager, 1, vec![]), 9_000, 0.5);
    manager.wake(10_000, 0.5);
    let why = format!(
        "task manager {other} on here has not been heard of for 10 s\nprocess 0 had ended before: error: the connection to process 1 is broken"
    );
    assert_eq!(manager.jobs["j"].why(), Some(why.as_str()));
    assert_eq!(manager.jobs["j"].state(), "RESTARTING");
}

#[test]
fn a_job_that_was_only_moved_was_not_restarted() {
    let mut manager = manager();
    manager.submit(job("j", 1, AGAIN, 0), 0);
    for (id, now) in [("a", 0), ("b", 1)] {
        manager.beat(id, &beat(&manager, 1, vec![]), now, 0.5);
    }
    manager.beat("a", &Beat { leaving: true, ..beat(&manager, 0, vec![]) }, 2, 0.5);
    let order = manager.orders("b").workers.remove(0);
    assert_eq!((order.attempt.number, order.restarts), (1, 0));
    manager.beat("b", &beat(&manager, 1, vec![worker(1, 0, exited(0, 1))]), 3, 0.5);
    manager.wake(2_000, 0.5);
    let order = manager.orders("b").workers.remove(0);
    assert_eq!((order.attempt.number, order.restarts), (2, 1));
}

#[test]
fn a_lost_task_managers_work_goes_elsewhere_after_its_lease_and_not_before() {
    let mut manager = manager();
    manager.beat("a", &beat(&manager, 1, vec![]), 0, 0.5);
    manager.submit(job("j", 1, AGAIN, 0), 0);
    manager.beat("b", &beat(&manager, 1, vec![]), 9_000, 0.5);
    manager.wake(9_999, 0.5);
    assert!(manager.orders("b").workers.is_empty() && manager.deadline() == Some(10_000));
    manager.wake(10_000, 0.5);
    assert_eq!(manager.jobs["j"].why(), Some("task manager a on here has not been heard of for 10 s"));
    manager.wake(11_000, 0.5);
    assert_eq!(manager.orders("b").workers[0].attempt.number, 1);
    // It comes back, with what it had: it is not to run it.
    manager.beat("a", &beat(&manager, 1, vec![worker(0, 0, Phase::Running)]), 12_000, 0.5);
    assert!(manager.orders("a").workers.is_empty() && manager.orders("b").workers.len() == 1);
}

#[test]
fn the_other_processes_have_their_time_and_the_next_attempt_waits_for_the_last_of_them() {
    let mut manager = manager();
    manager.submit(job("j", 2, AGAIN, 0), 0);
    manager.beat("a", &beat(&manager, 1, vec![]), 0, 0.5);
    manager.beat("b", &beat(&manager, 1, vec![]), 0, 0.5);
    manager.beat("b", &beat(&manager, 1, vec![worker(0, 0, exited(0, 1))]), 1, 0.5);
    assert_eq!((manager.jobs["j"].state(), manager.orders("a").workers.len()), ("FAILING", 1));
    let running = vec![worker(0, 1, Phase::Running)];
    let before = beat(&manager, 1, running.clone());
    manager.wake(2_001, 0.5);
    assert!(manager.orders("a").workers.is_empty());
    // What it said before it has heard that says nothing.
    manager.beat("a", &Beat { workers: Vec::new(), ..before }, 2_002, 0.5);
    assert_eq!(manager.jobs["j"].state(), "FAILING");
    manager.beat("a", &beat(&manager, 1, vec![]), 2_003, 0.5);
    assert_eq!(manager.jobs["j"].state(), "RESTARTING");
    manager.wake(3_003, 0.5);
    assert_eq!((manager.jobs["j"].attempt().number, manager.jobs["j"].restarts), (1, 1));
}

#[test]
fn a_cancelled_job_is_over_when_nothing_of_it_runs() {
    let mut manager = manager();
    manager.submit(job("j", 1, AGAIN, 0), 0);
    manager.beat("a", &beat(&manager, 1, vec![]), 0, 0.5);
    manager.cancel("j", 1);
    assert_eq!(manager.jobs["j"].state(), "CANCELLING");
    manager.beat("a", &beat(&manager, 1, vec![]), 2, 0.5);
    assert_eq!((manager.jobs["j"].state(), manager.free("a")), ("CANCELED", 1));
    manager.submit(job("k", 9, AGAIN, 0), 3);
    manager.cancel("k", 3);
    assert_eq!(manager.jobs["k"].state(), "CANCELED");
    assert!(manager.cancel("k", 4).is_empty() && manager.cancel("nobody", 4).is_empty());
}

#[test]
fn a_manager_that_comes_back_finds_its_jobs_running_and_begins_anew_what_was_starting() {
    let mut manager = manager();
    manager.beat("a", &beat(&manager, 3, vec![]), 0, 0.5);
    manager.submit(job("j", 1, AGAIN, 0), 0);
    manager.beat("a", &beat(&manager, 3, vec![worker(0, 0, Phase::Running)]), 0, 0.5);
    assert_eq!(manager.jobs["j"].state(), "RUNNING");
    manager.submit(job("two", 4, AGAIN, 0), 0);
    manager.beat("b", &beat(&manager, 2, vec![]), 0, 0.5);
    let kept: Vec<Job> = manager.jobs().values().map(|job| serde_json::from_str(&serde_json::to_string(job).unwrap()).unwrap()).collect();
    let (mut manager, actions) = Manager::new(manager.settings, 2, kept, 100);
    assert_eq!(actions, [Action::Save("two".to_owned())]);
    let orders = manager.orders("a").workers;
    assert_eq!(orders.iter().map(|order| order.attempt.job.as_str()).collect::<Vec<_>>(), ["j"]);
    // Nobody is lost before a lease is over.
    manager.wake(10_099, 0.5);
    assert_eq!((manager.jobs["j"].state(), manager.jobs["j"].attempt().number), ("RUNNING", 0));
    manager.beat("a", &beat(&manager, 3, vec![worker(0, 0, Phase::Running)]), 10_099, 0.5);
    manager.beat("b", &beat(&manager, 2, vec![]), 10_099, 0.5);
    assert_eq!((manager.jobs["j"].state(), manager.jobs["j"].attempt().number), ("RUNNING", 0));
    assert_eq!((manager.jobs["two"].attempt().number, manager.jobs["two"].restarts), (1, 0));
}

#[test]
fn a_task_manager_that_is_stopped_gives_its_work_back_at_once_and_that_is_no_failure_of_a_job_with_checkpoints() {
    let mut manager = manager();
    manager.beat("a", &beat(&manager, 2, vec![]), 0, 0.5);
    manager.submit(job("j", 2, RestartStrategy::None, 0), 0);
    manager.submit(Job { planned: Planned { checkpoints: false, ..job("", 1, AGAIN, 0).planned }, ..job("k", 1, AGAIN, 0) }, 1);
    manager.beat("b", &beat(&manager, 3, vec![]), 1, 0.5);
    assert_eq!(manager.jobs["k"].members()[0].task_manager, "b");
    let leaving = Beat { leaving: true, ..beat(&manager, 2, vec![]) };
    manager.beat("a", &leaving, 2, 0.5);
    assert_eq!((manager.jobs["j"].attempt().number, manager.jobs["j"].restarts), (1, 0));
    assert_eq!(manager.orders("b").workers.len(), 2);
    manager.beat("b", &leaving, 3, 0.5);
    assert_eq!((manager.jobs["j"].state(), manager.jobs["j"].restarts), ("RESTARTING", 0));
    assert_eq!((manager.jobs["k"].state(), manager.jobs["k"].restarts), ("RESTARTING", 1));
    assert!(manager.task_managers().is_empty());
}

#[test]
fn a_job_without_checkpoints_is_not_begun_with_nothing_again_unless_its_strategy_says_so() {
    let without = |id: &str| {
        let job = job(id, 2, RestartStrategy::None, 0);
        Job { planned: Planned { checkpoints: false, ..job.planned.clone() }, ..job }
    };
    // It was starting when the manager was killed: some of it may have run.
    let mut before = manager();
    before.submit(without("j"), 0);
    before.beat("a", &beat(&before, 1, vec![]), 0, 0.5);
    before.beat("b", &beat(&before, 1, vec![]), 0, 0.5);
    let kept: Vec<Job> = before.jobs().values().map(|job| serde_json::from_str(&serde_json::to_string(job).unwrap()).unwrap()).collect();
    let (mut manager, _) = Manager::new(before.settings, 2, kept, 100);
    for id in ["a", "b"] {
        manager.beat(id, &beat(&manager, 1, vec![]), 101, 0.5);
    }
    assert_eq!(manager.jobs["j"].state(), "FAILED");
    assert!(manager.jobs["j"].why().unwrap().contains("the job manager was started again"), "{:?}", manager.jobs["j"].why());
    // One of its task managers is stopped.
    manager.submit(without("k"), 200);
    let running = |process| Worker { attempt: Attempt { job: "k".to_owned(), term: 2, number: 0 }, ..worker(0, process, Phase::Running) };
    let of = |manager: &Manager, id: &str| u32::from(manager.jobs["k"].members()[0].task_manager != id);
    for id in ["a", "b"] {
        let process = of(&manager, id);
        manager.beat(id, &beat(&manager, 1, vec![running(process)]), 201, 0.5);
    }
    assert_eq!(manager.jobs["k"].state(), "RUNNING");
    let leaving = Beat { leaving: true, ..beat(&manager, 1, vec![]) };
    manager.beat("a", &leaving, 202, 0.5);
    manager.beat("b", &beat(&manager, 1, vec![]), 203, 0.5);
    assert_eq!((manager.jobs["k"].state(), manager.jobs["k"].why()), ("FAILED", Some("task manager a was stopped")));
}

#[test]
fn a_job_is_rescaled_when_it_has_stopped_and_stays_as_it_is_when_it_has_not() {
    let mut manager = manager();
    manager.beat("a", &beat(&manager, 3, vec![]), 0, 0.5);
    manager.submit(job("j", 1, AGAIN, 0), 0);
    let to = |slots| Rescale { trigger: "t".to_owned(), parallelism: slots, planned: job("", slots, AGAIN, 0).planned };
    assert!(manager.rescale("j", to(2)).unwrap_err().contains("INITIALIZING") && manager.rescale("x", to(2)).is_err());
    manager.beat("a", &beat(&manager, 3, vec![worker(0, 0, Phase::Running)]), 1, 0.5);
    assert_eq!(manager.rescale("j", to(4)).unwrap_err(), "needs 4, has 3 with its own: it would not run until there are more");
    assert_eq!(manager.rescale("j", to(3)).unwrap(), [Action::Save("j".to_owned())]);
    assert!(manager.rescale("j", to(2)).unwrap_err().contains("already"));
    // It refuses to stop.
    assert!(manager.give_up_rescale("j", "another").is_empty());
    assert_eq!(manager.give_up_rescale("j", "t"), [Action::Save("j".to_owned())]);
    manager.rescale("j", to(3)).unwrap();
    manager.beat("a", &beat(&manager, 3, vec![worker(0, 0, exited(0, 0))]), 2, 0.5);
    let job = &manager.jobs["j"];
    assert_eq!((job.state(), job.attempt().number, job.restarts, job.members()[0].slots), ("RESTARTING", 1, 0, 3));
    assert_eq!((job.bundle.options.parallelism, &job.rescale), (Some(3), &None));
    // Who stops it meanwhile has the last word.
    let (mut stopped, _) = Manager::new(Settings { lease: 10_000, grace: 2_000 }, 2, [job.clone()], 2);
    stopped.beat("a", &beat(&stopped, 3, vec![worker(1, 0, Phase::Running)]), 3, 0.5);
    stopped.rescale("j", to(1)).unwrap();
    assert_eq!(stopped.end_rescale("j"), [Action::Save("j".to_owned())]);
    stopped.beat("a", &beat(&stopped, 3, vec![worker(1, 0, exited(0, 0))]), 4, 0.5);
    assert_eq!((stopped.jobs["j"].state(), stopped.end_rescale("j")), ("FINISHED", vec![]));
    assert!(stopped.rescale("j", to(1)).is_err());
    // A crash in between: as it was.
    manager.beat("a", &beat(&manager, 3, vec![worker(1, 0, Phase::Running)]), 3, 0.5);
    manager.rescale("j", to(1)).unwrap();
    manager.beat("a", &beat(&manager, 3, vec![worker(1, 0, exited(0, 1))]), 4, 0.5);
    assert_eq!((manager.jobs["j"].planned.slots, &manager.jobs["j"].rescale), (3, &None));
    manager.wake(2_000, 0.5);
    manager.beat("a", &beat(&manager, 3, vec![worker(2, 0, exited(0, 0))]), 2_001, 0.5);
    assert_eq!(manager.jobs["j"].state(), "FINISHED");
}

#[test]
fn a_clock_that_was_put_back_keeps_nobody_waiting() {
    let (later, mut job) = (1_000_000, job("j", 1, AGAIN, 0));
    (job.stage, job.changed) = (Stage::Pausing { until: later + 500 }, later);
    let (mut manager, _) = Manager::new(Settings { lease: 10_000, grace: 2_000 }, 2, [job], 1_000);
    manager.beat("a", &beat(&manager, 1, vec![]), 1_000, 0.5);
    assert_eq!(manager.jobs["j"].state(), "RESTARTING");
    manager.wake(1_500, 0.5);
    assert_eq!(manager.orders("a").workers.len(), 1);
}

/// Of a manager that has lost its data: a job of which it cannot know whether another one has run it.
fn unknown(past: Past) -> (Manager, Job) {
    let manager = Manager::new(Settings { lease: 10_000, grace: 2_000 }, 7, [], 100).0;
    (manager, Job { past, ..job("j", 1, RestartStrategy::None, 100) })
}

#[test]
fn a_job_that_another_manager_may_have_run_waits_for_the_end_of_what_that_one_has_begun() {
    let followed =
        |manager: &Manager| Beat { seen: Version { generation: 6, number: 4 }, ..beat(manager, 1, vec![worker(3, 0, Phase::Running)]) };
    // Who has followed that one comes before the job or after it.
    for comes_first in [true, false] {
        let (mut manager, job) = unknown(Past::Unknown);
        if comes_first {
            manager.beat("tm", &followed(&manager), 200, 0.5);
        }
        manager.submit(job, 300);
        if !comes_first {
            manager.beat("tm", &followed(&manager), 400, 0.5);
        }
        assert_eq!((&manager.jobs["j"].stage, manager.jobs["j"].state()), (&Stage::Pausing { until: 10_100 }, "RESTARTING"));
        assert!(manager.orders("tm").workers.is_empty(), "what runs there is ended");
        manager.beat("tm", &beat(&manager, 1, vec![]), 10_099, 0.5);
        assert!(manager.orders("tm").workers.is_empty());
        manager.wake(10_100, 0.5);
        let order = manager.orders("tm").workers.remove(0);
        assert!(order.resumes && order.restarts == 0);
        // Not the first start of the job, and none that the other manager has counted.
        assert_eq!(order.attempt, Attempt { job: "j".to_owned(), term: 7, number: 1 });
    }
}

#[test]
fn a_job_that_nobody_has_run_begins_at_once_and_looks_for_itself() {
    let (mut manager, job) = unknown(Past::Unknown);
    manager.beat("tm", &Beat { seen: Version::default(), ..beat(&manager, 1, vec![]) }, 200, 0.5);
    manager.submit(job, 300);
    let order = manager.orders("tm").workers.remove(0);
    assert!(order.resumes && order.attempt.number == 0);
    // One that comes later, has followed another manager and runs nothing of the job changes nothing of what runs.
    manager.beat("other", &Beat { seen: Version { generation: 6, number: 1 }, ..beat(&manager, 1, vec![]) }, 400, 0.5);
    assert!(matches!(manager.jobs["j"].stage, Stage::Deployed { killed: None, .. }));
    // One that does: it begins anew when that has ended.
    let former = |phase| Worker { attempt: Attempt { job: "j".to_owned(), term: 6, number: 0 }, ..worker(0, 0, phase) };
    manager.beat("other", &beat(&manager, 1, vec![former(Phase::Running)]), 500, 0.5);
    assert!(manager.orders("tm").workers.is_empty() && manager.orders("other").workers.is_empty());
    manager.beat("tm", &beat(&manager, 1, vec![]), 600, 0.5);
    assert_eq!(manager.jobs["j"].stage, Stage::Waiting);
    manager.beat("other", &beat(&manager, 1, vec![former(Phase::Ending)]), 700, 0.5);
    assert_eq!(manager.jobs["j"].stage, Stage::Waiting);
    manager.beat("other", &beat(&manager, 1, vec![]), 800, 0.5);
    assert!(matches!(manager.jobs["j"].stage, Stage::Deployed { killed: None, .. }));
    assert_eq!((manager.jobs["j"].attempt().number, manager.jobs["j"].restarts), (1, 0));
    // A job that is known to have run waits, whoever is there.
    let (mut manager, job) = unknown(Past::Begun);
    manager.submit(job, 300);
    assert_eq!(manager.jobs["j"].stage, Stage::Pausing { until: 10_100 });
    // A session's jobs are of whoever submits them.
    let (mut manager, job) = unknown(Past::None);
    manager.beat("tm", &Beat { seen: Version { generation: 6, number: 1 }, ..beat(&manager, 1, vec![]) }, 200, 0.5);
    manager.submit(job, 300);
    assert!(!manager.orders("tm").workers[0].resumes);
}

#[test]
fn a_job_that_was_taken_over_by_its_own_process_under_a_former_manager_goes_on() {
    let fenced = |manager: &Manager| Worker { attempt: manager.jobs["j"].attempt(), ..worker(0, 0, exited(0, crate::ends::SUPERSEDED)) };
    for (past, state) in [(Past::Unknown, "RESTARTING"), (Past::None, "FAILED")] {
        let (mut manager, job) = unknown(past);
        manager.beat("tm", &beat(&manager, 1, vec![]), 200, 0.5);
        manager.submit(job, 300);
        manager.beat("tm", &beat(&manager, 1, vec![fenced(&manager)]), 400, 0.5);
        assert_eq!((manager.jobs["j"].state(), manager.jobs["j"].restarts), (state, 0), "no failure of its own, and no strategy is asked");
        if past == Past::None {
            continue;
        }
        manager.wake(5_400, 0.5);
        assert_eq!(manager.orders("tm").workers[0].attempt.number, 1);
        // Another job has its name: the start says so, and that is the end.
        manager.beat(
            "tm",
            &beat(&manager, 1, vec![Worker { attempt: manager.jobs["j"].attempt(), ..worker(1, 0, exited(0, 2)) }]),
            5_500,
            0.5,
        );
        assert_eq!(manager.jobs["j"].state(), "FAILED");
    }
}

#[test]
fn of_a_job_that_was_kept_it_is_known_what_has_begun() {
    let (mut before, job) = unknown(Past::Unknown);
    before.submit(job, 300);
    let mut manager = Manager::new(before.settings, 8, [before.jobs["j"].clone()], 400).0;
    manager.beat("tm", &Beat { seen: Version { generation: 7, number: 1 }, ..beat(&manager, 1, vec![]) }, 500, 0.5);
    assert_eq!(manager.orders("tm").workers[0].attempt, Attempt { job: "j".to_owned(), term: 7, number: 0 });
}
