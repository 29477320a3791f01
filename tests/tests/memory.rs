//! A sink that takes nothing: the job holds back its source, in bounded memory and without using the processor, and goes on when the sink does.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Folder, Running, Signal, fixture_plugin, standpipe, wait_until};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// What is in flight may be this much: `engine.in_flight_bytes` of the pipelines here.
const BUDGET: u64 = 16 << 20;
/// What the process may have resident: the program with its plugins, the budget a few times over (rows, their encoded form, Arrow's spare room). Without a limit
/// the generators below fill this in a few seconds.
const MOST: u64 = (192 << 20) + 4 * BUDGET;
/// A job that stands still is watched for this long.
const WATCHED: Duration = Duration::from_secs(2);

const UNREAD: &str = "
name: unread
engine: {in_flight_bytes: 16MiB}
sources:
  rows: {connector: generator, with: {fields: {n: {kind: sequence}, text: {kind: string, length: 200}}}}
sinks:
  out: {input: rows, connector: print, format: json}
";

/// The stopped sink is behind an exchange, and another one, on the same source, is not stopped.
const STUCK: &str = "
name: stuck
parallelism: 2
engine: {in_flight_bytes: 16MiB}
sources:
  rows: {connector: generator, with: {splits: 2, fields: {n: {kind: sequence}, k: {kind: uniform-int, min: 0, max: 1000}, text: {kind: string, length: 200}}}}
transforms:
  totals: {input: rows, key_by: [k], aggregate: {n: \"count(*)\", last: \"last_value(text)\"}, emit: each}
sinks:
  out: {input: totals, connector: bad, with: {at: write, how: block, after: 3}}
  other: {input: rows, connector: bad, with: {}}
";

/// Bytes of memory that the process has resident, and had at most.
fn resident(run: &Running) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{}/status", run.id())).unwrap();
    let kilobytes = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("no {key} in {status}"));
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    (kilobytes("VmRSS:") << 10, kilobytes("VmHWM:") << 10)
}

/// Processor time that the process has used. The kernel counts in hundredths of a second.
fn processor_time(run: &Running) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", run.id())).unwrap();
    // The second column, in parentheses, may hold anything; the user and system times are columns 14 and 15.
    let columns = stat.rsplit_once(')').unwrap().1;
    let ticks: u64 = columns.split_ascii_whitespace().skip(11).take(2).map(|column| column.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Waits until the process has used next to no processor time for half a second: nothing moves any more.
fn wait_until_it_stands_still(run: &mut Running) {
    let (mut since, mut used) = (Instant::now(), Duration::ZERO);
    wait_until("the job stands still", Duration::from_secs(30), || {
        assert!(!run.has_ended(), "it has ended: {}", run.stderr());
        let (most, now) = (resident(run).1, processor_time(run));
        assert!(most < MOST, "{} MB resident", most >> 20);
        if now > used + Duration::from_millis(20) {
            (since, used) = (Instant::now(), now);
        }
        now > Duration::from_millis(50) && since.elapsed() > Duration::from_millis(500)
    });
}

/// Watches a job that stands still for a while: it must stay so, in memory and in processor time.
fn assert_it_idles(run: &mut Running) {
    let (used, resident_before, start) = (processor_time(run), resident(run).0, Instant::now());
    while start.elapsed() < WATCHED {
        assert!(!run.has_ended(), "it has ended: {}", run.stderr());
        thread::sleep(Duration::from_millis(50));
    }
    let (used, (resident_after, most)) = (processor_time(run) - used, resident(run));
    eprintln!("{} MB resident, {} MB at most, {used:?} of the processor in {WATCHED:?}", resident_after >> 20, most >> 20);
    assert!(used <= WATCHED / 20, "standing still uses {used:?} of the processor in {WATCHED:?}");
    assert!(resident_after < resident_before + (8 << 20), "memory grew from {resident_before} to {resident_after} bytes");
    assert!(most < MOST, "{} MB resident", most >> 20);
}

#[test]
fn a_pipe_that_nobody_reads_holds_back_the_source() {
    let folder = Folder::new();
    folder.write("unread.yaml", UNREAD);
    let mut run = standpipe(["run", "unread.yaml"]).in_directory(folder.path()).stdout_unread().start();
    wait_until_it_stands_still(&mut run);
    assert_it_idles(&mut run);
    run.close_stdout();
    // It was the first write that hung: something outside was not there from the start.
    let finished = run.wait().code(3);
    assert_eq!(finished.stderr, "error: sinks.out: print: nobody reads standard output any more (broken pipe)\n");
}

#[test]
fn a_sink_behind_an_exchange_that_takes_nothing_holds_back_the_source() {
    let folder = Folder::new();
    folder.write("stuck.yaml", STUCK);
    let mut run = standpipe(["run", "stuck.yaml"]).in_directory(folder.path()).plugin_path(fixture_plugin()).start();
    wait_until_it_stands_still(&mut run);
    assert_it_idles(&mut run);
    run.signal(Signal::INT);
    run.wait_until("the signal is understood", Duration::from_secs(10), |run| run.stderr().contains("stopping"));
    run.signal(Signal::INT);
    let _ = run.wait().code(130);
}

#[test]
fn a_job_with_nothing_to_do_uses_no_processor() {
    let mut run = standpipe(["run", "examples/word-count-changes.yaml", "-p", "2"]).stdin_open().start();
    run.write("one\n");
    run.wait_until("the first count", Duration::from_secs(20), |run| run.stdout().contains("one"));
    assert_it_idles(&mut run);
    run.close_stdin();
    run.wait().success();
}
