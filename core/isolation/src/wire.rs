//! Messages on a Unix socket: length, message, the bytes behind it, and files of the system. Nothing here waits by itself: whoever calls says how, so that the end of
//! the other process and a cancellation are heard while a message is half sent or half read.

use crate::words::Envelope;
use rustix::{
    cmsg_space,
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::VecDeque,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

/// Files of one message at most.
pub(crate) const MOST_FILES: usize = 20;
/// No message is longer: who says so makes no sense.
const LONGEST: usize = 1 << 30;
const HEAD: usize = 8;
/// What is read at once.
const READ: usize = 64 << 10;

/// Why a message does not come through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The other side is gone.
    #[error("the other process is gone")]
    Closed,
    /// Whoever waited gives up.
    #[error("given up")]
    GivenUp,
    /// The system.
    #[error("{0}")]
    System(#[from] Errno),
    /// What came is no message.
    #[error("what came is no message: {0}")]
    Message(#[from] postcard::Error),
    /// It is longer than any message.
    #[error("a message of {0} bytes is too long")]
    Long(usize),
}

/// Waits until a socket can be read or written; or says that this is given up.
pub(crate) type Wait<'a> = &'a mut dyn FnMut(BorrowedFd<'_>, PollFlags) -> Result<(), WireError>;

/// A message that came.
#[derive(Debug)]
pub(crate) struct Received<T> {
    pub(crate) envelope: Envelope<T>,
    pub(crate) inline: Vec<u8>,
}

/// An end of a socket.
pub(crate) struct Wire {
    socket: Arc<OwnedFd>,
    /// What was read and is no whole message yet is from `begin` to `end`.
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    /// Files that came and were not taken.
    pub(crate) files: VecDeque<OwnedFd>,
}

impl Wire {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket: Arc::new(socket), buffer: Vec::new(), begin: 0, end: 0, files: VecDeque::new() }
    }

    pub(crate) fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// The next message.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self, wait: Wait<'_>) -> Result<Received<T>, WireError> {
        loop {
            if let Some(received) = self.next()? {
                return Ok(received);
            }
            wait(self.socket.as_fd(), PollFlags::IN)?;
            self.read()?;
        }
    }

    /// The next message, if it is there.
    pub(crate) fn try_receive<T: DeserializeOwned>(&mut self) -> Result<Option<Received<T>>, WireError> {
        loop {
            if let Some(received) = self.next()? {
                return Ok(Some(received));
            }
            if !self.read()? {
                return Ok(None);
            }
        }
    }

    /// Takes a whole message out of what was read.
    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<Received<T>>, WireError> {
        let held = &self.buffer[self.begin..self.end];
        let Some((head, rest)) = held.split_at_checked(HEAD) else { return Ok(None) };
        let (message, inline) = lengths(head);
        let whole = message.saturating_add(inline);
        if whole > LONGEST {
            return Err(WireError::Long(whole));
        }
        if rest.len() < whole {
            // Room for all of it, so that it is read in as few calls as may be.
            let missing = whole - rest.len();
            self.make_room(missing);
            return Ok(None);
        }
        let received = Received { envelope: postcard::from_bytes(&rest[..message])?, inline: rest[message..whole].to_vec() };
        self.begin += HEAD + whole;
        Ok(Some(received))
    }

    /// Room for so many bytes behind what is held.
    fn make_room(&mut self, bytes: usize) {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
            // One long message must not be remembered for ever.
            self.buffer.truncate(16 * READ);
            self.buffer.shrink_to(16 * READ);
        }
        if self.buffer.len() - self.end < bytes {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            let needed = self.end + bytes.max(READ);
            if self.buffer.len() < needed {
                self.buffer.resize(needed, 0);
            }
        }
    }

    /// Reads what is there. False: there is nothing now.
    fn read(&mut self) -> Result<bool, WireError> {
        self.make_room(READ / 2);
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut self.buffer[self.end..])];
        let read = match recvmsg(&self.socket, &mut slices, &mut control, RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(Errno::CONNRESET) => return Err(WireError::Closed),
            result => result?.bytes,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        if read == 0 {
            return Err(WireError::Closed);
        }
        self.end += read;
        Ok(true)
    }
}

fn lengths(head: &[u8]) -> (usize, usize) {
    let number =
        |at: usize| head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(usize::MAX, |it| u32::from_le_bytes(it) as usize);
    (number(0), number(4))
}

/// Sends a message, with bytes and files.
pub(crate) fn send<T: Serialize>(
    socket: &OwnedFd,
    envelope: &Envelope<T>,
    inline: &[u8],
    files: &[Arc<OwnedFd>],
    wait: Wait<'_>,
) -> Result<(), WireError> {
    let mut message = postcard::to_extend(envelope, vec![0; HEAD])?;
    let (length, whole) = (message.len() - HEAD, message.len() - HEAD + inline.len());
    let (Ok(length), Ok(behind), true) = (u32::try_from(length), u32::try_from(inline.len()), whole <= LONGEST) else {
        return Err(WireError::Long(whole));
    };
    message[..4].copy_from_slice(&length.to_le_bytes());
    message[4..HEAD].copy_from_slice(&behind.to_le_bytes());
    let files: Vec<BorrowedFd<'_>> = files.iter().map(|file| file.as_fd()).collect();
    let mut slices = [IoSlice::new(&message), IoSlice::new(inline)];
    let mut left = slices.as_mut_slice();
    // Files go with the first byte.
    let mut rights = files.as_slice();
    while left.iter().any(|slice| !slice.is_empty()) {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !rights.is_empty() && !control.push(SendAncillaryMessage::ScmRights(rights)) {
            return Err(WireError::Long(rights.len()));
        }
        match sendmsg(socket, left, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => {
                rights = &[];
                IoSlice::advance_slices(&mut left, sent);
            }
            Err(Errno::AGAIN) => wait(socket.as_fd(), PollFlags::OUT)?,
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(WireError::Closed),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until something is ready, or the time is over: which of them are.
pub(crate) fn wait<const N: usize>(what: &[(BorrowedFd<'_>, PollFlags); N], at_most: Option<Duration>) -> Result<[bool; N], WireError> {
    let mut fds = what.each_ref().map(|(fd, flags)| PollFd::new(fd, *flags));
    let at_most = at_most.and_then(|it| Timespec::try_from(it).ok());
    match poll(&mut fds, at_most.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(fds.each_ref().map(|fd| !fd.revents().is_empty())),
        Err(error) => Err(error.into()),
    }
}

/// Waits without an end.
pub(crate) fn patiently(socket: BorrowedFd<'_>, what: PollFlags) -> Result<(), WireError> {
    wait(&[(socket, what)], None).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::net::UnixStream, thread};

    fn pair() -> (OwnedFd, Wire) {
        let (one, other) = UnixStream::pair().unwrap();
        (one.into(), Wire::new(other.into()))
    }

    fn envelope(message: String) -> Envelope<String> {
        Envelope { released: vec![1], gone: Vec::new(), told: 2, message }
    }

    #[test]
    fn messages_of_any_length_come_through_in_order() {
        let (socket, mut wire) = pair();
        let lengths = [0, 1, 5000, 3_000_000, 7, 300_000];
        let sender = thread::spawn(move || {
            for length in lengths {
                let inline = vec![7; length / 2];
                send(&socket, &envelope("x".repeat(length)), &inline, &[], &mut patiently).unwrap();
            }
        });
        for length in lengths {
            let received: Received<String> = wire.receive(&mut patiently).unwrap();
            assert_eq!((received.envelope.message.len(), received.inline.len(), received.envelope.told), (length, length / 2, 2));
        }
        sender.join().unwrap();
        assert!(matches!(wire.receive::<String>(&mut patiently), Err(WireError::Closed)));
    }

    #[test]
    fn files_come_with_their_message() {
        let (socket, mut wire) = pair();
        let file = Arc::new(socket.try_clone().unwrap());
        for count in [0, 2, MOST_FILES] {
            send(&socket, &envelope(count.to_string()), &[], &vec![Arc::clone(&file); count], &mut patiently).unwrap();
        }
        for count in [0, 2, MOST_FILES] {
            let received: Received<String> = wire.receive(&mut patiently).unwrap();
            assert_eq!(received.envelope.message, count.to_string());
            assert!(wire.files.len() >= count);
            drop(wire.files.drain(..count));
        }
        assert!(wire.try_receive::<String>().unwrap().is_none());
    }

    #[test]
    fn whoever_waits_may_give_up() {
        let (socket, mut wire) = pair();
        let mut give_up = |_: BorrowedFd<'_>, _: PollFlags| Err(WireError::GivenUp);
        assert!(matches!(wire.receive::<String>(&mut give_up), Err(WireError::GivenUp)));
        let full = send(&socket, &envelope("x".repeat(10_000_000)), &[], &[], &mut give_up);
        assert!(matches!(full, Err(WireError::GivenUp)));
    }
}
