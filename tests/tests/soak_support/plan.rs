//! What happens to a job, and when: the same for the same seed, however many rounds there are.

use standpipe_tests::Random;

const STEPS: [&str; 8] = ["prepare", "prepared", "write", "durable", "commit", "committed", "upstream", "done"];
/// The job is never twice of the same size.
const PARALLELISM: [u32; 3] = [4, 3, 5];

/// From a start with one parallelism to a stop with a savepoint.
#[derive(Debug, PartialEq)]
pub(crate) struct Round {
    pub(crate) parallelism: u32,
    pub(crate) processes: u32,
    /// A process dies at this step of the checkpoint that is the so-manieth of the round.
    pub(crate) crash_at: Option<(&'static str, u64)>,
    pub(crate) faults: Vec<Timed>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Timed {
    /// After so many checkpoints more.
    pub(crate) checkpoints: usize,
    /// And so much later.
    pub(crate) millis: u64,
    pub(crate) fault: Fault,
}

/// The process is a number that goes round.
#[derive(Debug, PartialEq)]
pub(crate) enum Fault {
    /// A process gets SIGKILL.
    Kill(u32),
    /// The supervisor does, and with it all its processes die.
    KillAll,
    /// A process gets SIGSTOP, and SIGCONT so many milliseconds later, before its lease is over.
    Pause(u32, u64),
    /// A process of several gets SIGSTOP, and nobody wakes it.
    Stop(u32),
    /// The store of checkpoints fails for so many milliseconds at least; meanwhile a process may get SIGKILL.
    StoreFails(u64, Option<u32>),
}

/// The rounds of that seed.
pub(crate) fn rounds(seed: u64, rounds: usize) -> Vec<Round> {
    let mut random = Random::new(seed);
    (0..rounds).map(|number| round(&mut random, PARALLELISM[number % PARALLELISM.len()])).collect()
}

fn round(random: &mut Random, parallelism: u32) -> Round {
    let processes = 1 + random.below(3) as u32;
    let crash_at = (random.below(2) == 0).then(|| (STEPS[random.below(8) as usize], 2 + random.below(4)));
    let faults = (0..2 + random.below(3)).map(|_| Timed {
        checkpoints: 1 + random.below(4) as usize,
        millis: random.below(150),
        fault: fault(random, processes),
    });
    Round { parallelism, processes, crash_at, faults: faults.collect() }
}

fn fault(random: &mut Random, processes: u32) -> Fault {
    let process = random.below(u64::from(processes)) as u32;
    match random.below(20) {
        0..=8 => Fault::Kill(process),
        9..=11 => Fault::Pause(process, 100 + random.below(2_000)),
        12..=14 => Fault::StoreFails(300 + random.below(2_000), None),
        15..=16 => Fault::StoreFails(random.below(1_000), Some(process)),
        17..=18 => Fault::KillAll,
        _ if processes > 1 => Fault::Stop(process),
        _ => Fault::Kill(process),
    }
}

#[test]
fn a_seed_gives_the_same_faults_again_and_another_one_gives_others() {
    assert_eq!(rounds(7, 30)[..10], rounds(7, 10));
    assert_ne!(rounds(7, 10), rounds(8, 10));
    let faults: Vec<Fault> = rounds(7, 100).into_iter().flat_map(|round| round.faults).map(|timed| timed.fault).collect();
    let has = |is: fn(&Fault) -> bool| faults.iter().any(is);
    assert!(has(|fault| matches!(fault, Fault::Kill(_))) && has(|fault| matches!(fault, Fault::Pause(..))));
    assert!(has(|fault| matches!(fault, Fault::Stop(_))) && has(|fault| *fault == Fault::KillAll));
    assert!(has(|fault| matches!(fault, Fault::StoreFails(_, None))) && has(|fault| matches!(fault, Fault::StoreFails(_, Some(_)))));
}
