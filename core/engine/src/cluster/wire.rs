//! A connection between two processes, in the clear or over TLS: [`Fresh`] while its ends make sure of each other, [`Wire`] from then on, with handles for a thread that
//! reads and one that writes.
//!
//! A TLS session has one state for both directions, and timely wants two handles that do not know of each other. There is no thread between them that owns the
//! session: they share it under a lock, which is held while bytes in memory are encrypted or decrypted and never while one of them waits for the network. So each direction
//! waits for its own end alone, as it does in the clear; what is in memory is one piece of [`PIECE`] bytes a direction; and nothing polls, nothing is copied through
//! a further socket, and nothing is left behind when the job ends.
//!
//! An end of the stream is one only if TLS says so (`close_notify`): a connection that is cut off behind whole records looks clean to TCP, and is an error here.

use super::tls::{self, Tls};
use parking_lot::Mutex;
use rustls::Connection;
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    ops::Range,
    sync::Arc,
    time::Duration,
};

/// Bytes that are read from the network at a time. What is written is cut by rustls in pieces of as much.
const PIECE: usize = 64 << 10;

/// A connection while its ends make sure of each other: one thread has it.
pub(super) struct Fresh {
    pub(super) tcp: TcpStream,
    /// `None`: it is in the clear.
    session: Option<Box<Connection>>,
}

/// What is wrong with the other end's TLS, in one line.
fn explained(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => invalid(inner),
        None => error,
    }
}

fn invalid(error: &rustls::Error) -> io::Error {
    let said = match error {
        rustls::Error::AlertReceived(alert) => format!("it does not accept our TLS, and says {alert:?}"),
        rustls::Error::InvalidMessage(_) => format!("it does not speak TLS as we do: {error}"),
        error => format!("its TLS is not that of this job: {error}"),
    };
    io::Error::new(ErrorKind::InvalidData, said)
}

/// Whether it is the other end's TLS that is wrong, and not the network.
pub(super) fn is_of_tls(error: &io::Error) -> bool {
    error.kind() == ErrorKind::InvalidData
}

impl Fresh {
    /// To a process; TLS is agreed on when it returns.
    pub(super) fn connected(mut tcp: TcpStream, tls: Option<&Tls>, to: u32) -> io::Result<Self> {
        let mut session = tls.map(|tls| tls.connects(to)).transpose()?;
        if let Some(session) = &mut session {
            while session.is_handshaking() {
                session.complete_io(&mut tcp).map_err(explained)?;
            }
        }
        Ok(Self { tcp, session: session.map(Box::new) })
    }

    /// From whoever knocks; nothing is agreed on.
    pub(super) fn accepted(tcp: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        Ok(Self { tcp, session: tls.map(Tls::accepts).transpose()?.map(Box::new) })
    }

    /// What proofs on this connection cover beside what was said: nothing in the clear.
    pub(super) fn binding(&self) -> io::Result<Vec<u8>> {
        self.session.as_ref().map_or_else(|| Ok(Vec::new()), |session| tls::binding(session))
    }

    /// Whether it may be that process, by its certificate; in the clear nobody can tell.
    pub(super) fn may_be(&self, process: u32) -> bool {
        self.session.as_ref().is_none_or(|session| tls::is_of(session, process))
    }

    /// Once both ends are sure.
    pub(super) fn settled(self) -> Wire {
        match self.session {
            None => Wire::Clear(self.tcp),
            Some(session) => Wire::Tls(Arc::new(Session::new(self.tcp, *session))),
        }
    }
}

impl Read for Fresh {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else { return self.tcp.read(buffer) };
        loop {
            match session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            // Without a certificate of the job there are no more than 64 KiB that TLS takes before it gives up.
            session.complete_io(&mut self.tcp).map_err(explained)?;
        }
    }
}

impl Write for Fresh {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else { return self.tcp.write(buffer) };
        let written = session.writer().write(buffer)?;
        while session.wants_write() {
            session.write_tls(&mut self.tcp)?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A handle of a connection. Those of one connection share it.
#[derive(Debug)]
pub(crate) enum Wire {
    Clear(TcpStream),
    Tls(Arc<Session>),
}

impl Wire {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Clear(tcp) => tcp,
            Self::Tls(session) => &session.tcp,
        }
    }

    /// Another handle.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Clear(tcp) => tcp.try_clone().map(Self::Clear),
            Self::Tls(session) => Ok(Self::Tls(Arc::clone(session))),
        }
    }

    /// How long the connection may take to accept what is written; of all handles.
    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp().set_write_timeout(timeout)
    }

    /// Whether its handles wait; of all of them.
    pub(crate) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.tcp().set_nonblocking(nonblocking)
    }

    /// Ends what is written, and with [`Shutdown::Both`] what is read, too.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if let Self::Tls(session) = self
            && how != Shutdown::Read
        {
            session.say_goodbye(how == Shutdown::Write);
        }
        self.tcp().shutdown(how)
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(tcp) => tcp.read(buffer),
            Self::Tls(session) => session.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(tcp) => tcp.write(buffer),
            Self::Tls(session) => session.write(buffer),
        }
    }

    /// There is nothing that has not been sent.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A TLS session whose two directions go on independently. Whoever takes several locks takes that of a direction first, and waits for the network only with that one.
#[derive(Debug)]
pub(crate) struct Session {
    tcp: TcpStream,
    state: Mutex<Connection>,
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Outgoing>,
}

/// What has come and is not decrypted.
#[derive(Debug)]
struct Incoming {
    bytes: Vec<u8>,
    left: Range<usize>,
}

/// What is encrypted and not sent.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    /// Some of it has not been sent, and never will be: what would follow would not be understood.
    broken: bool,
}

impl Session {
    fn new(tcp: TcpStream, state: Connection) -> Self {
        let incoming = Mutex::new(Incoming { bytes: vec![0; PIECE], left: 0..0 });
        Self { tcp, state: Mutex::new(state), incoming, outgoing: Mutex::default() }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut incoming = self.incoming.lock();
        loop {
            if let Some(read) = incoming.decrypt(&mut self.state.lock(), buffer)? {
                return Ok(read);
            }
            let read = (&self.tcp).read(&mut incoming.bytes)?;
            if read == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "it has been cut off"));
            }
            incoming.left = 0..read;
        }
    }

    fn write(&self, buffer: &[u8]) -> io::Result<usize> {
        let mut outgoing = self.outgoing.lock();
        let written = {
            let mut state = self.state.lock();
            let written = state.writer().write(buffer)?;
            outgoing.take(&mut state)?;
            written
        };
        outgoing.send(&self.tcp)?;
        Ok(written)
    }

    /// Says that nothing follows, if the other end can be told; `waits`: until it is sent.
    fn say_goodbye(&self, waits: bool) {
        // Where another thread still waits to send something, it is not to be.
        let Some(mut outgoing) = self.outgoing.try_lock() else { return };
        let taken = {
            let mut state = self.state.lock();
            state.send_close_notify();
            outgoing.take(&mut state)
        };
        let patience = if waits { Ok(()) } else { self.tcp.set_nonblocking(true) };
        if let Err(error) = taken.and(patience).and_then(|()| outgoing.send(&self.tcp)) {
            tracing::debug!("the end of a connection cannot be said: {error}");
        }
    }
}

impl Incoming {
    /// As much as there is and fits; 0: nothing follows; `None`: more must come first.
    fn decrypt(&mut self, state: &mut Connection, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut filled = 0;
        while filled < buffer.len() {
            match state.reader().read(&mut buffer[filled..]) {
                Ok(0) => return Ok(Some(filled)),
                Ok(read) => {
                    filled += read;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if self.left.is_empty() {
                return Ok((filled > 0).then_some(filled));
            }
            self.left.start += state.read_tls(&mut &self.bytes[self.left.clone()])?;
            state.process_new_packets().map_err(|error| invalid(&error))?;
        }
        Ok(Some(filled))
    }
}

impl Outgoing {
    fn take(&mut self, state: &mut Connection) -> io::Result<()> {
        while state.wants_write() {
            state.write_tls(&mut self.bytes)?;
        }
        Ok(())
    }

    fn send(&mut self, mut tcp: &TcpStream) -> io::Result<()> {
        if self.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let sent = tcp.write_all(&self.bytes);
        self.broken = sent.is_err();
        self.bytes.clear();
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Identity, *};
    use std::{
        net::TcpListener,
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        thread,
        time::Instant,
    };

    /// Two sockets that are connected.
    fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (connected, listener.accept().unwrap().0)
    }

    /// A connection over TLS, as its ends have it, by two sockets.
    fn over(connects: TcpStream, accepts: TcpStream) -> (Wire, Wire) {
        let all: Vec<Tls> = Identity::of_processes(2).unwrap().iter().map(|identity| Tls::of(identity).unwrap()).collect();
        let [first, second] = all.as_slice() else { panic!("two processes") };
        thread::scope(|scope| {
            let accepted = scope.spawn(|| {
                let mut fresh = Fresh::accepted(accepts, Some(first)).unwrap();
                let mut hello = [0; 5];
                fresh.read_exact(&mut hello).unwrap();
                assert!(fresh.may_be(1) && !fresh.may_be(0) && !fresh.may_be(11));
                fresh.write_all(&fresh.binding().unwrap()).unwrap();
                fresh.settled()
            });
            let mut fresh = Fresh::connected(connects, Some(second), 0).unwrap();
            fresh.write_all(b"hello").unwrap();
            let mut bound = [0; 32];
            fresh.read_exact(&mut bound).unwrap();
            assert_eq!(fresh.binding().unwrap(), bound, "both know what binds to the session");
            (fresh.settled(), accepted.join().unwrap())
        })
    }

    fn pair() -> (Wire, Wire) {
        let (a, b) = sockets();
        over(a, b)
    }

    /// Bytes that tell where they are.
    fn sent(length: usize) -> Vec<u8> {
        (0..length).map(|i| ((i * 31) >> 3) as u8).collect()
    }

    #[test]
    fn both_directions_go_on_at_the_same_time_and_end_on_their_own() {
        let (a, b) = pair();
        let bytes = sent(20 << 20);
        thread::scope(|scope| {
            for wire in [&a, &b] {
                let (mut reads, mut writes, bytes) = (wire.try_clone().unwrap(), wire.try_clone().unwrap(), &bytes);
                scope.spawn(move || {
                    writes.write_all(bytes).unwrap();
                    writes.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || {
                    let mut heard = Vec::new();
                    reads.read_to_end(&mut heard).unwrap();
                    assert!(heard == *bytes);
                    assert_eq!(reads.read(&mut [0]).unwrap(), 0, "it has ended for good");
                });
            }
        });
        // One end has nothing more to say, the other one has.
        let (mut a, mut b) = pair();
        a.shutdown(Shutdown::Write).unwrap();
        assert_eq!(b.read(&mut [0]).unwrap(), 0);
        b.write_all(b"more").unwrap();
        let mut heard = [0; 4];
        a.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"more");
    }

    #[test]
    fn who_is_not_read_has_to_wait_and_can_be_ended_all_the_same() {
        let (a, _b) = pair();
        let written = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (mut writes, mut reads, written) = (a.try_clone().unwrap(), a.try_clone().unwrap(), &written);
            let writing = scope.spawn(move || {
                while let Ok(more) = writes.write(&[7; 100_000]) {
                    assert!(more <= PIECE, "{more}");
                    written.fetch_add(more, SeqCst);
                }
            });
            let reading = scope.spawn(move || reads.read(&mut [0]).unwrap_err().kind());
            // It waits when the system's buffers are full.
            let mut before = (0, Instant::now());
            while before.0 == 0 || before.1.elapsed() < Duration::from_millis(300) {
                let now = written.load(SeqCst);
                if now != before.0 {
                    before = (now, Instant::now());
                }
                assert!(now < 64 << 20, "it never waits");
                thread::yield_now();
            }
            a.shutdown(Shutdown::Both).unwrap();
            writing.join().unwrap();
            assert_eq!(reading.join().unwrap(), ErrorKind::UnexpectedEof);
        });
    }

    #[test]
    fn what_is_cut_off_or_changed_is_an_error() {
        let (mut a, mut b) = pair();
        a.write_all(b"whole").unwrap();
        a.tcp().shutdown(Shutdown::Write).unwrap();
        let mut heard = [0; 5];
        b.read_exact(&mut heard).unwrap();
        let error = b.read(&mut heard).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::UnexpectedEof, "it has been cut off"));

        let (mut a, mut b) = pair();
        a.write_all(b"whole").unwrap();
        a.tcp().write_all(&[23, 3, 3, 0, 30, 1, 2, 3]).unwrap();
        a.tcp().write_all(&[9; 27]).unwrap();
        let mut heard = Vec::new();
        let error = b.read_to_end(&mut heard).unwrap_err();
        assert!(is_of_tls(&error) && error.to_string().starts_with("its TLS is not that of this job: cannot decrypt"), "{error}");
    }

    #[test]
    fn what_was_sent_in_part_is_not_followed_by_anything() {
        let (a, _b) = pair();
        a.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut writes = a.try_clone().unwrap();
        let error = loop {
            if let Err(error) = writes.write(&[7; 100_000]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert_eq!(writes.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
        a.shutdown(Shutdown::Both).unwrap();
    }
}
