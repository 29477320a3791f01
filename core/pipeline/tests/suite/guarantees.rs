//! What a sink may be relied on to hold, by what its plugins can do, by the nodes before it and by whether the job takes checkpoints.

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_loader::Catalogue;
use standpipe_pipeline::{
    Defaults, LoadOptions, PipelineFile, Planned, explain,
    guarantee::{self, Cause, Guarantee},
};
use standpipe_sdk::{
    Call, Context, Error, Result, SingleSplit, Sink, SinkDeclaration, SinkInput, Source, SourceDeclaration, Split, Transform,
    TransformDeclaration, TransformInput, Written,
    export::Kind,
    sink::Encoding,
    source::{Poll, PollLimits},
    transform::OutputDeclaration,
    wire::{Capabilities, ChangeMode},
};
use std::{path::Path, sync::Arc};

fn never<T>() -> Result<T> {
    Err(Error::unsupported("declared, never run"))
}

/// What a kind says of itself is what it is told.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
struct Told {
    bounded: bool,
    replayable: bool,
    rewinds: bool,
    transactional: bool,
    idempotent: bool,
    deterministic: bool,
    id: Vec<String>,
    records: bool,
}

impl Told {
    fn capabilities(&self) -> Capabilities {
        let Self { bounded, replayable, rewinds, transactional, idempotent, deterministic, .. } = *self;
        Capabilities { bounded, replayable, rewinds, transactional, idempotent, deterministic, ..Capabilities::default() }
    }
}

struct From;

impl Source for From {
    const NAME: &'static str = "from";
    type Config = Told;
    type Enumerator = SingleSplit<Told>;

    fn declare(config: &Told) -> Result<SourceDeclaration> {
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        let fields = [("k", DataType::Utf8), ("n", DataType::Int64), ("t", time)];
        let fields: Vec<Field> = fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect();
        let schema = Arc::new(Schema::new(fields));
        Ok(SourceDeclaration { encoding: Encoding::Rows, schema, capabilities: config.capabilities(), problems: Vec::new() })
    }

    fn open(_: Told, _: Context) -> Result<Self> {
        never()
    }

    fn assign(&mut self, _: Vec<Split>) -> Result<()> {
        never()
    }

    fn poll(&mut self, _: PollLimits) -> Result<Poll> {
        never()
    }
}

struct Same;

impl Transform for Same {
    const NAME: &'static str = "same";
    type Config = Told;

    fn declare(config: &Told, input: &TransformInput) -> Result<TransformDeclaration> {
        let main = OutputDeclaration::main(input.only()?.schema.clone());
        Ok(TransformDeclaration { outputs: vec![main], capabilities: config.capabilities(), ..Default::default() })
    }

    fn open(_: Told, _: &TransformInput, _: Context) -> Result<Self> {
        never()
    }

    fn process(&mut self, _: RecordBatch, _: &mut Call<'_>) -> Result<()> {
        never()
    }
}

struct To;

impl Sink for To {
    const NAME: &'static str = "to";
    type Config = Told;

    fn declare(config: &Told, _: &SinkInput) -> Result<SinkDeclaration> {
        Ok(SinkDeclaration {
            encoding: if config.records { Encoding::Records } else { Encoding::Rows },
            accepts: vec![ChangeMode::Append, ChangeMode::Upsert],
            capabilities: config.capabilities(),
            id: config.id.clone(),
            ..Default::default()
        })
    }

    fn open(_: Told, _: &SinkInput, _: Context) -> Result<Self> {
        never()
    }

    fn write(&mut self, _: u64, _: &RecordBatch) -> Result<Written> {
        never()
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        never()
    }
}

fn planned(text: &str) -> Result<Planned, String> {
    let catalogue = Catalogue::linked("guarantees", &[Kind::source::<From>(), Kind::transform::<Same>(), Kind::sink::<To>()]);
    let file = PipelineFile::parse(Path::new("p.yaml"), text, &LoadOptions::default()).map_err(|found| found.to_string())?;
    file.plan(&catalogue, &Defaults::default()).map_err(|found| found.to_string())
}

const CHECKPOINT: &str = "checkpoint: {interval: 10s}\n";
const STORED: &str = "{replayable: true}";
const FILE: &str = "{replayable: true, bounded: true}";
const ONCE: &str = "{bounded: true}";
const COMMITS: &str = "{transactional: true}";
const BY_KEY: &str = "{idempotent: true, id: [k]}";

/// A source, a sink, and transforms between them of which the last is `last`.
fn pipeline(job: &str, source: &str, transforms: &str, last: &str, sink: &str) -> String {
    format!(
        "name: p\n{job}sources:\n  s: {{connector: from, with: {source}, event_time: {{column: t}}}}\ntransforms:\n  id: {{input: s, filter: \"true\"}}\n{transforms}sinks:\n  out: {{input: {last}, connector: to, with: {sink}}}\n"
    )
}

/// The guarantee of the sink, and what weakens it: the cause and the path.
fn of(text: &str) -> (Guarantee, Vec<(Cause, String)>) {
    let plan = planned(text).unwrap_or_else(|found| panic!("{found}")).plan;
    let found = guarantee::of(&plan);
    let [sink] = &found[..] else { panic!("{found:?}") };
    (sink.guarantee, sink.weaknesses.iter().map(|weak| (weak.cause, weak.path.clone())).collect())
}

fn weak(cause: Cause, path: &str) -> (Cause, String) {
    (cause, path.to_owned())
}

#[test]
fn what_source_sink_and_checkpoints_can_do_together() {
    let (source, sink, none) = (weak(Cause::Source, "sources.s"), weak(Cause::Sink, "sinks.out"), weak(Cause::Checkpoint, "checkpoint"));
    let cases = [
        (CHECKPOINT, STORED, COMMITS, Guarantee::ExactlyOnce, vec![]),
        (CHECKPOINT, STORED, BY_KEY, Guarantee::EffectivelyOnce, vec![]),
        (CHECKPOINT, STORED, "{}", Guarantee::AtLeastOnce, vec![&sink]),
        (CHECKPOINT, ONCE, COMMITS, Guarantee::AtMostOnce, vec![&source]),
        (CHECKPOINT, ONCE, BY_KEY, Guarantee::AtMostOnce, vec![&source]),
        (CHECKPOINT, ONCE, "{}", Guarantee::AtMostOnce, vec![&source]),
        ("", FILE, COMMITS, Guarantee::AtLeastOnce, vec![&none]),
        ("", FILE, BY_KEY, Guarantee::EffectivelyOnce, vec![]),
        ("", FILE, "{}", Guarantee::AtLeastOnce, vec![&none, &sink]),
        ("", "{replayable: true, rewinds: true}", COMMITS, Guarantee::AtLeastOnce, vec![&none]),
        ("", "{replayable: true, rewinds: true}", BY_KEY, Guarantee::EffectivelyOnce, vec![]),
        // A source that has no end may begin where it is then: what came meanwhile is passed over.
        ("", STORED, COMMITS, Guarantee::None, vec![&none]),
        ("", STORED, BY_KEY, Guarantee::AtMostOnce, vec![&none]),
        ("", STORED, "{}", Guarantee::None, vec![&none, &sink]),
        ("", ONCE, "{}", Guarantee::AtMostOnce, vec![&source]),
    ];
    for (job, from, to, guarantee, weaknesses) in cases {
        let expected = (guarantee, weaknesses.into_iter().cloned().collect());
        assert_eq!(of(&pipeline(job, from, "", "id", to)), expected, "{job}{from} -> {to}");
    }
}

/// A window that has fired after the last checkpoint fires again, also where its rows do not come again.
#[test]
fn state_gives_again_what_its_source_does_not() {
    let window = "  w: {input: s, key_by: [k], window: {tumbling: 1s}, aggregate: {c: \"count(*)\"}}\n";
    let expected = vec![weak(Cause::Source, "sources.s"), weak(Cause::Sink, "sinks.out")];
    assert_eq!(of(&pipeline(CHECKPOINT, ONCE, window, "w", "{}")), (Guarantee::None, expected));
    assert_eq!(of(&pipeline("", ONCE, window, "w", "{}")).0, Guarantee::AtMostOnce);
    assert_eq!(of(&pipeline(CHECKPOINT, STORED, window, "w", COMMITS)).0, Guarantee::ExactlyOnce);
}

/// Two sources: each weakens.
#[test]
fn the_weakest_source_decides() {
    let union = "  u: {inputs: [s, other], union: true}\n";
    let text = pipeline(CHECKPOINT, STORED, union, "u", COMMITS)
        .replace("transforms:", "  other: {connector: from, with: {}, event_time: {column: t}}\ntransforms:");
    assert_eq!(of(&text), (Guarantee::AtMostOnce, vec![weak(Cause::Source, "sources.other")]));
}

#[test]
fn an_id_that_differs_each_time_is_no_id() {
    let chance = |path: &str| (Guarantee::AtLeastOnce, vec![weak(Cause::Chance, path)]);
    let same = (Guarantee::EffectivelyOnce, vec![]);
    let x = "{idempotent: true, id: [k, x]}";
    let by = |transforms: &str, last: &str, sink: &str| of(&pipeline(CHECKPOINT, STORED, transforms, last, sink));
    let stamped = "  a: {input: s, select: {\"*\": true, x: \"now()\"}}\n";
    assert_eq!(by(stamped, "a", x), chance("transforms.a"));
    // A column that is no part of the id may differ; a sink that does not say what it goes by may go by any.
    assert_eq!(by(stamped, "a", BY_KEY), same);
    assert_eq!(by(stamped, "a", "{idempotent: true}"), chance("transforms.a"));
    assert_eq!(by(stamped, "a", COMMITS).0, Guarantee::ExactlyOnce);
    // What is computed from it differs, too, and a column that takes its place does not.
    let then = |select: &str| format!("{stamped}  b: {{input: a, select: {select}}}\n");
    assert_eq!(by(&then("{k: k, x: \"date_trunc('hour', x)\"}"), "b", x), chance("transforms.a"));
    assert_eq!(by(&then("{k: x, x: n}"), "b", BY_KEY), chance("transforms.a"));
    assert_eq!(by(&then("{\"*\": true, x: \"n + 1\"}"), "b", x), same);
    assert_eq!(by("  a: {input: s, select: {k: k, x: \"uuid()\"}}\n", "a", x), chance("transforms.a"));
    assert_eq!(
        by("  a: {input: s, select: {k: k, x: \"random() * n\"}}\n  b: {input: a, filter: \"x > 1\"}\n", "b", x),
        chance("transforms.a")
    );
    // The union's other branch.
    let union = "  p: {input: s, select: {\"*\": true, x: \"cast(now() as timestamp)\"}}\n  q: {input: s, select: {\"*\": true, x: \"cast(t as timestamp)\"}}\n  u: {inputs: [q, p], union: true}\n";
    assert_eq!(by(union, "u", x), chance("transforms.p"));
}

#[test]
fn what_nodes_with_state_give_again() {
    let by = |transforms: &str, last: &str, sink: &str| of(&pipeline(CHECKPOINT, STORED, transforms, last, sink));
    let chance = |path: &str| (Guarantee::AtLeastOnce, vec![weak(Cause::Chance, path)]);
    let same = (Guarantee::EffectivelyOnce, vec![]);
    let id = |columns: &str| format!("{{idempotent: true, id: [{columns}]}}");
    let window = "  a: {input: s, select: {\"*\": true, x: \"random()\"}}\n  w: {input: a, key_by: [k], window: {tumbling: 1s}, aggregate: {c: \"count(*)\", m: \"max(x)\"}}\n";
    assert_eq!(by(window, "w", &id("k, window_start, c")), same);
    assert_eq!(by(window, "w", &id("k, m")), chance("transforms.a"));
    assert_eq!(by(window, "w.late", &id("k, x")), chance("transforms.a"));
    let keyed = "  a: {input: s, select: {\"*\": true, x: \"random()\"}}\n  w: {input: a, key_by: [x], window: {tumbling: 1s}, aggregate: {c: \"count(*)\"}}\n";
    assert_eq!(by(keyed, "w", &id("x, window_start")), chance("transforms.a"));
    let running = |emit: &str| format!("  g: {{input: s, key_by: [k], aggregate: {{c: \"count(*)\"}}, emit: {emit}}}\n");
    assert_eq!(by(&running("changes"), "g", &id("k")), same);
    assert_eq!(by(&running("changes"), "g", &id("k, c")), chance("transforms.g"));
    assert_eq!(by(&running("each"), "g", &id("k, c")), same);
    // A plugin says of itself whether it gives the same rows each time.
    let plugin = |with: &str| format!("  t: {{input: s, transform: same, with: {with}}}\n");
    assert_eq!(by(&plugin("{deterministic: true}"), "t", BY_KEY), same);
    assert_eq!(by(&plugin("{}"), "t", BY_KEY), chance("transforms.t"));
    let both = "  a: {input: s, select: {\"*\": true, x: \"random()\"}}\n  t: {input: a, transform: same, with: {deterministic: true}}\n";
    assert_eq!(by(both, "t", BY_KEY), chance("transforms.a"));
    // An encoded record has all columns in it.
    let stamped = "  a: {input: s, select: {\"*\": true, x: \"now()\"}}\n";
    assert_eq!(by(stamped, "a", "{idempotent: true, records: true}"), chance("transforms.a"));
    assert_eq!(by("", "id", "{idempotent: true, records: true}"), same);
}

#[test]
fn a_sink_that_holds_less_than_is_demanded_is_refused() {
    let demand = |word: &str, job: &str, from: &str, transforms: &str, last: &str, to: &str| {
        let text = pipeline(job, from, transforms, last, to).replace("connector: to,", &format!("connector: to, guarantee: {word},"));
        planned(&text).map(|_| ())
    };
    for (word, to, is_good) in [
        ("exactly-once", COMMITS, true),
        ("effectively-once", COMMITS, true),
        ("at-least-once", COMMITS, true),
        ("at-most-once", COMMITS, true),
        ("exactly-once", BY_KEY, false),
        ("effectively-once", BY_KEY, true),
        ("effectively-once", "{}", false),
        ("at-least-once", "{}", true),
        ("at-most-once", "{}", false),
    ] {
        assert_eq!(demand(word, CHECKPOINT, STORED, "", "id", to).is_ok(), is_good, "{word} of {to}");
    }
    let stamped = "  a: {input: s, select: {\"*\": true, x: \"now()\"}}\n";
    let refused = |result: Result<(), String>| result.unwrap_err();
    assert_eq!(
        refused(demand("effectively-once", CHECKPOINT, STORED, stamped, "a", "{idempotent: true, id: [x]}")),
        "p.yaml:9:45: sinks.out.guarantee: effectively-once is demanded, and it is at-least-once: transforms.a: now() differs each time that it is computed, and sinks.out tells rows apart by the column \"x\" that comes of it; choose for the id of sinks.out columns that are the same each time"
    );
    assert_eq!(
        refused(demand("exactly-once", CHECKPOINT, STORED, "", "id", BY_KEY)),
        "p.yaml:8:46: sinks.out.guarantee: exactly-once is demanded, and it is effectively-once: the sink is not transactional, it replaces what it writes again"
    );
    // Only what stands against the demand is named.
    let error = refused(demand(
        "at-least-once",
        CHECKPOINT,
        "{}",
        "  w: {input: s, key_by: [k], window: {tumbling: 1s}, aggregate: {c: \"count(*)\"}}\n",
        "w",
        "{}",
    ));
    assert!(
        error.contains("it is none: sources.s: from cannot give its rows again") && !error.contains("neither transactional"),
        "{error}"
    );
    let error = refused(demand("exactly-once", "", FILE, "", "id", COMMITS));
    assert!(error.ends_with("it is at-least-once: checkpoint: there is none: after a failure everything is read and written again; add checkpoint: {interval: 10s}"), "{error}");
    let error = refused(demand("twice", CHECKPOINT, STORED, "", "id", COMMITS));
    assert!(error.contains("sinks.out.guarantee: unknown value \"twice\"") && error.contains("at-least-once"), "{error}");
}

#[test]
fn explain_shows_what_holds_and_why() {
    let plan = planned(&pipeline("", STORED, "", "id", "{}")).unwrap().plan;
    let text = explain::text(&plan, &[]);
    let expected = "\
  guarantee none
    checkpoint: there is none: after a failure sources.s begins anew, and passes over what came before that; add checkpoint: {interval: 10s}
    sinks.out: to is neither transactional nor idempotent as it is configured: rows that come again are there twice; see whether a key of it, such as an id, changes that
";
    assert!(text.contains(expected), "{text}");
    let plan = planned(&pipeline(CHECKPOINT, STORED, "", "id", COMMITS)).unwrap().plan;
    assert!(explain::text(&plan, &[]).contains("  guarantee exactly-once\n  -> errors"));
}
