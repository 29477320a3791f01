//! A place that keeps things and does as the test says, and a manager whose job does so too.

use super::*;
use std::net::SocketAddr;

pub(super) const JOB: &str = "0123456789abcdef0123456789abcdef";
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Says what the test has it say, and remembers what it was to keep.
#[derive(Clone)]
pub(super) struct Place(pub(super) Arc<Mutex<Says>>);

pub(super) struct Says {
    /// Whenever it is asked whether the job has ended.
    pub(super) ended: Box<dyn FnMut() -> Result<Option<Ended>, String> + Send>,
    pub(super) fetched: Result<bool, String>,
    /// What it answers next to an end, to another parallelism, to whether another manager came.
    pub(super) end: Vec<Result<(), KeepError>>,
    pub(super) keep_parallelism: Vec<Result<(), KeepError>>,
    pub(super) check: Result<(), KeepError>,
    /// Nobody hears of an end before this is gone.
    pub(super) held: Option<Arc<Mutex<()>>>,
    /// No wish is kept before the other end of this is gone.
    pub(super) wishing: Option<Arc<Mutex<Receiver<()>>>>,
    pub(super) wish: Option<Wish>,
    pub(super) kept: Vec<Hash>,
    pub(super) parallelism: Option<u32>,
    pub(super) told: Vec<Ended>,
}

impl Place {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Says {
            ended: Box::new(|| Ok(None)),
            fetched: Ok(false),
            end: Vec::new(),
            keep_parallelism: Vec::new(),
            check: Ok(()),
            held: None,
            wishing: None,
            wish: None,
            kept: Vec::new(),
            parallelism: None,
            told: Vec::new(),
        })))
    }

    pub(super) fn with(self, says: impl FnOnce(&mut Says)) -> Self {
        says(&mut self.0.lock());
        self
    }
}

pub(super) fn outside() -> KeepError {
    KeepError::Outside("it is full".to_owned())
}

impl Keep for Place {
    fn claim(&self, _: u64, _: bool) -> Result<bool, KeepError> {
        Ok(false)
    }

    fn check(&self) -> Result<(), KeepError> {
        self.0.lock().check.clone()
    }

    fn has_begun(&self) -> Result<bool, String> {
        Ok(false)
    }

    fn ended(&self) -> Result<Option<Ended>, String> {
        (self.0.lock().ended)()
    }

    fn end(&self, ended: &Ended) -> Result<(), KeepError> {
        let held = self.0.lock().held.clone();
        let _held = held.as_ref().map(|held| held.lock());
        let mut says = self.0.lock();
        says.told.push(ended.clone());
        says.end.pop().unwrap_or(Ok(()))
    }

    fn parallelism(&self) -> Result<Option<u32>, String> {
        Ok(self.0.lock().parallelism)
    }

    fn keep_parallelism(&self, parallelism: u32) -> Result<(), KeepError> {
        let mut says = self.0.lock();
        says.keep_parallelism.pop().unwrap_or(Ok(()))?;
        says.parallelism = Some(parallelism);
        Ok(())
    }

    fn wish(&self) -> Result<Option<Wish>, String> {
        Ok(self.0.lock().wish.clone())
    }

    fn keep_wish(&self, wish: Option<&Wish>) -> Result<(), String> {
        let wishing = self.0.lock().wishing.clone();
        wishing.iter().for_each(|wishing| _ = wishing.lock().recv());
        self.0.lock().wish = wish.cloned();
        Ok(())
    }

    fn has(&self, file: &File) -> Result<bool, String> {
        Ok(self.0.lock().kept.contains(&file.hash))
    }

    fn fetch(&self, _: Hash, _: &Blobs) -> Result<bool, String> {
        self.0.lock().fetched.clone()
    }

    fn keep(&self, hash: Hash, _: &Path) -> Result<(), String> {
        self.0.lock().kept.push(hash);
        Ok(())
    }
}

pub(super) fn file() -> Hash {
    Hash::of(b"name: x")
}

/// A manager of the job, what it tells of the end, and whether its one file is here.
pub(super) fn options(data: &Path, has_file: bool, place: &Place) -> (ManagerOptions, Receiver<Ended>) {
    let (tell, told) = mpsc::channel();
    let place: Arc<dyn Keep> = Arc::new(place.clone());
    let application = Application {
        job: JOB.to_owned(),
        bundle: hostile::bundle(),
        find: Arc::new(move |files, blobs| {
            if has_file {
                blobs.put(file(), b"name: x".as_slice()).unwrap();
            }
            if has_file { Vec::new() } else { files.to_vec() }
        }),
        keeper: Arc::new(move |_, _| Ok(Some(Arc::clone(&place)))),
        timeout: Duration::from_millis(10),
        linger: Duration::ZERO,
        ended: Arc::new(move |ended| tell.send(ended.clone()).unwrap()),
        clean: None,
    };
    (ManagerOptions { application: Some(application), ..hostile::options(data) }, told)
}

pub(super) fn application(options: &mut ManagerOptions) -> &mut Application {
    options.application.as_mut().unwrap()
}

/// Waits until something is so.
pub(super) async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A manager of which the job can be told what its one process does.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) address: SocketAddr,
    pub(super) ended: tokio::task::JoinHandle<Result<Option<Ended>, ServerError>>,
    pub(super) stop: tokio::sync::oneshot::Sender<()>,
}

impl Running {
    pub(super) async fn start(options: ManagerOptions) -> Self {
        let server = Server::open(options).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (shared, address) = (Arc::clone(&server.shared), server.address().unwrap());
        Self { shared, address, ended: tokio::spawn(server.run(async move { drop(stopped.await) })), stop }
    }

    pub(super) fn state(&self) -> &'static str {
        self.shared.look(|manager| manager.jobs().get(JOB).map_or("", |job| job.state()))
    }

    /// A task manager with four slots says that.
    pub(super) fn beat(&self, phase: Option<Worker>) {
        let worker = |attempt, phase| crate::protocol::Worker { attempt, process: 0, phase, status: None };
        self.shared.decide(|manager, _, now| {
            let attempt = manager.jobs().get(JOB).map(|job| job.attempt());
            let workers = attempt.zip(phase).map(|(attempt, phase)| worker(attempt, phase)).into_iter().collect();
            let seen = manager.version();
            let beat = Beat { slots: 4, host: String::new(), pid: 1, seen, workers, leaving: false, answers: Vec::new() };
            (manager.beat("tm", &beat, now, 0.5), ())
        });
    }

    pub(super) async fn runs(&self) {
        wait_until("the job is there", || self.state() == "CREATED").await;
        self.beat(None);
        self.beat(Some(Worker::Running));
        assert_eq!(self.state(), "RUNNING");
    }

    pub(super) fn exits(&self, code: i32) {
        self.beat(Some(Worker::Ended(ends::Ended::new(0, ExitStatus::from_raw(code << 8), false))));
    }

    pub(super) async fn ask(&self, method: Method, path: &str, body: &str) -> u16 {
        let router = crate::server::rest::router(Arc::clone(&self.shared));
        let request = Request::builder().method(method).uri(path).header(header::HOST, "127.0.0.1");
        router.oneshot(request.body(axum::body::Body::from(body.to_owned())).unwrap()).await.unwrap().status().as_u16()
    }
}
