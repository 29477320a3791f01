//! `standpipe demo`: the metrics demo from end to end. A producer job writes signals to Kafka, the pipeline of `examples/signal-quality.yaml` makes windows, runs and
//! flags of them in Elasticsearch, and at the end everything that must be there is computed a second time from the Kafka log and compared.
//!
//! With `--cluster` the pipeline runs on a session cluster (`cluster`). This file is the order of events. Where Kafka and Elasticsearch come from is in `services`, the two jobs in `jobs`, the log in `log`, the truth in `truth`, the
//! comparison in `compare`.

mod cluster;
mod compare;
mod documents;
mod jobs;
mod log;
mod services;
mod truth;

use crate::{
    cli::DemoArguments,
    exit::{Code, Failure},
    output::{print, say},
    signals::Listener,
};
use cluster::{Cluster, Deployed};
use jobs::{Job, Names};
use services::{Elasticsearch, Kafka};
use standpipe_loader::{Catalogue, SearchPath};
use std::{
    collections::HashSet,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// How often the state is looked at, and how often it is shown.
const LOOK: Duration = Duration::from_millis(50);
const SHOW: Duration = Duration::from_secs(5);

/// Runs the demo; success means that every document is right.
pub(crate) fn run(arguments: &DemoArguments) -> anyhow::Result<()> {
    let count = records(arguments)?;
    let catalogue = Catalogue::discover(&SearchPath::new(&[], &arguments.plugins.plugin_path));
    let names = Names::of_this_run();
    let kafka = Kafka::provide(arguments.kafka.as_deref(), &catalogue, &names.topic)?;
    let elasticsearch = Elasticsearch::provide(arguments.elasticsearch.as_deref())?;
    say!("Kafka:         {}", kafka.remark);
    say!("Elasticsearch: {}", elasticsearch.remark);
    say!("topic {}; indices {}", names.topic, names.indices().join(", "));
    let cluster = arguments.cluster.then(|| Cluster::start(arguments, &elasticsearch)).transpose()?.map(Rc::new);
    if let Some(cluster) = &cluster {
        say!("dashboard:     {}", cluster.url);
    }

    let producer = Job::producer(arguments, &kafka, &names, count)?;
    let stopping = Arc::new(AtomicBool::new(false));
    let (asked, control) = (Arc::clone(&stopping), producer.control());
    let signals = Listener::start("no more records; what is in Kafka is processed and compared", move || {
        asked.store(true, Relaxed);
        control.stop(false);
    })?;
    say!(
        "{} records a second for {:?}, event time runs {} times as fast; Ctrl-C ends it sooner\n",
        arguments.rate,
        arguments.duration,
        arguments.speed
    );

    // The producer makes the topic; before that the pipeline would call it missing.
    while producer.metrics().totals().rows_out == 0 && !producer.ended()? {
        std::thread::sleep(LOOK);
    }
    if stopping.load(Relaxed) && producer.metrics().totals().rows_out == 0 {
        say!("stopped before a record was written: there is nothing to compare");
        return Ok(());
    }
    let main = match &cluster {
        Some(cluster) => Main::There(cluster.submit(arguments, &kafka, &elasticsearch, &names)?),
        None => Main::Here(Box::new(Job::main(arguments, &kafka, &elasticsearch, &names)?)),
    };
    if let Main::There(deployed) = &main {
        say!("the pipeline:  {page}; its windows as a chart: {page}/rows/windows\n", page = deployed.page());
    }
    let produced = follow(&main, producer, &elasticsearch, &names, arguments.patience)?;
    let written = deliver(main, arguments.patience)?;
    signals.end_at_once();
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
    print(&format!(
        "{} windows, {} runs, {} flags: all equal ({} records in Kafka, {} late, {} documents written)\n",
        found.windows.len(),
        found.runs.len(),
        found.flags.len(),
        log.len(),
        found.late.len(),
        written
    ))?;
    if !kafka.is_stand_in() || !elasticsearch.is_stand_in() {
        say!("topic {} and indices *-{} stay where they are", names.topic, names.run);
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

/// Watches numbers that must not stand still for longer than `patience` with records left to write, read or deliver.
struct Watch {
    patience: Duration,
    seen: (u64, u64),
    moved: Instant,
}

impl Watch {
    fn start(patience: Duration) -> Self {
        Self { patience, seen: (0, 0), moved: Instant::now() }
    }

    /// Fails, in these words, once the numbers have been the same for too long.
    fn look(&mut self, numbers: (u64, u64), words: impl FnOnce() -> String) -> anyhow::Result<()> {
        if numbers != self.seen {
            (self.seen, self.moved) = (numbers, Instant::now());
        }
        if self.moved.elapsed() > self.patience {
            return Err(Failure::error(Code::Failed, format!("{}, then nothing for {:?}", words(), self.patience)));
        }
        Ok(())
    }
}

/// Shows what happens until all that is produced has been read. Gives the number of records in Kafka.
fn follow(main: &Main, producer: Job, elasticsearch: &Elasticsearch, names: &Names, patience: Duration) -> anyhow::Result<u64> {
    let start = Instant::now();
    let (mut shown, mut watch, mut produced) = (start, Watch::start(patience), None);
    let written = producer.metrics();
    let mut producer = Some(producer);
    loop {
        main.check()?;
        if let Some(job) = &producer
            && job.ended()?
        {
            produced = Some(written.totals().rows_out);
            producer = None;
        }
        let (in_kafka, read) = (written.totals().rows_out, main.read()?);
        if let Some(produced) = produced.filter(|produced| read >= *produced) {
            return Ok(produced);
        }
        watch.look((in_kafka, read), || format!("{in_kafka} records were written to Kafka and {read} of them read"))?;
        if shown.elapsed() >= SHOW {
            shown = Instant::now();
            show(start.elapsed(), in_kafka, main, elasticsearch, names);
        }
        std::thread::sleep(LOOK);
    }
}

/// Ends the pipeline when Elasticsearch has taken everything. Gives the number of documents that were written.
fn deliver(main: Main, patience: Duration) -> anyhow::Result<u64> {
    main.drain()?;
    let mut watch = Watch::start(patience);
    while !main.ended()? {
        let written = main.written()?;
        watch.look((written, 0), || format!("all records were read, {written} documents delivered"))?;
        std::thread::sleep(LOOK);
    }
    main.written()
}

/// The pipeline, wherever it runs.
enum Main {
    Here(Box<Job>),
    There(Deployed),
}

impl Main {
    /// Records that it has read.
    fn read(&self) -> anyhow::Result<u64> {
        match self {
            Self::Here(job) => Ok(job.metrics().totals().rows_in),
            Self::There(job) => job.total("rows_in"),
        }
    }

    /// Documents that it has written.
    fn written(&self) -> anyhow::Result<u64> {
        match self {
            Self::Here(job) => Ok(job.metrics().totals().rows_out),
            Self::There(job) => job.total("rows_out"),
        }
    }

    /// Documents that a sink has written.
    fn written_by(&self, sink: &str) -> u64 {
        match self {
            Self::Here(job) => job.metrics().nodes().iter().find(|node| node.path == sink).map_or(0, |node| node.rows_out.get()),
            Self::There(job) => job.given(sink).unwrap_or(0),
        }
    }

    /// Whether it has ended without a failure.
    fn ended(&self) -> anyhow::Result<bool> {
        match self {
            Self::Here(job) => job.ended(),
            Self::There(job) => job.ended(),
        }
    }

    /// Fails if it has ended: it should run until it is stopped.
    fn check(&self) -> anyhow::Result<()> {
        if self.ended()? {
            return Err(Failure::error(Code::Failed, "the pipeline ended by itself"));
        }
        Ok(())
    }

    /// Stops it; open windows fire.
    fn drain(&self) -> anyhow::Result<()> {
        match self {
            Self::Here(job) => {
                job.control().stop(true);
                Ok(())
            }
            Self::There(job) => job.drain(),
        }
    }
}

/// One line on the jobs and the newest window of each baseline, as Elasticsearch has them.
fn show(elapsed: Duration, in_kafka: u64, main: &Main, elasticsearch: &Elasticsearch, names: &Names) {
    say!(
        "{:3.0} s: {in_kafka} records in Kafka, {} read; in Elasticsearch {} windows, {} runs, {} changes of flags",
        elapsed.as_secs_f64(),
        main.read().unwrap_or(0),
        main.written_by("sinks.signal-windows"),
        main.written_by("sinks.flag-runs"),
        main.written_by("sinks.current-flag")
    );
    // The index may not be there yet, or be closed for a moment: the next time will do.
    let Ok(windows) = documents::newest_windows(elasticsearch, names) else { return };
    let mut seen = HashSet::new();
    for window in windows.iter().filter(|window| seen.insert(window.baseline)) {
        say!(
            "       baseline {:2}, 15 s from {}: {:4} signals, mean {:+.3}, from {:+.3} to {:+.3}, {} flags",
            window.baseline,
            window.start,
            window.values.count,
            window.mean,
            window.values.min,
            window.values.max,
            window.values.flags
        );
    }
}
