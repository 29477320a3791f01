//! Requests whose bodies are not what anybody sends: every route that takes one, right in all but some values or bytes. Each is answered, none by an error of our own; what is shown of the
//! cluster afterwards is JSON, and a manager that is started again understands what this one has kept.
//!
//! `PROPTEST_CASES` says how many cases there are instead of the few that every run can afford.

use super::*;
use crate::{
    bundle::{Bundle, File, Hash, Options},
    manager::{Planned, PlannedNode},
    protocol::{Answered, Attempt, Beat, Phase, Ready, Version, Worker},
    status::{CheckpointsStatus, MetricStatus, NodeStatus, PastStatus, Status, SubtaskStatus},
};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode, header},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use standpipe_hostile::{
    bytes, cases,
    json::{self, nested},
};
use std::sync::LazyLock;
use tower::ServiceExt;

const JOB: &str = "0123456789abcdef0123456789abcdef";
const TASK_MANAGER: &str = "fedcba9876543210fedcba9876543210";
const REQUEST: &str = "00000000000000000000000000000001";
/// Of an answer, more than there is.
const LONGEST: usize = 64 << 20;

/// What is looked at afterwards.
const VIEWS: [&str; 15] = [
    "/v1/overview",
    "/v1/jobs",
    "/v1/jobs/overview",
    "/v1/jobs/JOB",
    "/v1/jobs/JOB/plan",
    "/v1/jobs/JOB/exceptions",
    "/v1/jobs/JOB/checkpoints",
    "/v1/jobs/JOB/config",
    "/v1/jobs/JOB/figures",
    "/v1/jobs/JOB/savepoints/REQUEST",
    "/v1/jobs/JOB/checkpoints/REQUEST",
    "/v1/jobs/JOB/rescaling/REQUEST",
    "/v1/taskmanagers",
    "/v1/taskmanagers/TM",
    "/metrics",
];

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

fn file(path: &str) -> File {
    File { path: path.to_owned(), hash: Hash::of(b"name: x"), bytes: 7 }
}

pub(super) fn bundle() -> Bundle {
    Bundle {
        standpipe: env!("CARGO_PKG_VERSION").to_owned(),
        name: "counts".to_owned(),
        pipeline: file("counts.yaml"),
        plugins: vec![file("libfoo.so")],
        resources: vec![file("data/x.csv")],
        configuration: [("engine.parallelism".to_owned(), "2".to_owned())].into(),
        options: Options {
            parallelism: Some(2),
            restore: Some("/ckpt/counts".to_owned()),
            allow_non_restored_state: true,
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        },
    }
}

fn status() -> Value {
    let subtask = SubtaskStatus {
        rows_in: 5,
        watermark_seconds: Some(7.0),
        paused_splits: Some(1),
        drift_seconds: Some(0.5),
        ..SubtaskStatus::default()
    };
    let node = NodeStatus {
        node: "sources.in".to_owned(),
        role: "source".to_owned(),
        parallelism: 2,
        lag: [("0".to_owned(), Default::default())].into(),
        subtasks: vec![subtask],
        ..NodeStatus::default()
    };
    let past = PastStatus {
        id: 3,
        savepoint: true,
        triggered_millis: 9,
        took_millis: 1.5,
        bytes: 10,
        written: 10,
        place: Some("/ckpt".to_owned()),
        trouble: None,
    };
    let checkpoints = CheckpointsStatus { completed: 3, failed: 1, restored: Some(2), history: vec![past], ..CheckpointsStatus::default() };
    let metric = MetricStatus {
        name: "rows".to_owned(),
        kind: "counter".to_owned(),
        labels: [("node".to_owned(), "sources.in".to_owned())].into(),
        value: 1.0,
        ..MetricStatus::default()
    };
    let status = Status {
        job: "counts".to_owned(),
        id: JOB.to_owned(),
        state: "running".to_owned(),
        at_millis: 1_000,
        nodes: vec![node],
        checkpoints: Some(checkpoints),
        metrics: vec![metric],
        ..Status::default()
    };
    serde_json::to_value(status).unwrap()
}

/// What a task manager says that has the job's two processes.
fn beat(phases: [Phase; 2]) -> Value {
    let attempt = || Attempt { job: JOB.to_owned(), term: 1, number: 0 };
    let workers = phases.into_iter().zip(0..).map(|(phase, process)| Worker { attempt: attempt(), process, phase, status: Some(status()) });
    let answers = Ok(vec![json!({"number": 3, "place": "/ckpt/counts"})]);
    let beat = Beat {
        slots: 4,
        host: "here".to_owned(),
        pid: 7,
        seen: Version { generation: 1, number: 9 },
        workers: workers.collect(),
        leaving: false,
        answers: vec![Answered { id: REQUEST.to_owned(), answers }],
    };
    serde_json::to_value(beat).unwrap()
}

fn ready(process: u32) -> Phase {
    let taken_over = json!({"generation": 1, "base": null, "first_id": 1});
    Phase::Ready(Ready { process, address: ([127, 0, 0, 1], 4_000).into(), taken_over: Some(taken_over) })
}

/// A route that takes a body, and one that is right.
struct Route {
    method: Method,
    path: &'static str,
    body: Value,
}

static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let ended = || Phase::Ended(crate::ends::Ended::failed(0, "it is over".to_owned()));
    let route = |method: Method, path, body| Route { method, path, body };
    vec![
        route(Method::POST, "/v1/jobs", serde_json::to_value(bundle()).unwrap()),
        route(
            Method::POST,
            "/v1/jobs/JOB/stop",
            json!({"drain": true, "targetDirectory": "/tmp", "formatType": "NATIVE", "triggerId": REQUEST}),
        ),
        route(
            Method::POST,
            "/v1/jobs/JOB/savepoints",
            json!({"target-directory": "/tmp", "cancel-job": true, "formatType": "CANONICAL", "triggerId": REQUEST}),
        ),
        route(Method::POST, "/v1/jobs/JOB/checkpoints", json!({"checkpointType": "FULL", "triggerId": REQUEST})),
        route(Method::PATCH, "/v1/jobs/JOB/rescaling?parallelism=2", json!({"parallelism": 2, "triggerId": REQUEST})),
        route(Method::POST, "/v1/savepoint-disposal", json!({"savepoint-path": "/tmp/x", "triggerId": REQUEST})),
        route(Method::POST, "/v1/taskmanagers/TM/beat", beat([ready(0), ready(1)])),
        route(Method::POST, "/v1/taskmanagers/TM/beat", beat([Phase::Running, Phase::Starting])),
        route(Method::POST, "/v1/taskmanagers/TM/beat", beat([ended(), Phase::Ending])),
        route(Method::POST, "/v1/blobs/missing", json!({"hashes": [Hash::of(b"name: x"), Hash::of(b"")]})),
        route(Method::PUT, "/v1/blobs/HASH", json!("name: x")),
        route(Method::PUT, "/v1/taskmanagers/TM/collected/REQUEST?next=1&gap=false", json!("rows")),
    ]
});

/// A manager with a job that runs on a task manager, and what it keeps.
struct World {
    data: tempfile::TempDir,
    router: Router,
}

fn planned() -> Planned {
    let node = |path: &str, role: &str, collects| PlannedNode {
        path: path.to_owned(),
        role: role.to_owned(),
        parallelism: 2,
        inputs: vec![("sources.in".to_owned(), "hash".to_owned())],
        collects,
        plugin: None,
    };
    let restart = standpipe_pipeline::RestartStrategy::FixedDelay { attempts: 9, delay: Duration::ZERO };
    let nodes = vec![node("sources.in", "source", false), node("sinks.out", "sink", true)];
    Planned { slots: 2, restart, checkpoints: true, bounded: false, nodes, settings: Vec::new() }
}

pub(super) fn options(data: &std::path::Path) -> ManagerOptions {
    ManagerOptions {
        bind: ([127, 0, 0, 1], 0).into(),
        data: data.to_owned(),
        token: None,
        open: false,
        tls: None,
        settings: Settings { lease: 60_000, grace: 0 },
        planner: Arc::new(|_, _| Ok(planned())),
        introducer: Arc::new(|addresses, taken_over| {
            let go = |_| crate::protocol::Go {
                secret: "s".to_owned(),
                addresses: addresses.to_vec(),
                taken_over: taken_over.clone(),
                tls: None,
            };
            Ok(addresses.iter().map(go).collect())
        }),
        disposer: Arc::new(|_| Err("there is none".to_owned())),
        assets: |_| None,
        traces: Traces::default(),
        application: None,
    }
}

fn at(path: &str) -> String {
    let hash = Hash::of(b"name: x").to_string();
    path.replace("JOB", JOB).replace("TM", TASK_MANAGER).replace("REQUEST", REQUEST).replace("HASH", &hash)
}

/// The job as the only one that its manager has.
fn application() -> Application {
    Application {
        job: JOB.to_owned(),
        bundle: bundle(),
        find: Arc::new(|_, _| Vec::new()),
        keeper: Arc::new(|_, _| Ok(None)),
        timeout: Duration::from_secs(60),
        linger: Duration::ZERO,
        ended: Arc::new(|_| ()),
        clean: None,
    }
}

impl World {
    /// `alone`: it has no job but that one.
    async fn new(alone: bool) -> Self {
        let data = tempfile::tempdir().unwrap();
        let options = ManagerOptions { application: alone.then(application), ..options(data.path()) };
        let (store, mut kept) = Store::open(&options.data).unwrap();
        // That of the beats.
        kept.generation = 1;
        let blobs = Blobs::open(data.path().join("blobs")).unwrap();
        blobs.put(Hash::of(b"name: x"), b"name: x".as_slice()).unwrap();
        let shared = Shared::new(options, store, kept, blobs, data.path().join("planning"));
        let shared = Arc::new(shared);
        if let Some(own) = &shared.alone {
            application::take_for_tests(&shared, own).await;
        }
        let world = Self { data, router: rest::router(shared) };
        let submitted = world.ask(Method::POST, &format!("/v1/jobs?jobid={JOB}"), serde_json::to_vec(&bundle()).unwrap()).await;
        assert_eq!(submitted.0, StatusCode::ACCEPTED, "{}", submitted.1);
        for phases in [[Phase::Starting, Phase::Starting], [ready(0), ready(1)], [Phase::Running, Phase::Running]] {
            let heard = world.ask(Method::POST, "/v1/taskmanagers/TM/beat", beat(phases).to_string().into()).await;
            assert_eq!(heard.0, StatusCode::OK, "{}", heard.1);
        }
        world
    }

    async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(at(path)).header(header::HOST, "127.0.0.1").body(Body::from(body)).unwrap();
        let Ok(answer) = self.router.clone().oneshot(request).await;
        let status = answer.status();
        let body = to_bytes(answer.into_body(), LONGEST).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// Sends a body; then all is shown, and kept so that it is understood.
    async fn stands(self, route: &Route, body: Vec<u8>) -> Result<(), TestCaseError> {
        let (status, said) = self.ask(route.method.clone(), route.path, body).await;
        prop_assert!(
            !status.is_server_error() || status == StatusCode::INSUFFICIENT_STORAGE,
            "{} {}: {status} {said}",
            route.method,
            route.path
        );
        if status.is_client_error() {
            let said: Value = serde_json::from_str(&said).map_err(|error| TestCaseError::fail(format!("{error}: {said}")))?;
            let errors = said["errors"].as_array().cloned().unwrap_or_default();
            prop_assert!(!errors.is_empty() && errors.iter().all(|error| error.as_str().is_some_and(|line| line.len() < 4_000)), "{said}");
        }
        for view in VIEWS {
            let (status, said) = self.ask(Method::GET, view, Vec::new()).await;
            prop_assert!(status == StatusCode::OK || status == StatusCode::NOT_FOUND, "{view}: {status} {said}");
            if view != "/metrics" {
                // As deep as it is, a reader of Flink's reads it.
                let read = serde_json::from_str::<Value>(&said);
                prop_assert!(read.is_ok(), "{view}: {} {said}", read.unwrap_err());
            }
        }
        let Self { data, router } = self;
        drop(router);
        // Whoever removes a savepoint may still have it.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            match Store::open(data.path()) {
                Ok(_) => return Ok(()),
                Err(StoreError::Taken(_)) if tokio::time::Instant::now() < deadline => tokio::task::yield_now().await,
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
    }
}

/// What means something in a body.
const WORDS: &[&str] =
    &["\"", "\\u0000", "\\ud800", "null", "true", "1e999", "-1", "18446744073709551616", "{", "}", "[", "]", ",", ":", JOB, "sha256:"];

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn bodies_whose_values_are_others(route in 0..ROUTES.len(), changes in json::changes(), alone in any::<bool>()) {
        let route = &ROUTES[route];
        let body = json::changed(&route.body, &changes).to_string().into_bytes();
        RUNTIME.block_on(async { World::new(alone).await.stands(route, body).await })?;
    }

    #[test]
    fn bodies_whose_bytes_are_others(route in 0..ROUTES.len(), changes in bytes::changes(WORDS), alone in any::<bool>()) {
        let route = &ROUTES[route];
        let body = bytes::changed(route.body.to_string().as_bytes(), &changes);
        RUNTIME.block_on(async { World::new(alone).await.stands(route, body).await })?;
    }

    #[test]
    fn any_bytes(route in 0..ROUTES.len(), body in prop::collection::vec(any::<u8>(), 0..300), alone in any::<bool>()) {
        RUNTIME.block_on(async { World::new(alone).await.stands(&ROUTES[route], body).await })?;
    }
}

#[test]
fn nesting_has_an_end() {
    for route in ROUTES.iter() {
        for body in [nested("[", "1", "]", 1_000_000), nested("{\"a\":", "1", "}", 500_000), "[".repeat(2_000_000)] {
            RUNTIME.block_on(async { World::new(false).await.stands(route, body.into_bytes()).await }).unwrap();
        }
    }
}

/// As deep as a body may be; what it is put into is deeper.
#[test]
fn what_is_kept_is_not_too_deep_to_be_read_again() {
    for levels in [20, 100, 110, 115, 118, 120, 122] {
        let deep: Value = serde_json::from_str(&nested("[", "1", "]", levels)).unwrap();
        for place in [
            "/workers/0/phase/ready/taken_over",
            "/workers/0/status/checkpoints/history/0/place",
            "/workers/0/status/nodes",
            "/answers/0/answers/Ok/0",
        ] {
            let mut body = beat([ready(0), ready(1)]);
            let Some(value) = body.pointer_mut(place) else { panic!("no {place}") };
            *value = deep.clone();
            let route = Route { method: Method::POST, path: "/v1/taskmanagers/TM/beat", body: Value::Null };
            let stands = RUNTIME.block_on(async { World::new(false).await.stands(&route, body.to_string().into_bytes()).await });
            if let Err(why) = stands {
                panic!("{levels} levels at {place}: {why}");
            }
        }
    }
}

#[test]
fn the_samples_are_right() {
    for (route, alone) in ROUTES.iter().flat_map(|route| [(route, false), (route, true)]) {
        let (status, said) = RUNTIME.block_on(async {
            let body = if route.path.ends_with("HASH") { b"name: x".to_vec() } else { route.body.to_string().into_bytes() };
            World::new(alone).await.ask(route.method.clone(), route.path, body).await
        });
        // A manager of one job alone takes no other: here, one without an id.
        let is_other = alone && route.path == "/v1/jobs" && status == StatusCode::CONFLICT;
        let is_right = status.is_success() || is_other || route.path.contains("collected") && status == StatusCode::NOT_FOUND;
        assert!(is_right, "{} {}: {status} {said}", route.method, route.path);
    }
}
