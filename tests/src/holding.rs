//! A door before an HTTP server that lets all requests through but those that a test holds back.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

/// Passes on what comes to [`Holding::url`], until a request has the text: that one and what follows it on its connection is never answered.
#[derive(Debug)]
pub struct Holding {
    url: String,
    held: Arc<AtomicBool>,
}

impl Holding {
    /// Before the server at `http://HOST:PORT`.
    ///
    /// # Panics
    /// When this machine has no port left.
    #[must_use]
    pub fn before(server: &str, text: &'static str) -> Self {
        let address = server.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let held = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&held);
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&address) else { continue };
                let (Ok(answers), Ok(back)) = (server.try_clone(), client.try_clone()) else { continue };
                let seen = Arc::clone(&seen);
                let lets = move |bytes: &[u8]| {
                    let held = contains(bytes, text);
                    seen.fetch_or(held, SeqCst);
                    !held
                };
                thread::spawn(move || pass(client, server, lets));
                thread::spawn(move || pass(answers, back, |_| true));
            }
        });
        Self { url, held }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether a request is held back.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.held.load(SeqCst)
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Copies until an end, or for ever nothing from what is not let through.
fn pass(mut from: TcpStream, mut to: TcpStream, lets: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 1 << 16];
    let mut open = true;
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        open = open && lets(&buffer[..read]);
        if open && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    _ = to.shutdown(Shutdown::Write);
}
