//! What all requests share: the manager's decisions behind a lock, and what they are kept in.

use super::{
    ManagerOptions,
    application::Alone,
    assets::Assets,
    collect::Collected,
    figures::{Figures, Told},
    random_id,
    spans::Spans,
};
use crate::{
    blobs::{BlobError, Blobs},
    bundle::Bundle,
    manager::{Action, Job, Manager, Millis, Past, Planned, Settings},
    protocol::{Beat, Go, Orders, Version},
    store::{Changes, Documents, Kept, Store},
    triggers::Triggers,
};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use standpipe_trace::{Span, Traces};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Semaphore, watch};

/// Finds out what a pipeline needs, from a folder where its bundle is laid out. It may take long and is not trusted: it loads plugins.
pub type Planner = Arc<dyn Fn(&Path, &Bundle) -> Result<Planned, PlanError> + Send + Sync>;
/// Why a pipeline is not planned: one line per problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It is wrong, and will be.
    #[error("{}", .0.join("\n"))]
    Wrong(Vec<String>),
    /// Something outside, or this machine: another time it may be planned.
    #[error("{}", .0.join("\n"))]
    Outside(Vec<String>),
}

impl PlanError {
    /// The problems.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        let (Self::Wrong(lines) | Self::Outside(lines)) = self;
        lines
    }
}

/// Makes a secret for the processes of a job that listen there, and what they need to speak TLS: one for each.
pub type Introducer = Arc<dyn Fn(&[SocketAddr], Option<Value>) -> io::Result<Vec<Go>> + Send + Sync>;
/// Removes the savepoint whose manifest is at that path or URL.
pub type Disposer = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Jobs that are over and still shown.
const MOST_HISTORY: usize = 200;
/// Jobs that are not over.
const MOST_JOBS: usize = 5_000;
/// Files that were sent, or said to be there, so lately are needed soon.
pub(super) const RECENT: Duration = Duration::from_secs(3_600);

/// Why a job is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// It cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There are enough.
    #[error("there are too many jobs that are not over")]
    Many,
    /// Another job has its id.
    #[error("jobid: another job has it")]
    Taken,
}

/// As what a bundle is to become a job.
#[derive(Default)]
pub(super) struct Wanted {
    /// With that id, which its client has chosen.
    pub(super) id: Option<String>,
    /// See there.
    pub(super) past: Past,
}

/// A running manager, as its requests see it.
pub(crate) struct Shared {
    /// Whoever decides holds it until what was decided is kept; so does whoever tells a task manager.
    store: Mutex<Store>,
    /// Nobody waits for a disk while holding it. What is in it may be a moment ahead of what is kept.
    state: Mutex<State>,
    /// Changes when a task manager is to be told.
    pub(super) told: watch::Sender<Version>,
    /// Whether the server ends.
    pub(super) ending: watch::Sender<bool>,
    pub(super) blobs: Blobs,
    /// Where bundles are laid out to be planned.
    planning: PathBuf,
    planner: Planner,
    /// So many at a time: each is a process that loads plugins.
    pub(super) planners: Semaphore,
    introducer: Introducer,
    pub(super) disposer: Disposer,
    pub(super) token: Option<String>,
    /// See [`ManagerOptions::open`].
    pub(super) is_open: bool,
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    pub(super) assets: Assets,
    pub(super) traces: Traces,
    /// It has no job but that one.
    pub(super) alone: Option<Arc<Alone>>,
}

pub(super) struct State {
    pub(super) manager: Manager,
    pub(super) triggers: Triggers,
    pub(super) figures: Figures,
    /// Savepoints that are being removed on request, or were: by request.
    pub(super) disposals: BTreeMap<String, Option<Result<(), String>>>,
    /// Rows that somebody waits for, by request; none: they have not come.
    pub(super) collected: BTreeMap<String, Option<Collected>>,
    spans: Spans,
}

/// The time since 1970, which does not jump while the manager runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    begun: Instant,
    at: Duration,
}

impl Clock {
    fn start() -> Self {
        Self { begun: Instant::now(), at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }

    pub(super) fn now(&self) -> Millis {
        u64::try_from((self.at + self.begun.elapsed()).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Shared {
    pub(super) fn new(options: ManagerOptions, store: Store, kept: Kept, blobs: Blobs, planning: PathBuf) -> Self {
        let clock = Clock::start();
        let (manager, actions) = Manager::new(options.settings, kept.generation, kept.jobs, clock.now());
        let told = watch::Sender::new(manager.version());
        let state = State {
            manager,
            triggers: Triggers::new(kept.triggers),
            figures: Figures::default(),
            disposals: BTreeMap::new(),
            collected: BTreeMap::new(),
            spans: Spans::new(options.traces.clone()),
        };
        let shared = Self {
            store: Mutex::new(store),
            state: Mutex::new(state),
            told,
            ending: watch::Sender::new(false),
            blobs,
            planning,
            planner: options.planner,
            planners: Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from).max(2)),
            introducer: options.introducer,
            disposer: options.disposer,
            is_open: options.open && options.token.is_none() && !options.bind.ip().is_loopback(),
            token: options.token,
            clock,
            settings: options.settings,
            assets: options.assets,
            traces: options.traces,
            alone: options.application.map(|application| Arc::new(Alone::new(application))),
        };
        shared.decide(|_, _, _| (actions, ()));
        shared
    }

    /// Lets the manager decide, keeps what it has decided, and tells. What cannot be kept ends the process: a manager that has told what it forgets would do it twice.
    pub(super) fn decide<T>(&self, decide: impl FnOnce(&mut Manager, &mut Triggers, Millis) -> (Vec<Action>, T)) -> T {
        let store = self.store.lock();
        let mut state = self.state.lock();
        let now = self.clock.now();
        let State { manager, triggers, spans, .. } = &mut *state;
        let (mut actions, result) = decide(manager, triggers, now);
        triggers.settle(manager, now);
        actions.extend(give_up_rescales(manager, triggers));
        let mut saved = BTreeSet::new();
        for action in actions {
            match action {
                Action::Save(id) => _ = saved.insert(id),
                Action::Introduce { attempt, addresses, taken_over } => match (self.introducer)(&addresses, taken_over) {
                    Ok(go) => manager.introduce(&attempt, go),
                    Err(error) => tracing::error!(job = attempt.job, "its processes cannot be introduced: {error}"),
                },
            }
        }
        saved.iter().filter_map(|id| manager.jobs().get(id)).for_each(|job| spans.follow(job));
        let forgotten = forget_history(manager, triggers);
        let triggers = triggers.changed();
        let changes = Changes {
            jobs: saved.iter().filter_map(|id| manager.jobs().get(id)).collect(),
            forgotten: forgotten.iter().map(String::as_str).collect(),
            triggers: triggers.iter().map(|(id, trigger)| (id.as_str(), trigger.as_ref())).collect(),
        };
        let kept = if changes.is_empty() { None } else { Some(Documents::of(&changes)) };
        let version = manager.version();
        drop(state);
        let kept = kept.transpose().map_err(|error| error.to_string());
        if let Err(error) = kept.and_then(|kept| kept.map_or(Ok(()), |kept| store.save(&kept).map_err(|error| error.to_string()))) {
            tracing::error!("what was decided cannot be kept: {error}");
            std::process::exit(3);
        }
        drop(store);
        // Another thread may have told a later one.
        self.told.send_if_modified(|told| {
            let is_newer = version > *told;
            if is_newer {
                *told = version;
            }
            is_newer
        });
        result
    }

    /// What is known now; it may not be kept yet. Not for longer than a moment.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// So long after the end of the server has begun.
    pub(super) async fn ends(&self, after: Duration) {
        // The sender is this one.
        drop(self.ending.subscribe().wait_for(|is_ending| *is_ending).await);
        tokio::time::sleep(after).await;
    }

    /// Whether decisions are taken: false: somebody has held them up for so long. Blocks.
    pub(super) fn answers_within(&self, patience: Duration) -> bool {
        self.state.try_lock_for(patience).is_some()
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&Manager) -> T) -> T {
        look(&self.state().manager)
    }

    /// What a task manager has said of how its jobs do.
    pub(super) fn note(&self, beat: &Beat) {
        let told = Told::of(beat);
        let mut state = self.state.lock();
        let State { manager, figures, .. } = &mut *state;
        figures.note(told, manager);
    }

    /// What a task manager is to run: nothing that is not kept. Waits for a disk.
    pub(super) fn orders(&self, task_manager: &str) -> Orders {
        let _kept = self.store.lock();
        let state = self.state.lock();
        let mut orders = state.manager.orders(task_manager);
        orders.requests = state.triggers.requests(&state.manager, task_manager);
        orders
    }

    /// Removes files of jobs that nobody needs any more, unless they came so lately. Blocks.
    pub(super) fn clean(&self, recent: Duration) -> Result<(), BlobError> {
        let needed = self.look(|manager| {
            let needed = |job: &Job| match job.is_over() {
                // What it was, for people.
                true => vec![job.bundle.pipeline.hash],
                false => job.bundle.files().map(|file| file.hash).collect(),
            };
            manager.jobs().values().flat_map(needed).collect()
        });
        self.blobs.keep_only(&needed, recent)
    }

    /// A bundle whose files are here becomes a job, with an id that its client may choose: the same one again is the same job, and is not begun twice. What becomes of it
    /// belongs to `span`. Blocks.
    pub(super) fn submit(&self, mut bundle: Bundle, Wanted { id, past }: Wanted, span: &Span) -> Result<String, Refused> {
        if let Some(known) = id.as_deref().and_then(|id| self.look(|manager| known(manager, id, &bundle))) {
            // What is known may not be kept yet: who keeps it has the store.
            drop(self.store.lock());
            return known;
        }
        if self.look(|manager| manager.jobs().values().filter(|job| !job.is_over()).count()) >= MOST_JOBS {
            return Err(Refused::Many);
        }
        let id = id.map_or_else(random_id, Ok).map_err(|error| PlanError::Outside(vec![error.to_string()]))?;
        let planning = span.child("plan");
        let planned = self.plan(&bundle).inspect_err(|error| {
            let mut planning = planning;
            planning.fail(&error.to_string());
        })?;
        if let Some(context) = span.context() {
            bundle.options.traceparent = Some(context.to_string());
        }
        self.decide(|manager, _, now| match known(manager, &id, &bundle) {
            // The same request, which came while this one was planned.
            Some(known) => (Vec::new(), known),
            None => (manager.submit(Job { past, ..Job::new(id.clone(), bundle, planned, now) }, now), Ok(id)),
        })
    }

    /// What a bundle needs whose files are here. Blocks.
    pub(super) fn plan(&self, bundle: &Bundle) -> Result<Planned, PlanError> {
        let outside = |error: &dyn std::fmt::Display| PlanError::Outside(vec![error.to_string()]);
        self.blobs.check_lengths(bundle).map_err(|error| match error {
            BlobError::Length { .. } => PlanError::Wrong(vec![error.to_string()]),
            other => outside(&other),
        })?;
        let folder = self.planning.join(random_id().map_err(|error| outside(&error))?);
        let laid_out = self.blobs.lay_out(bundle, &folder).map_err(|error| outside(&error));
        let planned = laid_out.and_then(|()| (self.planner)(&folder, bundle));
        drop(std::fs::remove_dir_all(&folder));
        planned
    }
}

/// The job that has that id already, if it is the one that the bundle describes; what it is to run with may have been changed since. None: no job has it.
fn known(manager: &Manager, id: &str, bundle: &Bundle) -> Option<Result<String, Refused>> {
    let of = |bundle: &Bundle| (bundle.name.clone(), bundle.files().map(|file| file.hash).collect::<Vec<_>>());
    let job = manager.jobs().get(id)?;
    Some(if of(&job.bundle) == of(bundle) { Ok(id.to_owned()) } else { Err(Refused::Taken) })
}

/// Jobs whose processes will not stop for another parallelism.
fn give_up_rescales(manager: &mut Manager, triggers: &Triggers) -> Vec<Action> {
    let refused = |job: &Job| {
        let rescale = job.rescale.as_ref()?;
        let refused = triggers.get(&job.id, &rescale.trigger)?.outcome()?.is_err();
        refused.then(|| (job.id.clone(), rescale.trigger.clone()))
    };
    let refused: Vec<(String, String)> = manager.jobs().values().filter_map(refused).collect();
    refused.iter().flat_map(|(id, trigger)| manager.give_up_rescale(id, trigger)).collect()
}

/// Forgets jobs that have been over for longest, and what was asked of them.
fn forget_history(manager: &mut Manager, triggers: &mut Triggers) -> Vec<String> {
    let mut over: Vec<(Millis, String)> = manager.jobs().values().filter_map(|job| Some((job.ended()?, job.id.clone()))).collect();
    over.sort();
    over.truncate(over.len().saturating_sub(MOST_HISTORY));
    let forgotten: Vec<String> = over.into_iter().map(|(_, id)| id).collect();
    if !forgotten.is_empty() {
        forgotten.iter().for_each(|id| _ = manager.forget(id));
        triggers.forget(|job| forgotten.iter().any(|id| id == job));
    }
    forgotten
}
