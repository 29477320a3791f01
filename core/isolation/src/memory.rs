//! Shared memory that batches cross in. A writer has a pool of segments, files in memory that it writes by system calls and never maps: a wild pointer of a plugin cannot
//! reach what was sent. A reader maps a segment once, for reading alone, and gives it back when the last array made of it is gone; then the writer may fill it again.
//!
//! The pool is bounded. A batch that finds no room in it gets a segment of its own, which is gone with its last reader.
#![allow(unsafe_code, reason = "maps files")]

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create},
    io::pwritev,
};
use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, IoSlice},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

/// Segments of a pool, and their bytes.
const MOST_SEGMENTS: usize = 32;
const MOST_BYTES: u64 = 64 << 20;
/// The smallest segment.
const LEAST: u64 = 64 << 10;
/// As many slices go into one call of the system.
const SLICES: usize = 512;

/// Where a batch is put.
pub(crate) struct Place {
    pub(crate) file: Arc<OwnedFd>,
    /// Its number in the pool; `None`: it is used once.
    pub(crate) segment: Option<u32>,
    /// Whether the reader has it.
    pub(crate) is_known: bool,
}

struct Segment {
    id: u32,
    file: Arc<OwnedFd>,
    capacity: u64,
    is_free: bool,
}

/// The segments of a writer.
#[derive(Default)]
pub(crate) struct Pool {
    segments: Vec<Segment>,
    last: u32,
    /// Those that are no more, of which the reader is not told yet.
    gone: Vec<u32>,
}

impl Pool {
    /// A place for so many bytes.
    pub(crate) fn take(&mut self, bytes: u64) -> io::Result<Place> {
        let fitting = self.segments.iter_mut().filter(|segment| segment.is_free && segment.capacity >= bytes);
        if let Some(segment) = fitting.min_by_key(|segment| segment.capacity) {
            segment.is_free = false;
            return Ok(Place { file: Arc::clone(&segment.file), segment: Some(segment.id), is_known: true });
        }
        let capacity = bytes.next_power_of_two().max(LEAST);
        if !self.make_room(capacity) {
            return Ok(Place { file: Arc::new(create(bytes)?), segment: None, is_known: false });
        }
        let file = Arc::new(create(capacity)?);
        self.last += 1;
        self.segments.push(Segment { id: self.last, file: Arc::clone(&file), capacity, is_free: false });
        Ok(Place { file, segment: Some(self.last), is_known: false })
    }

    /// Makes room for a new segment, at the cost of free ones, the smallest first. False: there is none.
    fn make_room(&mut self, capacity: u64) -> bool {
        let free = |segments: &[Segment]| {
            let free = segments.iter().enumerate().filter(|(_, segment)| segment.is_free);
            free.min_by_key(|(_, segment)| segment.capacity).map(|(at, _)| at)
        };
        let held = |segments: &[Segment]| segments.iter().map(|segment| segment.capacity).sum::<u64>();
        while self.segments.len() >= MOST_SEGMENTS || held(&self.segments) + capacity > MOST_BYTES {
            let Some(at) = free(&self.segments) else { return false };
            self.gone.push(self.segments.swap_remove(at).id);
        }
        true
    }

    /// The reader has given these back.
    pub(crate) fn release(&mut self, segments: &[u32]) {
        for segment in self.segments.iter_mut().filter(|segment| segments.contains(&segment.id)) {
            segment.is_free = true;
        }
    }

    /// Those that the reader need not keep any more.
    pub(crate) fn take_gone(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.gone)
    }
}

/// A file in memory of that size, for good: whoever maps it never reads past its end.
fn create(bytes: u64) -> io::Result<OwnedFd> {
    let file = memfd_create("standpipe-batch", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// Writes slices, one behind the other, from the beginning of a segment.
pub(crate) fn write(file: &OwnedFd, slices: &[Cow<'_, [u8]>]) -> io::Result<()> {
    let mut at = 0;
    for part in slices.chunks(SLICES) {
        let mut slices: Vec<IoSlice<'_>> = part.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut left = slices.as_mut_slice();
        while left.iter().any(|slice| !slice.is_empty()) {
            let written = pwritev(file, left, at)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            at += written as u64;
            IoSlice::advance_slices(&mut left, written);
        }
    }
    Ok(())
}

/// The segments of the other side, as a reader has them.
#[derive(Default)]
pub(crate) struct Mapped {
    segments: HashMap<u32, Arc<Mmap>>,
    /// Those that nobody reads any more, of which the writer is not told yet.
    released: Arc<Mutex<Vec<u32>>>,
}

/// A batch's part of a segment: the bytes stay as they are until the last of it is dropped.
struct Lease {
    memory: Arc<Mmap>,
    /// `None`: of one that is used once.
    segment: Option<u32>,
    released: Arc<Mutex<Vec<u32>>>,
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(segment) = self.segment {
            self.released.lock().unwrap_or_else(PoisonError::into_inner).push(segment);
        }
    }
}

impl Mapped {
    /// What is in a segment; `file` comes with one that is not known yet, and with one that is used once.
    pub(crate) fn read(&mut self, segment: Option<u32>, file: Option<OwnedFd>) -> io::Result<Bytes> {
        let memory = match (segment, file) {
            (None, None) => return Err(io::Error::other("a segment comes without its file")),
            (None, Some(file)) => Arc::new(map(&file)?),
            (Some(segment), Some(file)) => {
                let memory = Arc::new(map(&file)?);
                self.segments.insert(segment, Arc::clone(&memory));
                memory
            }
            (Some(segment), None) => {
                let known = self.segments.get(&segment);
                Arc::clone(known.ok_or_else(|| io::Error::other(format!("there is no segment {segment}")))?)
            }
        };
        Ok(Bytes::from_owner(Lease { memory, segment, released: Arc::clone(&self.released) }))
    }

    /// The writer does not use these any more.
    pub(crate) fn forget(&mut self, segments: &[u32]) {
        segments.iter().for_each(|segment| drop(self.segments.remove(segment)));
    }

    /// Those that may be filled again.
    pub(crate) fn take_released(&self) -> Vec<u32> {
        std::mem::take(&mut *self.released.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Maps all of a file for reading.
fn map(file: &OwnedFd) -> io::Result<Mmap> {
    if !fcntl_get_seals(file)?.contains(SealFlags::SHRINK) {
        return Err(io::Error::other("a segment may become shorter"));
    }
    let bytes = usize::try_from(fstat(file)?.st_size).map_err(io::Error::other)?;
    let file = std::fs::File::from(file.as_fd().try_clone_to_owned()?);
    // SAFETY: the file cannot become shorter (its seals, above), so reading it never fails. Its writer, which is this crate in the other process, fills it again only after
    // the last reader has said that it is done; it writes by system calls and does not map it, so nothing else in that process has a pointer to it.
    unsafe { MmapOptions::new().len(bytes).populate().map(&file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_filled_again_when_its_last_reader_is_gone() {
        let (mut pool, mut mapped) = (Pool::default(), Mapped::default());
        let place = pool.take(100).unwrap();
        write(&place.file, &["one", "", "two"].map(|part| part.as_bytes().into())).unwrap();
        let file = place.file.try_clone().unwrap();
        let bytes = mapped.read(place.segment, Some(file)).unwrap();
        assert_eq!(&bytes[..6], b"onetwo");
        let other = pool.take(100).unwrap();
        assert_ne!(other.segment, place.segment, "it is still read");
        let part = bytes.slice(3..6);
        drop(bytes);
        assert!(mapped.take_released().is_empty());
        assert_eq!(&part[..], b"two");
        drop(part);
        let released = mapped.take_released();
        pool.release(&released);
        let again = pool.take(100).unwrap();
        assert!(again.segment == place.segment && again.is_known);
    }

    #[test]
    fn the_pool_is_bounded_and_gives_way() {
        let mut pool = Pool::default();
        let taken: Vec<Place> = (0..MOST_SEGMENTS).map(|_| pool.take(1).unwrap()).collect();
        assert!(pool.take(1).unwrap().segment.is_none(), "the pool is full: used once");
        pool.release(&[taken[0].segment.unwrap(), taken[1].segment.unwrap()]);
        let large = pool.take(LEAST + 1).unwrap();
        assert!(large.segment.is_some() && !large.is_known);
        assert_eq!(pool.take_gone().len(), 1, "a smaller one has gone for it");
        assert!(pool.take(MOST_BYTES + 1).unwrap().segment.is_none());
    }

    #[test]
    fn what_could_become_shorter_is_not_read() {
        let file = memfd_create("unsealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        assert!(Mapped::default().read(Some(1), Some(file)).is_err());
        assert!(Mapped::default().read(Some(1), None).is_err());
    }
}
