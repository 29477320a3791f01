//! Plugins that live in the test: a source of numbered rows, a sink that remembers what it got, transforms. Each test has a [`Probe`] by name, through which it sees
//! what happened and lets things go wrong.

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType},
};
use standpipe_sdk::{
    Call, CloseReason, Context, Counter, Enumerator, Error, Host, Poll, PollLimits, Result, Sink, SinkDeclaration, SinkInput, Source,
    SourceDeclaration, Split, TimeDomain, Timer, Transform, TransformDeclaration, TransformInput, Written,
    sink::Encoding,
    source::{Discovery, SingleSplit, SplitDescription},
    transform::{OutputDeclaration, StateDeclaration, StateKind},
    wire::Capabilities,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

static PROBES: LazyLock<Mutex<HashMap<String, Arc<Probe>>>> = LazyLock::new(Mutex::default);

/// What a test sees and steers.
#[derive(Default)]
pub struct Probe {
    /// Batches that sinks got, by node and subtask.
    pub written: Mutex<BTreeMap<(String, u32), Vec<RecordBatch>>>,
    /// How instances were closed: node, subtask, reason.
    pub closed: Mutex<Vec<(String, u32, CloseReason)>>,
    /// Positions that were committed upstream.
    pub committed: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Rows that sources gave.
    pub read: AtomicU64,
    /// Sinks acknowledge nothing while this is set.
    pub stuck: AtomicBool,
    /// Sinks that have finished.
    pub finished: AtomicU64,
    /// What a sink got as its secret.
    pub secret: Mutex<String>,
    /// The function of sinks that fails, in a way that may pass: `write`, `flush`, `finish`.
    pub unreachable: Mutex<String>,
    /// How often it has failed.
    pub attempts: AtomicU64,
    /// Splits that are quiet go on.
    pub awake: AtomicBool,
    /// When a plugin failed as it was told to.
    pub failed: Mutex<Option<Instant>>,
}

impl Probe {
    pub fn of(name: &str) -> Arc<Self> {
        Arc::clone(PROBES.lock().unwrap().entry(name.to_owned()).or_default())
    }

    /// A plugin is about to fail.
    pub fn fails(&self) {
        self.failed.lock().unwrap().get_or_insert_with(Instant::now);
    }

    /// Fails a sink's function if it is the one to fail.
    fn reach(&self, function: &str) -> Result<()> {
        if *self.unreachable.lock().unwrap() != function {
            return Ok(());
        }
        self.attempts.fetch_add(1, SeqCst);
        Err(Error::external("the index does not answer").retryable())
    }

    /// All rows of a sink, in the order of each subtask.
    pub fn rows(&self, sink: &str) -> Vec<RecordBatch> {
        self.written.lock().unwrap().iter().filter(|((node, _), _)| node == sink).flat_map(|(_, batches)| batches.clone()).collect()
    }

    /// The values of an integer column of a sink, sorted.
    pub fn values(&self, sink: &str, column: &str) -> Vec<i64> {
        let batches = self.rows(sink);
        let column = |batch: &RecordBatch| batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().values().to_vec();
        let mut values: Vec<i64> = batches.iter().flat_map(column).collect();
        values.sort_unstable();
        values
    }

    /// The encoded records of a sink, sorted.
    pub fn lines(&self, sink: &str) -> Vec<String> {
        let batches = self.rows(sink);
        let records = batches.iter().flat_map(|batch| batch.column(0).as_binary::<i32>().iter().flatten());
        let mut lines: Vec<String> = records.map(|record| String::from_utf8_lossy(record).into_owned()).collect();
        lines.sort_unstable();
        lines
    }

    pub fn row_count(&self, sink: &str) -> usize {
        self.rows(sink).iter().map(RecordBatch::num_rows).sum()
    }
}

/// Columns of the source: a key, an event time, a number that is unique in the job.
pub fn numbers_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        Field::new("n", DataType::Int64, false),
    ]))
}

/// Row `i` of a split: what the tests' naive references compute with.
pub fn number(split: u64, i: u64, keys: u64) -> (String, i64, i64) {
    let n = split * 1_000_000_000 + i;
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    // Event times run ahead and fall back by up to 5 ms.
    (format!("key-{}", mixed % keys), (i * 100 + mixed % 5_000) as i64, n as i64)
}

/// Numbered rows.
#[derive(serde::Deserialize, schemars::JsonSchema, Clone)]
pub struct NumbersConfig {
    pub probe: String,
    #[serde(default = "one")]
    pub splits: u64,
    /// Per split; none: without end.
    pub rows: Option<u64>,
    #[serde(default = "batch")]
    pub batch: u64,
    #[serde(default = "ten")]
    pub keys: u64,
    /// Fails after so many rows of a split.
    pub fail_at: Option<u64>,
    /// Panics after so many rows of a split.
    pub panic_at: Option<u64>,
    /// Why it cannot be opened.
    pub missing: Option<String>,
    /// Rows a second and split; none: as fast as it can.
    pub rate: Option<u64>,
    /// Splits from this one on give no more after `quiet_after` rows, without an end, until the probe awakens them.
    #[serde(default = "one")]
    pub quiet_from: u64,
    pub quiet_after: Option<u64>,
    /// A quiet split says so by a batch without rows.
    #[serde(default)]
    pub says_quiet: bool,
    /// What it reads is gone for good after so many polls that found nothing.
    pub gone_after: Option<u32>,
    /// So many calls fail in a way that may pass, after some rows.
    #[serde(default)]
    pub flaky: u32,
    /// Only one split is found at a time.
    #[serde(default)]
    pub one_by_one: bool,
}

fn one() -> u64 {
    1
}

fn ten() -> u64 {
    10
}

fn batch() -> u64 {
    500
}

pub struct Numbers {
    config: NumbersConfig,
    node: String,
    subtask: u32,
    splits: Vec<(String, u64, u64)>,
    next: usize,
    began: Instant,
    flaked: u32,
    polls: u32,
}

impl Source for Numbers {
    const NAME: &'static str = "numbers";
    type Config = NumbersConfig;
    type Enumerator = NumbersSplits;

    fn declare(config: &NumbersConfig) -> Result<SourceDeclaration> {
        let capabilities = Capabilities { bounded: config.rows.is_some(), replayable: true, ..Default::default() };
        Ok(SourceDeclaration { encoding: Encoding::Rows, schema: numbers_schema(), capabilities, problems: Vec::new() })
    }

    fn open(config: NumbersConfig, context: Context) -> Result<Self> {
        Ok(Self {
            config,
            node: context.node,
            subtask: context.subtask,
            splits: Vec::new(),
            next: 0,
            began: Instant::now(),
            flaked: 0,
            polls: 0,
        })
    }

    fn assign(&mut self, splits: Vec<Split>) -> Result<()> {
        for split in splits {
            let number = split.id.trim_start_matches("split-").parse()?;
            self.splits.push((split.id, number, 0));
        }
        Ok(())
    }

    fn poll(&mut self, limits: PollLimits) -> Result<Poll> {
        let probe = Probe::of(&self.config.probe);
        if self.splits.is_empty() {
            return Ok(Poll::Idle);
        }
        if let Some(gone_after) = self.config.gone_after {
            self.polls += 1;
            return if self.polls <= gone_after { Ok(Poll::Idle) } else { Err(Error::external("the topic is gone")) };
        }
        self.next = (self.next + 1) % self.splits.len();
        let (id, split, at) = self.splits[self.next].clone();
        if self.config.rows.is_some_and(|rows| at >= rows) {
            self.splits.remove(self.next);
            return Ok(Poll::EndOfSplit(id));
        }
        if self.config.fail_at.is_some_and(|fail_at| at >= fail_at) {
            probe.fails();
            return Err(Error::data(format!("row {at} is broken")));
        }
        if self.config.panic_at.is_some_and(|panic_at| at >= panic_at) {
            probe.fails();
            panic!("the source is broken at row {at}");
        }
        if at >= 1000 && self.flaked < self.config.flaky {
            self.flaked += 1;
            return Err(Error::external("the broker does not answer").retryable());
        }
        let is_quiet = split >= self.config.quiet_from && !probe.awake.load(SeqCst);
        let quiet_after = self.config.quiet_after.filter(|_| is_quiet).unwrap_or(u64::MAX);
        if at >= quiet_after {
            if self.config.says_quiet {
                let batch = RecordBatch::new_empty(numbers_schema());
                return Ok(Poll::Batch { split: id, batch, position: at.to_string().into_bytes(), watermark: None });
            }
            return Ok(Poll::Idle);
        }
        let mut count =
            self.config.batch.min(limits.max_rows as u64).min(quiet_after - at).min(self.config.rows.map_or(u64::MAX, |rows| rows - at));
        if let Some(rate) = self.config.rate {
            let due = (self.began.elapsed().as_secs_f64() * rate as f64) as u64;
            count = count.min(due.saturating_sub(at));
            if count == 0 {
                std::thread::sleep(limits.wait.min(Duration::from_millis(2)));
                return Ok(Poll::Idle);
            }
        }
        let rows: Vec<_> = (at..at + count).map(|i| number(split, i, self.config.keys)).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| Some(row.0.as_str())).collect::<StringArray>()),
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        ];
        self.splits[self.next].2 = at + count;
        probe.read.fetch_add(count, SeqCst);
        let batch = RecordBatch::try_new(numbers_schema(), columns)?;
        Ok(Poll::Batch { split: id, batch, position: (at + count).to_string().into_bytes(), watermark: None })
    }

    fn checkpoint_committed(&mut self, _: u64, positions: &[(String, Vec<u8>)]) -> Result<()> {
        let probe = Probe::of(&self.config.probe);
        probe.committed.lock().unwrap().extend(positions.iter().cloned());
        Ok(())
    }

    fn close(&mut self, reason: CloseReason) -> Result<()> {
        Probe::of(&self.config.probe).closed.lock().unwrap().push((self.node.clone(), self.subtask, reason));
        Ok(())
    }
}

pub struct NumbersSplits(NumbersConfig, u64);

impl Enumerator for NumbersSplits {
    type Config = NumbersConfig;

    fn open(config: NumbersConfig, _: Context) -> Result<Self> {
        match &config.missing {
            Some(missing) => {
                Probe::of(&config.probe).fails();
                Err(Error::external(missing))
            }
            None => Ok(Self(config, 0)),
        }
    }

    fn discover(&mut self, _: Duration) -> Result<Discovery> {
        let split = |i| SplitDescription { split: format!("split-{i}"), details: String::new() };
        let begin = self.1;
        self.1 = if self.0.one_by_one { begin + 1 } else { self.0.splits };
        Ok(Discovery { added: (begin..self.1).map(split).collect(), removed: Vec::new(), exhausted: self.1 == self.0.splits })
    }
}

/// Remembers what it gets.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct CollectConfig {
    pub probe: String,
    /// When it acknowledges: `write` (default), `flush`.
    #[serde(default)]
    pub acknowledge: String,
    /// Fails at that batch.
    pub fail_at: Option<u64>,
    /// At that batch, what it writes to is not there.
    pub missing_at: Option<u64>,
    /// Panics at that batch.
    pub panic_at: Option<u64>,
    /// Blocks for ever at that batch, whatever the host wants.
    pub hang_at: Option<u64>,
    /// Refuses rows whose `n` is a multiple.
    pub refuse: Option<i64>,
    /// Is busy so many times before it takes a batch.
    #[serde(default)]
    pub busy: u32,
    /// Acknowledges that many batches more than it got.
    #[serde(default)]
    pub boast: u64,
    /// Comes resolved.
    pub secret: Option<String>,
    /// Does not remember rows, only counts them.
    #[serde(default)]
    pub forget: bool,
}

pub struct Collect {
    config: CollectConfig,
    probe: Arc<Probe>,
    node: String,
    subtask: u32,
    host: Host,
    rows: Counter,
    written: u64,
    busy: u32,
}

impl Sink for Collect {
    const NAME: &'static str = "collect";
    type Config = CollectConfig;

    fn declare(_: &CollectConfig, _: &SinkInput) -> Result<SinkDeclaration> {
        Ok(SinkDeclaration { encoding: Encoding::Rows, ..Default::default() })
    }

    fn open(config: CollectConfig, _: &SinkInput, context: Context) -> Result<Self> {
        let probe = Probe::of(&config.probe);
        let rows = context.host.counter("collected_rows", &[("kind", "test")]);
        if let Some(secret) = &config.secret {
            probe.secret.lock().unwrap().clone_from(secret);
        }
        Ok(Self { config, probe, node: context.node, subtask: context.subtask, host: context.host, rows, written: 0, busy: 0 })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        if self.busy < self.config.busy {
            self.busy += 1;
            let host = self.host.clone();
            std::thread::spawn(move || host.wake());
            return Ok(Written::Busy);
        }
        self.busy = 0;
        assert_eq!(seq, self.written + 1, "sequence numbers have no gaps");
        self.probe.reach("write")?;
        if [self.config.fail_at, self.config.panic_at, self.config.missing_at].contains(&Some(seq)) || self.config.boast > 0 {
            self.probe.fails();
        }
        if self.config.fail_at == Some(seq) {
            return Err(Error::new(standpipe_sdk::ErrorCode::OTHER, "the disk is full"));
        }
        if self.config.missing_at == Some(seq) {
            return Err(Error::external("there is no index"));
        }
        assert!(self.config.panic_at != Some(seq), "the sink is broken");
        while self.config.hang_at == Some(seq) {
            std::thread::park();
        }
        self.written = seq;
        self.rows.add(batch.num_rows() as u64);
        if let Some(refuse) = self.config.refuse {
            let n = batch.column_by_name("n").unwrap().as_primitive::<Int64Type>();
            let refused = |(row, n): (usize, &i64)| {
                (n % refuse == 0).then(|| standpipe_sdk::Rejection {
                    row: row as u32,
                    reason: format!("{n} is refused"),
                    details: String::new(),
                })
            };
            let refused: Vec<_> = n.values().iter().enumerate().filter_map(refused).collect();
            if !refused.is_empty() {
                self.host.reject(seq, &refused)?;
            }
        }
        if !self.config.forget {
            let mut written = self.probe.written.lock().unwrap();
            written.entry((self.node.clone(), self.subtask)).or_default().push(batch.clone());
        }
        if self.config.acknowledge != "flush" && !self.probe.stuck.load(SeqCst) {
            self.host.ack(seq + self.config.boast);
        }
        Ok(Written::Taken)
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        self.probe.reach("flush")?;
        while self.probe.stuck.load(SeqCst) {
            if self.host.cancelled() {
                return Err(Error::cancelled());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.host.ack(self.written);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.probe.reach("finish")?;
        self.flush(0)?;
        self.probe.finished.fetch_add(1, SeqCst);
        Ok(())
    }

    fn close(&mut self, reason: CloseReason) -> Result<()> {
        self.probe.closed.lock().unwrap().push((self.node.clone(), self.subtask, reason));
        Ok(())
    }
}

/// JSON records `{"n": 7}`, every hundredth broken.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct TextsConfig {
    pub records: i64,
}

pub struct Texts {
    records: i64,
    assigned: bool,
    at: i64,
}

impl Source for Texts {
    const NAME: &'static str = "texts";
    type Config = TextsConfig;
    type Enumerator = SingleSplit<TextsConfig>;

    fn declare(_: &TextsConfig) -> Result<SourceDeclaration> {
        let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8, true)]));
        let capabilities = Capabilities { bounded: true, ..Default::default() };
        Ok(SourceDeclaration { encoding: Encoding::Records, schema, capabilities, problems: Vec::new() })
    }

    fn open(config: TextsConfig, _: Context) -> Result<Self> {
        Ok(Self { records: config.records, assigned: false, at: 0 })
    }

    fn assign(&mut self, _: Vec<Split>) -> Result<()> {
        self.assigned = true;
        Ok(())
    }

    fn poll(&mut self, _: PollLimits) -> Result<Poll> {
        if self.at == self.records {
            return Ok(Poll::EndOfSplit("0".to_owned()));
        }
        let until = self.records.min(self.at + 777);
        let text = |n| if n % 100 == 99 { "{broken".to_owned() } else { format!("{{\"n\": {n}}}") };
        let values: ArrayRef = Arc::new((self.at..until).map(|n| Some(text(n))).collect::<StringArray>());
        self.at = until;
        let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8, true)]));
        let batch = RecordBatch::try_new(schema, vec![values])?;
        Ok(Poll::Batch { split: "0".to_owned(), batch, position: until.to_string().into_bytes(), watermark: None })
    }
}

/// Remembers encoded records as they are.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct LinesConfig {
    pub probe: String,
}

pub struct Lines {
    probe: Arc<Probe>,
    key: (String, u32),
    host: Host,
}

impl Sink for Lines {
    const NAME: &'static str = "lines";
    type Config = LinesConfig;

    fn declare(_: &LinesConfig, _: &SinkInput) -> Result<SinkDeclaration> {
        Ok(SinkDeclaration { encoding: Encoding::Records, ..Default::default() })
    }

    fn open(config: LinesConfig, _: &SinkInput, context: Context) -> Result<Self> {
        Ok(Self { probe: Probe::of(&config.probe), key: (context.node, context.subtask), host: context.host })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        self.probe.written.lock().unwrap().entry(self.key.clone()).or_default().push(batch.clone());
        self.host.ack(seq);
        Ok(Written::Taken)
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
}

/// Passes rows on, slowly, or fails.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct PassConfig {
    /// Which hears of a failure.
    pub probe: Option<String>,
    /// Fails at that batch.
    pub fail_at: Option<u64>,
    /// Panics at that batch.
    pub panic_at: Option<u64>,
    /// Sleeps for each batch.
    #[serde(default)]
    pub sleep_ms: u64,
    /// Keeps the rows until the input has ended.
    #[serde(default)]
    pub hold: bool,
}

pub struct Pass {
    config: PassConfig,
    batches: u64,
    held: Vec<RecordBatch>,
}

impl Transform for Pass {
    const NAME: &'static str = "pass";
    type Config = PassConfig;

    fn declare(_: &PassConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let main = OutputDeclaration::main(input.inputs[0].schema.clone());
        Ok(TransformDeclaration { outputs: vec![main], ..Default::default() })
    }

    fn open(config: PassConfig, _: &TransformInput, _: Context) -> Result<Self> {
        Ok(Self { config, batches: 0, held: Vec::new() })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        self.batches += 1;
        if [self.config.fail_at, self.config.panic_at].contains(&Some(self.batches)) {
            self.config.probe.iter().for_each(|probe| Probe::of(probe).fails());
        }
        if self.config.fail_at == Some(self.batches) {
            return Err(Error::data("cannot pass"));
        }
        assert!(self.config.panic_at != Some(self.batches), "the transform is broken");
        std::thread::sleep(Duration::from_millis(self.config.sleep_ms));
        if self.config.hold {
            self.held.push(batch);
            return Ok(());
        }
        call.emit(batch)
    }

    fn finish(&mut self, call: &mut Call<'_>) -> Result<()> {
        self.held.drain(..).try_for_each(|batch| call.emit(batch))
    }
}

/// Counts the rows of each key in state, and gives the count when a timer fires: a second of event time after a row, or 50 ms of the clock.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct TallyConfig {
    /// Whether it goes by the clock.
    #[serde(default)]
    pub clock: bool,
}

pub struct Tally {
    clock: bool,
    host: Host,
    schema: SchemaRef,
}

fn tally_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("key", DataType::Utf8, false), Field::new("count", DataType::Int64, false)]))
}

impl Transform for Tally {
    const NAME: &'static str = "tally";
    type Config = TallyConfig;

    fn declare(_: &TallyConfig, _: &TransformInput) -> Result<TransformDeclaration> {
        let count = StateDeclaration {
            name: "count".to_owned(),
            kind: StateKind::Value,
            field: Arc::new(Field::new("count", DataType::Int64, true)),
            version: 1,
            time_to_live: None,
        };
        let outputs = vec![OutputDeclaration::main(tally_schema())];
        Ok(TransformDeclaration { outputs, states: vec![count], timers: true, requires_key: true, ..Default::default() })
    }

    fn open(config: TallyConfig, _: &TransformInput, context: Context) -> Result<Self> {
        Ok(Self { clock: config.clock, host: context.host, schema: tally_schema() })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let keys = call.keys().ok_or_else(|| Error::unsupported("needs key_by"))?.key_of_row();
        let counts = call.value::<Int64Type>(0)?;
        keys.iter().for_each(|key| counts.set(*key, counts.get(*key).unwrap_or(0) + 1));
        if self.clock {
            return call.set_timer(TimeDomain::ProcessingTime, 0, keys, &vec![self.host.now() + 50_000; keys.len()]);
        }
        let times: Vec<i64> = event_times(&batch).iter().map(|time| time + 1_000_000).collect();
        call.set_timer(TimeDomain::EventTime, 0, keys, &times)
    }

    fn on_timer(&mut self, _: TimeDomain, timers: &[Timer], call: &mut Call<'_>) -> Result<()> {
        let counts = call.value::<Int64Type>(0)?;
        let due: Vec<(u32, i64)> =
            timers.iter().filter_map(|timer| counts.get(timer.ordinal).map(|count| (timer.ordinal, count))).collect();
        due.iter().for_each(|(ordinal, _)| counts.clear(*ordinal));
        let keys = call.keys().ok_or_else(|| Error::unsupported("needs key_by"))?.batch()?.column(0).as_string::<i32>();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(due.iter().map(|(ordinal, _)| Some(keys.value(*ordinal as usize))).collect::<StringArray>()),
            Arc::new(Int64Array::from_iter_values(due.iter().map(|(_, count)| *count))),
        ];
        call.emit(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// The event times of a batch of numbers.
pub fn event_times(batch: &RecordBatch) -> Vec<i64> {
    batch.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>().values().to_vec()
}
