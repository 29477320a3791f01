//! What the suite has found: a finding per check, for people and for machines.

use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};

/// How a check ended.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The plugin does what a host relies on.
    Passed,
    /// It does not: the message says what it did.
    Failed,
    /// It could not be tried, or does not concern this kind: the message says why.
    Skipped,
}

/// What a check has found.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check's name: `positions`.
    pub check: String,
    /// How it ended.
    pub verdict: Verdict,
    /// One line: what was tried, what the plugin did, or why it was not tried.
    pub message: String,
    /// More of it, a line each.
    #[serde(default)]
    pub details: Vec<String>,
}

impl Finding {
    /// A finding without details.
    pub fn new(check: &str, verdict: Verdict, message: impl Into<String>) -> Self {
        Self { check: check.to_owned(), verdict, message: message.into(), details: Vec::new() }
    }
}

/// All findings about one kind.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `source`, `transform`, `sink`, `scalar`, `aggregate`, `deployment`.
    pub kind: String,
    /// Its name in pipelines.
    pub name: String,
    /// In the order in which they were tried.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Findings of that verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// Whether nothing failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.count(Verdict::Failed) == 0
    }

    /// The checks that failed, by name.
    #[must_use]
    pub fn failed(&self) -> Vec<&str> {
        self.findings.iter().filter(|finding| finding.verdict == Verdict::Failed).map(|finding| finding.check.as_str()).collect()
    }

    /// The finding of that check.
    #[must_use]
    pub fn finding(&self, check: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.check == check)
    }

    /// Fails a test with the whole report, unless everything passed or was skipped.
    ///
    /// # Panics
    /// When a check has failed.
    #[track_caller]
    pub fn assert_passed(&self) {
        assert!(self.passed(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        let mut text = format!("{} {}\n", self.kind, self.name);
        for Finding { check, verdict, message, details } in &self.findings {
            let mark = match verdict {
                Verdict::Passed => '\u{2713}',
                Verdict::Failed => '\u{2717}',
                Verdict::Skipped => '\u{2013}',
            };
            writeln!(text, "  {mark} {check:<width$}  {message}")?;
            for line in details {
                writeln!(text, "    {:<width$}  {line}", "")?;
            }
        }
        let count = |verdict| self.count(verdict);
        write!(text, "  {} passed, {} failed, {} skipped", count(Verdict::Passed), count(Verdict::Failed), count(Verdict::Skipped))?;
        f.write_str(&text)
    }
}
