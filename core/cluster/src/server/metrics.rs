//! `/metrics` of the job manager: the cluster as Prometheus sees it. How jobs do their task managers tell (`taskmanager --metrics`): whatever is told twice is counted twice.

use crate::{
    exposition::{CONTENT_TYPE, Families},
    manager::{Manager, Stage},
};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};

const STATES: [&str; 9] = ["INITIALIZING", "CREATED", "RUNNING", "FAILING", "FAILED", "CANCELLING", "CANCELED", "FINISHED", "RESTARTING"];

/// See the module's documentation.
pub(super) fn show(manager: &Manager) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text(manager)).into_response()
}

fn text(manager: &Manager) -> String {
    let mut families = Families::new();
    let known = manager.task_managers().values().filter(|one| one.known).count();
    let slots: u32 = manager.task_managers().values().map(|one| one.slots).sum();
    let free: u32 = manager.task_managers().keys().map(|id| manager.free(id)).sum();
    let waiting = manager.jobs().values().filter(|job| job.stage == Stage::Waiting).count();
    let mut gauge = |name, help, value| families.gauge(name, help, &[], value);
    gauge("standpipe_jobmanager_taskmanagers", "Task managers that are heard of.", known as f64);
    gauge("standpipe_jobmanager_slots", "Slots of all task managers.", f64::from(slots));
    gauge("standpipe_jobmanager_slots_free", "Slots that nothing runs in.", f64::from(free));
    gauge("standpipe_jobmanager_jobs_waiting", "Jobs that wait for slots.", waiting as f64);
    for state in STATES {
        let jobs = manager.jobs().values().filter(|job| job.state() == state).count();
        families.gauge("standpipe_jobmanager_jobs", "Jobs in each state.", &[("state", state)], jobs as f64);
    }
    for job in manager.jobs().values().filter(|job| !job.is_over()) {
        let labels = [("job_name", job.bundle.name.as_str()), ("job_id", job.id.as_str())];
        let help = "How often a job that is not over was started again after a failure.";
        families.counter("standpipe_jobmanager_job_restarts_total", help, &labels, f64::from(job.restarts));
    }
    families.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_told_in_numbers() {
        let job = crate::manager::job_for_tests("a");
        let (manager, _) = Manager::new(crate::manager::Settings::default(), 1, [job], 0);
        let text = text(&manager);
        let has = |line: &str| assert!(text.lines().any(|found| found == line), "{line}\n---\n{text}");
        has("standpipe_jobmanager_jobs{state=\"CREATED\"} 1");
        has("standpipe_jobmanager_jobs{state=\"FAILED\"} 0");
        has("standpipe_jobmanager_jobs_waiting 1");
        has("# TYPE standpipe_jobmanager_job_restarts_total counter");
    }
}
