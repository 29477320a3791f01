//! The names of parts: `JOB.NODE-RUN-SUBTASK-NUMBER.EXTENSION`. A name is given once: a start of the job is a run of its own, and counts its parts.
//!
//! So what lies in a folder tells whose it is: parts of another job are let alone, and a restart knows which of its own are behind its checkpoint.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// What may be in a name as it is; a dot at its beginning would hide a file, and `..` is another folder: names and values have a text of their own before or behind it.
pub(super) const KEPT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ').remove(b'+').remove(b'@').remove(b',');

/// Which part of a sink it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartId {
    /// The start of the job that began it.
    pub(super) run: u64,
    pub(super) subtask: u32,
    pub(super) number: u64,
}

/// The names of a sink's parts.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
    extension: &'static str,
}

impl Names {
    pub(super) fn new(job: &str, node: &str, extension: &'static str) -> Self {
        let (job, node) = (utf8_percent_encode(job, KEPT), utf8_percent_encode(node, KEPT));
        Self { prefix: format!("{job}.{node}-").trim_start_matches('.').to_owned(), extension }
    }

    /// What the names of a sink's parts begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn of(&self, part: PartId) -> String {
        let PartId { run, subtask, number } = part;
        format!("{}{run}-{subtask}-{number:06}.{}", self.prefix, self.extension)
    }

    /// The part of that name, whatever its format was. `None`: it is of somebody else.
    pub(super) fn parse(&self, name: &str) -> Option<PartId> {
        let (numbers, _) = name.strip_prefix(&self.prefix)?.split_once('.')?;
        let mut numbers = numbers.split('-');
        let mut next = || numbers.next()?.parse::<u64>().ok();
        let part = PartId { run: next()?, subtask: u32::try_from(next()?).ok()?, number: next()? };
        next().is_none().then_some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_part_it_is() {
        let names = Names::new("a/b c", "out", "jsonl");
        let part = PartId { run: 3, subtask: 0, number: 17 };
        assert_eq!(names.of(part), "a%2Fb c.out-3-0-000017.jsonl");
        assert_eq!(names.parse(&names.of(part)), Some(part));
        assert_eq!(names.parse("a%2Fb c.out-3-0-1234567.csv.inprogress"), Some(PartId { number: 1_234_567, ..part }));
        for other in [
            "a%2Fb c.out2-3-0-000017.jsonl",
            "a%2Fb c.out-3-0-1-2.jsonl",
            "a%2Fb c.out-3-0.jsonl",
            "a%2Fb c.out-3-x-1.jsonl",
            "b.out-1-0-1.csv",
        ] {
            assert_eq!(names.parse(other), None, "{other}");
        }
        assert!(!Names::new("..", "x", "csv").prefix().starts_with('.'));
    }
}
