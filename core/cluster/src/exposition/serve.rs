//! The port that Prometheus asks: `GET /metrics`, and Kubernetes: `/healthz` and `/readyz`. One thread, which sleeps while nobody asks.

use super::CONTENT_TYPE;
use crate::server::{HEALTH, READINESS};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, thread, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};

/// What is told, as it is when somebody asks.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;
/// Whether the process can be worked with.
pub type IsReady = Arc<dyn Fn() -> bool + Send + Sync>;

/// Who has not asked by then does not ask.
const HEADERS: Duration = Duration::from_secs(10);
/// Connections at a time; more wait.
const MOST_CONNECTIONS: usize = 16;
/// Between two attempts to take a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// What Prometheus asks.
const METRICS: &str = "/metrics";

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
    pub fn start(address: SocketAddr, render: Render, is_ready: IsReady) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => serve(listener, render, is_ready).await,
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

async fn serve(listener: TcpListener, render: Render, is_ready: IsReady) {
    let limit = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // There may be too many files open, for now.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (render, is_ready) = (Arc::clone(&render), Arc::clone(&is_ready));
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.method(), request.uri().path(), &render, &is_ready);
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

fn answer(method: &Method, path: &str, render: &Render, is_ready: &IsReady) -> Response<axum::body::Body> {
    let (code, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, METRICS) => (StatusCode::OK, render()),
        (&Method::GET | &Method::HEAD, HEALTH) => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, READINESS) if is_ready() => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, READINESS) => (StatusCode::SERVICE_UNAVAILABLE, "not yet\n".to_owned()),
        (_, METRICS | HEALTH | READINESS) => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, format!("there are {METRICS}, {HEALTH} and {READINESS}, and nothing else\n")),
    };
    let mut response = Response::new(text.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(CONTENT_TYPE));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_tell_whether_and_nothing_else() {
        let render: Render = Arc::new(|| "figures".to_owned());
        let ask =
            |method: Method, path, is_ready| answer(&method, path, &render, &(Arc::new(move || is_ready) as IsReady)).status().as_u16();
        for is_ready in [true, false] {
            assert_eq!([ask(Method::GET, METRICS, is_ready), ask(Method::HEAD, HEALTH, is_ready)], [200, 200]);
            assert_eq!(ask(Method::GET, READINESS, is_ready), if is_ready { 200 } else { 503 });
            assert_eq!([ask(Method::POST, HEALTH, is_ready), ask(Method::GET, "/", is_ready)], [405, 404]);
        }
    }
}
