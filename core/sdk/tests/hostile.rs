//! A host that does not keep the contract: the glue answers with errors where it can tell. And an author's thread that outlives its instance.
#![allow(unsafe_code, reason = "calls the tables as a host does, and as none should")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use arrow_array::RecordBatch;
use serde_json::json;
use standpipe_sdk::{
    Call, Context, Error, ErrorCode, Host, Poll, PollLimits, Result, SingleSplit, Source, SourceDeclaration, Split, Transform,
    TransformDeclaration, TransformInput,
    abi::{self, Buffer, Slice, Status, Validation, ValidationInput, source::Polled, source::SplitPosition},
    glue::{SourceGlue, TransformGlue},
    source::{Capabilities, Encoding},
    testing::Harness,
    transform::OutputDeclaration,
};
use std::{
    ffi::c_void,
    ptr::{null, null_mut},
    sync::{Arc, Mutex},
};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct NoConfig {}

/// Gives its host away.
struct Nothing;

static HOST: Mutex<Option<Host>> = Mutex::new(None);

impl Source for Nothing {
    const NAME: &'static str = "nothing";
    type Config = NoConfig;
    type Enumerator = SingleSplit<NoConfig>;

    fn declare(_: &NoConfig) -> Result<SourceDeclaration> {
        let schema = Arc::new(arrow_schema::Schema::empty());
        Ok(SourceDeclaration { encoding: Encoding::Rows, schema, capabilities: Capabilities::default(), problems: Vec::new() })
    }

    fn open(_: NoConfig, context: Context) -> Result<Self> {
        *HOST.lock().unwrap() = Some(context.host);
        Ok(Self)
    }

    fn assign(&mut self, _: Vec<Split>) -> Result<()> {
        Ok(())
    }

    fn poll(&mut self, _: PollLimits) -> Result<Poll> {
        Ok(Poll::EndOfSplit("0".to_owned()))
    }
}

struct Pass;

impl Transform for Pass {
    const NAME: &'static str = "pass";
    type Config = NoConfig;

    fn declare(_: &NoConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        Ok(TransformDeclaration { outputs: vec![OutputDeclaration::main(input.only()?.schema.clone())], ..Default::default() })
    }

    fn open(_: NoConfig, _: &TransformInput, _: Context) -> Result<Self> {
        Ok(Self)
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        call.emit(batch)
    }
}

/// The error of a call.
fn error(call: impl FnOnce(*mut abi::Error) -> Status) -> (ErrorCode, String) {
    let mut error = abi::Error::empty();
    assert_eq!(call(&raw mut error), Status::ERROR);
    let error = Error::from_abi(&error);
    (error.code, error.message)
}

fn out_of_range(message: &str) -> (ErrorCode, String) {
    (ErrorCode::OUT_OF_RANGE, message.to_owned())
}

/// A host table whose functions are never called.
fn host() -> abi::HostTable {
    extern "C" fn never() {
        panic!("called");
    }
    let size = size_of::<abi::HostTable>();
    let mut words = vec![never as *const () as usize; size / size_of::<usize>()];
    words[0] = size;
    // SAFETY: a size, then pointers that are not null.
    unsafe { words.as_ptr().cast::<abi::HostTable>().read() }
}

fn context(size: usize) -> abi::Context {
    let none = Slice::EMPTY;
    let (subtask, parallelism, max_parallelism, generation) = (0, 1, 1, 1);
    abi::Context {
        size: size as u32,
        subtask,
        parallelism,
        max_parallelism,
        generation,
        restored: 0,
        reserved: 0,
        job_id: none,
        job_name: none,
        node: none,
    }
}

fn create(config: &str, context: *const abi::Context, host: *const abi::HostTable, instance: *mut *mut c_void) -> (ErrorCode, String) {
    error(|error| unsafe { (SourceGlue::<Nothing>::READER.create)(Slice::new(config.as_bytes()), context, host, instance, error) })
}

#[test]
fn create_without_its_arguments() {
    let (whole, short, host) = (context(size_of::<abi::Context>()), context(8), host());
    let mut instance = null_mut();
    assert_eq!(create("{}", &raw const whole, null(), &raw mut instance), out_of_range("the host's table is missing"));
    assert_eq!(create("{}", null(), &raw const host, &raw mut instance), out_of_range("the host's context is missing"));
    let too_short = "the host's context is too short: 8 bytes, 80 needed";
    assert_eq!(create("{}", &raw const short, &raw const host, &raw mut instance), out_of_range(too_short));
    let no_place = "the host passed no place for the result";
    assert_eq!(create("{}", &raw const whole, &raw const host, null_mut()), out_of_range(no_place));
    let (code, message) = create("{", &raw const whole, &raw const host, &raw mut instance);
    assert!(code == ErrorCode::CONFIG && message.starts_with("the configuration is no JSON: "), "{message}");
    assert!(instance.is_null());
}

#[test]
fn calls_without_an_instance_or_in_the_wrong_order() {
    let table = SourceGlue::<Nothing>::READER;
    assert_eq!(error(|error| unsafe { (table.open)(null_mut(), error) }), out_of_range("the host passed no instance"));
    let (whole, host) = (context(size_of::<abi::Context>()), host());
    let mut rows = abi::Batch::empty();
    let (mut this, mut polled) = (null_mut(), Polled::empty(&raw mut rows));
    let mut poll = |this, error| unsafe { (table.poll)(this, 1, 1, 0, &raw mut polled, error) };
    let status = unsafe { (table.create)(Slice::EMPTY, &raw const whole, &raw const host, &raw mut this, null_mut()) };
    assert_eq!(status, Status::OK);
    assert_eq!(error(|error| poll(this, error)), out_of_range("poll was called on an instance that is not open"));
    assert_eq!(unsafe { (table.open)(this, null_mut()) }, Status::OK);
    assert_eq!(error(|error| unsafe { (table.open)(this, error) }), out_of_range("open was called twice, or after a failure"));
    assert_eq!(error(|error| unsafe { (table.assign)(this, null(), 3, error) }), out_of_range("the host passed an array that is null"));
    let split = SplitPosition { split: Slice::new(b"\xff"), details: Slice::EMPTY, position: Slice::EMPTY };
    let not_text = error(|error| unsafe { (table.assign)(this, &raw const split, 1, error) });
    assert_eq!(not_text, out_of_range("the host passed text that is not UTF-8"));
    let no_place = error(|error| unsafe { (table.lag)(this, null_mut::<Buffer>(), error) });
    assert_eq!(no_place, out_of_range("the host passed no place for the result"));
    // Nobody asks why.
    assert_eq!(unsafe { (table.pause)(this, null(), 0, null_mut()) }, Status::ERROR);
    unsafe { (table.destroy)(this) };
    unsafe { (table.destroy)(null_mut()) };
}

#[test]
fn validate_without_inputs() {
    let table = TransformGlue::<Pass>::TABLE;
    let mut out = Validation::empty();
    let none = error(|error| unsafe { (table.validate)(Slice::EMPTY, null(), &raw mut out, error) });
    assert_eq!(none, out_of_range("the host's validation input is missing"));
    let missing = [null()];
    let input = ValidationInput { size: size_of::<ValidationInput>() as u32, n_inputs: 1, inputs: missing.as_ptr(), details: Slice::EMPTY };
    let none = error(|error| unsafe { (table.validate)(Slice::EMPTY, &raw const input, &raw mut out, error) });
    assert_eq!(none, (ErrorCode::DATA, "a schema is missing".to_owned()));
    let garbage = ValidationInput { n_inputs: 0, details: Slice::new(b"["), ..input };
    assert_eq!(error(|error| unsafe { (table.validate)(Slice::EMPTY, &raw const garbage, &raw mut out, error) }).0, ErrorCode::OTHER);
}

#[test]
fn a_thread_that_outlives_its_instance_calls_nobody() {
    let mut source = Harness::source::<Nothing>(json!({}));
    source.open().unwrap();
    let host = HOST.lock().unwrap().take().unwrap();
    let counter = host.counter("c", &[]);
    host.info("alive", &[]);
    source.host.set_now(7);
    assert_eq!((host.now(), host.cancelled()), (7, false));
    source.restart();
    std::thread::spawn(move || {
        host.info("dead", &[]);
        counter.add(1);
        host.wake();
        host.ack(1);
        assert!(host.cancelled());
        assert_eq!(host.secret("x").unwrap_err().code, ErrorCode::CANCELLED);
        assert_eq!(host.reject(1, &[]).unwrap_err().code, ErrorCode::CANCELLED);
    })
    .join()
    .unwrap();
    assert_eq!((source.host.messages(), source.host.metric("c"), source.host.acknowledged()), (vec!["alive".to_owned()], Some(0.0), 0));
}
