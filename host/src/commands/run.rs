//! `run`: the pipeline in this process, or in children of it, in the foreground, until its sources end or a signal comes.

use crate::{
    checkpoints,
    cli::RunArguments,
    control::{
        self, Answer, Request,
        server::{Handler, Server},
        status::{Identity, Taken},
        taps::Taps,
    },
    exit::{Code, Failure},
    exposition,
    load::load,
    output::say,
    processes::Member,
    progress::Progress,
    secrets,
    signals::Listener,
    supervise, traces,
};
use chrono::Utc;
use standpipe_checkpoint::Kind;
use standpipe_engine::{
    Cause, ErrorClass, JobControl, JobError, JobHandle, JobReport, Metrics, PendingSavepoint, RunOptions, SavepointError, Step,
};
use standpipe_pipeline::{Plan, RestartStrategy};
use standpipe_trace::Span;
use std::{
    env,
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// `standpipe run FILE`. What the user has started is a span, and so is each start of the job, in this process or in a child.
pub(super) fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let name = if supervise::attempt().is_some() { "job" } else { "run" };
    let mut span = traces::traces().span(name, traces::parent().as_ref());
    let result = begin(arguments, &mut span);
    traces::end(span, result)
}

fn begin(arguments: &RunArguments, span: &mut Span) -> anyhow::Result<()> {
    let plan = Arc::new(span.child("plan").end_as(load(&arguments.pipeline))?);
    span.set("job_name", plan.name.as_str());
    match supervise::attempt() {
        None if plan.restart != RestartStrategy::None || arguments.processes > 1 => {
            supervise::supervise(&plan, arguments.processes, arguments.tls, span)
        }
        None => {
            let mut job = span.child("job").with("job_name", plan.name.as_str());
            let result = run_once(arguments, &plan, &mut job);
            traces::end(job, result)
        }
        Some(_) => {
            supervise::be_supervised()?;
            run_once(arguments, &plan, span)
        }
    }
}

/// One start of the job, as far as it is in this process.
fn run_once(arguments: &RunArguments, plan: &Arc<Plan>, span: &mut Span) -> anyhow::Result<()> {
    let mut options = RunOptions { secrets: secrets::resolver(), traces: traces::traces(), ..RunOptions::new() };
    options.parent = span.context().copied();
    if let Some(job_id) = supervise::job_id() {
        options.job_id = job_id;
    }
    options.crash_at = crash_at()?;
    let member = Member::of_environment();
    describe(span, &options.job_id, plan, member);
    if member.is_none_or(Member::is_first) {
        let claim = plan.checkpoint.as_ref().map(|_| span.child("claim")).unwrap_or_default();
        options.checkpoints = claim.end_as(checkpoints::take_over(plan, &options.job_id, arguments))?;
    }
    if let Some(member) = member {
        let own = options.checkpoints.as_ref().map(|checkpoints| checkpoints.taken_over.clone());
        let (cluster, taken_over) = span.child("join").end_as(member.join(plan, &options.job_id, own, arguments.tls))?;
        if !member.is_first() {
            options.checkpoints = checkpoints::taken_over(plan, taken_over, arguments)?;
        }
        (options.slots, options.cluster) = (member.slots(plan), Some(Arc::new(cluster)));
    }
    if let Some(checkpoints) = &options.checkpoints {
        options.generation = checkpoints.taken_over.generation;
    }
    let identity = Identity {
        job: plan.name.clone(),
        id: options.job_id.clone(),
        started: Utc::now(),
        restarts: supervise::restarts().unwrap_or(0),
        generation: options.generation,
        checkpoints: options.checkpoints.as_ref().map(|checkpoints| Taken {
            store: Arc::clone(&checkpoints.store),
            restored: checkpoints.taken_over.base.as_ref().map(|base| base.id),
        }),
    };
    if let Some(member) = member.filter(|member| !member.is_first()) {
        return other(plan, options, member, span);
    }
    let endpoint = exposition::OfJob::start(arguments.metrics.or(plan.metrics))?;
    // Before anything is opened: what has begun must not be cut off.
    let stopper = Arc::new(Stopper { control: OnceLock::new(), is_wanted: AtomicBool::new(false), drain: arguments.drain });
    let stops = Arc::clone(&stopper);
    let signals = Listener::start("in-flight data is finished", move || stops.stop())?;
    let job = start(plan, options)?;
    stopper.started(job.control());
    let (control, metrics, of_job) = (job.control(), job.metrics(), identity.clone());
    endpoint.ask(Box::new(move || of_job.status(&control, &metrics)));
    let socket = if supervise::attempt().is_some() { control::socket_of_child(&identity.id, 0) } else { control::socket(&identity.id) };
    let copies = Arc::new(Copies::default());
    let asked = Asked { identity: identity.clone(), control: job.control(), metrics: job.metrics(), taps: Taps::new(job.control(), plan) };
    let server = Server::start_if_possible(socket, answer(asked, Arc::clone(&copies)));
    let progress = (!arguments.quiet).then(|| Progress::start(&plan.name, job.metrics()));
    let metrics = job.metrics();
    let result = job.wait();
    if supervise::attempt().is_some() {
        control::leave_status(&identity.ended(&metrics));
    }
    copies.wait();
    drop(signals);
    if let Some(progress) = progress {
        progress.finish();
    }
    if let Some(server) = server {
        server.finish(match &result {
            Ok(report) => Answer::Ended(summary(&plan.name, report)),
            Err(error) => Answer::Failed(secrets::hidden(&error.to_string()).into_owned()),
        });
    }
    let report = result.map_err(|error| failure(&error))?;
    span.set("end", report.end.to_string());
    span.set("rows_in", report.totals.rows_in);
    span.set("rows_out", report.totals.rows_out);
    if !arguments.quiet {
        say!("{}", summary(&plan.name, &report));
    }
    Ok(())
}

/// What is known of a start before it begins.
fn describe(span: &mut Span, job_id: &str, plan: &Plan, member: Option<Member>) {
    span.set("job_id", job_id);
    span.set("attempt", supervise::attempt().unwrap_or(0));
    span.set("slots", plan.slots());
    if let Some(member) = member {
        span.set("process", member.process);
        span.set("processes", member.processes);
    }
}

fn start(plan: &Arc<Plan>, options: RunOptions) -> anyhow::Result<JobHandle> {
    standpipe_engine::run(Arc::clone(plan), options).map_err(|error| failure(&error))
}

/// Stops a job that may still be starting.
struct Stopper {
    control: OnceLock<JobControl>,
    is_wanted: AtomicBool,
    drain: bool,
}

impl Stopper {
    fn stop(&self) {
        self.is_wanted.store(true, SeqCst);
        if let Some(control) = self.control.get() {
            control.stop(self.drain);
        }
    }

    /// From now on there is something to stop.
    fn started(&self, control: JobControl) {
        let control = self.control.get_or_init(|| control);
        if self.is_wanted.load(SeqCst) {
            control.stop(self.drain);
        }
    }
}

/// Waits for the end of a process of several that is not the first: the user hears from the first one, or, where that is gone, from the second.
fn other(plan: &Arc<Plan>, options: RunOptions, member: Member, span: &mut Span) -> anyhow::Result<()> {
    let socket = control::socket_of_child(&options.job_id, member.process);
    let job = start(plan, options)?;
    let control = job.control();
    let taps = Taps::new(job.control(), plan);
    let server = Server::start_if_possible(
        socket,
        Box::new(move |request, send| match request {
            Request::Tap(look) => send(taps.answer(&look)),
            _ => send(Answer::Refused("the job's first process answers that".to_owned())),
        }),
    );
    let result = job.wait();
    if let Some(server) = server {
        // Whoever looks at its last rows has them on the way.
        server.finish(Answer::Ended("its part of the job has ended".to_owned()));
    }
    match result {
        Err(error) if control.is_alone() && member.process == 1 => Err(failure(&error)),
        Err(error) => {
            span.fail(&error.to_string());
            std::mem::take(span).end();
            traces::exit(Code::Failed)
        }
        Ok(_) => Ok(()),
    }
}

/// For tests: where the first process of the job ends as if it were killed, `committed:3`.
fn crash_at() -> anyhow::Result<Option<(Step, u64)>> {
    const NAME: &str = "STANDPIPE_CRASH_AT";
    let Some(text) = env::var(NAME).ok().filter(|_| supervise::attempt().unwrap_or(0) == 0) else { return Ok(None) };
    let refused = |why: String| Failure::error(Code::Usage, format!("{NAME}: {why}"));
    let (step, checkpoint) = text.split_once(':').ok_or_else(|| refused(format!("{text:?} is no STEP:CHECKPOINT")))?;
    let checkpoint = checkpoint.parse().map_err(|_| refused(format!("{checkpoint:?} is no number")))?;
    Ok(Some((step.parse().map_err(refused)?, checkpoint)))
}

/// Savepoints that are being copied: a job that has stopped does not end before.
#[derive(Default)]
struct Copies {
    open: Mutex<usize>,
    changed: Condvar,
}

/// One of them.
struct Copying(Arc<Copies>);

impl Copies {
    fn begin(self: &Arc<Self>) -> Copying {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Copying(Arc::clone(self))
    }

    fn wait(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(open, |open| *open > 0));
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        *self.0.open.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.changed.notify_all();
    }
}

/// A job of this process, for those who ask.
struct Asked {
    identity: Identity,
    control: JobControl,
    metrics: Arc<Metrics>,
    taps: Taps,
}

/// Answers for a job of this process.
fn answer(Asked { identity, control, metrics, taps }: Asked, copies: Arc<Copies>) -> Handler {
    let refused = |error: String| Answer::Refused(secrets::hidden(&error).into_owned());
    Box::new(move |request, send| match request {
        Request::Status => send(Answer::Status(Box::new(identity.status(&control, &metrics)))),
        Request::Savepoint { to } => {
            send(savepoint(&identity, to.as_deref(), || control.savepoint()).unwrap_or_else(|error| refused(error.to_string())));
        }
        Request::Checkpoint => {
            let taken = control.checkpoint().and_then(PendingSavepoint::wait);
            let told = taken.map(|number| place(&identity, number, Kind::Checkpoint));
            send(told.unwrap_or_else(|error| refused(error.to_string())));
        }
        Request::Stop { drain, savepoint: false, .. } => {
            control.stop(drain);
            send(Answer::Stopping);
        }
        Request::Stop { drain, savepoint: true, to } => {
            let _copying = copies.begin();
            let told = savepoint(&identity, to.as_deref(), || {
                let pending = control.stop_with_savepoint(drain)?;
                send(Answer::Stopping);
                Ok(pending)
            });
            send(told.unwrap_or_else(|error| refused(error.to_string())));
        }
        Request::Cancel => {
            control.cancel();
            send(Answer::Stopping);
        }
        Request::Tap(look) => send(taps.answer(&look)),
        // The server itself knows.
        Request::End => {}
    })
}

/// Takes a savepoint, and copies it if that is wanted. A place that it cannot be copied to is refused before anything is taken.
fn savepoint(
    identity: &Identity,
    to: Option<&str>,
    take: impl FnOnce() -> Result<PendingSavepoint, SavepointError>,
) -> anyhow::Result<Answer> {
    let Some(taken) = &identity.checkpoints else { return Err(SavepointError::NoCheckpoints.into()) };
    if let Some(to) = to {
        taken.store.check_target(to)?;
    }
    let number = take()?.wait()?;
    let Some(to) = to else { return Ok(place(identity, number, Kind::Savepoint)) };
    let copied = taken.store.read(number).and_then(|manifest| taken.store.copy(&manifest, to));
    let own = || taken.place(number, identity.generation, Kind::Savepoint);
    let place = copied.map_err(|error| anyhow::anyhow!("the savepoint is durable at {}, but cannot be copied: {error}", own()))?;
    Ok(Answer::Savepoint { number, place })
}

fn place(identity: &Identity, number: u64, kind: Kind) -> Answer {
    let place = identity.checkpoints.as_ref().map(|taken| taken.place(number, identity.generation, kind));
    Answer::Savepoint { number, place: place.unwrap_or_default() }
}

/// The exit code that a job's error means.
pub(crate) fn failure(error: &JobError) -> anyhow::Error {
    let code = match error.class() {
        ErrorClass::Job if matches!(*error.cause, Cause::Superseded(_)) && supervise::attempt().is_some() => Code::Superseded,
        ErrorClass::Job => Code::Failed,
        ErrorClass::Configuration => Code::Usage,
        ErrorClass::Outside => Code::Outside,
    };
    Failure::error(code, error)
}

fn summary(name: &str, report: &JobReport) -> String {
    let totals = &report.totals;
    let mut text = format!(
        "{name}: {} in {:.1} s: {} rows in, {} rows out",
        report.end,
        report.elapsed.as_secs_f64(),
        totals.rows_in,
        totals.rows_out
    );
    for (count, what) in [(totals.late, "late"), (totals.broken, "broken"), (totals.rejected, "rejected")] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}
