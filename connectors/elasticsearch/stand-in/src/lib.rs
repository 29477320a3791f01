//! A stand-in for Elasticsearch in one process: enough of its HTTP interface to index by `_bulk` and to read back by `_search`, with faults on demand. `standpipe demo`
//! runs it where there is no server; the tests of the sink and the end-to-end tests put it, or its proxy mode, before the sink.
//!
//! It never touches a disk, knows no analysis, no aggregations and no shards, and is no benchmark of Elasticsearch. What it keeps is bounded ([`MAX_STORED_BYTES`]);
//! a request body is too ([`MAX_BODY_BYTES`], as Elasticsearch's own default). Requests come in at `server`, go through `faults` to `bulk`, `store` and `search`, or to
//! `proxy`, which sends what is not faulted to a real server.
#![forbid(unsafe_code)]

mod bulk;
mod faults;
mod proxy;
mod search;
mod server;
mod store;

pub use faults::{Faults, FieldType};
pub use store::{Document, Operation};

use parking_lot::Mutex;
use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};
use store::Store;
use tokio::sync::watch;

/// Bytes of a request's body at most, after decompression: Elasticsearch's default `http.max_content_length`.
pub const MAX_BODY_BYTES: usize = 100 << 20;
/// Bytes of documents that are kept at most; above it items are answered 429 `circuit_breaking_exception`.
pub const MAX_STORED_BYTES: usize = 512 << 20;

/// What the connections do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switch {
    /// Answer.
    Running,
    /// Close every connection without an answer.
    Stopped,
    /// The stand-in is being dropped.
    Ended,
}

/// What the requests share.
struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Arc<Faults>>,
    upstream: Option<proxy::Upstream>,
    bulk_requests: AtomicU64,
    requests: AtomicU64,
    largest_body: AtomicU64,
}

/// A running stand-in; dropping it ends it.
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
    switch: watch::Sender<Switch>,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Listens at `address` (`127.0.0.1:0` takes a free port) and keeps what is indexed in memory.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(address: impl ToSocketAddrs, faults: Faults) -> io::Result<Self> {
        Self::serve(address, faults, None)
    }

    /// Listens at `address` and passes requests on to the server at `upstream` (`http://HOST:PORT`), except for what the faults take out: of a bulk request with faulted
    /// items only the others go on, and the answers are put together in order.
    ///
    /// # Errors
    /// When the address cannot be bound or `upstream` is no plain HTTP address.
    pub fn proxy(address: impl ToSocketAddrs, upstream: &str, faults: Faults) -> io::Result<Self> {
        Self::serve(address, faults, Some(upstream))
    }

    fn serve(address: impl ToSocketAddrs, faults: Faults, upstream: Option<&str>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (switch, switched) = watch::channel(Switch::Running);
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new(MAX_STORED_BYTES)),
            faults: Mutex::new(Arc::new(faults)),
            upstream: upstream.map(proxy::Upstream::new).transpose()?,
            bulk_requests: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            largest_body: AtomicU64::new(0),
        });
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("elasticsearch-stand-in".to_owned())
            .spawn(move || runtime.block_on(server::serve(listener, serving, switched)))?;
        Ok(Self { address, shared, switch, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on these faults.
    pub fn set_faults(&self, faults: Faults) {
        *self.shared.faults.lock() = Arc::new(faults);
    }

    /// Off: every connection, old or new, is closed without an answer, as if the server were down; no request that comes later is applied. On: it answers again, with
    /// all that it had.
    pub fn set_running(&self, running: bool) {
        self.switch.send_replace(if running { Switch::Running } else { Switch::Stopped });
    }

    /// The documents of an index, a comma list or a pattern with `*`, by index and id. Empty in proxy mode.
    #[must_use]
    pub fn documents(&self, index: &str) -> Vec<Document> {
        self.shared.store.lock().documents(index)
    }

    /// The index template of that name, as it was put.
    #[must_use]
    pub fn template(&self, name: &str) -> Option<serde_json::Value> {
        self.shared.store.lock().template(name).cloned()
    }

    /// From now on remembers every operation that is applied, for tests about order. Not bounded.
    pub fn record_operations(&self) {
        self.shared.store.lock().record_operations();
    }

    /// What was applied since [`StandIn::record_operations`], in order.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.shared.store.lock().operations().to_vec()
    }

    /// Requests answered or cut so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Bulk requests among them.
    #[must_use]
    pub fn bulk_requests(&self) -> u64 {
        self.shared.bulk_requests.load(Ordering::Relaxed)
    }

    /// Bytes of the largest body so far, as it came over the wire.
    #[must_use]
    pub fn largest_body(&self) -> u64 {
        self.shared.largest_body.load(Ordering::Relaxed)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.switch.send_replace(Switch::Ended);
        if let Some(thread) = self.thread.take() {
            // A panic of the server's thread has been printed; a drop must not raise another.
            let _ = thread.join();
        }
    }
}
