//! `standpipe demo`: the metrics demo from end to end. A producer job writes signals to Kafka, the pipeline of `examples/signal-quality.yaml` makes windows, runs and
//! flags of them in Elasticsearch, and at the end everything that must be there is computed a second time from the Kafka log and compared.
//!
//! This file is the order of events. Where Kafka and Elasticsearch come from is in `services`, the two jobs in `jobs`, the log in `log`, the truth in `truth`, the
//! comparison in `compare`.

mod compare;
mod documents;
mod jobs;
mod log;
mod services;
mod truth;

use crate::{
    cli::DemoArguments,
    exit::{Code, Failure},
    signals::Listener,
};
use jobs::{Job, Names};
use services::{Elasticsearch, Kafka};
use standpipe_loader::{Catalogue, SearchPath};
use std::{
    collections::HashSet,
    io::{Write, stdout},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// How often the state is looked at, and how often it is shown.
const LOOK: Duration = Duration::from_millis(50);
const SHOW: Duration = Duration::from_secs(5);
/// How long the pipeline may stand still with records left to read.
const STANDSTILL: Duration = Duration::from_secs(60);

/// Runs the demo; success means that every document is right.
pub(crate) fn run(arguments: &DemoArguments) -> anyhow::Result<()> {
    let count = records(arguments)?;
    let catalogue = Catalogue::discover(&SearchPath::new(&[], &arguments.plugins.plugin_path));
    let names = Names::of_this_run();
    let kafka = Kafka::provide(arguments.kafka.as_deref(), &catalogue, &names.topic)?;
    let elasticsearch = Elasticsearch::provide(arguments.elasticsearch.as_deref())?;
    eprintln!("Kafka:         {}", kafka.remark);
    eprintln!("Elasticsearch: {}", elasticsearch.remark);
    eprintln!("topic {}; indices {}", names.topic, names.indices().join(", "));

    let producer = Job::producer(arguments, &kafka, &names, count)?;
    let stopping = Arc::new(AtomicBool::new(false));
    let (asked, control) = (Arc::clone(&stopping), producer.control());
    let signals = Listener::start("no more records; what is in Kafka is processed and compared", move || {
        asked.store(true, Relaxed);
        control.stop(false);
    })?;
    eprintln!(
        "{} records a second for {:?}, event time runs {} times as fast; Ctrl-C ends it sooner\n",
        arguments.rate, arguments.duration, arguments.speed
    );

    // The producer makes the topic; before that the pipeline would call it missing.
    while producer.metrics().totals().rows_out == 0 && !producer.ended()? {
        std::thread::sleep(LOOK);
    }
    let main = Job::main(arguments, &kafka, &elasticsearch, &names)?;
    let produced = follow(&main, producer, &elasticsearch, &names)?;
    main.control().stop(true);
    let totals = main.wait()?.totals;
    drop(signals);
    if produced < count && !stopping.load(Relaxed) {
        return Err(Failure::error(Code::Failed, format!("the producer wrote {produced} of {count} records")));
    }

    let log = log::read(&kafka, &catalogue, &names.topic)?;
    if log.len() as u64 != produced {
        return Err(Failure::error(Code::Failed, format!("{produced} records were written to {}, {} are there", names.topic, log.len())));
    }
    let found = documents::Found::fetch(&elasticsearch, &names)?;
    let truth = truth::compute(&log, &found.late).map_err(|message| Failure::error(Code::Failed, message))?;
    let differences = compare::differences(&truth, &found, &log);
    if !differences.is_empty() {
        return Err(Failure::error(Code::Failed, compare::report(&differences)));
    }
    writeln!(
        stdout(),
        "{} windows, {} runs, {} flags: all equal ({} records in Kafka, {} late, {} documents written)",
        found.windows.len(),
        found.runs.len(),
        found.flags.len(),
        log.len(),
        found.late.len(),
        totals.rows_out
    )?;
    if !kafka.is_stand_in() || !elasticsearch.is_stand_in() {
        eprintln!("topic {} and indices *-{} stay where they are", names.topic, names.run);
    }
    kafka.close()
}

/// How many records the arguments ask for.
fn records(arguments: &DemoArguments) -> anyhow::Result<u64> {
    let count = (arguments.duration.as_secs_f64() * f64::from(arguments.rate)).round() as u64;
    if count == 0 {
        return Err(Failure::error(
            Code::Usage,
            format!("--duration {:?} at --rate {} makes no record", arguments.duration, arguments.rate),
        ));
    }
    if arguments.kafka.is_none() && count > services::STAND_IN_RECORDS {
        let limit = services::STAND_IN_RECORDS;
        return Err(Failure::error(
            Code::Usage,
            format!(
                "--duration and --rate make {count} records; the stand-in for Kafka keeps {limit}: make it less, or give a real one with --kafka"
            ),
        ));
    }
    Ok(count)
}

/// Shows what happens until all that is produced has been read. Gives the number of records in Kafka.
fn follow(main: &Job, producer: Job, elasticsearch: &Elasticsearch, names: &Names) -> anyhow::Result<u64> {
    let start = Instant::now();
    let (mut shown, mut moved, mut read) = (start, start, 0);
    let mut produced = None;
    let mut producer = Some(producer);
    let written = producer.as_ref().map(Job::metrics);
    loop {
        main.check()?;
        if let Some(job) = &producer
            && job.ended()?
        {
            produced = written.as_ref().map(|metrics| metrics.totals().rows_out);
            producer = None;
        }
        let now_read = main.metrics().totals().rows_in;
        if now_read != read {
            (read, moved) = (now_read, Instant::now());
        }
        if let Some(produced) = produced.filter(|produced| read >= *produced) {
            return Ok(produced);
        }
        if produced.is_some() && moved.elapsed() > STANDSTILL {
            return Err(Failure::error(
                Code::Failed,
                format!("{read} of {} records were read, then none for {STANDSTILL:?}", produced.unwrap_or(0)),
            ));
        }
        if shown.elapsed() >= SHOW {
            shown = Instant::now();
            let in_kafka = written.as_ref().map_or(0, |metrics| metrics.totals().rows_out);
            show(start.elapsed(), in_kafka, main, elasticsearch, names);
        }
        std::thread::sleep(LOOK);
    }
}

/// One line on the jobs and the newest window of each baseline, as Elasticsearch has them.
fn show(elapsed: Duration, in_kafka: u64, main: &Job, elasticsearch: &Elasticsearch, names: &Names) {
    let rows = |sink: &str| main.metrics().nodes().iter().find(|node| node.path == sink).map_or(0, |node| node.rows_out.get());
    eprintln!(
        "{:3.0} s: {in_kafka} records in Kafka, {} read; in Elasticsearch {} windows, {} runs, {} changes of flags",
        elapsed.as_secs_f64(),
        main.metrics().totals().rows_in,
        rows("sinks.signal-windows"),
        rows("sinks.flag-runs"),
        rows("sinks.current-flag")
    );
    // The index may not be there yet, or be closed for a moment: the next time will do.
    let Ok(windows) = documents::newest_windows(elasticsearch, names) else { return };
    let mut seen = HashSet::new();
    for window in windows.iter().filter(|window| seen.insert(window.baseline)) {
        eprintln!(
            "       baseline {:2}, 15 s from {}: {:4} signals, mean {:+.3}, from {:+.3} to {:+.3}, {} flags",
            window.baseline, window.start, window.values.count, window.mean, window.values.min, window.values.max, window.values.flags
        );
    }
}
