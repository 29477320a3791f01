//! A proxy of TCP connections that a test makes fail: a service that is not there, does not answer, or answers with an error.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It reaches the service.
    Pass,
    /// It is closed at once.
    Refuse,
    /// Nothing is read and nothing answered.
    Stall,
    /// Every request is answered 503.
    Fail,
}

struct Shared {
    mode: Mode,
    /// Open connections, both ends: they end with the mode.
    open: Vec<TcpStream>,
}

/// See the module's documentation. Its threads end with the test's process.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    /// Before the service at `http://HOST:PORT`.
    pub(crate) fn new(url: &str) -> Self {
        let upstream = url.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared { mode: Mode::Pass, open: Vec::new() }));
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                // A connection that cannot be served is closed: its client sees that.
                _ = client.and_then(|client| serve(client, &upstream, &of_thread));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on; connections that are open are cut.
    pub(crate) fn set(&self, mode: Mode) {
        let mut shared = self.shared.lock().unwrap();
        shared.mode = mode;
        // One that has ended already is no error.
        shared.open.drain(..).for_each(|stream| _ = stream.shutdown(Shutdown::Both));
    }
}

fn serve(client: TcpStream, upstream: &str, shared: &Arc<Mutex<Shared>>) -> io::Result<()> {
    let mut state = shared.lock().unwrap();
    match state.mode {
        Mode::Refuse => {}
        Mode::Stall => state.open.push(client),
        Mode::Fail => {
            state.open.push(client.try_clone()?);
            thread::spawn(move || fail(client));
        }
        Mode::Pass => {
            let server = TcpStream::connect(upstream)?;
            state.open.extend([client.try_clone()?, server.try_clone()?]);
            for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
                thread::spawn(move || pass(from, to));
            }
        }
    }
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    // However it ends, both ends learn of it.
    _ = io::copy(&mut from, &mut to);
    _ = to.shutdown(Shutdown::Both);
    _ = from.shutdown(Shutdown::Both);
}

/// Reads what comes and says no, once.
fn fail(mut client: TcpStream) {
    let mut request = [0; 1 << 16];
    if client.read(&mut request).is_ok_and(|count| count > 0) {
        _ = client.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
    _ = client.shutdown(Shutdown::Write);
    // Until the other end has closed: what it still sends must not reset the answer.
    while client.read(&mut request).is_ok_and(|count| count > 0) {}
}
