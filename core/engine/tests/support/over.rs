//! A job over several processes, with all of them in the test's: their sockets are real, and they share nothing but the plugins' probes.

use super::ended;
use standpipe_engine::{Cluster, Identity, JobError, JobHandle, JobReport, Membership, RunOptions, Secret, run};
use standpipe_pipeline::plan::Plan;
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

pub const JOINING: Duration = Duration::from_secs(30);

/// How the processes of a test talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    Clear,
    Tls,
}

/// What each of so many processes says of itself.
pub fn memberships(plan: &Plan, processes: u32, talk: Talk) -> Vec<Membership> {
    let secret = Secret::random().unwrap();
    let identities = Identity::of_processes(processes).unwrap();
    let one = |(process, identity)| {
        let (job_id, secret, tls) = ("ab".repeat(16), secret.clone(), Some(identity).filter(|_| talk == Talk::Tls));
        Membership { job_id, attempt: 0, plan: plan.hash, process, processes, secret, tls }
    };
    (0..).zip(identities).map(one).collect()
}

pub fn listeners(processes: u32) -> (Vec<TcpListener>, Vec<SocketAddr>) {
    let listeners: Vec<TcpListener> = (0..processes).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
    let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    (listeners, addresses)
}

/// Connects so many processes.
pub fn clusters(plan: &Plan, processes: u32, talk: Talk) -> Vec<Arc<Cluster>> {
    clusters_by(plan, processes, talk, |addresses| addresses)
}

/// Connects so many processes, which are told other addresses than those where they listen.
pub fn clusters_by(plan: &Plan, processes: u32, talk: Talk, told: impl FnOnce(Vec<SocketAddr>) -> Vec<SocketAddr>) -> Vec<Arc<Cluster>> {
    let (listeners, addresses) = listeners(processes);
    let addresses = told(addresses);
    let join = |(listener, own): (TcpListener, Membership)| {
        let addresses = addresses.clone();
        thread::spawn(move || Arc::new(Cluster::join(listener, &addresses, &own, JOINING).unwrap()))
    };
    let joining: Vec<_> = listeners.into_iter().zip(memberships(plan, processes, talk)).map(join).collect();
    joining.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// A job over processes; the first is the first.
pub struct Over(pub Vec<JobHandle>);

/// Starts the job over processes with so many slots each, which talk in the clear.
pub fn start_over(plan: Plan, slots: &[u32], options: RunOptions) -> Over {
    start_talking(plan, slots, Talk::Clear, options)
}

/// Starts the job over processes with so many slots each.
pub fn start_talking(plan: Plan, slots: &[u32], talk: Talk, options: RunOptions) -> Over {
    let plan = Arc::new(plan);
    let clusters = clusters(&plan, slots.len() as u32, talk);
    start_in(&plan, clusters, slots, &options)
}

/// Starts the job over processes that are connected.
pub fn start_in(plan: &Arc<Plan>, clusters: Vec<Arc<Cluster>>, slots: &[u32], options: &RunOptions) -> Over {
    let one = |cluster| run(Arc::clone(plan), RunOptions { slots: slots.to_vec(), cluster: Some(cluster), ..options.clone() }).unwrap();
    Over(clusters.into_iter().map(one).collect())
}

impl Over {
    pub fn first(&self) -> &JobHandle {
        &self.0[0]
    }

    /// How it ended, once it has in all processes.
    pub fn ended(&self) -> Result<JobReport, JobError> {
        self.0.iter().skip(1).for_each(|other| drop(ended(other)));
        ended(self.first())
    }
}
