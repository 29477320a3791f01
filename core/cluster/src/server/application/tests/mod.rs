//! The course of a manager that has one job, where the place that keeps things does as the test says.

mod answers;
mod place;

use super::*;
use crate::{
    application::{Keep, Wish},
    blobs::Blobs,
    ends,
    manager::{Outcome, Rescale, Stage, job_for_tests},
    protocol::{Beat, Phase as Worker},
    server::{ManagerOptions, PlanError, Server, ServerError, hostile},
    store::{Changes, Documents, Store},
};
use axum::http::{Method, Request, header};
use place::{JOB, PATIENCE, Place, Running, application, file, options, outside, wait_until};
use std::{
    os::unix::process::ExitStatusExt,
    path::Path,
    process::ExitStatus,
    sync::mpsc::{self, Receiver},
};
use tower::ServiceExt;

async fn run(options: ManagerOptions) -> Result<Option<Ended>, ServerError> {
    Server::open(options).await?.run(std::future::pending()).await
}

#[tokio::test]
async fn where_nobody_knows_whether_the_job_has_ended_it_is_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new().with(|says| says.ended = Box::new(|| Err("nobody answers".to_owned())));
    let (options, told) = options(folder.path(), true, &place);
    let error = run(options).await.unwrap_err().to_string();
    assert!(error.contains("whether the job has ended before cannot be known: nobody answers"), "{error}");
    assert!(told.try_recv().is_err(), "the job has not ended");
}

#[tokio::test]
async fn a_job_that_has_ended_is_told_of_again() {
    let folder = tempfile::tempdir().unwrap();
    let before = Ended::failed(JOB, "it had failed".to_owned(), 7);
    let (mut answers, known) = (0, before.clone());
    let ended = move || {
        answers += 1;
        if answers == 1 { Err("not now".to_owned()) } else { Ok(Some(known.clone())) }
    };
    let (mut options, told) = options(folder.path(), true, &Place::new().with(|says| says.ended = Box::new(ended)));
    application(&mut options).timeout = PATIENCE;
    assert_eq!(run(options).await.unwrap().as_ref(), Some(&before));
    assert_eq!(told.try_recv().unwrap(), before);
}

#[tokio::test]
async fn what_nobody_sends_is_waited_for_from_when_something_has_come() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new().with(|says| says.end = vec![Err(outside())]);
    let (mut options, told) = options(folder.path(), false, &place);
    application(&mut options).timeout = Duration::from_secs(1);
    let running = Running::start(options).await;
    let alone = running.shared.alone.clone().unwrap();
    alone.has_looked().await;
    let begun = Instant::now();
    wait_until("three times as long", || {
        alone.has_come();
        begun.elapsed() > Duration::from_secs(3)
    })
    .await;
    assert!(!running.ended.is_finished(), "it was given up while something came");
    let last = Instant::now();
    let ended = running.ended.await.unwrap().unwrap().unwrap();
    assert!(last.elapsed() > Duration::from_millis(900), "it was waited for from the first piece: {:?}", last.elapsed());
    assert!(ended.state == "FAILED" && ended.cause.as_ref().unwrap().contains("nobody has sent them"), "{ended:?}");
    // That it cannot be kept, too, is no reason not to tell it.
    assert_eq!(told.try_recv().unwrap(), ended);
}

#[tokio::test]
async fn it_answers_while_what_was_made_for_the_job_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut options, _told) = options(folder.path(), false, &Place::new());
    let (clean, (asked, hears)) = (Arc::new(Mutex::new(None)), mpsc::channel());
    let own = Arc::clone(&clean);
    application(&mut options).clean = Some(Arc::new(move |ended: &Ended| {
        let address: std::net::SocketAddr = own.lock().unwrap();
        asked.send((ended.state.clone(), std::net::TcpStream::connect(address).is_ok())).unwrap();
    }));
    let server = Server::open(options).await.unwrap();
    *clean.lock() = Some(server.address().unwrap());
    let ended = server.run(std::future::pending()).await.unwrap().unwrap();
    assert_eq!(hears.try_recv().unwrap(), (ended.state, true));
    assert!(hears.try_recv().is_err(), "once");
}

#[tokio::test]
async fn pieces_without_an_end_are_not_waited_for_without_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let (mut options, told) = options(folder.path(), false, &Place::new());
    application(&mut options).timeout = Duration::from_millis(50);
    let running = Running::start(options).await;
    let alone = running.shared.alone.clone().unwrap();
    wait_until("it gives up", || {
        alone.has_come();
        running.ended.is_finished()
    })
    .await;
    assert_eq!(told.try_recv().unwrap().state, "FAILED");
}

#[tokio::test]
async fn passing_trouble_is_no_end_of_the_job() {
    let planned = |error: PlanError| {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new();
        let (options, told) = options(folder.path(), true, &place);
        let options = ManagerOptions { planner: Arc::new(move |_, _| Err(error.clone())), ..options };
        (folder, options, told, place)
    };
    let (_folder, options, told, place) = planned(PlanError::Outside(vec!["it takes more than 60 s".to_owned()]));
    let error = run(options).await.unwrap_err().to_string();
    assert!(error.contains("more than 60 s"), "{error}");
    assert!(told.try_recv().is_err() && place.0.lock().told.is_empty());
    let (_folder, options, told, place) = planned(PlanError::Wrong(vec!["x: unknown key".to_owned()]));
    let ended = run(options).await.unwrap().unwrap();
    assert_eq!((ended.state.as_str(), ended.cause.as_deref()), ("FAILED", Some("x: unknown key")));
    assert_eq!((told.try_recv().unwrap(), place.0.lock().told.clone()), (ended.clone(), vec![ended]));
    // A store that does not answer: nobody sends the files again that a former manager was sent.
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new().with(|says| says.fetched = Err("nobody answers".to_owned()));
    let (options, told) = place::options(folder.path(), false, &place);
    // Without the pipeline file the place is not known.
    Blobs::open(folder.path().join("blobs")).unwrap().put(file(), b"name: x".as_slice()).unwrap();
    let mut options = options;
    application(&mut options).bundle.resources[0].hash = Hash::of(b"another");
    let error = run(options).await.unwrap_err().to_string();
    assert!(error.contains("nobody answers") && error.contains("data/x.csv") && told.try_recv().is_err(), "{error}");
}

#[tokio::test]
async fn an_end_is_told_also_where_it_cannot_be_kept_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let held = Arc::new(Mutex::new(()));
    let own = Arc::clone(&held);
    let place = Place::new().with(move |says| says.held = Some(own));
    let running = Running::start(options(folder.path(), true, &place).0).await;
    running.runs().await;
    // A thread of its own has it: a lock is of the thread that has taken it.
    let (let_go, wait) = mpsc::channel::<()>();
    let holding = Arc::clone(&held);
    let (has, had) = mpsc::channel();
    let holder = std::thread::spawn(move || {
        let _held = holding.lock();
        has.send(()).unwrap();
        _ = wait.recv();
    });
    had.recv().unwrap();
    running.exits(0);
    wait_until("its end is known", || running.state() == "FINISHED").await;
    drop(running.stop);
    let ended = running.ended.await.unwrap().unwrap().unwrap();
    assert_eq!(ended.state, "FINISHED");
    drop(let_go);
    holder.join().unwrap();
}

#[tokio::test]
async fn a_parallelism_that_could_not_be_kept_is_kept_later() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new().with(|says| says.keep_parallelism = vec![Err(outside()), Err(outside())]);
    let running = Running::start(options(folder.path(), true, &place).0).await;
    running.runs().await;
    running.shared.decide(|manager, _, _| {
        let planned = manager.jobs()[JOB].planned.clone();
        (manager.rescale(JOB, Rescale { trigger: "t".to_owned(), parallelism: 4, planned }).unwrap(), ())
    });
    running.exits(0);
    wait_until("it is kept", || place.0.lock().parallelism == Some(4)).await;
    assert!(place.0.lock().keep_parallelism.is_empty());
    // The next one begins with it.
    running.ended.abort();
    let folder = tempfile::tempdir().unwrap();
    let next = Running::start(options(folder.path(), true, &place).0).await;
    next.runs().await;
    assert_eq!(next.shared.look(|manager| manager.jobs()[JOB].bundle.options.parallelism), Some(4));
}

#[tokio::test]
async fn a_place_that_comes_later_is_used_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new();
    let (mut options, told) = options(folder.path(), false, &place);
    let is_there = Arc::new(AtomicBool::new(false));
    let (own, there): (Arc<dyn Keep>, _) = (Arc::new(place.clone()), Arc::clone(&is_there));
    application(&mut options).keeper = Arc::new(move |_, _| Ok(there.load(SeqCst).then(|| Arc::clone(&own))));
    application(&mut options).timeout = PATIENCE;
    let running = Running::start(options).await;
    let alone = running.shared.alone.clone().unwrap();
    alone.has_looked().await;
    running.shared.blobs.put(file(), b"name: x".as_slice()).unwrap();
    alone.has_come_whole();
    running.runs().await;
    assert!(place.0.lock().kept.is_empty());
    is_there.store(true, SeqCst);
    wait_until("what was sent is kept", || place.0.lock().kept == [file()]).await;
    running.exits(0);
    assert_eq!(running.ended.await.unwrap().unwrap().unwrap().state, "FINISHED");
    assert_eq!(place.0.lock().told, [told.try_recv().unwrap()]);
}

#[tokio::test]
async fn what_was_sent_is_kept_also_when_it_is_there_already() {
    let folder = tempfile::tempdir().unwrap();
    // By a start that ended before it had taken the job.
    Blobs::open(folder.path().join("blobs")).unwrap().put(file(), b"name: x".as_slice()).unwrap();
    let place = Place::new();
    let running = Running::start(options(folder.path(), false, &place).0).await;
    running.runs().await;
    assert_eq!(place.0.lock().kept, [file()]);
}

#[tokio::test]
async fn a_job_that_the_database_has_needs_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new();
    let running = Running::start(options(folder.path(), true, &place).0).await;
    running.runs().await;
    drop(running.stop);
    assert!(running.ended.await.unwrap().unwrap().is_none());
    drop(running.shared);
    // The place of its checkpoints does not answer any more.
    place.0.lock().ended = Box::new(|| Err("nobody answers".to_owned()));
    let mut again = None;
    wait_until("the data are free", || {
        // Whoever is at something with the store has it for a moment.
        Store::open(folder.path()).is_ok()
    })
    .await;
    again.replace(Running::start(options(folder.path(), true, &place).0).await);
    let again = again.unwrap();
    again.shared.alone.clone().unwrap().has_looked().await;
    again.beat(Some(Worker::Running));
    again.exits(0);
    assert_eq!(again.ended.await.unwrap().unwrap().unwrap().state, "FINISHED");
}

#[tokio::test]
async fn a_manager_that_was_superseded_tells_nobody_of_an_end() {
    for (end, check, is_told) in [(Err(KeepError::Superseded), Ok(()), false), (Ok(()), Err(KeepError::Superseded), true)] {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new().with(|says| (says.end, says.check) = (vec![end], check));
        let (options, told) = options(folder.path(), true, &place);
        let running = Running::start(options).await;
        running.runs().await;
        running.exits(2);
        let error = running.ended.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("another job manager has taken the job since"), "{error}");
        assert_eq!(told.try_recv().is_ok(), is_told);
    }
    // It hears so before.
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new().with(|says| says.keep_parallelism = vec![Err(KeepError::Superseded)]);
    let (options, told) = options(folder.path(), true, &place);
    let running = Running::start(options).await;
    running.runs().await;
    running.shared.decide(|manager, _, _| {
        let planned = manager.jobs()[JOB].planned.clone();
        (manager.rescale(JOB, Rescale { trigger: "t".to_owned(), parallelism: 4, planned }).unwrap(), ())
    });
    running.exits(0);
    assert!(running.ended.await.unwrap().is_err() && told.try_recv().is_err());
}

#[tokio::test]
async fn what_was_promised_of_the_jobs_end_holds_under_the_next_manager() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let place = Place::new();
    let running = Running::start(options(first.path(), true, &place).0).await;
    running.runs().await;
    let request = "00000000000000000000000000000001";
    assert_eq!(running.ask(Method::POST, &format!("/v1/jobs/{JOB}/stop"), &format!("{{\"triggerId\": \"{request}\"}}")).await, 202);
    assert!(matches!(&place.0.lock().wish, Some(Wish::Stop { request: own, .. }) if own == request));
    // Its data are lost: the next one asks the job as soon as it runs.
    running.ended.abort();
    let next = Running::start(options(second.path(), true, &place).0).await;
    next.runs().await;
    let is_stopping = || next.shared.state().triggers.is_stopping(JOB);
    wait_until("the job is asked to stop", is_stopping).await;
    // It cannot: then nobody is to be stopped for that later.
    let answers = Ok(vec![serde_json::json!({"refused": "no"})]);
    next.shared.state().triggers.answered(&crate::protocol::Answered { id: request.to_owned(), answers });
    wait_until("it is not wished any more", || place.0.lock().wish.is_none()).await;
    assert_eq!(next.ask(Method::PATCH, &format!("/v1/jobs/{JOB}?mode=cancel"), "").await, 202);
    assert_eq!(place.0.lock().wish, Some(Wish::Cancel));
    next.ended.abort();
    let third = tempfile::tempdir().unwrap();
    let (options, told) = options(third.path(), true, &place);
    let ended = run(options).await.unwrap().unwrap();
    assert_eq!((ended.state.as_str(), place.0.lock().told.last()), ("CANCELED", Some(&ended)));
    assert_eq!(told.try_recv().unwrap(), ended);
}

#[tokio::test]
async fn data_of_another_job_are_not_used() {
    for (is_over, is_taken) in [(false, false), (true, true)] {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let mut other = job_for_tests("other");
        if is_over {
            other.stage = Stage::Over(Outcome::Finished);
        }
        store.save(&Documents::of(&Changes { jobs: vec![&other], ..Changes::default() }).unwrap()).unwrap();
        drop(store);
        let opened = Server::open(options(folder.path(), true, &Place::new()).0).await;
        assert_eq!(opened.is_ok(), is_taken);
        if let Err(error) = opened {
            assert!(matches!(&error, ServerError::Others { job, .. } if job == "other"), "{error}");
        }
    }
}

#[tokio::test]
async fn it_is_ready_once_it_has_looked_for_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (mut options, _told) = options(folder.path(), false, &Place::new());
    application(&mut options).find = Arc::new(move |_, _| {
        wait.lock().recv().unwrap();
        Vec::new()
    });
    application(&mut options).timeout = PATIENCE;
    let server = Server::open(options).await.unwrap();
    let router = crate::server::rest::router(Arc::clone(&server.shared));
    let ask = async |path: &str| {
        let request = Request::builder().method(Method::GET).uri(path).header(header::HOST, "10.0.0.1:8081");
        router.clone().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    let (alone, shared) = (server.shared.alone.clone().unwrap(), Arc::clone(&server.shared));
    let running = tokio::spawn(server.run(std::future::pending()));
    // A probe names the pod as it likes; whoever asks for more must not.
    assert_eq!([ask("/healthz").await, ask("/readyz").await, ask("/overview").await], [200, 503, 403]);
    go.send(()).unwrap();
    alone.has_looked().await;
    assert_eq!(ask("/readyz").await, 200);
    // Whoever holds up what is decided for ever is none that lives.
    let (has, had) = mpsc::channel();
    let (let_go, wait) = mpsc::channel::<()>();
    let shared = Arc::clone(&shared);
    let holder = std::thread::spawn(move || {
        let _held = shared.state();
        has.send(()).unwrap();
        _ = wait.recv();
    });
    had.recv().unwrap();
    assert_eq!(ask("/healthz").await, 503);
    drop(let_go);
    holder.join().unwrap();
    running.abort();
}
