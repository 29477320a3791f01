//! Cuts one file, pipe or standard input into records: the bytes between newlines, without `\n` or `\r\n`. A last line without a newline is a record; an empty
//! line is none.
//!
//! Reads blocks of 1 MiB into one buffer that is used again and again, and copies records from it, end to end, into the buffers of a batch, which the decoder of
//! the format `raw` then takes as it is. Called by [`crate::source`]; knows positions, but neither splits nor Arrow.

use crate::outside;
use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec},
    fd::{AsFd, BorrowedFd},
    fs::OFlags,
    io::Errno,
};
use standpipe_sdk::{Error, Result};
use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom, Stdin},
    os::unix::fs::OpenOptionsExt,
    time::Duration,
};

/// Bytes read at once.
const BLOCK: usize = 1 << 20;
/// With fewer unread bytes than this the next block is read first, so that batches do not become small at the end of each block.
const REFILL: usize = BLOCK / 4;

/// How much to take at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Records at most.
    pub(crate) rows: usize,
    /// Bytes, exceeded by one record at most.
    pub(crate) bytes: usize,
    /// Whether to say where each record begins.
    pub(crate) starts: bool,
}

/// Records end to end.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The bytes of all of them.
    pub(crate) values: Vec<u8>,
    /// Where each begins in `values`, and where the last one ends.
    pub(crate) offsets: Vec<i32>,
    /// Where each begins in the file, if that was asked for.
    pub(crate) starts: Option<Vec<i64>>,
}

impl Lines {
    pub(crate) const fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }
}

/// What there is to take now.
#[derive(Debug)]
pub(crate) enum Next {
    /// At least one record.
    Lines(Lines),
    /// A pipe whose writer has sent no whole line yet.
    NotReady,
    /// Nothing will come any more.
    End,
}

enum Input {
    Regular(File),
    Pipe(File),
    Stdin(Stdin),
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Regular(file) | Self::Pipe(file) => file.as_fd(),
            Self::Stdin(stdin) => stdin.as_fd(),
        }
    }
}

/// A file that is being read.
pub(crate) struct LineReader {
    path: String,
    input: Input,
    max_record: usize,
    block: Vec<u8>,
    /// Where the unread bytes begin in `block`.
    start: usize,
    /// So many of the unread bytes are known to hold no newline.
    searched: usize,
    /// The place of the first unread byte in the file.
    position: u64,
    /// Everything has been read into `block`.
    ended: bool,
}

impl LineReader {
    /// Opens a file at a byte position, the beginning of a line.
    pub(crate) fn open(path: &str, position: u64, max_record: usize) -> Result<Self> {
        let failed = |error| outside("read", path, error);
        // A named pipe without a writer would block here; a regular file does not know the flag.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            if position > 0 {
                return Err(Error::external(format!("{path} is a pipe: it cannot be read again from byte {position}")));
            }
            return Ok(Self::new(path, Input::Pipe(file), position, max_record));
        }
        if position > metadata.len() {
            return Err(Error::external(format!(
                "{path} has {} bytes, but was read up to byte {position} before: it is not the same file",
                metadata.len()
            )));
        }
        file.seek(SeekFrom::Start(position)).map_err(failed)?;
        Ok(Self::new(path, Input::Regular(file), position, max_record))
    }

    /// Reads standard input.
    pub(crate) fn stdin(max_record: usize) -> Self {
        Self::new("standard input", Input::Stdin(std::io::stdin()), 0, max_record)
    }

    fn new(path: &str, input: Input, position: u64, max_record: usize) -> Self {
        let block = Vec::with_capacity(BLOCK);
        Self { path: path.to_owned(), input, max_record, block, start: 0, searched: 0, position, ended: false }
    }

    /// Whether what it has not given can be read by another reader from [`Self::position`].
    pub(crate) const fn can_be_opened_again(&self) -> bool {
        matches!(self.input, Input::Regular(_))
    }

    /// The place of the first byte that no record given so far has.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// The next records, as far as they can be had without waiting.
    pub(crate) fn next(&mut self, limits: Limits) -> Result<Next> {
        loop {
            let unread = self.block.len() - self.start;
            let wants_more = !self.ended && (unread < REFILL || self.searched == unread);
            let ready = !wants_more || self.fill()?;
            let lines = self.take(limits)?;
            if lines.len() > 0 {
                return Ok(Next::Lines(lines));
            }
            if self.ended && self.start == self.block.len() {
                return Ok(Next::End);
            }
            if !ready {
                return Ok(Next::NotReady);
            }
        }
    }

    /// Reads once behind what is unread, or finds that there is nothing yet.
    fn fill(&mut self) -> Result<bool> {
        if !matches!(self.input, Input::Regular(_)) && !wait_for([self.input.as_fd()], Duration::ZERO)? {
            return Ok(false);
        }
        self.block.drain(..self.start);
        self.start = 0;
        if self.searched > self.max_record {
            return Err(self.too_long());
        }
        if self.block.len() == self.block.capacity() {
            self.block.reserve_exact(self.block.len());
        } else if self.block.capacity() > BLOCK && self.block.len() < REFILL {
            self.block.shrink_to(BLOCK);
        }
        match rustix::io::read(self.input.as_fd(), spare_capacity(&mut self.block)) {
            Ok(0) => self.ended = true,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(outside("read", &self.path, std::io::Error::from(error))),
        }
        Ok(true)
    }

    /// Takes whole lines out of what is unread; at the end of the file also what comes behind the last newline.
    fn take(&mut self, limits: Limits) -> Result<Lines> {
        let unread = &self.block[self.start..];
        let mut lines =
            Lines { values: Vec::with_capacity(unread.len().min(limits.bytes)), offsets: vec![0], starts: limits.starts.then(Vec::new) };
        let mut begin = 0;
        let mut is_full = false;
        for newline in memchr::memchr_iter(b'\n', &unread[self.searched..]) {
            let end = self.searched + newline;
            if !lines.push(&unread[begin..end], self.position + begin as u64, self.max_record) {
                self.skip(begin);
                return Err(self.too_long());
            }
            begin = end + 1;
            is_full = lines.len() >= limits.rows || lines.values.len() >= limits.bytes;
            if is_full {
                break;
            }
        }
        if self.ended && !is_full {
            if !lines.push(&unread[begin..], self.position + begin as u64, self.max_record) {
                self.skip(begin);
                return Err(self.too_long());
            }
            begin = unread.len();
        }
        self.skip(begin);
        self.searched = if is_full { 0 } else { self.block.len() - self.start };
        Ok(lines)
    }

    fn skip(&mut self, bytes: usize) {
        self.start += bytes;
        self.position += bytes as u64;
        self.searched = 0;
    }

    fn too_long(&self) -> Error {
        Error::data(format!("{}: the record at byte {} is longer than max_record_bytes, {}", self.path, self.position, self.max_record))
    }
}

impl AsFd for LineReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }
}

impl Lines {
    /// Adds a line, unless it is empty. `false`: it is too long.
    #[inline]
    fn push(&mut self, line: &[u8], start: u64, max_record: usize) -> bool {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > max_record {
            return false;
        }
        if !line.is_empty() {
            self.values.extend_from_slice(line);
            self.offsets.push(self.values.len() as i32);
            if let Some(starts) = &mut self.starts {
                starts.push(start as i64);
            }
        }
        true
    }
}

/// Waits until one of these has something to read, or has ended. A pipe that no writer has opened yet is not ready.
pub(crate) fn wait_for<'a>(files: impl IntoIterator<Item = BorrowedFd<'a>>, at_most: Duration) -> Result<bool> {
    let mut files: Vec<PollFd<'a>> = files.into_iter().map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN)).collect();
    let timeout = Timespec::try_from(at_most).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    match rustix::event::poll(&mut files, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(outside("wait for", "input", std::io::Error::from(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{fs, io::Write};

    /// Where a record begins, and its bytes.
    type Record = (i64, Vec<u8>);

    const LIMITS: Limits = Limits { rows: 1_000, bytes: 1 << 20, starts: true };

    /// What the module's documentation says, without blocks and limits: (start, record).
    fn naive(content: &[u8]) -> Vec<Record> {
        let mut start = 0;
        let mut records = Vec::new();
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if !text.is_empty() {
                records.push((start, text.to_vec()));
            }
            start += line.len() as i64;
        }
        records
    }

    fn file_of(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn records(lines: &Lines) -> Vec<Record> {
        let bounds = lines.offsets.windows(2).map(|pair| pair[0] as usize..pair[1] as usize);
        lines.starts.iter().flatten().copied().zip(bounds.map(|range| lines.values[range].to_vec())).collect()
    }

    /// All records from a position on, and the position after each batch.
    fn read(file: &tempfile::NamedTempFile, position: u64, limits: Limits) -> (Vec<Record>, Vec<(u64, usize)>) {
        let mut reader = LineReader::open(file.path().to_str().unwrap(), position, 8 << 20).unwrap();
        let (mut all, mut positions) = (Vec::new(), Vec::new());
        loop {
            match reader.next(limits).unwrap() {
                Next::Lines(lines) => {
                    assert!(lines.len() <= limits.rows);
                    all.extend(records(&lines));
                    positions.push((reader.position(), all.len()));
                }
                Next::End => return (all, positions),
                Next::NotReady => panic!("a regular file is always ready"),
            }
        }
    }

    fn content() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![3 => Just(b"\n".to_vec()), 2 => Just(b"\r\n".to_vec()), 1 => Just(b"\r".to_vec()), 4 => prop::collection::vec(any::<u8>(), 0..20)];
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn records_are_those_of_a_naive_reader_and_a_restart_gives_the_rest(content in content(), rows in 1_usize..9, bytes in 1_usize..99) {
            let file = file_of(&content);
            let limits = Limits { rows, bytes, starts: true };
            let (all, positions) = read(&file, 0, limits);
            prop_assert_eq!(&all, &naive(&content));
            for (position, given) in positions {
                let (rest, _) = read(&file, position, LIMITS);
                prop_assert_eq!(&rest[..], &all[given..]);
            }
        }
    }

    #[test]
    fn records_cross_the_edges_of_blocks() {
        // Lengths without a common divisor with the block; one line is longer than two blocks.
        let mut content = Vec::new();
        for line in 0_u32..60_000 {
            content.extend(format!("{line}:").bytes().chain(std::iter::repeat_n(b'x', line as usize % 97)));
            content.extend_from_slice(if line % 3 == 0 { b"\r\n" } else { b"\n" });
            if line == 30_000 {
                content.extend(std::iter::repeat_n(b'y', 2 * BLOCK + 12_345));
                content.push(b'\n');
            }
        }
        content.extend_from_slice(b"the end");
        let file = file_of(&content);
        let (all, positions) = read(&file, 0, LIMITS);
        assert_eq!(all, naive(&content));
        let (middle, given) = positions[positions.len() / 2];
        assert_eq!(read(&file, middle, LIMITS).0, all[given..]);
    }

    #[test]
    fn batches_do_not_become_small_at_the_end_of_a_block() {
        let content: Vec<u8> = (0..200_000).flat_map(|line| format!("record number {line}\n").into_bytes()).collect();
        let (_, positions) = read(&file_of(&content), 0, LIMITS);
        assert_eq!(positions.len(), 200);
    }

    #[test]
    fn a_record_that_is_too_long_is_an_error_with_its_place() {
        let file = file_of(b"short\nfar too long\nshort\n");
        let mut reader = LineReader::open(file.path().to_str().unwrap(), 0, 5).unwrap();
        let error = reader.next(LIMITS).unwrap_err().to_string();
        assert!(error.ends_with("the record at byte 6 is longer than max_record_bytes, 5"), "{error}");
    }

    #[test]
    fn a_file_that_never_has_a_newline_ends_before_the_memory_does() {
        let mut reader = LineReader::open("/dev/zero", 0, 1 << 20).unwrap();
        let error = loop {
            match reader.next(LIMITS) {
                Err(error) => break error.to_string(),
                Ok(next) => assert!(matches!(next, Next::NotReady), "{next:?}"),
            }
        };
        assert!(error.contains("longer than max_record_bytes"), "{error}");
        assert!(reader.block.capacity() <= 8 * BLOCK);
    }

    #[test]
    fn a_position_behind_the_end_is_another_file() {
        let file = file_of(b"abc\n");
        assert!(matches!(LineReader::open(file.path().to_str().unwrap(), 4, 9).unwrap().next(LIMITS).unwrap(), Next::End));
        let error = LineReader::open(file.path().to_str().unwrap(), 5, 9).map(drop).unwrap_err();
        assert!(error.to_string().contains("has 4 bytes, but was read up to byte 5"), "{error}");
    }

    #[test]
    fn a_pipe_gives_what_has_come_and_ends_with_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        let mut reader = LineReader::open(path.to_str().unwrap(), 0, 99).unwrap();
        assert!(matches!(reader.next(LIMITS).unwrap(), Next::NotReady), "no writer yet: neither data nor the end");
        let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(b"one\ntwo\nthr").unwrap();
        let Next::Lines(lines) = reader.next(LIMITS).unwrap() else { panic!("lines have come") };
        assert_eq!(records(&lines), [(0, b"one".to_vec()), (4, b"two".to_vec())]);
        assert!(matches!(reader.next(LIMITS).unwrap(), Next::NotReady), "half a line is none");
        writer.write_all(b"ee").unwrap();
        drop(writer);
        let Next::Lines(lines) = reader.next(LIMITS).unwrap() else { panic!("the last line has come") };
        assert_eq!(records(&lines), [(8, b"three".to_vec())]);
        assert!(matches!(reader.next(LIMITS).unwrap(), Next::End));
    }
}
