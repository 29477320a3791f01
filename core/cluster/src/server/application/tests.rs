//! The course of a manager that has one job, with a place that keeps things for the next one and does as the test says.

use super::*;
use crate::{
    blobs::Blobs,
    manager::{Outcome, Stage, job_for_tests},
    server::{ManagerOptions, Server, ServerError, hostile},
    store::{Changes, Documents, Store},
};
use axum::http::{Method, Request, header};
use std::{
    path::Path,
    sync::mpsc::{self, Receiver},
};
use tower::ServiceExt;

const JOB: &str = "0123456789abcdef0123456789abcdef";

/// Says what the test has it say, whenever it is asked whether the job has ended.
struct Place(Mutex<Says>);

type Says = Box<dyn FnMut() -> Result<Option<Ended>, String> + Send>;

impl Keep for Place {
    fn has_begun(&self) -> Result<bool, String> {
        Ok(false)
    }

    fn ended(&self) -> Result<Option<Ended>, String> {
        (self.0.lock())()
    }

    fn end(&self, _: &Ended) -> Result<(), String> {
        Err("it is full".to_owned())
    }

    fn parallelism(&self) -> Result<Option<u32>, String> {
        Err("nobody answers".to_owned())
    }

    fn keep_parallelism(&self, _: u32) -> Result<(), String> {
        Ok(())
    }

    fn fetch(&self, _: Hash, _: &Blobs) -> Result<bool, String> {
        Err("it is damaged".to_owned())
    }

    fn keep(&self, _: Hash, _: &Path) -> Result<(), String> {
        Ok(())
    }
}

/// A manager of the job, what it tells of the end, and whether its one file is here.
fn options(
    data: &Path,
    has_file: bool,
    ended: impl FnMut() -> Result<Option<Ended>, String> + Send + 'static,
) -> (ManagerOptions, Receiver<Ended>) {
    let (tell, told) = mpsc::channel();
    let place: Arc<dyn Keep> = Arc::new(Place(Mutex::new(Box::new(ended))));
    let application = Application {
        job: JOB.to_owned(),
        bundle: hostile::bundle(),
        find: Arc::new(move |_, blobs| {
            if has_file {
                blobs.put(Hash::of(b"name: x"), b"name: x".as_slice()).unwrap();
            }
        }),
        keeper: Arc::new(move |_, _| Ok(Some(Arc::clone(&place)))),
        timeout: Duration::from_millis(10),
        linger: Duration::ZERO,
        ended: Arc::new(move |ended| tell.send(ended.clone()).unwrap()),
        clean: None,
    };
    (ManagerOptions { application: Some(application), ..hostile::options(data) }, told)
}

async fn run(options: ManagerOptions) -> Result<Option<Ended>, ServerError> {
    Server::open(options).await?.run(std::future::pending()).await
}

#[tokio::test]
async fn where_nobody_knows_whether_the_job_has_ended_it_is_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let (options, told) = options(folder.path(), true, || Err("nobody answers".to_owned()));
    let error = run(options).await.unwrap_err().to_string();
    assert!(error.contains("whether the job has ended before cannot be known: nobody answers"), "{error}");
    assert!(told.try_recv().is_err(), "the job has not ended");
}

#[tokio::test]
async fn a_job_that_has_ended_is_told_of_again() {
    let folder = tempfile::tempdir().unwrap();
    let before = Ended::failed(JOB, "it had failed".to_owned(), 7);
    let (mut answers, known) = (0, before.clone());
    let (options, told) = options(folder.path(), true, move || {
        answers += 1;
        if answers == 1 { Err("not now".to_owned()) } else { Ok(Some(known.clone())) }
    });
    let mut options = options;
    options.application.as_mut().unwrap().timeout = Duration::from_secs(60);
    assert_eq!(run(options).await.unwrap().as_ref(), Some(&before));
    assert_eq!(told.try_recv().unwrap(), before);
}

#[tokio::test]
async fn what_nobody_sends_is_waited_for_from_when_something_has_come() {
    let folder = tempfile::tempdir().unwrap();
    let (options, told) = options(folder.path(), false, || Ok(None));
    let ended = run(options).await.unwrap().unwrap();
    assert!(ended.state == "FAILED" && ended.cause.as_ref().unwrap().contains("nobody has sent them"), "{ended:?}");
    // That it cannot be kept, too, is no reason not to tell it.
    assert_eq!(told.try_recv().unwrap(), ended);
}

#[tokio::test]
async fn it_answers_while_what_was_made_for_the_job_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut options, _told) = options(folder.path(), false, || Ok(None));
    let (clean, (asked, hears)) = (Arc::new(Mutex::new(None)), mpsc::channel());
    let own = Arc::clone(&clean);
    options.application.as_mut().unwrap().clean = Some(Arc::new(move |ended: &Ended| {
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
        let opened = Server::open(options(folder.path(), true, || Ok(None)).0).await;
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
    let (mut options, _told) = options(folder.path(), false, || Ok(None));
    let application = options.application.as_mut().unwrap();
    application.find = Arc::new(move |_, _| wait.lock().recv().unwrap());
    application.timeout = Duration::from_secs(60);
    let server = Server::open(options).await.unwrap();
    let router = super::super::rest::router(Arc::clone(&server.shared));
    let ask = async |path: &str| {
        let request = Request::builder().method(Method::GET).uri(path).header(header::HOST, "10.0.0.1:8081");
        router.clone().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    let alone = server.shared.alone.clone().unwrap();
    let running = tokio::spawn(server.run(std::future::pending()));
    // A probe names the pod as it likes; whoever asks for more must not.
    assert_eq!([ask("/healthz").await, ask("/readyz").await, ask("/overview").await], [200, 503, 403]);
    go.send(()).unwrap();
    alone.has_looked().await;
    assert_eq!(ask("/readyz").await, 200);
    running.abort();
}
