//! The port that Prometheus asks: `GET /metrics`, and nothing else. One thread, which sleeps while nobody asks.

use super::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, thread, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};

/// What is told, as it is when somebody asks.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Who has not asked by then does not ask.
const HEADERS: Duration = Duration::from_secs(10);
/// Connections at a time; more wait.
const MOST_CONNECTIONS: usize = 16;
/// Between two attempts to take a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// A port that is served as long as the process lives.
#[derive(Debug)]
pub struct Exposer {
    address: SocketAddr,
}

impl Exposer {
    /// Binds the address, and answers from then on.
    ///
    /// # Errors
    /// When the address is in use, or not of this machine.
    pub fn start(address: SocketAddr, render: Render) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => serve(listener, render).await,
                    Err(error) => tracing::warn!("metrics cannot be served: {error}"),
                }
            });
        })?;
        Ok(Self { address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, render: Render) {
    let limit = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // There may be too many files open, for now.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let render = Arc::clone(&render);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let answer = answer(&request, &render);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
            // Whoever asked may have gone.
            drop(http.serve_connection(TokioIo::new(stream), answer).await);
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, render: &Render) -> Response<axum::body::Body> {
    let (code, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, render()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "there is /metrics, and nothing else\n".to_owned()),
    };
    let mut response = Response::new(text.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(CONTENT_TYPE));
    response
}
