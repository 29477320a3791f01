//! Connections to the manager. When it ends, whoever has asked is answered before the process goes: a request that is carried out and not answered looks as one that has failed.

use super::admit;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Connections at a time; more wait.
const MOST: u32 = 1_000;
/// Who has not asked by then does not ask, or has gone.
const HEADERS: Duration = Duration::from_secs(60);
/// Who has not agreed on TLS by then does not speak it.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Between two attempts to take a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// When the server ends, a request that is on its way has come by then, and an answer that is there has been written.
const WRITING: Duration = Duration::from_secs(1);

/// Those of a server.
pub(super) struct Connections {
    tls: Option<TlsAcceptor>,
    router: axum::Router,
    /// As many as there may be, while there is none.
    free: Arc<Semaphore>,
    ending: watch::Receiver<bool>,
}

impl Connections {
    /// `ending` becomes true when the server ends.
    pub(super) fn new(tls: Option<TlsAcceptor>, router: axum::Router, ending: watch::Receiver<bool>) -> Self {
        Self { tls, router, free: Arc::new(Semaphore::new(MOST as usize)), ending }
    }

    /// Takes connections for ever.
    pub(super) async fn serve(&self, listener: TcpListener) {
        loop {
            let Ok(permit) = Arc::clone(&self.free).acquire_owned().await else { return };
            let Ok((stream, peer)) = listener.accept().await else {
                // There may be too many files open, for now.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            drop(stream.set_nodelay(true));
            let (tls, router, ending) = (self.tls.clone(), self.router.clone(), self.ending.clone());
            tokio::spawn(async move {
                match tls {
                    None => connection(stream, peer, router, ending).await,
                    // Who does not get as far is not known to us.
                    Some(tls) => tokio::select! {
                        agreed = tokio::time::timeout(HANDSHAKE, tls.accept(stream)) => if let Ok(Ok(stream)) = agreed {
                            connection(stream, peer, router, ending).await;
                        },
                        () = is_true(ending.clone()) => {}
                    },
                }
                drop(permit);
            });
        }
    }

    /// Waits until nobody is answered any more, after the end has begun: `longest` is what an answer takes that is being worked at.
    pub(super) async fn close(&self, longest: Duration) {
        drop(tokio::time::timeout(longest + 2 * WRITING, self.free.acquire_many(MOST)).await);
    }
}

async fn is_true(mut ending: watch::Receiver<bool>) {
    // Without its sender there is no server.
    drop(ending.wait_for(|is_ending| *is_ending).await);
}

/// Answers on a connection until it is closed, or the request that has come before the end is answered.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    peer: SocketAddr,
    router: axum::Router,
    ending: watch::Receiver<bool>,
) {
    let asked = Arc::new(AtomicBool::new(false));
    let is_asked = Arc::clone(&asked);
    let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(admit::Peer(peer));
        is_asked.store(true, SeqCst);
        let (answer, is_asked) = (router.clone().oneshot(request.map(axum::body::Body::new)), Arc::clone(&is_asked));
        async move {
            let answer = answer.await;
            is_asked.store(false, SeqCst);
            answer
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), answer));
    tokio::select! {
        // What has come by now is taken.
        biased;
        // Whoever asked may have gone.
        _ = connection.as_mut() => return,
        () = is_true(ending) => connection.as_mut().graceful_shutdown(),
    }
    loop {
        match tokio::time::timeout(WRITING, connection.as_mut()).await {
            Err(_) if asked.load(SeqCst) => {}
            _ => return,
        }
    }
}
