//! Host and plugin of different minor versions, through the tables: structs that are one member longer or shorter than this side's. What is longer is used as far as it is
//! known, what has less than 1.0 is refused in words; nobody writes behind the end of the other side's struct or changes its size.
#![allow(unsafe_code, reason = "plays the other side")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use arrow_array::{ArrayRef, Int64Array, RecordBatch, types::Int64Type};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde_json::json;
use standpipe_sdk::{
    Call, Context, Error, Poll, PollLimits, Result, SingleSplit, Sink, SinkDeclaration, SinkInput, Source, SourceDeclaration, Split,
    TimeDomain, Timer, Transform, TransformDeclaration, TransformInput, Written,
    abi::{
        self, Batch, HostTable, Slice, Status, Validation, ValidationInput,
        growing::Growing,
        source::Polled,
        state::{KeyContext, LentValues, StateTable},
        transform::{DueTimers, TransformTable},
    },
    convert,
    glue::{SinkGlue, SourceGlue, TransformGlue},
    hosting::{InstanceContext, KeyedCall, NodeInput, Tables, TransformKind},
    source::{Capabilities, Encoding},
    testing::{MemoryState, TestHost},
    transform::{OutputDeclaration, StateDeclaration, StateKind},
    wire::KindDescription,
};
use std::{
    cell::Cell,
    ffi::c_void,
    ptr::{null, null_mut},
    sync::Arc,
};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("number", DataType::Int64, false)]))
}

fn numbers(values: &[i64]) -> RecordBatch {
    let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    RecordBatch::try_new(schema(), vec![values]).unwrap()
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct NoConfig {}

/// Gives one batch.
struct One;

impl Source for One {
    const NAME: &'static str = "one";
    type Config = NoConfig;
    type Enumerator = SingleSplit<NoConfig>;

    fn declare(_: &NoConfig) -> Result<SourceDeclaration> {
        let capabilities = Capabilities::default();
        Ok(SourceDeclaration { encoding: Encoding::Rows, schema: schema(), capabilities, problems: Vec::new() })
    }

    fn open(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self)
    }

    fn assign(&mut self, _: Vec<Split>) -> Result<()> {
        Ok(())
    }

    fn poll(&mut self, _: PollLimits) -> Result<Poll> {
        Ok(Poll::Batch { split: "0".to_owned(), batch: numbers(&[1, 2]), position: b"2".to_vec(), watermark: Some(7) })
    }
}

/// Adds rows up per key, passes them on.
struct Sum;

impl Transform for Sum {
    const NAME: &'static str = "sum";
    type Config = NoConfig;

    fn declare(_: &NoConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let field = Arc::new(Field::new("sum", DataType::Int64, true));
        let state = StateDeclaration { name: "sum".to_owned(), kind: StateKind::Value, field, version: 0, time_to_live: None };
        let outputs = vec![OutputDeclaration::main(input.only()?.schema.clone())];
        Ok(TransformDeclaration { outputs, states: vec![state], timers: true, ..Default::default() })
    }

    fn open(_: NoConfig, _: &TransformInput, _: Context) -> Result<Self> {
        Ok(Self)
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let sum = call.value::<Int64Type>(0)?;
        for &key in call.keys().into_iter().flat_map(|keys| keys.key_of_row()) {
            sum.set(key, sum.get(key).unwrap_or_default() + 1);
        }
        call.emit(batch)
    }

    fn on_timer(&mut self, _: TimeDomain, timers: &[Timer], _: &mut Call<'_>) -> Result<()> {
        Err(Error::data(format!("{} timers", timers.len())))
    }
}

/// Is always busy.
struct Busy;

impl Sink for Busy {
    const NAME: &'static str = "busy";
    type Config = NoConfig;

    fn declare(_: &NoConfig, _: &SinkInput) -> Result<SinkDeclaration> {
        Ok(SinkDeclaration::default())
    }

    fn open(_: NoConfig, _: &SinkInput, _: Context) -> Result<Self> {
        Ok(Self)
    }

    fn write(&mut self, _: u64, _: &RecordBatch) -> Result<Written> {
        Ok(Written::Busy)
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
}

const MARK: u64 = 0xfeed_5eed_feed_5eed;

/// A struct of the other side with `longer` bytes more, or less, than this side's, and a mark behind it.
struct Other<T> {
    words: Vec<u64>,
    size: usize,
    as_known: std::marker::PhantomData<T>,
}

impl<T: Growing> Other<T> {
    fn new(value: T, longer: isize) -> Self {
        let size = size_of::<T>().strict_add_signed(longer);
        let mut words = vec![MARK; size / 8 + 2];
        let value = std::mem::MaybeUninit::new(value);
        // SAFETY: as many bytes as both have; the struct begins with its size.
        unsafe {
            std::ptr::copy_nonoverlapping(value.as_ptr().cast::<u8>(), words.as_mut_ptr().cast(), size.min(size_of::<T>()));
            words.as_mut_ptr().cast::<u32>().write(size as u32);
        }
        Self { words, size, as_known: std::marker::PhantomData }
    }

    const fn pointer(&mut self) -> *mut T {
        self.words.as_mut_ptr().cast()
    }

    /// Nobody has written behind its end, where this side's may have members, or changed its size.
    fn is_sound(&self) -> bool {
        let behind = self.size.min(size_of::<T>()) / 8;
        self.words[behind..].iter().all(|word| *word == MARK) && self.words[0] as u32 as usize == self.size
    }
}

/// What a failure of a call says, in an error of that many bytes more.
fn said(longer: isize, call: impl FnOnce(*mut abi::Error) -> Status) -> String {
    let mut error = Other::new(abi::Error::empty(), longer);
    assert_eq!(call(error.pointer()), Status::ERROR);
    assert!(error.is_sound());
    // SAFETY: the error is at least that of 1.0, or nothing was written.
    if longer < 0 { String::new() } else { unsafe { error.pointer().read() }.message.to_text() }
}

fn context() -> abi::Context {
    let (size, subtask, parallelism, max_parallelism, generation, restored, reserved) = (0, 0, 1, 1, 1, 0, 0);
    let (job_id, job_name, node) = (Slice::EMPTY, Slice::EMPTY, Slice::EMPTY);
    abi::Context { size, subtask, parallelism, max_parallelism, generation, restored, reserved, job_id, job_name, node }
}

/// A host table whose functions answer nothing.
fn host() -> HostTable {
    extern "C" fn zero() -> u64 {
        0
    }
    let words = vec![zero as *const () as usize; size_of::<HostTable>() / size_of::<usize>()];
    // SAFETY: numbers, then pointers that are not null.
    unsafe { words.as_ptr().cast::<HostTable>().read() }
}

#[test]
fn a_plugin_reads_what_create_passes() {
    let create = |context_longer, host_longer| {
        let (mut context, mut host) = (Other::new(context(), context_longer), Other::new(host(), host_longer));
        let mut instance = null_mut();
        let table = SourceGlue::<One>::READER;
        let mut create = |error| unsafe { (table.create)(Slice::EMPTY, context.pointer(), host.pointer(), &raw mut instance, error) };
        if context_longer >= 0 && host_longer >= 0 {
            assert_eq!(create(null_mut()), Status::OK);
            unsafe { (table.destroy)(instance) };
            return String::new();
        }
        said(0, create)
    };
    assert_eq!((create(0, 0), create(8, 8)), (String::new(), String::new()));
    assert_eq!(create(-8, 0), "the host's context is too short: 72 bytes, 80 needed");
    assert_eq!(create(0, -8), "the host's table is too short: 96 bytes, 104 needed");
}

#[test]
fn a_plugin_writes_no_further_than_the_host_s_error_goes() {
    let fail = |longer| said(longer, |error| unsafe { (SourceGlue::<One>::READER.open)(null_mut(), error) });
    assert_eq!(fail(0), "the host passed no instance");
    assert_eq!(fail(8), "the host passed no instance");
    assert_eq!(fail(-8), "");
}

#[test]
fn a_plugin_writes_no_further_than_the_host_s_validation_goes() {
    let table = SourceGlue::<One>::READER;
    for longer in [0, 8] {
        let mut out = Other::new(Validation::empty(), longer);
        assert_eq!(unsafe { (table.validate)(Slice::EMPTY, null(), out.pointer(), null_mut()) }, Status::OK);
        assert!(out.is_sound());
        let out = unsafe { out.pointer().read() };
        assert_eq!(unsafe { convert::import_schemas(&raw const out.outputs) }.unwrap(), [schema()]);
    }
    let mut out = Other::new(Validation::empty(), -8);
    let line = said(0, |error| unsafe { (table.validate)(Slice::EMPTY, null(), out.pointer(), error) });
    assert_eq!(line, "the host's place for the result is too short: 176 bytes, 184 needed");
    assert!(out.is_sound());
}

/// An instance that is open.
fn opened(create: impl FnOnce(*const abi::Context, *const HostTable, *mut *mut c_void) -> Status) -> *mut c_void {
    let (context, host) = (Other::new(context(), 0), Other::new(host(), 0));
    let (context, host) = (Box::leak(Box::new(context)), Box::leak(Box::new(host)));
    let mut instance = null_mut();
    assert_eq!(create(context.pointer(), host.pointer(), &raw mut instance), Status::OK);
    instance
}

#[test]
fn a_plugin_writes_no_further_than_the_host_s_places_for_rows_go() {
    let table = SourceGlue::<One>::READER;
    let this = opened(|context, host, instance| unsafe { (table.create)(Slice::EMPTY, context, host, instance, null_mut()) });
    assert_eq!(unsafe { (table.open)(this, null_mut()) }, Status::OK);
    for longer in [0, 8] {
        let mut rows = Other::new(Batch::empty(), longer);
        let mut out = Other::new(Polled::empty(rows.pointer()), longer);
        assert_eq!(unsafe { (table.poll)(this, 9, 9, 0, out.pointer(), null_mut()) }, Status::OK);
        assert!(rows.is_sound() && out.is_sound());
        let polled = unsafe { out.pointer().read() };
        let array = unsafe { Batch::take_from(polled.batch) }.unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(unsafe { convert::import_batch(array, &schema()) }.unwrap(), numbers(&[1, 2]));
        assert_eq!((unsafe { polled.position.as_bytes() }, polled.watermark), (&b"2"[..], 7));
    }
    for (rows_longer, out_longer, line) in [(0, -8, "48 bytes, 56"), (-8, 0, "128 bytes, 136")] {
        let mut rows = Other::new(Batch::empty(), rows_longer);
        let mut out = Other::new(Polled::empty(rows.pointer()), out_longer);
        let said = said(0, |error| unsafe { (table.poll)(this, 9, 9, 0, out.pointer(), error) });
        assert_eq!(said, format!("the host's place for the result is too short: {line} needed"));
        assert!(rows.is_sound() && out.is_sound());
    }
    unsafe { (table.destroy)(this) };
}

#[test]
fn a_busy_sink_gives_the_host_s_batch_back_in_its_own_length() {
    let table = SinkGlue::<Busy>::TABLE;
    let this = opened(|context, host, instance| unsafe { (table.create)(Slice::EMPTY, context, host, instance, null_mut()) });
    let exported = convert::export_schema(&schema()).unwrap();
    let inputs = [&raw const exported];
    let open = |longer| {
        let input = ValidationInput { size: 0, n_inputs: 1, inputs: inputs.as_ptr(), details: Slice::EMPTY };
        let mut input = Other::new(input, longer);
        move |error| unsafe { (table.open)(this, input.pointer(), error) }
    };
    assert_eq!(open(8)(null_mut()), Status::OK);
    for longer in [0, 8] {
        let mut batch = Other::new(convert::export_batch(numbers(&[5])), longer);
        assert_eq!(unsafe { (table.write)(this, 1, batch.pointer(), null_mut()) }, Status::BUSY);
        assert!(batch.is_sound());
        let array = unsafe { Batch::take_from(batch.pointer()) }.unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(unsafe { convert::import_batch(array, &schema()) }.unwrap(), numbers(&[5]));
    }
    let mut batch = Other::new(Batch::empty(), -8);
    let line = said(0, |error| unsafe { (table.write)(this, 1, batch.pointer(), error) });
    assert_eq!(line, "the host's batch is too short: 128 bytes, 136 needed");
    unsafe { (table.destroy)(this) };
    let mut input = Other::new(ValidationInput { size: 0, n_inputs: 1, inputs: inputs.as_ptr(), details: Slice::EMPTY }, -8);
    let mut out = Validation::empty();
    let line = said(0, |error| unsafe { (table.validate)(Slice::EMPTY, input.pointer(), &raw mut out, error) });
    assert_eq!(line, "the host's validation input is too short: 24 bytes, 32 needed");
}

thread_local! {
    /// How much longer than this side's the structs of the call under way are, and what came of it.
    static LONGER: Cell<isize> = const { Cell::new(0) };
    static HOST: Cell<*const HostTable> = const { Cell::new(null()) };
}

/// Remembers the host's table, as the plugin of [`older_or_newer_plugin`] needs it.
unsafe extern "C" fn create(
    config: Slice,
    context: *const abi::Context,
    host: *const HostTable,
    instance: *mut *mut c_void,
    error: *mut abi::Error,
) -> Status {
    HOST.set(host);
    unsafe { (TransformGlue::<Sum>::TABLE.create)(config, context, host, instance, error) }
}

/// Calls the host with structs of another length, and the SDK with the host's, made longer or shorter.
unsafe extern "C" fn process(
    this: *mut c_void,
    input: u32,
    batch: *mut Batch,
    keys: *const KeyContext,
    token: u64,
    error: *mut abi::Error,
) -> Status {
    let longer = LONGER.get();
    let host = unsafe { &*HOST.get() };
    // The host's answers to a plugin of another minor version.
    let failed = said(longer, |error| unsafe { (host.emit)(host.ctx, 9, batch, token, error) });
    assert_eq!(failed, if longer < 0 { "" } else { "there is no output 9, only 1" });
    let mut given = Other::new(abi::Error::empty(), longer);
    unsafe { (host.complete)(host.ctx, 0, Status::OK, given.pointer()) };
    assert!(given.is_sound());
    let mut sent = Other::new(convert::export_batch(numbers(&[1, 2])), longer);
    let emitted = unsafe { (host.emit)(host.ctx, 0, sent.pointer(), 0, null_mut()) };
    assert_eq!(emitted, if longer < 0 { Status::ERROR } else { Status::OK });
    let state = unsafe { &*(*keys).state };
    let none = null_mut();
    let mut lent = Other::new(LentValues { size: 0, width: 0, values: none, validity: none, dirty: none, n: 0 }, longer);
    let lend = unsafe { (state.value_lend)(state.ctx, 0, lent.pointer(), null_mut()) };
    assert!(lent.is_sound());
    assert_eq!(lend, if longer < 0 { Status::ERROR } else { Status::OK });
    if longer >= 0 {
        assert_eq!(unsafe { (*lent.pointer()).n }, 2);
    }
    // The SDK, as a host of another minor version calls it.
    let table = TransformGlue::<Sum>::TABLE;
    let call = |keys: *const KeyContext, error| {
        let mut batch = Other::new(convert::export_batch(numbers(&[3, 4])), 0);
        unsafe { (table.process)(this, input, batch.pointer(), keys, 0, error) }
    };
    let refused = "the host's key context is too short: 32 bytes, 40 needed";
    let mut context = Other::new(unsafe { *keys }, longer);
    let mut state = Other::<StateTable>::new(unsafe { *(*keys).state }, longer);
    let mut with_state = KeyContext { state: state.pointer(), ..unsafe { *keys } };
    if longer < 0 {
        assert_eq!(said(0, |error| call(context.pointer(), error)), refused);
        let refused = "the state table of the host's key context is too short: 104 bytes, 112 needed";
        assert_eq!(said(0, |error| call(&raw mut with_state, error)), refused);
    } else {
        assert_eq!((call(context.pointer(), error), call(&raw mut with_state, error)), (Status::OK, Status::OK));
    }
    let (slots, times) = ([0; 2], [0; 2]);
    let due = DueTimers { size: 0, domain: 0, slots: slots.as_ptr(), times: times.as_ptr(), count: 2 };
    let mut due = Other::new(due, longer);
    let said = said(0, |error| unsafe { (table.on_timer)(this, due.pointer(), keys, error) });
    assert_eq!(said, if longer < 0 { "the host's list of timers is too short: 24 bytes, 32 needed" } else { "2 timers" });
    Status::OK
}

#[test]
fn a_host_and_the_sdk_with_structs_of_other_minor_versions() {
    let table = TransformTable { create, process, ..TransformGlue::<Sum>::TABLE };
    let find = |id: &str| if id == "transform/1" { (&raw const table).cast() } else { null() };
    let description =
        KindDescription { kind: "transform".to_owned(), name: "sum".to_owned(), summary: String::new(), config_schema: json!({}) };
    // SAFETY: the table lives as long as the kind.
    let kind = TransformKind::new("sum", &description, &unsafe { Tables::new(&find) }).unwrap();
    let input =
        NodeInput { schema: schema(), details: standpipe_sdk::wire::InputDetails { key: vec!["number".to_owned()], ..Default::default() } };
    let host = Arc::new(TestHost::default());
    let mut instance = kind.instance(&json!({}), "n", &[input], true, &InstanceContext::default(), host).unwrap();
    instance.open().unwrap();
    let mut state = MemoryState::new(instance.states().to_vec());
    for (longer, rows) in [(0, vec![[1, 2], [3, 4], [3, 4]]), (8, vec![[1, 2], [3, 4], [3, 4]]), (-8, vec![])] {
        LONGER.set(longer);
        let batch = numbers(&[1, 2]);
        let grouped = state.begin(&batch);
        let keys = KeyedCall { key_of_row: &grouped.key_of_row, keys: &grouped.keys, state: &mut state };
        let emitted = instance.process(0, &batch, Some(keys)).unwrap();
        assert_eq!(
            emitted.into_iter().map(|emitted| emitted.batch).collect::<Vec<_>>(),
            rows.iter().map(|row| numbers(row)).collect::<Vec<_>>()
        );
    }
    let value = state.value("sum", &numbers(&[1]));
    assert_eq!(value.map(|value| arrow_array::cast::AsArray::as_primitive::<Int64Type>(&value).value(0)), Some(4));
}
