//! A job that is killed again and again and started with another parallelism, now and then from an older checkpoint: its files have its rows, each once.

use crate::FileSink;
use arrow_array::{ArrayRef, BinaryArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use proptest::prelude::*;
use serde_json::json;
use standpipe_sdk::{
    CloseReason, Committable, Recovered,
    testing::{Harness, SinkHarness},
};
use std::{fs, path::Path, sync::Arc};

/// A point of time.
#[derive(Debug, Clone)]
enum Step {
    /// So many rows to a subtask.
    Write(u32, u16),
    /// All subtasks prepare; is it durable?
    Checkpoint(bool),
    /// The process is gone, with or without a last word; the next one has so many subtasks, and goes on from the newest checkpoint or an older one.
    Crash { closes: bool, parallelism: u32, back: usize },
    /// The job ends, and is started once more from its last checkpoint.
    End { parallelism: u32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let back = prop_oneof![4 => Just(0), 1 => 1..4_usize];
    let step = prop_oneof![
        // Some of it more than is held back.
        4 => (0..4_u32, prop_oneof![4 => 1..40_u16, 1 => Just(12_000)]).prop_map(|(subtask, rows)| Step::Write(subtask, rows)),
        3 => prop::bool::weighted(0.9).prop_map(Step::Checkpoint),
        3 => (any::<bool>(), 1..4_u32, back).prop_map(|(closes, parallelism, back)| Step::Crash { closes, parallelism, back }),
        1 => (1..4_u32).prop_map(|parallelism| Step::End { parallelism }),
    ];
    prop::collection::vec(step, 1..25)
}

struct Checkpoint {
    position: u64,
    committables: Vec<Committable>,
}

struct Job<'a> {
    folder: &'a Path,
    generation: u64,
    subtasks: Vec<SinkHarness>,
    position: u64,
    number: u64,
    durable: Vec<Checkpoint>,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("value", DataType::Binary, true)]))
}

impl<'a> Job<'a> {
    fn start(folder: &'a Path, parallelism: u32) -> Self {
        let mut job = Self { folder, generation: 0, subtasks: Vec::new(), position: 0, number: 0, durable: Vec::new() };
        job.restart(parallelism, 0);
        job
    }

    fn restart(&mut self, parallelism: u32, back: usize) {
        self.generation += 1;
        self.durable.truncate(self.durable.len().saturating_sub(back).max(1));
        let base = self.durable.last();
        self.position = base.map_or(0, |base| base.position);
        self.subtasks.clear();
        let path = self.folder.join("out-{subtask}.jsonl");
        let (generation, restored) = (self.generation, base.is_some());
        for subtask in 0..parallelism {
            let sink = Harness::sink::<FileSink>(json!({ "path": path.to_str().unwrap() }), schema());
            let mut sink = sink.with_context(|context| {
                (context.generation, context.subtask, context.parallelism, context.restored) = (generation, subtask, parallelism, restored);
            });
            sink.open().unwrap();
            self.subtasks.push(sink);
        }
        // The last one first: whoever comes first must not matter.
        for (subtask, sink) in self.subtasks.iter_mut().enumerate().rev() {
            let Some(base) = base else { continue };
            let own: Vec<_> = base.committables.iter().filter(|it| it.subtask % parallelism == subtask as u32).cloned().collect();
            assert_eq!(sink.instance().unwrap().recover(&own).unwrap(), vec![Recovered::Committed; own.len()]);
        }
    }

    fn write(&mut self, subtask: u32, rows: u16) {
        let at = subtask as usize % self.subtasks.len();
        let rows = self.position..self.position + u64::from(rows);
        self.position = rows.end;
        let values: ArrayRef = Arc::new(BinaryArray::from_iter_values(rows.map(|row| format!("{row:08}"))));
        self.subtasks[at].write(&RecordBatch::try_new(schema(), vec![values]).unwrap()).unwrap();
    }

    fn checkpoint(&mut self, durable: bool) {
        self.number += 1;
        let mut committables = Vec::new();
        for (subtask, sink) in (0..).zip(&mut self.subtasks) {
            committables.push(Committable {
                checkpoint: self.number,
                subtask,
                bytes: sink.instance().unwrap().prepare(self.number).unwrap(),
            });
        }
        if durable {
            self.durable.push(Checkpoint { position: self.position, committables });
        }
    }

    fn crash(&mut self, closes: bool) {
        for sink in &mut self.subtasks {
            if closes {
                sink.instance().unwrap().close(CloseReason::Failed).unwrap();
            }
            sink.restart();
        }
    }

    /// The last checkpoint is that of the end.
    fn end(&mut self) {
        self.checkpoint(true);
        self.subtasks.iter_mut().for_each(|sink| sink.finish().unwrap());
        self.subtasks.clear();
        let mut rows = Vec::new();
        for entry in fs::read_dir(self.folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().unwrap() == "jsonl" {
                rows.extend(fs::read_to_string(&path).unwrap().lines().map(|line| line.parse::<u64>().unwrap()));
            }
        }
        rows.sort_unstable();
        assert_eq!(rows, (0..self.position).collect::<Vec<_>>());
    }
}

fn run(steps: &[Step]) {
    let folder = tempfile::tempdir().unwrap();
    let mut job = Job::start(folder.path(), 2);
    for step in steps {
        match *step {
            Step::Write(subtask, rows) => job.write(subtask, rows),
            Step::Checkpoint(durable) => job.checkpoint(durable),
            Step::Crash { closes, parallelism, back } => {
                job.crash(closes);
                job.restart(parallelism, back);
            }
            Step::End { parallelism } => {
                job.end();
                job.restart(parallelism, 0);
            }
        }
    }
    job.end();
}

fn rescaled(parallelisms: &[u32]) -> Vec<Step> {
    let round = |parallelism: &u32| {
        let all = (0..*parallelism).map(|subtask| Step::Write(subtask, 3));
        all.chain([Step::Checkpoint(true)]).collect::<Vec<_>>()
    };
    let mut steps = Vec::new();
    for (at, parallelism) in parallelisms.iter().enumerate() {
        if at > 0 {
            steps.push(Step::Crash { closes: at % 2 == 0, parallelism: *parallelism, back: 0 });
        }
        steps.extend(round(parallelism));
    }
    steps
}

#[test]
fn files_of_subtasks_that_come_and_go_are_kept() {
    for parallelisms in [&[2, 1, 2][..], &[2, 1, 3, 2], &[2, 1, 2, 1, 2], &[2, 3, 1, 3, 2, 3]] {
        run(&rescaled(parallelisms));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn each_row_is_there_once(steps in steps()) {
        run(&steps);
    }
}
