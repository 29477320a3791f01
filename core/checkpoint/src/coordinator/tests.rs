use super::{Action::*, *};

const SOURCE: Part = Part::Subtask(0, 0);
const SINK: Part = Part::Subtask(1, 0);
const FINDER: Part = Part::Enumerator(0);

fn settings() -> Settings {
    Settings { interval: Some(100), min_pause: 10, retry_pause: 0, timeout: 50, tolerated_failures: 1 }
}

fn coordinator() -> Coordinator {
    Coordinator::new(settings(), [FINDER, SOURCE, SINK], [SINK], 5, 0)
}

/// Everything of checkpoint `id`, from the enumerator's part on.
fn complete(coordinator: &mut Coordinator, id: u64, now: Micros) -> Vec<Action> {
    let mut actions = Vec::new();
    for event in [Event::Part(id, FINDER), Event::Part(id, SINK), Event::Part(id, SOURCE), Event::Written(id), Event::Committed(id, SINK)] {
        actions.extend(coordinator.on(now, event));
    }
    actions
}

#[test]
fn one_after_the_other_in_order() {
    let mut coordinator = coordinator();
    assert_eq!((coordinator.deadline(), coordinator.wake(99)), (Some(100), vec![]));
    assert_eq!(coordinator.wake(100), [Ask(5, Reason::Interval)]);
    assert_eq!(coordinator.on(101, Event::Part(5, FINDER)), [Trigger(5, Reason::Interval)]);
    assert_eq!(coordinator.on(102, Event::Part(5, SINK)), []);
    assert_eq!(coordinator.on(103, Event::Part(5, SINK)), [], "twice the same is once");
    assert_eq!(coordinator.on(104, Event::Part(5, SOURCE)), [Write(5, Reason::Interval)]);
    assert_eq!(coordinator.on(110, Event::Written(5)), [CommitSinks(5)]);
    assert_eq!(coordinator.deadline(), Some(200));
    assert_eq!(coordinator.on(111, Event::Committed(5, SINK)), [CommitUpstream(5)]);
    assert_eq!(coordinator.wake(200), [Ask(6, Reason::Interval)]);
}

#[test]
fn a_slow_one_is_followed_by_a_pause() {
    let mut coordinator = Coordinator::new(Settings { timeout: 1_000, ..settings() }, [SOURCE], [], 1, 0);
    assert_eq!(coordinator.wake(100), [Ask(1, Reason::Interval), Trigger(1, Reason::Interval)]);
    assert_eq!(coordinator.wake(350), []);
    coordinator.on(360, Event::Part(1, SOURCE));
    assert_eq!(coordinator.on(365, Event::Written(1)), [CommitSinks(1), CommitUpstream(1)]);
    assert_eq!((coordinator.deadline(), coordinator.wake(374)), (Some(375), vec![]));
    assert_eq!(coordinator.wake(375), [Ask(2, Reason::Interval), Trigger(2, Reason::Interval)]);
}

#[test]
fn what_takes_too_long_is_given_up_and_covered_by_the_next() {
    let mut coordinator = coordinator();
    coordinator.wake(100);
    coordinator.on(101, Event::Part(5, FINDER));
    coordinator.on(101, Event::Part(5, SINK));
    assert_eq!(coordinator.wake(150), [GiveUp(5, "1 of 3 parts did not come in time".to_owned())]);
    assert_eq!(coordinator.on(151, Event::Part(5, SOURCE)), [], "too late");
    assert_eq!(coordinator.wake(200), [Ask(6, Reason::Interval)]);
    let expected = [Trigger(6, Reason::Interval), Write(6, Reason::Interval), CommitSinks(6), CommitUpstream(6)];
    assert_eq!(complete(&mut coordinator, 6, 201), expected);
    // A success forgives: it takes two more to end the job.
    coordinator.wake(300);
    assert_eq!(coordinator.on(301, Event::PartFailed(7, "disk full".to_owned())), [GiveUp(7, "disk full".to_owned())]);
    coordinator.wake(400);
    let actions = coordinator.on(401, Event::WriteFailed(8, "no answer".to_owned()));
    assert_eq!(actions, [GiveUp(8, "no answer".to_owned()), Fail("checkpoint 8: no answer".to_owned())]);
    assert_eq!((coordinator.deadline(), coordinator.wake(10_000)), (None, vec![]));
}

#[test]
fn a_commit_covers_the_former_ones() {
    let mut coordinator = coordinator();
    coordinator.wake(100);
    for event in [Event::Part(5, FINDER), Event::Part(5, SINK), Event::Part(5, SOURCE), Event::Written(5)] {
        coordinator.on(101, event);
    }
    coordinator.wake(200);
    let expected = [Trigger(6, Reason::Interval), Write(6, Reason::Interval), CommitSinks(6), CommitUpstream(6)];
    assert_eq!(complete(&mut coordinator, 6, 201), expected, "the sink is still at 5");
    assert_eq!(coordinator.on(202, Event::Committed(5, SINK)), []);
}

#[test]
fn a_savepoint_does_not_wait_for_the_interval() {
    let mut coordinator = coordinator();
    assert_eq!(coordinator.on(20, Event::Requested), [Ask(5, Reason::Savepoint)]);
    assert_eq!(coordinator.on(21, Event::Part(5, FINDER)), [Trigger(5, Reason::Savepoint)]);
    assert_eq!(coordinator.on(22, Event::PartFailed(5, "x".to_owned())), [GiveUp(5, "x".to_owned())]);
    assert_eq!(coordinator.deadline(), Some(120), "whoever wanted it has been told, and may ask again");
    assert_eq!(coordinator.on(30, Event::Requested), []);
    assert_eq!(coordinator.wake(32), [Ask(6, Reason::Savepoint)]);
}

#[test]
fn while_sources_are_drained_none_is_taken_but_on_request() {
    let mut coordinator = coordinator();
    assert_eq!(coordinator.on(20, Event::Draining), []);
    assert_eq!((coordinator.deadline(), coordinator.wake(1_000)), (None, vec![]));
    assert_eq!(coordinator.on(1_001, Event::Requested), [Ask(5, Reason::Savepoint)]);
    complete(&mut coordinator, 5, 1_002);
    assert_eq!(coordinator.on(2_000, Event::Ending), [Ask(6, Reason::Last)]);
}

#[test]
fn the_last_one_ends_the_job_when_it_is_committed() {
    let mut coordinator = Coordinator::new(Settings { interval: None, ..settings() }, [SOURCE, SINK], [SINK], 1, 0);
    assert_eq!((coordinator.deadline(), coordinator.wake(1_000_000)), (None, vec![]));
    assert_eq!(coordinator.on(1_000_000, Event::Ending), [Ask(1, Reason::Last), Trigger(1, Reason::Last)]);
    coordinator.on(1_000_001, Event::Part(1, SINK));
    assert_eq!(coordinator.on(1_000_002, Event::Part(1, SOURCE)), [Write(1, Reason::Last)]);
    assert_eq!(coordinator.on(1_000_003, Event::Written(1)), [CommitSinks(1)]);
    assert_eq!((coordinator.deadline(), coordinator.wake(9_000_000)), (None, vec![]));
    assert_eq!(coordinator.on(9_000_000, Event::Committed(1, SINK)), [CommitUpstream(1), End]);
}

#[test]
fn a_job_that_ends_during_a_checkpoint_finishes_it_first() {
    let mut coordinator = coordinator();
    coordinator.wake(100);
    assert_eq!(coordinator.on(101, Event::Ending), []);
    coordinator.on(102, Event::Part(5, FINDER));
    coordinator.on(102, Event::Part(5, SINK));
    coordinator.on(103, Event::Part(5, SOURCE));
    assert_eq!(coordinator.on(104, Event::Written(5)), [CommitSinks(5), Ask(6, Reason::Last)]);
    let expected = [Trigger(6, Reason::Last), Write(6, Reason::Last), CommitSinks(6), CommitUpstream(6), End];
    assert_eq!(complete(&mut coordinator, 6, 105), expected);
}
