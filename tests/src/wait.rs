//! Waiting for conditions, never for a fixed time.

use std::{
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

const PERIOD: Duration = Duration::from_millis(10);

/// Waits until the condition holds; panics with `what` was waited for when the time is over.
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < timeout, "waited {timeout:?} in vain: {what}");
        thread::sleep(PERIOD);
    }
}

/// A port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
