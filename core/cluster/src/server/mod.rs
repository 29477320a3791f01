//! The job manager as a process: one port for users and task managers, the decisions of [`crate::manager`] behind a lock, what they decide kept before anybody hears of it.

mod assets;
mod checkpoints;
mod figures;
mod flink;
mod metrics;
mod rest;
mod settings;
mod triggers;

pub use assets::{Asset, Assets};

use crate::{
    blobs::{BlobError, Blobs},
    bundle::Bundle,
    manager::{Action, Job, Manager, Millis, Planned, Settings},
    protocol::{Go, Orders, Version},
    store::{Store, StoreError},
};
use figures::Figures;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tower::ServiceExt;
use triggers::Triggers;

/// Finds out what a pipeline needs, from a folder where its bundle is laid out; an error has one line per problem. It may take long and is not trusted: it loads plugins.
pub type Planner = Arc<dyn Fn(&Path, &Bundle) -> Result<Planned, Vec<String>> + Send + Sync>;
/// Makes a secret for the processes of a job that listen there, and what they need to speak TLS: one for each.
pub type Introducer = Arc<dyn Fn(&[SocketAddr], Option<serde_json::Value>) -> io::Result<Vec<Go>> + Send + Sync>;

/// Jobs that are over and still shown.
const MOST_HISTORY: usize = 200;
/// Between two looks at the clock at the most, while something is due.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Connections at a time; more wait.
const MOST_CONNECTIONS: usize = 1_000;
/// Who has not asked by then does not ask, or has gone.
const HEADERS: Duration = Duration::from_secs(60);
/// Between two attempts to take a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// How a manager is run.
pub struct ManagerOptions {
    /// Where it listens.
    pub bind: SocketAddr,
    /// What it keeps.
    pub data: PathBuf,
    /// Who may ask: whoever has it. None is possible on loopback alone.
    pub token: Option<String>,
    /// See there.
    pub settings: Settings,
    /// See there.
    pub planner: Planner,
    /// See there.
    pub introducer: Introducer,
    /// The dashboard.
    pub assets: Assets,
}

/// Why a manager does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Others could reach it.
    #[error("{0} is not loopback: whoever can reach it could run code here; give --token-file, or bind 127.0.0.1")]
    Open(SocketAddr),
    /// The port is in use, or is not ours.
    #[error("{address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// What it keeps.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Files of jobs.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The system refused.
    #[error("the job manager ends: {0}")]
    System(#[from] io::Error),
}

/// A running manager, as its requests see it.
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    /// Changes when a task manager is to be told.
    told: watch::Sender<Version>,
    blobs: Blobs,
    /// Where bundles are laid out to be planned.
    planning: PathBuf,
    planner: Planner,
    introducer: Introducer,
    token: Option<String>,
    clock: Clock,
    settings: Settings,
    assets: Assets,
}

struct Inner {
    manager: Manager,
    store: Store,
    triggers: Triggers,
    figures: Figures,
}

/// The time since 1970, which does not jump while the manager runs.
#[derive(Debug, Clone, Copy)]
struct Clock {
    begun: Instant,
    at: Duration,
}

impl Clock {
    fn start() -> Self {
        Self { begun: Instant::now(), at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }

    fn now(&self) -> Millis {
        u64::try_from((self.at + self.begun.elapsed()).as_millis()).unwrap_or(u64::MAX)
    }
}

/// 32 hexadecimal digits that nobody else has.
///
/// # Errors
/// When the system has no random numbers.
pub fn random_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn random() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

impl Shared {
    /// Lets the manager decide, keeps what it has decided, and tells. What cannot be kept ends the process: a manager that has told what it forgets would do it twice.
    fn decide<T>(&self, decide: impl FnOnce(&mut Manager, Millis) -> (Vec<Action>, T)) -> T {
        let mut inner = self.inner.lock();
        let (actions, result) = decide(&mut inner.manager, self.clock.now());
        let mut saved = BTreeSet::new();
        for action in actions {
            match action {
                Action::Save(id) => _ = saved.insert(id),
                Action::Introduce { attempt, addresses, taken_over } => match (self.introducer)(&addresses, taken_over) {
                    Ok(go) => inner.manager.introduce(&attempt, go),
                    Err(error) => tracing::error!(job = attempt.job, "its processes cannot be introduced: {error}"),
                },
            }
        }
        if !saved.is_empty() {
            let jobs = inner.manager.jobs();
            if let Err(error) = inner.store.save(saved.iter().filter_map(|id| jobs.get(id))) {
                tracing::error!("what was decided cannot be kept: {error}");
                std::process::exit(3);
            }
            self.forget_history(&mut inner);
        }
        let version = inner.manager.version();
        self.told.send_if_modified(|told| std::mem::replace(told, version) != version);
        result
    }

    fn look<T>(&self, look: impl FnOnce(&Manager) -> T) -> T {
        look(&self.inner.lock().manager)
    }

    fn orders(&self, task_manager: &str) -> Orders {
        let inner = self.inner.lock();
        let mut orders = inner.manager.orders(task_manager);
        orders.requests = inner.triggers.requests(&inner.manager, task_manager);
        orders
    }

    /// Jobs that have been over for longest.
    fn forget_history(&self, inner: &mut Inner) {
        let mut over: Vec<(Millis, String)> =
            inner.manager.jobs().values().filter_map(|job| Some((job.ended()?, job.id.clone()))).collect();
        if over.len() <= MOST_HISTORY {
            return;
        }
        over.sort();
        over.truncate(over.len() - MOST_HISTORY);
        if let Err(error) = inner.store.remove(over.iter().map(|(_, id)| id.as_str())) {
            tracing::warn!("old jobs cannot be forgotten: {error}");
            return;
        }
        over.iter().for_each(|(_, id)| _ = inner.manager.forget(id));
    }

    /// A bundle whose files are here becomes a job. Blocks.
    fn submit(&self, bundle: Bundle) -> Result<String, Vec<String>> {
        let one = |error: &dyn std::fmt::Display| vec![error.to_string()];
        self.blobs.check_lengths(&bundle).map_err(|error| one(&error))?;
        let id = random_id().map_err(|error| one(&error))?;
        let folder = self.planning.join(&id);
        let planned = self.blobs.lay_out(&bundle, &folder).map_err(|error| one(&error)).and_then(|()| (self.planner)(&folder, &bundle));
        drop(std::fs::remove_dir_all(&folder));
        let planned = planned?;
        self.decide(|manager, now| (manager.submit(Job::new(id.clone(), bundle, planned, now), now), ()));
        Ok(id)
    }
}

/// A manager that listens.
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl Server {
    /// Opens its data and its port.
    ///
    /// # Errors
    /// When one of them is of another manager, or the address is open to others without a token.
    pub async fn open(options: ManagerOptions) -> Result<Self, ServerError> {
        if !options.bind.ip().is_loopback() && options.token.is_none() {
            return Err(ServerError::Open(options.bind));
        }
        let (store, generation, jobs) = Store::open(&options.data)?;
        let blobs = Blobs::open(options.data.join("blobs"))?;
        // What was sent for jobs that are forgotten, or that never came.
        blobs.keep_only(&jobs.iter().flat_map(|job| job.bundle.files()).map(|file| file.hash).collect())?;
        let planning = options.data.join("planning");
        // Of a manager that was killed meanwhile.
        drop(std::fs::remove_dir_all(&planning));
        let listener = TcpListener::bind(options.bind).await.map_err(|source| ServerError::Bind { address: options.bind, source })?;
        let clock = Clock::start();
        let (manager, actions) = Manager::new(options.settings, generation, jobs, clock.now());
        let told = watch::Sender::new(manager.version());
        let inner = Mutex::new(Inner { manager, store, triggers: Triggers::default(), figures: Figures::default() });
        let shared = Shared {
            inner,
            told,
            blobs,
            planning,
            planner: options.planner,
            introducer: options.introducer,
            token: options.token,
            clock,
            settings: options.settings,
            assets: options.assets,
        };
        shared.decide(|_, _| (actions, ()));
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `end` is there. Jobs go on: their task managers wait for the next manager.
    ///
    /// # Errors
    /// When the port is gone.
    pub async fn run(self, end: impl Future<Output = ()> + Send + 'static) -> Result<(), ServerError> {
        let clock = tokio::spawn(wake(Arc::clone(&self.shared)));
        let router = rest::router(Arc::clone(&self.shared));
        tokio::select! {
            () = serve(self.listener, router) => {}
            () = end => {}
        }
        clock.abort();
        Ok(())
    }
}

/// Takes connections for ever.
async fn serve(listener: TcpListener, router: axum::Router) {
    let limit = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // There may be too many files open, for now.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        drop(stream.set_nodelay(true));
        let router = router.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request: hyper::Request<Incoming>| router.clone().oneshot(request.map(axum::body::Body::new)));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
            // Whoever asked may have gone.
            drop(http.serve_connection(TokioIo::new(stream), answer).await);
            drop(permit);
        });
    }
}

/// Lets the manager look at the clock when something is due.
async fn wake(shared: Arc<Shared>) {
    let mut told = shared.told.subscribe();
    loop {
        let due = shared.look(Manager::deadline);
        let wait = due.map_or(LONGEST_WAIT, |due| Duration::from_millis(due.saturating_sub(shared.clock.now())).min(LONGEST_WAIT));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = told.changed() => if changed.is_err() { return },
        }
        if shared.look(Manager::deadline).is_some_and(|due| due <= shared.clock.now()) {
            let own = Arc::clone(&shared);
            // It writes to the disk.
            let woken = tokio::task::spawn_blocking(move || own.decide(|manager, now| (manager.wake(now, random()), ())));
            if woken.await.is_err() {
                tracing::error!("the manager's clock has stopped");
                std::process::exit(3);
            }
        }
    }
}
