//! Calls that end later, through the tables: an author's completions, and a plugin that uses tokens in every wrong way, also from threads that outlive its instance.
#![allow(unsafe_code, reason = "plays a plugin in C")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use arrow_array::{ArrayRef, Int64Array, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde::Deserialize;
use serde_json::json;
use standpipe_sdk::{
    Call, CloseReason, Completion, Context, Error, ErrorCode, Result, Transform, TransformDeclaration, TransformInput,
    abi::{self, Batch, HostTable, Slice, Status, state::KeyContext, transform::TransformTable},
    convert,
    glue::TransformGlue,
    hosting::{Begun, Emitted, InstanceContext, NodeInput, Tables, TransformInstance, TransformKind},
    testing::{Harness, TestHost, TransformHarness},
    transform::{Asynchronous, OutputDeclaration},
    wire::{AsyncDetails, KindDescription},
};
use std::{
    collections::HashMap,
    ffi::c_void,
    ptr::{null, null_mut},
    sync::{Arc, LazyLock, Mutex},
    thread,
    time::Duration,
};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("number", DataType::Int64, false)]))
}

fn numbers(values: &[i64]) -> RecordBatch {
    let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    RecordBatch::try_new(schema(), vec![values]).unwrap()
}

fn values(emitted: &[Emitted]) -> Vec<(u32, Vec<i64>)> {
    emitted.iter().map(|e| (e.output, e.batch.column(0).as_primitive::<Int64Type>().values().to_vec())).collect()
}

/// Calls that a test has not ended, by the test.
static HELD: LazyLock<Mutex<HashMap<String, Vec<Completion>>>> = LazyLock::new(Mutex::default);

fn held(test: &str) -> Completion {
    HELD.lock().unwrap().get_mut(test).unwrap().remove(0)
}

#[derive(Deserialize, schemars::JsonSchema)]
struct LaterConfig {
    /// Who gets the completions.
    test: String,
    #[serde(default)]
    wrong: String,
    /// Puts calls off until they are waited for.
    #[serde(default)]
    lazy: bool,
}

/// Emits the batch itself, and leaves the rest to the test.
struct Later {
    config: LaterConfig,
    put_off: Vec<Completion>,
}

impl Transform for Later {
    const NAME: &'static str = "later";
    type Config = LaterConfig;

    fn declare(config: &LaterConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let schema = &input.only()?.schema;
        let more = OutputDeclaration { name: "more".to_owned(), ..OutputDeclaration::main(schema.clone()) };
        let wishes = Asynchronous { capacity: Some(4), timeout: Some(Duration::from_millis(2500)) };
        Ok(TransformDeclaration {
            outputs: vec![OutputDeclaration::main(schema.clone()), more],
            asynchronous: (config.wrong != "undeclared").then_some(wishes),
            ..Default::default()
        })
    }

    fn open(config: LaterConfig, _: &TransformInput, _: Context) -> Result<Self> {
        Ok(Self { config, put_off: Vec::new() })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        call.emit(batch)?;
        let completion = call.completion()?;
        if self.config.lazy {
            self.put_off.push(completion);
            return Ok(());
        }
        HELD.lock().unwrap().entry(self.config.test.clone()).or_default().push(completion);
        match self.config.wrong.as_str() {
            "twice" => call.completion().map(drop),
            "fails" => Err(Error::data("no")),
            _ => Ok(()),
        }
    }

    fn on_watermark(&mut self, _: i64, call: &mut Call<'_>) -> Result<()> {
        call.completion().map(drop)
    }

    fn drain(&mut self, checkpoint: Option<u64>) -> Result<()> {
        let calls = std::mem::take(&mut self.put_off);
        let number = checkpoint.unwrap_or_default() as i64;
        thread::spawn(move || calls.into_iter().rev().for_each(|call| call.answer(|results| results.emit_to(1, numbers(&[number])))));
        Ok(())
    }
}

fn later(test: &str, wrong: &str) -> TransformHarness {
    Harness::transform::<Later>(json!({"test": test, "wrong": wrong}), schema())
}

#[test]
fn what_a_transform_wishes_reaches_the_host() {
    let details = later("wishes", "").validate().unwrap().details;
    assert_eq!(details.asynchronous, Some(AsyncDetails { capacity: Some(4), timeout_ms: Some(2500) }));
    assert_eq!(later("wishes", "undeclared").validate().unwrap().details.asynchronous, None);
}

#[test]
fn calls_end_in_any_order_from_any_thread() {
    let mut later = later("any", "");
    let calls = [1, 2, 3].map(|n| later.begin(0, &numbers(&[n])).unwrap());
    assert!(calls.iter().all(standpipe_sdk::testing::BegunCall::is_pending));
    let (first, second, third) = (held("any"), held("any"), held("any"));
    let [one, two, three] = calls;
    thread::spawn(move || {
        third.emit(numbers(&[30])).unwrap();
        third.emit_to(1, numbers(&[31])).unwrap();
        third.done();
        second.answer(|results| results.emit(numbers(&[20])));
        first.done();
    });
    assert_eq!(values(&later.wait(one).unwrap()), [(0, vec![1])]);
    assert_eq!(values(&later.wait(three).unwrap()), [(0, vec![3]), (0, vec![30]), (1, vec![31])], "its own come first");
    assert_eq!(values(&later.wait(two).unwrap()), [(0, vec![2]), (0, vec![20])]);
}

#[test]
fn an_ordinary_test_waits_for_the_results() {
    let mut later = later("ordinary", "");
    let other = thread::spawn(|| {
        loop {
            if let Some(completion) = HELD.lock().unwrap().get_mut("ordinary").and_then(Vec::pop) {
                return completion.answer(|results| results.emit(numbers(&[2])));
            }
            thread::yield_now();
        }
    });
    assert_eq!(later.process(&numbers(&[1])).unwrap(), [numbers(&[1]), numbers(&[2])]);
    other.join().unwrap();
}

#[test]
fn what_is_put_off_is_begun_when_it_is_waited_for() {
    let mut later = Harness::transform::<Later>(json!({"test": "lazy", "lazy": true}), schema());
    let calls = vec![later.begin(0, &numbers(&[1])).unwrap(), later.begin(0, &numbers(&[2])).unwrap()];
    let drained = later.drain(7, calls).unwrap();
    assert_eq!(
        drained.iter().map(|emitted| values(emitted)).collect::<Vec<_>>(),
        [[(0, vec![1]), (1, vec![7])], [(0, vec![2]), (1, vec![7])]]
    );
}

/// How a call of that test fails when its completion goes through `end`.
fn failure(test: &str, end: impl FnOnce(Completion) + Send + 'static) -> standpipe_sdk::hosting::PluginError {
    let mut later = later(test, "");
    let call = later.begin(0, &numbers(&[1])).unwrap();
    let completion = held(test);
    _ = thread::spawn(move || end(completion)).join();
    later.wait(call).unwrap_err()
}

#[test]
fn a_call_that_fails_says_why() {
    let error = failure("fails", |call| {
        call.emit(numbers(&[5])).unwrap();
        call.fail(Error::external("the service says 503").retryable().with("status", 503));
    });
    assert_eq!((error.to_string().as_str(), error.retryable), ("transforms.node: later: the service says 503", true));
    assert_eq!((error.code, &error.details["status"]), (ErrorCode::EXTERNAL, &json!(503)));
    let error = failure("dropped", drop);
    assert_eq!(error.to_string(), "transforms.node: later: dropped the completion of a call without ending it");
    let error = failure("panics", |call| {
        let _call = call;
        panic!("no more");
    });
    let begin =
        "transforms.node: plugin \"later\" panicked in a thread of its own, before a call had ended: no more at core/sdk/tests/pending.rs:";
    assert!(error.to_string().starts_with(begin), "{error}");
    let error = failure("answer-panics", |call| call.answer(|_| panic!("no more")));
    let begin = "transforms.node: plugin \"later\" panicked in process, behind the call: no more at core/sdk/tests/pending.rs:";
    assert!(error.to_string().starts_with(begin) && error.location().is_some(), "{error}");
    let error = failure("wrong", |call| {
        call.answer(|results| results.emit(RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1])) as ArrayRef)])?))
    });
    assert_eq!(error.message, "output \"main\": a batch has the column \"x\" of type Int64 where \"number\" of type Int64 is declared");
    let error = failure("no-output", |call| call.answer(|results| results.emit_to(2, numbers(&[1]))));
    assert_eq!(error.message, "there is no output 2, only 2");
}

#[test]
fn a_completion_is_to_be_had_once_and_in_process_alone() {
    let said = |test: &str, wrong: &str| later(test, wrong).process(&numbers(&[1])).unwrap_err().message;
    assert_eq!(said("undeclared", "undeclared"), "a call can end later if the transform has declared `asynchronous`");
    assert_eq!(said("twice", "twice"), "the completion of this call was taken before");
    assert_eq!(later("watermark", "").advance_watermark(1).unwrap_err().message, "only a call of `process` can end later");
    let mut keyed = later("keyed", "").keyed(&["number"]);
    assert_eq!(
        keyed.process(&numbers(&[1])).unwrap_err().message,
        "a call of a node with key_by cannot end later: its keyed state is of one call"
    );
}

#[test]
fn nobody_waits_for_a_call_that_has_failed_at_once_or_whose_instance_is_gone() {
    let mut failed = later("failed", "fails");
    assert_eq!(failed.process(&numbers(&[1])).unwrap_err().message, "no");
    let completion = held("failed");
    let error = completion.emit(numbers(&[2])).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::OUT_OF_RANGE, "there is no pending call 1: it has ended, or never was"));
    completion.done();
    assert!(failed.instance().unwrap().ended().is_empty());

    let mut gone = later("gone", "");
    assert!(gone.begin(0, &numbers(&[1])).unwrap().is_pending());
    let completion = held("gone");
    assert!(!completion.cancelled());
    gone.instance().unwrap().close(CloseReason::Stopped).unwrap();
    drop(gone);
    assert!(completion.cancelled());
    assert_eq!(completion.emit(numbers(&[2])).unwrap_err().code, ErrorCode::CANCELLED);
    completion.fail(Error::data("nobody hears this"));
}

/// What the plugin in C does with the token of its next call: the name of a case.
static CASE: Mutex<&str> = Mutex::new("");
/// The last call: the host's table, as the plugin keeps it for ever, and the token.
static LAST: Mutex<Option<(Pointer, u64)>> = Mutex::new(None);
/// Cases of one test at a time.
static ONE: Mutex<()> = Mutex::new(());

#[derive(Clone, Copy)]
struct Pointer(*const HostTable);
// SAFETY: the table may be used on any thread.
unsafe impl Send for Pointer {}

thread_local! {
    static HOST: std::cell::Cell<*const HostTable> = const { std::cell::Cell::new(null()) };
}

unsafe extern "C" fn create(
    config: Slice,
    context: *const abi::Context,
    host: *const HostTable,
    instance: *mut *mut c_void,
    error: *mut abi::Error,
) -> Status {
    HOST.set(host);
    unsafe { (TransformGlue::<Later>::TABLE.create)(config, context, host, instance, error) }
}

fn emit(host: &HostTable, token: u64, n: i64) -> Result<(), String> {
    let (mut batch, mut error) = (convert::export_batch(numbers(&[n])), abi::Error::empty());
    match unsafe { (host.emit)(host.ctx, 0, &raw mut batch, token, &raw mut error) } {
        Status::OK => Ok(()),
        _ => Err(Error::from_abi(&error).message),
    }
}

/// The host's answer; the plugin's error comes back empty.
fn complete(host: &HostTable, token: u64, status: Status) -> Status {
    let mut error = abi::Error::new(ErrorCode::DATA, "the plugin's own words");
    let answer = unsafe { (host.complete)(host.ctx, token, status, &raw mut error) };
    assert!(error.message.as_bytes().is_empty(), "the error is moved");
    answer
}

unsafe extern "C" fn process(_: *mut c_void, _: u32, batch: *mut Batch, _: *const KeyContext, token: u64, _: *mut abi::Error) -> Status {
    drop(unsafe { Batch::take_from(batch) });
    let pointer = Pointer(HOST.get());
    let host = unsafe { &*pointer.0 };
    *LAST.lock().unwrap() = Some((pointer, token));
    match *CASE.lock().unwrap() {
        // Ends on another thread before this returns.
        "early" => {
            let end = move || {
                let pointer = pointer;
                let host = unsafe { &*pointer.0 };
                emit(host, token, 2).unwrap();
                complete(host, token, Status::OK)
            };
            assert_eq!(thread::spawn(end).join().unwrap(), Status::OK);
            emit(host, 0, 1).unwrap();
            Status::PENDING
        }
        "emits and is OK" => {
            emit(host, token, 1).unwrap();
            Status::OK
        }
        "completes and is OK" => {
            complete(host, token, Status::OK);
            Status::OK
        }
        "unknown tokens" => {
            let unknown = |token| format!("there is no pending call {token}: it has ended, or never was");
            assert_eq!(emit(host, token + 1, 1), Err(unknown(token + 1)));
            assert_eq!((complete(host, token + 1, Status::OK), complete(host, 0, Status::OK)), (Status::ERROR, Status::ERROR));
            Status::OK
        }
        "completes with nonsense" => {
            complete(host, token, Status::BUSY);
            Status::PENDING
        }
        "fails in silence" => {
            assert_eq!(unsafe { (host.complete)(host.ctx, token, Status::ERROR, null_mut()) }, Status::OK);
            Status::PENDING
        }
        "answers nonsense" => Status(77),
        _ => Status::PENDING,
    }
}

/// The plugin in C, in a node with or without keys.
fn in_c(keyed: bool, asynchronous: bool) -> TransformInstance {
    let table = Box::leak(Box::new(TransformTable { create, process, ..TransformGlue::<Later>::TABLE }));
    let find = |id: &str| if id == "transform/1" { (&raw const *table).cast() } else { null() };
    let description =
        KindDescription { kind: "transform".to_owned(), name: "in-c".to_owned(), summary: String::new(), config_schema: json!({}) };
    // SAFETY: the table lives for ever.
    let kind = TransformKind::new("in-c", &description, &unsafe { Tables::new(&find) }).unwrap();
    let mut input = NodeInput { schema: schema(), details: Default::default() };
    if keyed {
        input.details.key = vec!["number".to_owned()];
    }
    let config = json!({"test": "c", "wrong": if asynchronous { "" } else { "undeclared" }});
    kind.instance(&config, "n", &[input], keyed, &InstanceContext::default(), Arc::new(TestHost::default())).unwrap()
}

fn begin(instance: &mut TransformInstance, case: &'static str) -> Result<Begun, standpipe_sdk::hosting::PluginError> {
    *CASE.lock().unwrap() = case;
    instance.begin(0, &numbers(&[9]))
}

fn the_end(instance: &TransformInstance) -> std::result::Result<Vec<(u32, Vec<i64>)>, String> {
    let [ended] = <[_; 1]>::try_from(instance.ended()).unwrap();
    ended.result.map(|emitted| values(&emitted)).map_err(|error| error.message)
}

#[test]
fn a_call_may_end_before_process_returns() {
    let _one = ONE.lock().unwrap();
    let mut instance = in_c(false, true);
    assert!(matches!(begin(&mut instance, "early").unwrap(), Begun::Pending(_)));
    assert_eq!(the_end(&instance), Ok(vec![(0, vec![1]), (0, vec![2])]));
    begin(&mut instance, "completes with nonsense").unwrap();
    assert_eq!(the_end(&instance), Err("breaks the plugin contract: it completes a call with the status 1".to_owned()));
    begin(&mut instance, "fails in silence").unwrap();
    assert_eq!(the_end(&instance), Err("failed without saying why".to_owned()));
}

#[test]
fn a_plugin_that_breaks_the_contract_is_named() {
    let _one = ONE.lock().unwrap();
    let mut instance = in_c(false, true);
    let used =
        "breaks the plugin contract: it has emitted or completed by the token of a call that it then answered with OK instead of PENDING";
    assert_eq!(begin(&mut instance, "emits and is OK").unwrap_err().message, used);
    assert_eq!(begin(&mut instance, "completes and is OK").unwrap_err().message, used);
    assert_eq!(begin(&mut instance, "answers nonsense").unwrap_err().message, "breaks the plugin contract: it answers with the status 77");
    assert!(matches!(begin(&mut instance, "unknown tokens").unwrap(), Begun::Done(_)));
    let undeclared = begin(&mut in_c(false, false), "").unwrap_err().message;
    assert!(undeclared.starts_with("breaks the plugin contract: it answers PENDING in a call without a token"), "{undeclared}");
    let keyed = begin(&mut in_c(true, true), "").unwrap_err();
    let why = "answers PENDING, which a transform of a node with key_by may not: its keyed state is of one call";
    assert_eq!((keyed.message.as_str(), keyed.code), (why, ErrorCode::UNSUPPORTED));
}

#[test]
fn a_token_is_good_until_its_call_has_ended() {
    let _one = ONE.lock().unwrap();
    let mut instance = in_c(false, true);
    let mut pending = |case| {
        assert!(matches!(begin(&mut instance, case).unwrap(), Begun::Pending(_)));
        LAST.lock().unwrap().unwrap()
    };
    let (host, first) = pending("");
    let (_, second) = pending("");
    assert_ne!(first, second);
    // SAFETY: the table lives as long as the process.
    let table = unsafe { &*host.0 };
    assert_eq!((emit(table, second, 5), complete(table, second, Status::OK)), (Ok(()), Status::OK));
    assert_eq!(complete(table, second, Status::OK), Status::ERROR, "twice");
    let ended = |token| Err(format!("there is no pending call {token}: it has ended, or never was"));
    assert_eq!(emit(table, second, 5), ended(second));
    assert_eq!(complete(table, first, Status::ERROR), Status::OK);
    assert_eq!(emit(table, first, 5), ended(first), "after a failure");
    let results: Vec<_> =
        instance.ended().into_iter().map(|end| (end.token, end.result.map(|e| values(&e)).map_err(|e| e.message))).collect();
    assert_eq!(results, [(first, Err("the plugin's own words".to_owned())), (second, Ok(vec![(0, vec![5])]))]);
}

#[test]
fn a_thread_in_c_may_outlive_its_instance() {
    let _one = ONE.lock().unwrap();
    let mut instance = in_c(false, true);
    begin(&mut instance, "").unwrap();
    let (host, token) = LAST.lock().unwrap().unwrap();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let other = thread::spawn(move || {
        let host = host;
        // SAFETY: the table lives as long as the process.
        let table = unsafe { &*host.0 };
        emit(table, token, 1).unwrap();
        gone.recv().unwrap();
        let emitted = emit(table, token, 2);
        let completed = complete(table, token, Status::OK);
        // SAFETY: as above.
        unsafe {
            (table.wake)(table.ctx);
            (table.log)(table.ctx, abi::host::LOG_INFO, Slice::new(b"{}"));
            (emitted, completed, (table.cancelled)(table.ctx), (table.now)(table.ctx))
        }
    });
    drop(instance);
    go.send(()).unwrap();
    let refused = Err("the instance is gone, or the context of the host table is missing".to_owned());
    assert_eq!(other.join().unwrap(), (refused, Status::ERROR, 1, 0));
}
