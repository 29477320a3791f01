//! What stands between two processes of a test: it passes on, and listens or meddles.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Listens, and gives every connection, with one to that address, to `middle` on a thread of its own; with where it listens.
pub fn between(to: SocketAddr, middle: impl Fn(TcpStream, TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let middle = Arc::new(middle);
    thread::spawn(move || {
        while let Ok((from, _)) = listener.accept() {
            let Ok(to) = TcpStream::connect(to) else { break };
            let middle = Arc::clone(&middle);
            thread::spawn(move || middle(from, to));
        }
    });
    address
}

/// Passes on what comes, both ways, as `pass` does it from one to the other until the end.
pub fn both_ways(a: &TcpStream, b: &TcpStream, pass: impl Fn(TcpStream, TcpStream) + Send + Sync) {
    let clone = |stream: &TcpStream| stream.try_clone().unwrap();
    thread::scope(|scope| {
        let pass = &pass;
        let (from, to) = (clone(a), clone(b));
        scope.spawn(move || pass(from, to));
        pass(clone(b), clone(a));
    });
}

/// A proxy that keeps all that goes through it.
pub fn recording(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    let address = between(to, move |a, b| {
        both_ways(&a, &b, |mut from, mut to| {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                kept.lock().unwrap().extend_from_slice(&buffer[..read]);
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            _ = to.shutdown(Shutdown::Write);
        });
    });
    (address, heard)
}
