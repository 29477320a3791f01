//! The job manager as a process: one port for users and task managers, the decisions of [`crate::manager`] behind a lock, what they decide kept before anybody hears of it.

mod admit;
mod agents;
mod answer;
mod application;
mod asking;
mod assets;
mod checkpoints;
mod collect;
mod connections;
mod figures;
mod files;
mod flink;
#[cfg(test)]
mod hostile;
mod java;
mod jobs;
mod metrics;
mod openapi;
mod probes;
mod rest;
mod settings;
mod shared;
mod spans;
mod tap;

pub use assets::{Asset, Assets};
pub use probes::{HEALTH, READINESS};
pub(crate) use shared::Shared;
pub use shared::{Disposer, Introducer, PlanError, Planner};

use crate::{
    application::{Application, Ended},
    blobs::{BlobError, Blobs},
    manager::{Manager, Settings},
    store::{Store, StoreError},
};
use connections::Connections;
use ring::rand::{SecureRandom, SystemRandom};
use standpipe_trace::Traces;
use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Between two looks at the clock at the most, while something is due.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Between two looks for files that nobody needs any more.
const CLEANING: Duration = Duration::from_secs(600);
/// A manager that is to end has so long to tell of a job that has ended.
const TELLING: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// How a manager is run.
pub struct ManagerOptions {
    /// Where it listens.
    pub bind: SocketAddr,
    /// What it keeps.
    pub data: PathBuf,
    /// Who may ask: whoever has it. Without one it listens on loopback alone, unless [`Self::open`].
    pub token: Option<String>,
    /// Without a token on another address: everybody may look and be a task manager, and only this machine may change anything.
    pub open: bool,
    /// What it shows who it is by; none: in the clear.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// See there.
    pub settings: Settings,
    /// See there.
    pub planner: Planner,
    /// See there.
    pub introducer: Introducer,
    /// See there.
    pub disposer: Disposer,
    /// The dashboard.
    pub assets: Assets,
    /// Who is told of the life of jobs.
    pub traces: Traces,
    /// The one job that it has; none: it takes any.
    pub application: Option<Application>,
}

/// Why a manager does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Others could reach it.
    #[error("{0} is not loopback: whoever can reach it could run code here; give --token-file, or bind 127.0.0.1; --open if that is meant")]
    Open(SocketAddr),
    /// The port is in use, or is not ours.
    #[error("{address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Of another job.
    #[error("{data}: the job {job} is there and has not ended; give a job manager that runs one job alone a --data folder of its own")]
    Others {
        /// The folder.
        data: PathBuf,
        /// Its id.
        job: String,
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

/// A manager that listens.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
}

impl Server {
    /// Opens its data and its port.
    ///
    /// # Errors
    /// When one of them is of another manager, or the address is open to others without a token.
    pub async fn open(options: ManagerOptions) -> Result<Self, ServerError> {
        if !options.bind.ip().is_loopback() && options.token.is_none() && !options.open {
            return Err(ServerError::Open(options.bind));
        }
        let (store, kept) = Store::open(&options.data)?;
        if let Some(own) = &options.application
            && let Some(other) = kept.jobs.iter().find(|job| job.id != own.job && !job.is_over())
        {
            return Err(ServerError::Others { data: options.data, job: other.id.clone() });
        }
        let blobs = Blobs::open(options.data.join("blobs"))?;
        let planning = options.data.join("planning");
        // Of a manager that was killed meanwhile.
        drop(std::fs::remove_dir_all(&planning));
        let listener = TcpListener::bind(options.bind).await.map_err(|source| ServerError::Bind { address: options.bind, source })?;
        let tls = options.tls.clone().map(TlsAcceptor::from);
        let shared = Shared::new(options, store, kept, blobs, planning);
        // What was sent for jobs that are forgotten, or that never came; one may be about to come.
        shared.clean(shared::RECENT)?;
        Ok(Self { listener, tls, shared: Arc::new(shared) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `end` is there, or its one job has ended: then that is given. Other jobs go on: their task managers wait for the next manager.
    ///
    /// # Errors
    /// When the port is gone.
    pub async fn run(self, end: impl Future<Output = ()> + Send + 'static) -> Result<Option<Ended>, ServerError> {
        let clock = tokio::spawn(wake(Arc::clone(&self.shared)));
        let cleaning = tokio::spawn(clean(Arc::clone(&self.shared)));
        let connections = Connections::new(self.tls, rest::router(Arc::clone(&self.shared)), self.shared.ending.subscribe());
        let ended = tokio::select! {
            () = connections.serve(self.listener) => Ok(None),
            ended = job_or_end(&self.shared, end) => ended,
        };
        // Nobody is listened to any more, so nobody is given up for being silent: the next manager gives everybody a lease. Who was listened to hears what has become of it.
        self.shared.ending.send_replace(true);
        clock.abort();
        cleaning.abort();
        connections.close(admit::LAST).await;
        Ok(ended?)
    }
}

/// Waits for the end of the one job and of what was made for it, or of the manager.
async fn job_or_end(shared: &Arc<Shared>, end: impl Future<Output = ()>) -> io::Result<Option<Ended>> {
    let ended = course_or_end(shared, end).await?;
    if let (Some(alone), Some(ended)) = (&shared.alone, &ended) {
        application::part(shared, alone, ended).await;
    }
    Ok(ended)
}

/// Waits for the end of the one job, or of the manager. A job that has ended when somebody wants the manager's end is told of all the same.
async fn course_or_end(shared: &Arc<Shared>, end: impl Future<Output = ()>) -> io::Result<Option<Ended>> {
    let Some(alone) = &shared.alone else {
        end.await;
        return Ok(None);
    };
    let mut course = tokio::spawn(application::course(Arc::clone(shared), Arc::clone(alone)));
    let ended = tokio::select! {
        ended = &mut course => ended,
        () = end => {
            alone.hurry();
            if alone.over(shared).is_none() {
                course.abort();
                return Ok(None);
            }
            match tokio::time::timeout(TELLING, course).await {
                Ok(ended) => ended,
                // It is over whether or not the place of its checkpoints answers: whoever has started the manager hears so.
                Err(_) => return Ok(alone.over(shared)),
            }
        }
    };
    ended.map_err(io::Error::other)?.map(Some)
}

/// Removes files that nobody needs any more, from time to time.
async fn clean(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(CLEANING).await;
        let own = Arc::clone(&shared);
        let cleaned = tokio::task::spawn_blocking(move || own.clean(shared::RECENT)).await;
        if let Ok(Err(error)) = cleaned {
            tracing::warn!("files that nobody needs any more cannot be removed: {error}");
        }
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
            let woken = tokio::task::spawn_blocking(move || own.decide(|manager, _, now| (manager.wake(now, random()), ())));
            if woken.await.is_err() {
                tracing::error!("the manager's clock has stopped");
                std::process::exit(3);
            }
        }
    }
}
