//! One job alone: what a job manager needs to know that takes a single job from a folder, keeps what the next manager needs where the job keeps its checkpoints, and ends
//! with the job. Decisions and words; the course of it is in `server::application`.

use crate::{
    blobs::Blobs,
    bundle::{Bundle, File, Hash},
    manager::{Job, Millis},
    protocol::JobId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{path::Path, sync::Arc, time::Duration};

/// Of a status as JSON, in bytes: what Kubernetes keeps of a container's last words.
pub const LONGEST_STATUS: usize = 4_096;
/// Files that are named when many are missing.
const MOST_NAMED: usize = 20;

/// The job of a manager that has no other.
#[derive(Clone)]
pub struct Application {
    /// The id that it has already.
    pub job: JobId,
    /// What it is made of.
    pub bundle: Bundle,
    /// Looks on this machine for files that the manager does not have.
    pub find: Finder,
    /// Where the job keeps its checkpoints.
    pub keeper: Keeper,
    /// So long somebody may say nothing who is to send what is missing.
    pub timeout: Duration,
    /// So long the manager stays for rows that nobody has read.
    pub linger: Duration,
    /// Hears how the job has ended, as soon as it has.
    pub ended: Listener,
    /// Removes what was made for the job, while the manager still answers: task managers that are ended by it say farewell. It may take long. None: nobody does.
    pub clean: Option<Listener>,
}

/// Is told how the job has ended.
pub type Listener = Arc<dyn Fn(&Ended) + Send + Sync>;
/// Puts those of these files among the blobs that are on this machine; gives the others.
pub type Finder = Arc<dyn Fn(&[File], &Blobs) -> Vec<File> + Send + Sync>;
/// What the next manager can see too, by the pipeline file; none: the job keeps nothing that this machine reaches, or not yet. An error is why that is not known.
pub type Keeper = Arc<dyn Fn(&Path, &Bundle) -> Result<Option<Arc<dyn Keep>>, String> + Send + Sync>;

/// Why nothing is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// Two may live at once, where one was given up that is only out of reach: what the former one knows of the job is not so any more.
    #[error("another job manager has taken the job since")]
    Superseded,
    /// Nobody answers; a line for people.
    #[error("{0}")]
    Outside(String),
}

impl From<String> for KeepError {
    fn from(why: String) -> Self {
        Self::Outside(why)
    }
}

/// What a manager keeps for the next one, which may have nothing else. Calls block. Errors are lines for people.
pub trait Keep: Send + Sync {
    /// Takes the job for the manager of that generation, unless it has it: those that had it before are superseded. `false` for `anew`: it has run the job already, and is
    /// superseded itself where another one has it. Gives whether there were others before.
    ///
    /// # Errors
    /// When nobody answers; when another one has it.
    fn claim(&self, generation: u64, anew: bool) -> Result<bool, KeepError>;
    /// Whether nobody else has taken the job since.
    ///
    /// # Errors
    /// When nobody answers; when another one has.
    fn check(&self) -> Result<(), KeepError>;
    /// Whether a process of the job has begun before.
    ///
    /// # Errors
    /// When nobody answers.
    fn has_begun(&self) -> Result<bool, String>;
    /// How the job has ended, if it has.
    ///
    /// # Errors
    /// When nobody answers.
    fn ended(&self) -> Result<Option<Ended>, String>;
    /// Keeps how the job has ended, and nothing else of it any more.
    ///
    /// # Errors
    /// When nobody answers; when another one has taken the job since.
    fn end(&self, ended: &Ended) -> Result<(), KeepError>;
    /// The parallelism that the job was given while it ran, if it was.
    ///
    /// # Errors
    /// When nobody answers.
    fn parallelism(&self) -> Result<Option<u32>, String>;
    /// Keeps the parallelism that the job was given.
    ///
    /// # Errors
    /// When nobody answers; when another one has taken the job since.
    fn keep_parallelism(&self, parallelism: u32) -> Result<(), KeepError>;
    /// What somebody wishes of the job's end, and was told that it will be.
    ///
    /// # Errors
    /// When nobody answers.
    fn wish(&self) -> Result<Option<Wish>, String>;
    /// Keeps such a wish; none: it cannot be.
    ///
    /// # Errors
    /// When nobody answers.
    fn keep_wish(&self, wish: Option<&Wish>) -> Result<(), String>;
    /// Whether a file is kept.
    ///
    /// # Errors
    /// When nobody answers.
    fn has(&self, file: &File) -> Result<bool, String>;
    /// Puts a file among the blobs, if it is kept; one that is damaged is not.
    ///
    /// # Errors
    /// When nobody answers.
    fn fetch(&self, hash: Hash, blobs: &Blobs) -> Result<bool, String>;
    /// Keeps a file.
    ///
    /// # Errors
    /// When nobody answers.
    fn keep(&self, hash: Hash, file: &Path) -> Result<(), String>;
}

/// What somebody wishes of a job's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Wish {
    /// At once.
    Cancel,
    /// With a savepoint.
    Stop {
        /// The id of the request, by which is asked what has become of it.
        request: String,
        /// What the job's first process is asked.
        ask: Value,
    },
}

/// How a job has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// `FINISHED`, `FAILED`, `CANCELED`.
    pub state: String,
    /// Why it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Its id.
    pub jobid: JobId,
    /// When, in milliseconds since 1970.
    pub ended: Millis,
    /// The savepoint that it was stopped with: of one that has finished by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoint: Option<String>,
}

impl Ended {
    /// Of a job that has never begun.
    #[must_use]
    pub fn failed(jobid: &str, cause: String, ended: Millis) -> Self {
        Self { state: "FAILED".to_owned(), cause: Some(cause), jobid: jobid.to_owned(), ended, savepoint: None }
    }

    /// Of a job that was cancelled before it has begun here.
    #[must_use]
    pub fn canceled(jobid: &str, ended: Millis) -> Self {
        Self { state: "CANCELED".to_owned(), cause: None, jobid: jobid.to_owned(), ended, savepoint: None }
    }

    /// Of a job; none: it is not over.
    #[must_use]
    pub fn of(job: &Job, savepoint: Option<String>) -> Option<Self> {
        let state = job.state();
        let cause = job.why().filter(|_| state == "FAILED").map(str::to_owned);
        let savepoint = savepoint.filter(|_| state == "FINISHED");
        Some(Self { state: state.to_owned(), cause, jobid: job.id.clone(), ended: job.ended()?, savepoint })
    }

    /// As JSON, at most [`LONGEST_STATUS`] bytes: of a long cause the beginning.
    #[must_use]
    pub fn text(&self) -> String {
        let mut own = self.clone();
        loop {
            // Texts and numbers can be written.
            let text = serde_json::to_string(&own).unwrap_or_default();
            let over = text.len().saturating_sub(LONGEST_STATUS);
            let Some(cause) = own.cause.as_mut().filter(|cause| over > 0 && !cause.is_empty()) else { return text };
            // A character may be written as six.
            let keep = cause.chars().count().saturating_sub(over.div_ceil(6) + 1);
            *cause = if keep == 0 { String::new() } else { cause.chars().take(keep).collect::<String>() + "…" };
        }
    }
}

/// What is said of files that nobody has sent.
pub(crate) fn nobody_has_sent(missing: &[File], waited: Duration, is_kept: bool) -> String {
    let mut lines = vec![format!("files of the job are missing, and nobody has sent them within {} s:", waited.as_secs_f64())];
    lines.extend(missing.iter().take(MOST_NAMED).map(|file| format!("{} ({}, {} bytes)", file.path, file.hash, file.bytes)));
    if missing.len() > MOST_NAMED {
        lines.push(format!("... and {} more", missing.len() - MOST_NAMED));
    }
    if !is_kept {
        let why = "what was sent to a former job manager is kept where the job keeps its checkpoints, and there is no such place that this one reaches";
        lines.push(why.to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::{Outcome, Stage, job_for_tests};

    #[test]
    fn a_status_has_what_is_known_and_no_more_bytes_than_are_kept() {
        let ended = Ended::failed("j", "it has failed".to_owned(), 7);
        assert_eq!(ended.text(), r#"{"state":"FAILED","cause":"it has failed","jobid":"j","ended":7}"#);
        for long in ["x".repeat(5_000), "\u{1}".repeat(5_000), "ü\"\n".repeat(3_000)] {
            let text = Ended { cause: Some(long.clone()), savepoint: Some("s3://a/b".to_owned()), ..ended.clone() }.text();
            assert!((LONGEST_STATUS - 1_000..=LONGEST_STATUS).contains(&text.len()), "{}", text.len());
            let read: Ended = serde_json::from_str(&text).unwrap();
            assert!(long.starts_with(read.cause.unwrap().strip_suffix('…').unwrap()));
            assert_eq!(read.savepoint.as_deref(), Some("s3://a/b"));
        }
    }

    #[test]
    fn only_a_job_that_has_finished_was_stopped_with_a_savepoint() {
        let mut job = job_for_tests("j");
        assert_eq!(Ended::of(&job, None), None);
        for (outcome, expected) in [(Outcome::Finished, Some("/x")), (Outcome::Failed, None), (Outcome::Canceled, None)] {
            job.stage = Stage::Over(outcome);
            assert_eq!(Ended::of(&job, Some("/x".to_owned())).unwrap().savepoint.as_deref(), expected);
        }
    }

    #[test]
    fn files_that_are_missing_are_named_but_not_without_end() {
        let file = |i: usize| File { path: format!("plugins/{i}.so"), hash: Hash::of(&[]), bytes: 3 };
        let said = nobody_has_sent(&(0..30).map(file).collect::<Vec<_>>(), Duration::from_secs(120), true);
        assert!(
            said.starts_with("files of the job are missing, and nobody has sent them within 120 s:\nplugins/0.so (sha256:e3b0"),
            "{said}"
        );
        assert!(said.ends_with("... and 10 more") && said.lines().count() == 22, "{said}");
        assert!(nobody_has_sent(&[file(1)], Duration::from_secs(1), false).contains("there is no such place"));
    }
}
