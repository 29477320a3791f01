//! What the processes of a job say to each other beside timely: [`Frame`]s of JSON behind their length. The first process has the enumerators and the coordinator of
//! checkpoints, and the user's hand on the job; it tells the others, and they tell it what becomes of it.

use crate::runtime::{
    checkpoints::splits::Positions,
    error::ErrorClass,
    peers::numbers::Numbers,
    reader::{Assignment, ReaderCommand},
};
use serde::{Deserialize, Serialize};
use standpipe_checkpoint::{FileRef, Manifest};
use standpipe_loader::SplitPosition;
use standpipe_state::Base;
use std::io::{self, Read, Write};

/// The longest frame, bytes: many thousands of splits or numbers fit into it.
const LONGEST: u32 = 64 << 20;

/// See the module's documentation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Frame {
    /// The first process is still here; whether it knows why something stands still.
    Beat(bool),
    /// Sources stamp what they emit with that timestamp from now on, or a later one.
    Time(u64),
    /// A source waits for room in its byte budget, in this process; or, from the first one, in another one than the one that is told.
    Throttled(bool),
    /// The aligned sources of a group have come that far: those of this process, or, from the first one, all.
    Aligned { group: u32, time: i64 },

    // From the first process.
    /// To the reader of a source's subtask.
    Reader { node: u32, subtask: u32, command: Told },
    /// What the job goes on from fits, and is noted: plugins may be opened.
    Begun,
    /// That checkpoint is being collected; 0: none.
    Collecting(u64),
    /// On what it may build, before any operator is behind its cut.
    BuildOn(ToldBase),
    /// The newest durable checkpoint.
    Newest(Box<Manifest>),
    /// That checkpoint is durable: sinks commit it.
    CommitSinks(u64),
    /// The last checkpoint is committed.
    Over,
    /// Sources are to stop.
    Stop { drain: bool },
    /// The job is given up.
    Cancel,

    // To the first process.
    /// All plugins are open, all workers have built their dataflow.
    Opened,
    /// What this process counts.
    Numbers(Box<Numbers>),
    /// A source's positions at a cut.
    Positions { checkpoint: u64, node: u32, subtask: u32, positions: Positions },
    /// A source had been drained at the cut of that checkpoint.
    Drained(u64),
    /// A subtask's tables are written.
    Written { checkpoint: u64, node: u32, subtask: u32, files: Vec<(String, FileRef)> },
    /// A subtask's state cannot be had or written.
    PartFailed { checkpoint: u64, reason: String },
    /// A sink's subtask has committed.
    Committed { checkpoint: u64, node: u32, subtask: u32 },
    /// A source's subtask gives nothing any more.
    Ended { node: u32, subtask: u32 },
    /// The job has failed here.
    Failed { node: String, class: ErrorClass, message: String },
    /// Everything has ended here; nothing follows.
    Done,
}

/// A [`Base`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum ToldBase {
    Alone,
    Nothing,
    Checkpoint(u64),
}

impl From<Base> for ToldBase {
    fn from(base: Base) -> Self {
        match base {
            Base::Alone => Self::Alone,
            Base::Nothing => Self::Nothing,
            Base::Checkpoint(id) => Self::Checkpoint(id),
        }
    }
}

impl From<ToldBase> for Base {
    fn from(told: ToldBase) -> Self {
        match told {
            ToldBase::Alone => Self::Alone,
            ToldBase::Nothing => Self::Nothing,
            ToldBase::Checkpoint(id) => Self::Checkpoint(id),
        }
    }
}

/// What a reader is told from another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Told {
    Assign(Vec<ToldSplit>),
    Revoke(Vec<String>),
    NoMoreSplits,
    Committed { checkpoint: u64, positions: Positions },
}

/// An [`Assignment`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ToldSplit {
    split: String,
    details: String,
    position: Option<Vec<u8>>,
    time: i64,
}

impl Told {
    /// `None`: it is nothing that another process has to say.
    pub(crate) fn of(command: ReaderCommand) -> Option<Self> {
        let split = |Assignment { split: SplitPosition { split, details, position }, time }| ToldSplit { split, details, position, time };
        match command {
            ReaderCommand::Assign(assignments) => Some(Self::Assign(assignments.into_iter().map(split).collect())),
            ReaderCommand::Revoke(splits) => Some(Self::Revoke(splits)),
            ReaderCommand::NoMoreSplits => Some(Self::NoMoreSplits),
            ReaderCommand::Committed { checkpoint, positions } => Some(Self::Committed { checkpoint, positions }),
            ReaderCommand::Wake | ReaderCommand::Align { .. } | ReaderCommand::Close { .. } => None,
        }
    }

    pub(crate) fn command(self) -> ReaderCommand {
        let assignment =
            |ToldSplit { split, details, position, time }| Assignment { split: SplitPosition { split, details, position }, time };
        match self {
            Self::Assign(splits) => ReaderCommand::Assign(splits.into_iter().map(assignment).collect()),
            Self::Revoke(splits) => ReaderCommand::Revoke(splits),
            Self::NoMoreSplits => ReaderCommand::NoMoreSplits,
            Self::Committed { checkpoint, positions } => ReaderCommand::Committed { checkpoint, positions },
        }
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Sends a frame.
///
/// # Errors
/// When the connection is broken, or the frame too long.
pub(crate) fn write(stream: &mut impl Write, frame: &Frame) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, frame)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length <= LONGEST);
    let length = length.ok_or_else(|| invalid(format!("a frame of {} bytes is too long", bytes.len())))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    stream.write_all(&bytes)
}

/// Takes the next frame.
///
/// # Errors
/// When the connection is broken or has ended, or what comes is no frame.
pub(crate) fn read(stream: &mut impl Read) -> io::Result<Frame> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return Err(invalid(format!("a frame of {length} bytes is too long")));
    }
    let mut bytes = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&bytes).map_err(|error| invalid(format!("what has come is no frame: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use standpipe_hostile::{bytes, cases, json::nested};

    #[test]
    fn frames_cross_in_order() {
        let split = SplitPosition { split: "t-3".to_owned(), details: "{}".to_owned(), position: Some(vec![0, 255]) };
        let command = ReaderCommand::Assign(vec![Assignment { split: split.clone(), time: -7 }]);
        let mut bytes = Vec::new();
        write(&mut bytes, &Frame::Reader { node: 3, subtask: 1, command: Told::of(command).unwrap() }).unwrap();
        write(&mut bytes, &Frame::Time(u64::MAX)).unwrap();
        let mut stream = bytes.as_slice();
        let Frame::Reader { node: 3, subtask: 1, command } = read(&mut stream).unwrap() else { panic!("another frame") };
        let ReaderCommand::Assign(assigned) = command.command() else { panic!("another command") };
        assert_eq!(assigned, [Assignment { split, time: -7 }]);
        assert!(matches!(read(&mut stream).unwrap(), Frame::Time(u64::MAX)));
        assert_eq!(read(&mut stream).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(Told::of(ReaderCommand::Wake).is_none());
    }

    /// One of each form.
    fn sample() -> Vec<u8> {
        let split = ToldSplit { split: "t-3".to_owned(), details: "{}".to_owned(), position: Some(vec![0, 255]), time: -7 };
        let file = FileRef {
            path: "data/x".to_owned(),
            subtask: 1,
            checkpoint: 2,
            rows: 3,
            bytes: 4,
            key_groups: Some((0, 9)),
            hash: "ab".to_owned(),
        };
        let frames = [
            Frame::Beat(true),
            Frame::Aligned { group: 1, time: i64::MIN },
            Frame::Reader { node: 3, subtask: 1, command: Told::Assign(vec![split]) },
            Frame::Reader { node: 3, subtask: 1, command: Told::Committed { checkpoint: 7, positions: vec![("a".to_owned(), vec![1])] } },
            Frame::BuildOn(ToldBase::Checkpoint(9)),
            Frame::Written { checkpoint: 1, node: 2, subtask: 3, files: vec![("panes".to_owned(), file)] },
            Frame::Failed { node: "sinks.out".to_owned(), class: ErrorClass::Job, message: "no".to_owned() },
            Frame::Done,
        ];
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| write(&mut bytes, frame).unwrap());
        bytes
    }

    /// Reads to the end or to what is no frame; it is never asked for more than there is.
    fn read_all(mut bytes: &[u8]) {
        let most = bytes.len();
        for _ in 0..=most {
            match read(&mut bytes) {
                Ok(frame) => assert!(serde_json::to_string(&frame).is_ok()),
                Err(_) => return,
            }
        }
        panic!("more frames than bytes");
    }

    const WORDS: &[&str] = &["\"Beat\"", "\"Done\"", "{", "}", "[", "]", "null", "-1", "18446744073709551616", "1e999", "\\ud800"];

    proptest! {
        #![proptest_config(cases(2_000))]

        #[test]
        fn frames_whose_bytes_are_others(changes in bytes::changes(WORDS)) {
            read_all(&bytes::changed(&sample(), &changes));
        }

        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
        }
    }

    #[test]
    fn nesting_has_an_end() {
        for levels in [200, 1_000_000] {
            let text = nested("[", "1", "]", levels);
            let bytes = [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
            assert!(read(&mut bytes.as_slice()).unwrap_err().to_string().starts_with("what has come is no frame: "));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let error = |bytes: &[u8]| read(&mut &*bytes).unwrap_err().to_string();
        assert!(error(&u32::MAX.to_le_bytes()).contains("a frame of 4294967295 bytes is too long"));
        assert!(error(b"\x02\0\0\0{}").contains("what has come is no frame"));
        assert_eq!(read(&mut b"\x09\0\0\0\"Be".as_slice()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
