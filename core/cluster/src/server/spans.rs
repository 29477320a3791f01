//! The life of jobs in the log, and as spans of the trace of their submission: how long one waits for slots (`schedule`), each start of it (`attempt`, in it `launch` until all of its
//! processes run), what a failure costs (`recover`, from the failure until it runs again) and another parallelism (`rescale`). What the processes themselves tell is of the same trace. It only
//! looks at what was decided, and logs it too. A span that is open when the manager is killed is lost; what the next manager sees begin belongs to the same trace.

use crate::manager::{Job, Outcome, Stage};
use standpipe_trace::{Context, Span, Traces};
use std::collections::BTreeMap;

/// Of all jobs that are not over.
pub(super) struct Spans {
    traces: Traces,
    jobs: BTreeMap<String, Open>,
}

/// Of a job.
#[derive(Default)]
struct Open {
    /// As it was logged last.
    state: &'static str,
    schedule: Option<Span>,
    attempt: Option<(u32, Span)>,
    launch: Option<Span>,
    recover: Option<Span>,
    /// With the attempt that is to stop for it.
    rescale: Option<(u32, Span)>,
}

/// The span that a job was submitted by.
fn parent(job: &Job) -> Option<Context> {
    job.bundle.options.traceparent.as_ref().and_then(|text| text.parse().ok())
}

impl Spans {
    pub(super) fn new(traces: Traces) -> Self {
        Self { traces, jobs: BTreeMap::new() }
    }

    /// Something of the job has changed.
    pub(super) fn follow(&mut self, job: &Job) {
        let mut open = self.jobs.remove(&job.id).unwrap_or_default();
        open.log(job);
        let span = |name| {
            let span = self.traces.span(name, parent(job).as_ref());
            span.with("job_id", job.id.as_str()).with("job_name", job.bundle.name.as_str())
        };
        open.note_rescale(job, &span);
        if !matches!(job.stage, Stage::Deployed { .. }) {
            open.end_attempt(job);
        }
        match &job.stage {
            Stage::Waiting => {
                if open.schedule.is_none() {
                    open.schedule = Some(span("schedule").with("slots", job.planned.slots).with("attempt", job.next_attempt));
                }
            }
            Stage::Pausing { .. } => {
                if open.recover.is_none() {
                    open.recover = Some(span("recover").with("cause", job.why().unwrap_or_default()).with("attempt", job.next_attempt));
                }
            }
            Stage::Deployed { running, members, .. } => open.note_attempt(job, *running, members.len(), &span),
            Stage::Over(outcome) => {
                open.end(job, *outcome);
                return;
            }
        }
        self.jobs.insert(job.id.clone(), open);
    }
}

impl Open {
    fn log(&mut self, job: &Job) {
        let (id, name, attempt, state) = (&job.id, &job.bundle.name, job.attempt().number, job.state());
        if std::mem::replace(&mut self.state, state) == state {
            return;
        }
        match job.why().filter(|_| matches!(job.stage, Stage::Waiting | Stage::Pausing { .. } | Stage::Over(_))) {
            Some(why) => tracing::warn!(job = %id, attempt, state, "job {name:?} is {state}: {why}"),
            None => tracing::info!(job = %id, attempt, state, "job {name:?} is {state}"),
        }
    }

    fn note_attempt(&mut self, job: &Job, running: bool, processes: usize, span: &impl Fn(&'static str) -> Span) {
        self.schedule = None;
        let number = job.attempt().number;
        // One that ran before this manager has a beginning that nobody knows.
        let is_new = self.attempt.as_ref().is_none_or(|(open, _)| *open != number) && !running;
        if is_new {
            let attempt = span("attempt").with("attempt", number).with("processes", processes as u64).with("slots", job.planned.slots);
            self.launch = Some(attempt.child("launch"));
            self.attempt = Some((number, attempt));
        }
        if running {
            (self.launch, self.recover) = (None, None);
            self.rescale.take_if(|(before, _)| *before != number);
        }
    }

    /// No process of it is left.
    fn end_attempt(&mut self, job: &Job) {
        let why = job.why().unwrap_or("it has ended");
        if let Some(mut launch) = self.launch.take() {
            launch.fail(why);
        }
        if let Some((_, mut attempt)) = self.attempt.take()
            && let Some(why) = job.why()
        {
            attempt.fail(why);
        }
    }

    fn note_rescale(&mut self, job: &Job, span: &impl Fn(&'static str) -> Span) {
        let number = job.attempt().number;
        match (&job.rescale, &mut self.rescale) {
            (Some(rescale), None) => self.rescale = Some((number, span("rescale").with("parallelism", rescale.parallelism))),
            (None, Some((before, span))) if *before == number && matches!(job.stage, Stage::Deployed { .. }) => {
                span.fail("the job has not stopped for it");
                self.rescale = None;
            }
            _ => {}
        }
    }

    fn end(self, job: &Job, outcome: Outcome) {
        let why = match outcome {
            Outcome::Finished => "the job has ended",
            Outcome::Canceled => "the job was cancelled",
            Outcome::Failed => job.why().unwrap_or("the job has failed"),
        };
        let rescale = self.rescale.map(|(_, span)| span);
        for mut span in [self.schedule, self.recover, rescale].into_iter().flatten() {
            span.fail(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::{Member, Rescale, job_for_tests};
    use parking_lot::Mutex;
    use standpipe_trace::{Beginning, Recorder, Recording, Value};
    use std::sync::Arc;

    type Lines = Arc<Mutex<Vec<String>>>;

    struct Heard(Lines);

    struct One(Lines, &'static str);

    impl Recorder for Heard {
        fn begin(&self, beginning: &Beginning<'_>) -> Box<dyn Recording> {
            self.0.lock().push(format!("+{}", beginning.name));
            Box::new(One(Arc::clone(&self.0), beginning.name))
        }
    }

    impl Recording for One {
        fn context(&self) -> Context {
            Context { trace: 1, span: 1, is_sampled: true }
        }

        fn set(&mut self, _: &'static str, _: Value) {}

        fn fail(&mut self, why: &str) {
            self.0.lock().push(format!("{}: {why}", self.1));
        }
    }

    impl Drop for One {
        fn drop(&mut self) {
            self.0.lock().push(format!("-{}", self.1));
        }
    }

    fn deployed(running: bool) -> Stage {
        Stage::Deployed { members: Vec::<Member>::new(), running, deadline: None, killed: None, go: Vec::new() }
    }

    /// What is told of a job that goes through these stages.
    fn told(steps: &[&dyn Fn(&mut Job)]) -> String {
        let lines = Lines::default();
        let mut spans = Spans::new(Traces::to(Arc::new(Heard(Arc::clone(&lines)))));
        let mut job = job_for_tests("a");
        for step in steps {
            step(&mut job);
            spans.follow(&job);
            lines.lock().push("|".to_owned());
        }
        assert!(!job.is_over() || spans.jobs.is_empty(), "nothing is kept of what is over");
        lines.lock().join(" ")
    }

    fn waits(job: &mut Job) {
        job.stage = Stage::Waiting;
    }

    fn begins(job: &mut Job) {
        job.begin_for_tests();
        job.stage = deployed(false);
    }

    fn runs(job: &mut Job) {
        job.stage = deployed(true);
    }

    fn fails(job: &mut Job) {
        job.attempts.last_mut().unwrap().why = Some("lost".to_owned());
        job.stage = Stage::Pausing { until: 1 };
    }

    fn is_to_be_rescaled(job: &mut Job) {
        job.rescale = Some(Rescale { trigger: "t".to_owned(), parallelism: 2, planned: job.planned.clone() });
    }

    fn is_not_rescaled(job: &mut Job) {
        job.rescale = None;
    }

    fn is_rescaled(job: &mut Job) {
        job.rescale = None;
        job.stage = Stage::Waiting;
    }

    #[test]
    fn a_job_that_fails_recovers() {
        let expected =
            "+schedule | +attempt +launch -schedule | -launch | attempt: lost -attempt +recover | +attempt +launch | -launch -recover |";
        assert_eq!(sorted(&told(&[&waits, &begins, &runs, &fails, &begins, &runs])), sorted(expected));
        let over = |job: &mut Job| job.stage = Stage::Over(Outcome::Failed);
        let expected = "+attempt +launch | attempt: lost -attempt launch: lost -launch +recover | recover: lost -recover |";
        assert_eq!(sorted(&told(&[&begins, &fails, &over])), sorted(expected));
    }

    #[test]
    fn a_rescale_ends_when_the_job_runs_again_or_has_not_stopped() {
        let expected = "+attempt +launch | -launch | +rescale | +schedule -attempt | +attempt +launch -schedule | -launch -rescale |";
        assert_eq!(sorted(&told(&[&begins, &runs, &is_to_be_rescaled, &is_rescaled, &begins, &runs])), sorted(expected));
        let expected = "+attempt +launch | -launch | +rescale | -rescale rescale: the job has not stopped for it |";
        assert_eq!(sorted(&told(&[&begins, &runs, &is_to_be_rescaled, &is_not_rescaled])), sorted(expected));
    }

    #[test]
    fn what_ran_before_this_manager_has_no_beginning() {
        assert_eq!(told(&[&|job| (job.next_attempt, job.stage) = (3, deployed(true))]), "|");
    }

    /// Within a step the order does not matter.
    fn sorted(told: &str) -> Vec<Vec<&str>> {
        told.split('|')
            .map(|step| {
                let mut words: Vec<&str> = step.split_whitespace().collect();
                words.sort_unstable();
                words
            })
            .collect()
    }
}
