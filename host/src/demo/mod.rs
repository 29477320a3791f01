//! `standpipe demo`: the metrics demo from end to end. A producer job writes signals to Kafka, the pipeline of `examples/signal-quality.yaml` makes windows, runs and
//! flags of them in Elasticsearch, and at the end everything that must be there is computed a second time from the Kafka log and compared.
//!
//! With `--cluster` the pipeline runs on a session cluster (`cluster`), with settings of a deployment wherever these say (`deployed`). This file is the order of events. Where Kafka
//! and Elasticsearch come from is in `services`, the two jobs in `jobs`, the pipeline wherever it runs in `pipeline`, the log in `log`, the truth in `truth`, what a restart may have
//! changed of it in `replays`, the comparison in `compare`.

mod cluster;
mod compare;
mod deployed;
mod documents;
mod jobs;
mod log;
mod pipeline;
mod replays;
mod services;
mod truth;

use crate::{
    cli::DemoArguments,
    deployment::services::Services,
    exit::{Code, Failure},
    output::{print, say},
    signals::Listener,
};
use cluster::Cluster;
use deployed::Deployed;
use jobs::{Job, Names};
use pipeline::Main;
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
    let is_deployed = deployed::is_wanted(arguments)?;
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
    let (asked, control, submission) = (Arc::clone(&stopping), producer.control(), Arc::new(Services::default()));
    let give_up = submission.canceller();
    let signals = Listener::start("no more records; what is in Kafka is processed and compared", move || {
        asked.store(true, Relaxed);
        control.stop(false);
        give_up();
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
    let run = Run { kafka: &kafka, elasticsearch: &elasticsearch, names: &names, catalogue: &catalogue };
    let main = match &cluster {
        Some(cluster) => Main::There(cluster.submit(arguments, &kafka, &elasticsearch, &names)?),
        None if is_deployed => Main::Away(Box::new(Deployed::submit(arguments, run, submission)?)),
        None => Main::Here(Box::new(Job::main(arguments, &kafka, &elasticsearch, &names)?)),
    };
    main.introduce()?;
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
    let failed = |message| Failure::error(Code::Failed, message);
    // What runs elsewhere may have been started again meanwhile.
    let late = if is_deployed { replays::late_at_last(&log, &found).map_err(failed)? } else { found.late.clone() };
    let truth = truth::compute(&log, &late).map_err(failed)?;
    let differences = compare::differences(&truth, &found, &log);
    if !differences.is_empty() {
        return Err(failed(compare::report(&differences)));
    }
    // How often each was written, only the job's own numbers say.
    let (documents, what) = if is_deployed { (found.documents(), "there") } else { (written, "written") };
    print(&format!(
        "{} windows, {} runs, {} flags: all equal ({} records in Kafka, {} late, {} documents {})\n",
        found.windows.len(),
        found.runs.len(),
        found.flags.len(),
        log.len(),
        late.len(),
        documents,
        what
    ))?;
    if !kafka.is_stand_in() || !elasticsearch.is_stand_in() {
        say!("topic {} and indices *-{} stay where they are", names.topic, names.run);
    }
    kafka.close()
}

/// What a run has, wherever its pipeline is.
#[derive(Clone, Copy)]
struct Run<'a> {
    kafka: &'a Kafka,
    elasticsearch: &'a Elasticsearch,
    names: &'a Names,
    catalogue: &'a Catalogue,
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
fn follow(main: &Main<'_>, producer: Job, elasticsearch: &Elasticsearch, names: &Names, patience: Duration) -> anyhow::Result<u64> {
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
        let in_kafka = written.totals().rows_out;
        if let Some(produced) = produced
            && main.has_read(produced)?
        {
            return Ok(produced);
        }
        let moved = main.moved()?;
        watch.look((in_kafka, moved), || format!("{in_kafka} records were written to Kafka and {}", main.has_moved(moved)))?;
        if shown.elapsed() >= SHOW {
            shown = Instant::now();
            show(start.elapsed(), in_kafka, main, elasticsearch, names);
        }
        std::thread::sleep(LOOK);
    }
}

/// Ends the pipeline when Elasticsearch has taken everything. Gives the number of documents that were written.
fn deliver(main: Main<'_>, patience: Duration) -> anyhow::Result<u64> {
    main.drain()?;
    let mut watch = Watch::start(patience);
    while !main.ended()? {
        let written = main.written()?;
        watch.look((written, 0), || format!("all records were read, {written} documents delivered"))?;
        std::thread::sleep(LOOK);
    }
    main.written()
}

/// One line on the jobs and the newest window of each baseline, as Elasticsearch has them.
fn show(elapsed: Duration, in_kafka: u64, main: &Main<'_>, elasticsearch: &Elasticsearch, names: &Names) {
    say!(
        "{:3.0} s: {in_kafka} records in Kafka, {}; in Elasticsearch {} windows, {} runs, {} {}",
        elapsed.as_secs_f64(),
        main.state(),
        main.written_by("signal-windows"),
        main.written_by("flag-runs"),
        main.written_by("current-flag"),
        if matches!(main, Main::Away(_)) { "flags" } else { "changes of flags" }
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
