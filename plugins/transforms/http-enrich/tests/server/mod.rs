//! A small HTTP server for tests: every POST of a JSON array is answered by a function of the test, each connection on a thread of its own.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

/// Status and body.
pub type Answer = (u16, String);

/// What it has seen.
#[derive(Default)]
pub struct Seen {
    /// Requests so far.
    pub requests: AtomicU64,
    /// Requests that are not answered.
    pub open: AtomicU64,
    /// The most at the same time.
    pub most: AtomicU64,
    /// When the first came and the last was answered.
    pub span: Mutex<Option<(Instant, Instant)>>,
    /// Heads and bodies, in the order in which they came.
    pub questions: Mutex<Vec<(String, Value)>>,
    ended: AtomicBool,
}

/// A server; it ends with this.
pub struct Server {
    pub url: String,
    pub seen: Arc<Seen>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.seen.ended.store(true, SeqCst);
        // The one that is waited for.
        _ = TcpStream::connect(self.url.trim_start_matches("http://").trim_end_matches("/keys"));
    }
}

impl Server {
    /// Answers the number of the request, from 1, and its keys.
    pub fn start(answer: impl Fn(u64, &[Value]) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (seen, answer) = (Arc::new(Seen::default()), Arc::new(answer));
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for connection in listener.incoming() {
                if shared.ended.load(SeqCst) {
                    return;
                }
                let (seen, answer) = (Arc::clone(&shared), Arc::clone(&answer));
                // A client that is killed breaks its connections.
                thread::spawn(move || _ = connection.and_then(|connection| serve(connection, &seen, &*answer)));
            }
        });
        Self { url, seen }
    }

    /// From the first request to the last answer.
    pub fn took(&self) -> Duration {
        let (begin, end) = self.seen.span.lock().unwrap().unwrap();
        end - begin
    }
}

fn serve(connection: TcpStream, seen: &Seen, answer: &dyn Fn(u64, &[Value]) -> Answer) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut writer = connection;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let begin = Instant::now();
        let number = seen.requests.fetch_add(1, SeqCst) + 1;
        seen.most.fetch_max(seen.open.fetch_add(1, SeqCst) + 1, SeqCst);
        seen.questions.lock().unwrap().push((head, body.clone()));
        let (status, text) = answer(number, body.as_array().unwrap());
        seen.open.fetch_sub(1, SeqCst);
        let answered = Instant::now();
        seen.span.lock().unwrap().get_or_insert((begin, answered)).1 = answered;
        write!(writer, "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}", text.len())?;
    }
}
