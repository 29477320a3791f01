//! Whoever has asked something of a manager that ends hears its answer: what is carried out must not look as if it had failed.

use super::*;
use crate::manager::Manager;
use tokio::task::{JoinHandle, spawn_blocking};

/// Sends a request as a client does, over a connection: the status and the body.
fn send(running: &Running, method: &str, path: &str) -> JoinHandle<(u16, String)> {
    let request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", running.address));
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
    spawn_blocking(move || {
        let mut answer = agent.run(request.body(Vec::new()).unwrap()).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    })
}

#[tokio::test]
async fn a_manager_does_not_end_before_it_has_answered_what_it_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (held, wishing) = mpsc::channel();
    let wishing = Some(Arc::new(Mutex::new(wishing)));
    let place = Place::new().with(|says| (says.end, says.wishing) = (vec![Err(KeepError::Superseded)], wishing));
    // As its process does, it takes what still goes on with it.
    let process = tokio::runtime::Runtime::new().unwrap();
    let mut running = process.spawn(Running::start(options(folder.path(), true, &place).0)).await.unwrap();
    running.runs().await;
    let answer = send(&running, "PATCH", &format!("/v1/jobs/{JOB}?mode=cancel"));
    wait_until("the job is cancelled", || running.state() == "CANCELLING").await;
    running.exits(0);
    wait_until("the manager ends", || *running.shared.ending.borrow()).await;
    let early = tokio::time::timeout(Duration::from_millis(100), &mut running.ended).await;
    assert!(early.is_err(), "it has not answered");
    drop(held);
    let error = running.ended.await.unwrap().unwrap_err().to_string();
    process.shutdown_background();
    assert!(error.contains("another job manager has taken the job since"), "{error}");
    assert_eq!(answer.await.unwrap(), (202, "{}".to_owned()));
}

#[tokio::test]
async fn who_waits_for_something_to_happen_hears_that_the_manager_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (mut options, _told) = options(folder.path(), true, &Place::new());
    options.settings.lease = 600_000;
    let process = tokio::runtime::Runtime::new().unwrap();
    let running = process.spawn(Running::start(options)).await.unwrap();
    running.runs().await;
    wait_until("the clock and the job's course listen", || running.shared.told.receiver_count() == 2).await;
    let version = *running.shared.told.borrow();
    let path = format!("/taskmanagers/{JOB}/orders?generation={}&number={}", version.generation, version.number);
    let answer = send(&running, "GET", &path);
    wait_until("somebody waits for orders", || running.shared.told.receiver_count() > 2).await;
    drop(running.stop);
    assert!(running.ended.await.unwrap().unwrap().is_none());
    process.shutdown_background();
    let (status, text) = answer.await.unwrap();
    assert!(status == 503 && text.contains("the job manager ends"), "{status}: {text}");
}

#[tokio::test]
async fn nobody_is_given_up_while_nobody_is_listened_to() {
    let folder = tempfile::tempdir().unwrap();
    let (held, wishing) = mpsc::channel();
    let place = Place::new().with(|says| says.wishing = Some(Arc::new(Mutex::new(wishing))));
    let (mut options, _told) = options(folder.path(), true, &place);
    options.settings.lease = 6_000;
    let mut running = Running::start(options).await;
    running.runs().await;
    let answer = send(&running, "POST", &format!("/v1/jobs/{JOB}/stop"));
    wait_until("the job is asked to stop", || running.shared.state().triggers.is_stopping(JOB)).await;
    running.beat(Some(Worker::Running));
    drop(running.stop);
    wait_until("the manager ends", || *running.shared.ending.borrow()).await;
    let is_due = || running.shared.look(Manager::deadline).is_some_and(|due| due <= running.shared.clock.now());
    wait_until("its task manager has been silent for a lease", is_due).await;
    let early = tokio::time::timeout(Duration::from_millis(100), &mut running.ended).await;
    assert!(early.is_err(), "it has not answered");
    drop(held);
    assert!(running.ended.await.unwrap().unwrap().is_none());
    assert_eq!(answer.await.unwrap().0, 202);
    assert_eq!(running.shared.look(|manager| manager.jobs()[JOB].state()), "RUNNING");
}
