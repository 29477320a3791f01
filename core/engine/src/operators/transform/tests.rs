//! Plugins of the test's own, against a naive reference: state and timers by key, wherever the key runs.

use super::*;
use crate::operators::testing::{self, GROUPS, Row, Step, Subtasks, batch, key_name, lines, schema, steps};
use arrow::array::{Array, ArrayRef, Int64Array, StringArray};
use arrow::compute::take;
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use proptest::prelude::*;
use standpipe_isolation::Maker;
use standpipe_loader::{Catalogue, InstanceContext, NodeInput, wire::InputDetails};
use standpipe_sdk::{
    Call, Context, Transform as Plugin, TransformDeclaration, TransformInput,
    export::Kind,
    testing::TestHost,
    transform::{OutputDeclaration, StateDeclaration, StateKind},
};
use std::collections::{BTreeMap, BTreeSet};

/// Counts rows, remembers their numbers, and sets a timer 100 ms behind each row's event time; the timer tells how many numbers there are and forgets them, and sets
/// another one 30 ms later. It fails at a value of 99.
struct Watch;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct NoConfig {}

const DELAY: i64 = 100_000;
const AGAIN: i64 = 30_000;

fn watched_schema() -> SchemaRef {
    let fields = [("key", DataType::Utf8), ("n", DataType::Int64), ("why", DataType::Utf8)];
    Arc::new(Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
}

fn watched(keys: &ArrayRef, ordinals: &[u32], numbers: Vec<i64>, why: Vec<String>) -> RecordBatch {
    let keys = take(keys, &arrow::array::UInt32Array::from(ordinals.to_vec()), None).unwrap();
    RecordBatch::try_new(watched_schema(), vec![keys, Arc::new(Int64Array::from(numbers)), Arc::new(StringArray::from(why))]).unwrap()
}

fn state(name: &str, kind: StateKind) -> StateDeclaration {
    let field = Arc::new(Field::new("item", DataType::Int64, true));
    StateDeclaration { name: name.to_owned(), kind, field, version: 1, time_to_live: None }
}

impl Plugin for Watch {
    const NAME: &'static str = "watch";
    type Config = NoConfig;

    fn declare(_: &NoConfig, _: &TransformInput) -> standpipe_sdk::Result<TransformDeclaration> {
        let states = vec![state("count", StateKind::Value), state("log", StateKind::List)];
        Ok(TransformDeclaration {
            outputs: vec![OutputDeclaration::main(watched_schema())],
            states,
            timers: true,
            requires_key: true,
            ..Default::default()
        })
    }

    fn open(_: NoConfig, _: &TransformInput, _: Context) -> standpipe_sdk::Result<Self> {
        Ok(Self)
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> standpipe_sdk::Result<()> {
        let keys = call.keys().unwrap();
        let ordinals = keys.key_of_row();
        let count = call.value::<Int64Type>(0)?;
        let running: Vec<i64> = ordinals
            .iter()
            .map(|ordinal| (count.get(*ordinal).unwrap_or(0) + 1, *ordinal))
            .map(|(n, ordinal)| (count.set(ordinal, n), n).1)
            .collect();
        call.list_append(1, ordinals, batch.column(0))?;
        let times = batch["ts"].as_primitive::<TimestampMillisecondType>();
        let due = ordinals.iter().zip(times).filter_map(|(ordinal, time)| Some((*ordinal, time.filter(|time| *time >= 0)? * 1000 + DELAY)));
        let (timer_ordinals, timer_times): (Vec<u32>, Vec<i64>) = due.unzip();
        call.set_timer(TimeDomain::EventTime, 0, &timer_ordinals, &timer_times)?;
        call.emit(watched(keys.batch()?.column(0), ordinals, running, vec!["row".to_owned(); ordinals.len()]))?;
        if batch["value"].as_primitive::<arrow::datatypes::Float64Type>().iter().flatten().any(|value| value == 99.0) {
            return Err(standpipe_sdk::Error::data("it is 99"));
        }
        Ok(())
    }

    fn on_timer(&mut self, _: TimeDomain, timers: &[Timer], call: &mut Call<'_>) -> standpipe_sdk::Result<()> {
        let keys = call.keys().unwrap();
        let ordinals: Vec<u32> = timers.iter().map(|timer| timer.ordinal).collect();
        assert_eq!(keys.key_of_row(), ordinals);
        let logs = call.list_get(1, &ordinals)?;
        let logs = logs.as_list::<i32>();
        let lengths = (0..timers.len()).map(|row| if logs.is_valid(row) { logs.value(row).len() as i64 } else { 0 }).collect();
        let why = timers.iter().map(|timer| format!("timer-{}@{}", timer.slot, timer.time)).collect();
        call.list_clear(1, &ordinals)?;
        for timer in timers.iter().filter(|timer| timer.slot == 0) {
            call.set_timer(TimeDomain::EventTime, 1, &[timer.ordinal], &[timer.time + AGAIN])?;
        }
        call.emit(watched(keys.batch()?.column(0), &ordinals, lengths, why))
    }
}

/// Adds up the numbers of its rows, without keys, and tells the sum at the end.
struct Total(i64);

impl Plugin for Total {
    const NAME: &'static str = "total";
    type Config = NoConfig;

    fn declare(_: &NoConfig, _: &TransformInput) -> standpipe_sdk::Result<TransformDeclaration> {
        Ok(TransformDeclaration { outputs: vec![OutputDeclaration::main(watched_schema())], ..Default::default() })
    }

    fn open(_: NoConfig, _: &TransformInput, _: Context) -> standpipe_sdk::Result<Self> {
        Ok(Self(0))
    }

    fn process(&mut self, batch: RecordBatch, _: &mut Call<'_>) -> standpipe_sdk::Result<()> {
        self.0 += batch["n"].as_primitive::<Int64Type>().values().iter().sum::<i64>();
        Ok(())
    }

    fn snapshot(&mut self) -> standpipe_sdk::Result<Vec<u8>> {
        Ok(self.0.to_le_bytes().to_vec())
    }

    fn restore(&mut self, parts: &[&[u8]]) -> standpipe_sdk::Result<()> {
        self.0 = parts.iter().map(|part| i64::from_le_bytes((*part).try_into().unwrap())).sum();
        Ok(())
    }

    fn finish(&mut self, call: &mut Call<'_>) -> standpipe_sdk::Result<()> {
        let nobody: ArrayRef = Arc::new(StringArray::from(vec!["all"]));
        call.emit(watched(&nobody, &[0], vec![self.0], vec!["end".to_owned()]))
    }
}

fn transform(kind: Kind, name: &str, keyed: bool, host: &Arc<TestHost>) -> Transform {
    let kind = Catalogue::linked("test", &[kind]).transform(name).unwrap();
    let key = if keyed { vec!["key".to_owned()] } else { vec![] };
    let input = NodeInput { schema: schema(), details: InputDetails { name: "input".to_owned(), key, ..Default::default() } };
    let context = InstanceContext { parallelism: 1, max_parallelism: GROUPS, ..Default::default() };
    let host: Arc<dyn HostServices> = host.clone();
    let (apart, config) = (None, &serde_json::json!({}));
    let maker = Maker { apart, config, context: &context, host: Arc::clone(&host) };
    let mut instance = maker.transform(&kind, "transforms.t", &[input], keyed).unwrap();
    instance.open().unwrap();
    Transform::new("transforms.t", instance, keyed.then(schema), if keyed { &[1] } else { &[] }, host, GROUPS, None).unwrap()
}

fn watch() -> Transform {
    transform(Kind::transform::<Watch>(), "watch", true, &Arc::default())
}

#[derive(Default)]
struct Truth {
    count: i64,
    log: i64,
    timers: BTreeSet<(i64, u32)>,
    lines: Vec<String>,
}

impl Truth {
    fn row(&mut self, row: &Row) {
        self.count += 1;
        self.log += 1;
        self.timers.extend(row.time.filter(|time| *time >= 0).map(|time| (time * 1000 + DELAY, 0)));
        self.lines.push(format!("{} {} row", name(row.key), self.count));
    }

    fn advance(&mut self, key: Option<u8>, until: i64) {
        while let Some((time, slot)) = self.timers.first().copied().filter(|(time, _)| *time <= until) {
            self.timers.pop_first();
            self.lines.push(format!("{} {} timer-{slot}@{time}", name(key), std::mem::take(&mut self.log)));
            if slot == 0 {
                self.timers.insert((time + AGAIN, 1));
            }
        }
    }
}

fn name(key: Option<u8>) -> String {
    key_name(key).unwrap_or("-".to_owned())
}

/// The lines of each key, in their order.
fn truth(steps: &[Step]) -> BTreeMap<String, Vec<String>> {
    let mut of_key: BTreeMap<Option<u8>, Truth> = BTreeMap::new();
    let mut watermark = 0;
    for step in steps {
        match step {
            Step::Rows(rows) => rows.iter().for_each(|row| of_key.entry(row.key).or_default().row(row)),
            Step::Advance(by) => {
                watermark += by * 1000;
                of_key.iter_mut().for_each(|(key, truth)| truth.advance(*key, watermark));
            }
            Step::Restore(_) => {}
        }
    }
    let end = |(key, mut truth): (Option<u8>, Truth)| {
        if let Some((last, _)) = truth.timers.last().copied() {
            truth.advance(key, last);
        }
        (name(key), truth.lines)
    };
    of_key.into_iter().map(end).collect()
}

fn by_key(lines: Vec<String>) -> BTreeMap<String, Vec<String>> {
    let mut of_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        of_key.entry(line.split(' ').next().unwrap().to_owned()).or_default().push(line);
    }
    of_key
}

proptest! {
    #[test]
    fn state_and_timers_are_of_their_key_wherever_it_runs(steps in steps(), parallelism in 1_u32..4, batch_rows in 1_usize..40) {
        let emitted = Subtasks::new(parallelism, || Box::new(watch()) as Box<dyn Operator>).run(&steps, batch_rows);
        prop_assert_eq!(by_key(lines(&emitted, 0)), truth(&steps));
    }
}

fn rows(keys: &[u8], value: i32) -> RecordBatch {
    let rows: Vec<Row> = keys.iter().map(|key| Row { key: Some(*key), time: Some(0), value: Some(value) }).collect();
    batch(0, &rows)
}

#[test]
fn a_call_that_fails_leaves_nothing_behind() {
    let mut watch = watch();
    let mut out = Emitter::default();
    watch.on_batch(0, rows(&[1, 1], 0), &mut out).unwrap();
    out.drain();
    let error = watch.on_batch(0, rows(&[1, 2], 99), &mut out).unwrap_err().to_string();
    assert!(error.contains("it is 99"), "{error}");
    assert_eq!(out.drain().count(), 0);
    watch.on_batch(0, rows(&[2, 1], 0), &mut out).unwrap();
    watch.on_watermark(0, END, &mut out).unwrap();
    let emitted: Vec<_> = out.drain().collect();
    assert_eq!(lines(&emitted, 0)[..2], ["host-2 1 row", "host-1 3 row"]);
    assert_eq!(lines(&emitted, 0)[2..], ["host-1 3 timer-0@100000", "host-2 1 timer-0@100000"]);
}

#[test]
fn without_keys_the_plugin_keeps_its_state_itself() {
    let make = || transform(Kind::transform::<Total>(), "total", false, &Arc::default());
    let (mut one, mut two) = (make(), make());
    let mut out = Emitter::default();
    one.on_batch(0, batch(10, &[testing_row(); 3]), &mut out).unwrap();
    two.on_batch(0, batch(100, &[testing_row()]), &mut out).unwrap();
    assert_eq!(one.next_wakeup(), None);
    let parts = [one.snapshot(Cut::ALONE).unwrap(), two.snapshot(Cut::ALONE).unwrap()];
    let mut restored = make();
    restored.restore(&parts, KeyGroupRange { start: 0, end: GROUPS as u16 }).unwrap();
    restored.on_watermark(0, END, &mut out).unwrap();
    assert_eq!(lines(&out.drain().collect::<Vec<_>>(), 0), ["all 133 end"]);
}

const fn testing_row() -> testing::Row {
    testing::Row { key: None, time: None, value: None }
}

/// Sets a timer of processing time for each row, 5 s on, and tells when it fires.
struct Alarm(Arc<standpipe_sdk::Host>);

impl Plugin for Alarm {
    const NAME: &'static str = "alarm";
    type Config = NoConfig;

    fn declare(_: &NoConfig, _: &TransformInput) -> standpipe_sdk::Result<TransformDeclaration> {
        Ok(TransformDeclaration { outputs: vec![OutputDeclaration::main(watched_schema())], timers: true, ..Default::default() })
    }

    fn open(_: NoConfig, _: &TransformInput, context: Context) -> standpipe_sdk::Result<Self> {
        Ok(Self(Arc::new(context.host)))
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> standpipe_sdk::Result<()> {
        let ordinals = call.keys().unwrap().key_of_row();
        call.set_timer(TimeDomain::ProcessingTime, 3, ordinals, &vec![self.0.now() + 5_000_000; batch.num_rows()])
    }

    fn on_timer(&mut self, domain: TimeDomain, timers: &[Timer], call: &mut Call<'_>) -> standpipe_sdk::Result<()> {
        assert_eq!((domain, timers[0].slot), (TimeDomain::ProcessingTime, 3));
        let ordinals: Vec<u32> = timers.iter().map(|timer| timer.ordinal).collect();
        let times = timers.iter().map(|timer| timer.time).collect();
        call.emit(watched(call.keys().unwrap().batch()?.column(0), &ordinals, times, vec!["alarm".to_owned(); timers.len()]))
    }
}

#[test]
fn timers_of_processing_time_follow_the_clock_until_the_end() {
    let host: Arc<TestHost> = Arc::default();
    host.set_now(1_000_000);
    let mut alarm = transform(Kind::transform::<Alarm>(), "alarm", true, &host);
    let mut out = Emitter::default();
    assert_eq!(alarm.next_wakeup(), None);
    alarm.on_batch(0, rows(&[1, 2, 1], 0), &mut out).unwrap();
    assert_eq!(alarm.next_wakeup(), Some(6_000_000));
    alarm.on_processing_time(5_999_999, &mut out).unwrap();
    alarm.on_watermark(0, 7_000_000, &mut out).unwrap();
    assert_eq!(out.drain().count(), 0);
    alarm.on_processing_time(6_000_000, &mut out).unwrap();
    assert_eq!(lines(&out.drain().collect::<Vec<_>>(), 0), ["host-1 6000000 alarm", "host-2 6000000 alarm"]);
    assert_eq!(alarm.next_wakeup(), None);
    alarm.on_batch(0, rows(&[1], 0), &mut out).unwrap();
    alarm.on_watermark(0, END, &mut out).unwrap();
    assert_eq!((alarm.next_wakeup(), out.drain().count()), (None, 0), "void at the end");
}
