//! What a sink `collect` of a job has put into its folder, for whoever asks: the sink writes (`connectors/collect`), this reads, and a file says how far somebody has
//! got. The folder is beside the job's own, and stays when the job has ended.
//!
//! ```text
//! JOB.collect/NODE/schema      the message with the schema of an Arrow IPC stream
//! JOB.collect/NODE/base        the number before the first batch of this start of the job
//! JOB.collect/NODE/000...017   messages with batches; numbers grow, and what somebody has read may be gone
//! JOB.collect/NODE/read        the last number that somebody has read
//! ```

use serde_json::Value;
use std::{
    fs,
    io::{self, ErrorKind::NotFound},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// What a worker's environment calls the folder of its job's collected rows.
pub const FOLDER: &str = "STANDPIPE_COLLECT_DIR";
/// What an Arrow IPC stream ends with.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// Bytes at a time, about.
const PART: u64 = 4 << 20;
/// Between two looks for more.
const LOOK: Duration = Duration::from_millis(10);
/// How long a question waits for an answer at the most.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Where the rows of the job are that is laid out in that folder.
#[must_use]
pub fn folder(job: &Path) -> PathBuf {
    job.with_extension("collect")
}

/// Which rows are wanted.
pub(super) struct Wanted {
    node: String,
    /// The number of the first batch; 0: the first that there is.
    from: u64,
    wait: Duration,
}

impl Wanted {
    /// Of a request; none: it is not understood.
    pub(super) fn read(ask: &Value) -> Option<Self> {
        let node = ask.get("node")?.as_str()?.to_owned();
        // It becomes a part of a path.
        let is_name = !node.is_empty() && node.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let wait = Duration::from_millis(ask.get("wait")?.as_u64()?).min(LONGEST_WAIT);
        is_name.then_some(Self { node, from: ask.get("from")?.as_u64()?, wait })
    }
}

/// Some rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// The number of the next batch; 0: the sink has not begun.
    pub(super) next: u64,
    /// Rows before these were read by somebody and made room for others.
    pub(super) gap: bool,
    /// An Arrow IPC stream; empty: the sink has not begun.
    pub(super) bytes: Vec<u8>,
}

/// What there is, once there is something, or when the time is over.
///
/// # Errors
/// When it cannot be read.
pub(super) fn read(collected: &Path, wanted: &Wanted) -> io::Result<Part> {
    let folder = collected.join(&wanted.node);
    if wanted.from > 0 {
        mark(&folder, wanted.from - 1)?;
    }
    let deadline = Instant::now() + wanted.wait;
    loop {
        let part = part(&folder, wanted.from)?;
        if part.next > wanted.from.max(1) || part.gap || Instant::now() >= deadline {
            return Ok(part);
        }
        thread::sleep(LOOK);
    }
}

/// What is not there, is not there yet.
fn optional<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn number(folder: &Path, name: &str) -> io::Result<u64> {
    let text = optional(fs::read_to_string(folder.join(name)))?;
    Ok(text.and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

/// Batches up to that number have been read.
fn mark(folder: &Path, read: u64) -> io::Result<()> {
    if !folder.exists() || number(folder, "read")? >= read {
        return Ok(());
    }
    // Several may read, each in a file of its own until it has its name.
    let new = folder.join(format!("read.{:?}", thread::current().id()));
    fs::write(&new, read.to_string())?;
    fs::rename(&new, folder.join("read"))
}

fn part(folder: &Path, from: u64) -> io::Result<Part> {
    let Some(schema) = optional(fs::read(folder.join("schema")))? else { return Ok(Part::default()) };
    let base = number(folder, "base")?;
    let mut numbers: Vec<u64> =
        fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(|number| *number > base).collect();
    numbers.sort_unstable();
    let first = numbers.first().copied().unwrap_or_default();
    // Whoever begins is told, whoever goes on must not pass over anything.
    let expected = from.max(base + 1);
    let mut part = Part { next: expected, gap: first > expected, bytes: schema };
    if part.gap && from > 0 {
        return Ok(part);
    }
    for number in numbers.into_iter().filter(|number| *number >= expected) {
        let Some(bytes) = optional(fs::read(folder.join(format!("{number:020}"))))? else {
            // Another one has read it meanwhile, and it is gone.
            break;
        };
        part.bytes.extend_from_slice(&bytes);
        part.next = number + 1;
        if part.bytes.len() as u64 >= PART {
            break;
        }
    }
    part.bytes.extend_from_slice(&END);
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wanted(from: u64, wait: u64) -> Wanted {
        Wanted::read(&json!({"do": "collect", "node": "out", "from": from, "wait": wait})).unwrap()
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("out");
        fs::create_dir(&node).unwrap();
        fs::write(node.join("schema"), "S").unwrap();
        (folder, node)
    }

    fn put(node: &Path, number: u64, content: &str) {
        fs::write(node.join(format!("{number:020}")), content).unwrap();
    }

    #[test]
    fn rows_come_in_order_as_one_stream_and_what_was_read_is_marked() {
        let (folder, node) = folder();
        (1..=3).for_each(|number| put(&node, number, &number.to_string()));
        put(&node, 4, "");
        fs::write(node.join(format!("{:020}.new", 5)), "half").unwrap();
        let of = |part: Part| (part.next, part.gap, part.bytes);
        let stream = |text: &str| [text.as_bytes(), &END].concat();
        assert_eq!(of(read(folder.path(), &wanted(0, 0)).unwrap()), (5, false, stream("S123")));
        assert!(!node.join("read").exists(), "whoever begins has read nothing");
        assert_eq!(of(read(folder.path(), &wanted(3, 0)).unwrap()), (5, false, stream("S3")));
        assert_eq!(number(&node, "read").unwrap(), 2);
        assert_eq!(of(read(folder.path(), &wanted(2, 0)).unwrap()).0, 5);
        assert_eq!(number(&node, "read").unwrap(), 2, "a slower reader takes nothing back");
        assert_eq!(of(read(folder.path(), &wanted(5, 0)).unwrap()), (5, false, stream("S")));
    }

    #[test]
    fn what_made_room_is_told_to_who_begins_and_refused_to_who_goes_on() {
        let (folder, node) = folder();
        put(&node, 7, "7");
        let begins = read(folder.path(), &wanted(0, 0)).unwrap();
        assert!(begins.gap && begins.next == 8 && begins.bytes.starts_with(b"S7"), "{begins:?}");
        let goes_on = read(folder.path(), &wanted(4, 0)).unwrap();
        assert!(goes_on.gap && goes_on.next == 4, "{goes_on:?}");
        // What a former start of the job has left behind is no gap.
        fs::write(node.join("base"), "6").unwrap();
        assert!(!read(folder.path(), &wanted(0, 0)).unwrap().gap);
    }

    #[test]
    fn a_question_waits_for_rows() {
        let (folder, node) = folder();
        put(&node, 1, "1");
        let later = thread::spawn(move || {
            // The question has come: it says what was read before.
            while !node.join("read").exists() {
                thread::yield_now();
            }
            put(&node, 2, "2");
        });
        assert_eq!(read(folder.path(), &wanted(2, 2_000)).unwrap().next, 3);
        later.join().unwrap();
        assert_eq!(read(Path::new("/no/such"), &wanted(0, 0)).unwrap(), Part::default());
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_not_understood() {
        for node in ["", "..", "a/b", "a.b"] {
            assert!(Wanted::read(&json!({"node": node, "from": 0, "wait": 0})).is_none(), "{node:?}");
        }
        assert!(Wanted::read(&json!({"node": "a"})).is_none());
    }
}
