//! What jobs have done in the last minutes: rates between two looks at what they count, for people and their charts. In memory alone: a manager that is started again begins
//! anew.

use super::flink::vertex_id;
use crate::{
    manager::{Job, Manager, Millis},
    protocol::{Attempt, Beat, JobId},
    status::{NodeStatus, Status},
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

/// Two looks that are closer than this are one: what is between them would be noise.
const LEAST: u64 = 900;
/// Five minutes, one a second.
const MOST_POINTS: usize = 300;

/// By job.
#[derive(Default)]
pub(super) struct Figures(BTreeMap<JobId, OfJob>);

#[derive(Default)]
struct OfJob {
    /// The attempt and what it had counted, when it was looked at last.
    last: Option<(u32, Status)>,
    points: VecDeque<Point>,
}

/// What a job did between two looks.
struct Point {
    /// The end of it, by the clock of the job's process.
    at: Millis,
    /// In the plan's order.
    nodes: Vec<Rates>,
}

/// Of a node, all subtasks together.
#[derive(Clone, Copy, Default)]
struct Rates {
    rows_in: f32,
    rows_out: f32,
    bytes_in: f32,
    bytes_out: f32,
    /// From 0 to 1: of the time of all subtasks.
    busy: f32,
    /// As `busy`.
    backpressure: f32,
    /// Seconds; not a number: there is no watermark.
    watermark_lag: f64,
    /// Records that are not read yet; not a number: the source does not know, or is none.
    lag: f64,
}

/// What a task manager has said of its jobs.
pub(super) struct Told(Vec<(Attempt, Status)>);

impl Told {
    /// It takes a moment: not while anybody waits.
    pub(super) fn of(beat: &Beat) -> Self {
        let first = beat.workers.iter().filter(|worker| worker.process == 0);
        Self(first.filter_map(|worker| Some((worker.attempt.clone(), Status::of(worker.status.as_ref()?)?))).collect())
    }
}

impl Figures {
    /// A task manager has told how its jobs do.
    pub(super) fn note(&mut self, told: Told, manager: &Manager) {
        for (attempt, status) in told.0 {
            if manager.jobs().get(&attempt.job).is_some_and(|job| job.attempt() == attempt) {
                self.0.entry(attempt.job).or_default().note(attempt.number, status);
            }
        }
        self.0.retain(|job, _| manager.jobs().contains_key(job));
    }

    /// `/jobs/:id/figures`: what is newer than `since`.
    pub(super) fn show(&self, job: &Job, since: Millis, now: Millis) -> Value {
        let empty = OfJob::default();
        let of_job = self.0.get(&job.id).unwrap_or(&empty);
        let points: Vec<&Point> = of_job.points.iter().filter(|point| point.at > since).collect();
        let nodes = job.planned.nodes.iter().enumerate().map(|(i, node)| {
            let column =
                |of: fn(&Rates) -> f64| points.iter().map(|point| number(point.nodes.get(i).map_or(f64::NAN, of))).collect::<Vec<_>>();
            json!({
                "id": vertex_id(&node.path), "path": node.path,
                "rows-in": column(|rates| rates.rows_in.into()), "rows-out": column(|rates| rates.rows_out.into()),
                "bytes-in": column(|rates| rates.bytes_in.into()), "bytes-out": column(|rates| rates.bytes_out.into()),
                "busy": column(|rates| rates.busy.into()), "backpressure": column(|rates| rates.backpressure.into()),
                "watermark-lag": column(|rates| rates.watermark_lag), "lag": column(|rates| rates.lag),
            })
        });
        json!({
            "jid": job.id, "now": now, "state": job.state(),
            "at": points.iter().map(|point| point.at).collect::<Vec<_>>(), "nodes": nodes.collect::<Vec<_>>(),
        })
    }
}

/// JSON has no word for what is not a number; more than three digits behind the point are noise.
fn number(value: f64) -> Option<f64> {
    value.is_finite().then(|| (value * 1000.0).round() / 1000.0)
}

impl OfJob {
    fn note(&mut self, attempt: u32, status: Status) {
        match &self.last {
            Some((of, before)) if *of == attempt => {
                let passed = status.at_millis.saturating_sub(before.at_millis);
                if passed < LEAST {
                    return;
                }
                let nodes = status.nodes.iter().map(|node| rates(before, node, passed as f64 / 1000.0, status.at_millis)).collect();
                self.points.push_back(Point { at: status.at_millis, nodes });
                while self.points.len() > MOST_POINTS {
                    self.points.pop_front();
                }
            }
            _ => {}
        }
        // Only what is counted is compared.
        self.last = Some((attempt, Status { metrics: Vec::new(), checkpoints: None, ..status }));
    }
}

fn rates(before: &Status, node: &NodeStatus, seconds: f64, at: Millis) -> Rates {
    let none = NodeStatus::default();
    let before = before.nodes.iter().find(|other| other.node == node.node).unwrap_or(&none);
    let grown = |of: fn(&NodeStatus) -> u64| (of(node).saturating_sub(of(before)) as f64 / seconds) as f32;
    let of_all = seconds * f64::from(node.parallelism.max(1));
    let share = |of: fn(&NodeStatus) -> f64| ((of(node) - of(before)) / of_all).clamp(0.0, 1.0) as f32;
    let watermark = node.subtasks.iter().filter(|subtask| !subtask.idle).filter_map(|subtask| subtask.watermark_seconds).reduce(f64::min);
    let lag = node.lag.values().filter_map(|split| split.records).reduce(|a, b| a + b);
    Rates {
        rows_in: grown(|node| node.rows_in),
        rows_out: grown(|node| node.rows_out),
        bytes_in: grown(|node| node.bytes_in),
        bytes_out: grown(|node| node.bytes_out),
        busy: share(|node| node.busy_seconds),
        backpressure: share(|node| node.backpressure_seconds),
        watermark_lag: watermark.map_or(f64::NAN, |watermark| at as f64 / 1000.0 - watermark),
        lag: lag.map_or(f64::NAN, |lag| lag as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::{Phase, Version, Worker},
        status::SubtaskStatus,
    };

    fn beat(at_millis: u64, rows_in: u64, busy_seconds: f64) -> Told {
        let subtask = SubtaskStatus { watermark_seconds: Some(8.0), ..SubtaskStatus::default() };
        let node = NodeStatus {
            node: "sources.in".to_owned(),
            parallelism: 2,
            rows_in,
            busy_seconds,
            subtasks: vec![subtask],
            ..NodeStatus::default()
        };
        let status = Status { at_millis, nodes: vec![node], ..Status::default() };
        let attempt = Attempt { job: "a".to_owned(), term: 0, number: 0 };
        let worker = Worker { attempt, process: 0, phase: Phase::Running, status: serde_json::to_value(status).ok() };
        let (host, seen) = (String::new(), Version::default());
        Told::of(&Beat { slots: 1, host, pid: 1, seen, workers: vec![worker], leaving: false, answers: Vec::new() })
    }

    #[test]
    fn rates_are_between_two_looks() {
        let job = crate::manager::job_for_tests("a");
        let (manager, _) = Manager::new(crate::manager::Settings::default(), 1, [job], 0);
        let mut figures = Figures::default();
        for (at, rows, busy) in [(10_000, 100, 1.0), (10_100, 900, 1.0), (12_000, 1_100, 2.0), (13_000, 1_100, 9.0)] {
            figures.note(beat(at, rows, busy), &manager);
        }
        let of_job = &figures.0["a"];
        let points: Vec<(u64, f32, f32, f64)> = of_job
            .points
            .iter()
            .map(|point| (point.at, point.nodes[0].rows_in, point.nodes[0].busy, point.nodes[0].watermark_lag))
            .collect();
        // 1000 rows in two seconds; one of the four seconds of two subtasks; no share is more than all.
        assert_eq!(points, [(12_000, 500.0, 0.25, 4.0), (13_000, 0.0, 1.0, 5.0)]);
        let shown = figures.show(&manager.jobs()["a"], 12_000, 20_000);
        assert_eq!(shown["at"], json!([13_000]), "{shown:#}");
        let none = Manager::new(crate::manager::Settings::default(), 1, [], 0).0;
        figures.note(beat(14_000, 1, 1.0), &none);
        assert!(figures.0.is_empty(), "a job that is forgotten is forgotten here");
    }
}
