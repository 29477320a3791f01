//! A job over several processes, with all of them in the test's: their sockets are real, and they share nothing but the plugins' probes.

use super::ended;
use standpipe_engine::{Cluster, JobError, JobHandle, JobReport, Membership, RunOptions, Secret, run};
use standpipe_pipeline::plan::Plan;
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

pub const JOINING: Duration = Duration::from_secs(30);

/// What each of so many processes says of itself.
pub fn memberships(plan: &Plan, processes: u32) -> Vec<Membership> {
    let secret = Secret::random().unwrap();
    let one = |process| Membership { job_id: "ab".repeat(16), attempt: 0, plan: plan.hash, process, processes, secret: secret.clone() };
    (0..processes).map(one).collect()
}

pub fn listeners(processes: u32) -> (Vec<TcpListener>, Vec<SocketAddr>) {
    let listeners: Vec<TcpListener> = (0..processes).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
    let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    (listeners, addresses)
}

/// Connects so many processes.
pub fn clusters(plan: &Plan, processes: u32) -> Vec<Arc<Cluster>> {
    let (listeners, addresses) = listeners(processes);
    let join = |(listener, own): (TcpListener, Membership)| {
        let addresses = addresses.clone();
        thread::spawn(move || Arc::new(Cluster::join(listener, &addresses, &own, JOINING).unwrap()))
    };
    let joining: Vec<_> = listeners.into_iter().zip(memberships(plan, processes)).map(join).collect();
    joining.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// A job over processes; the first is the first.
pub struct Over(pub Vec<JobHandle>);

/// Starts the job over processes with so many slots each.
pub fn start_over(plan: Plan, slots: &[u32], options: RunOptions) -> Over {
    let plan = Arc::new(plan);
    let clusters = clusters(&plan, slots.len() as u32);
    let one = |cluster| run(Arc::clone(&plan), RunOptions { slots: slots.to_vec(), cluster: Some(cluster), ..options.clone() }).unwrap();
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
