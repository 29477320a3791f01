//! The HTTP side: accepts connections, reads bodies within their limit, finds out what a path asks for. A request goes to `proxy` where there is an upstream, else to
//! `bulk`, `search` and `store`. Faults of a request as a whole (429, 401, cut, latency) are put here.

use crate::{Faults, MAX_BODY_BYTES, Shared, Switch, bulk, faults::Refusal, proxy, search, store::no_such_index};
use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    io::{self, Read},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What is answered.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, body: body.to_string().into() }
    }

    pub(crate) fn refusal(refusal: &Refusal) -> Self {
        let cause = json!({ "type": refusal.kind, "reason": refusal.reason });
        let error = json!({ "root_cause": [cause], "type": refusal.kind, "reason": refusal.reason });
        Self::json(refusal.status, &json!({ "error": error, "status": refusal.status }))
    }
}

/// Accepts until the switch says that it is over.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, mut switch: watch::Receiver<Switch>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if *switch.borrow() == Switch::Running => {
                    tokio::spawn(connection(stream, Arc::clone(&shared), switch.clone()));
                }
                Ok(_) => {}
                // Out of file descriptors, say: the listener goes on.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            changed = switch.changed() => {
                if changed.is_err() || *switch.borrow() == Switch::Ended {
                    return;
                }
            }
        }
    }
}

/// Serves a connection until its end or until the switch is moved.
async fn connection(stream: TcpStream, shared: Arc<Shared>, mut switch: watch::Receiver<Switch>) {
    let _ = stream.set_nodelay(true);
    // The listener may not have seen the last move of the switch yet: it is none that ends this connection.
    if *switch.borrow_and_update() != Switch::Running {
        return;
    }
    let running = switch.clone();
    let service = service_fn(move |request| {
        // The connection's end comes a moment after the switch; no request slips through in between.
        let is_running = *running.borrow() == Switch::Running;
        let shared = Arc::clone(&shared);
        async move { if is_running { answer(&shared, request).await } else { Err(io::Error::other("stopped")) } }
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A connection that was cut on purpose ends with an error too.
        _ = serving => {}
        _ = switch.changed() => {}
    }
}

/// An error closes the connection without an answer.
async fn answer(shared: &Shared, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let faults = Arc::clone(&shared.faults.lock());
    let reply = handle(shared, &faults, request).await;
    shared.requests.fetch_add(1, Ordering::Relaxed);
    if !faults.latency.is_zero() {
        tokio::time::sleep(faults.latency).await;
    }
    let Reply { status, body } = reply?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let response =
        Response::builder().status(status).header(header::CONTENT_TYPE, "application/json").header("x-elastic-product", "Elasticsearch");
    response.body(Full::new(body)).map_err(io::Error::other)
}

async fn handle(shared: &Shared, faults: &Faults, request: Request<Incoming>) -> io::Result<Reply> {
    let (parts, body) = request.into_parts();
    let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let body = match collect(body).await? {
        Some(body) => body,
        None => return Ok(Reply::refusal(&too_large())),
    };
    shared.largest_body.fetch_max(body.len() as u64, Ordering::Relaxed);
    if faults.authorization.is_some() && given != faults.authorization.as_deref() {
        let reason = "unable to authenticate with provided credentials".to_owned();
        return Ok(Reply::refusal(&Refusal { status: 401, kind: "security_exception", reason }));
    }
    if faults.max_body_bytes.is_some_and(|limit| body.len() > limit) {
        return Ok(Reply::refusal(&too_large()));
    }
    let is_gzip = parts.headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
    let body = match is_gzip.then(|| unzip(&body)) {
        None => body,
        Some(Ok(plain)) => plain,
        Some(Err(refusal)) => return Ok(Reply::refusal(&refusal)),
    };
    let path = parts.uri.path().trim_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').collect();
    match (&parts.method, segments.as_slice()) {
        (&Method::POST | &Method::PUT, ["_bulk"]) => bulk(shared, faults, None, &body).await,
        (&Method::POST | &Method::PUT, [index, "_bulk"]) => bulk(shared, faults, Some(index), &body).await,
        _ => match &shared.upstream {
            Some(upstream) => {
                upstream.forward(parts.method, parts.uri.path_and_query().map_or("/", |path| path.as_str()), &parts.headers, body).await
            }
            None => Ok(route(shared, &parts.method, &segments, parts.uri.query().unwrap_or_default(), &body)),
        },
    }
}

/// The whole body, or nothing if it is too large.
async fn collect(body: Incoming) -> io::Result<Option<Bytes>> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => Ok(Some(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(None),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn unzip(body: &[u8]) -> Result<Bytes, Refusal> {
    let mut plain = Vec::new();
    let read = GzDecoder::new(body).take(MAX_BODY_BYTES as u64 + 1).read_to_end(&mut plain);
    match read {
        Ok(size) if size > MAX_BODY_BYTES => Err(too_large()),
        Ok(_) => Ok(plain.into()),
        Err(error) => Err(Refusal { status: 400, kind: "parse_exception", reason: format!("the body is no gzip: {error}") }),
    }
}

fn too_large() -> Refusal {
    Refusal { status: 413, kind: "content_too_long_exception", reason: "the request's body is too large".to_owned() }
}

async fn bulk(shared: &Shared, faults: &Faults, index: Option<&str>, body: &Bytes) -> io::Result<Reply> {
    let request = shared.bulk_requests.fetch_add(1, Ordering::Relaxed) + 1;
    if faults.is_cut_before(request) {
        return Err(io::Error::other("cut on purpose before anything was applied"));
    }
    if faults.is_busy(request) {
        let reason = "rejected execution of coordinating operation (injected by the stand-in)".to_owned();
        return Ok(Reply::refusal(&Refusal { status: 429, kind: "es_rejected_execution_exception", reason }));
    }
    let items = match bulk::read(body, index) {
        Ok(items) => items,
        Err(refusal) => return Ok(Reply::refusal(&refusal)),
    };
    let reply = match &shared.upstream {
        Some(upstream) => proxy::bulk(upstream, faults, request, index, &items).await?,
        None => Reply { status: 200, body: bulk::apply(&mut shared.store.lock(), faults, request, &items).into() },
    };
    if faults.is_cut(request) {
        return Err(io::Error::other("cut on purpose after the request was applied"));
    }
    Ok(reply)
}

/// Everything but `_bulk`.
fn route(shared: &Shared, method: &Method, path: &[&str], query: &str, body: &[u8]) -> Reply {
    let get = method == Method::GET || method == Method::HEAD;
    let put = method == Method::PUT || method == Method::POST;
    let delete = method == Method::DELETE;
    let acknowledged = || Reply::json(200, &json!({ "acknowledged": true }));
    let mut store = shared.store.lock();
    let answer = match path {
        [""] if get => Ok(Reply::json(200, &greeting())),
        ["_cluster", "health"] if get => {
            Ok(Reply::json(200, &json!({ "cluster_name": "stand-in", "status": "green", "timed_out": false, "number_of_nodes": 1 })))
        }
        ["_refresh"] | [_, "_refresh"] => Ok(Reply::json(200, &json!({ "_shards": { "total": 1, "successful": 1, "failed": 0 } }))),
        ["_index_template", name] if get => match store.template(name) {
            Some(template) => Ok(Reply::json(200, &json!({ "index_templates": [{ "name": name, "index_template": template }] }))),
            None => {
                let reason = format!("index template matching [{name}] not found");
                Err(Refusal { status: 404, kind: "resource_not_found_exception", reason })
            }
        },
        ["_index_template", name] if put => read(body).and_then(|template| {
            if query.contains("create=true") && store.template(name).is_some() {
                let reason = format!("index template [{name}] already exists");
                return Err(Refusal { status: 400, kind: "illegal_argument_exception", reason });
            }
            store.put_template(name, template);
            Ok(acknowledged())
        }),
        ["_index_template", name] if delete => match store.delete_template(name) {
            true => Ok(acknowledged()),
            false => {
                Err(Refusal { status: 404, kind: "index_template_missing_exception", reason: format!("index_template [{name}] missing") })
            }
        },
        ["_search"] if !delete => searched(&store, "_all", body, search::search),
        [index, "_search"] if !delete => searched(&store, index, body, search::search),
        ["_count"] if !delete => searched(&store, "_all", body, search::count),
        [index, "_count"] if !delete => searched(&store, index, body, search::count),
        [name] if get && !name.starts_with('_') => match store.select(name) {
            Ok(found) if found.is_empty() => Err(no_such_index(name)),
            Ok(found) => {
                let settings = json!({ "aliases": {}, "mappings": {}, "settings": {} });
                Ok(Reply::json(200, &found.iter().map(|(name, _)| ((*name).to_owned(), settings.clone())).collect()))
            }
            Err(refusal) => Err(refusal),
        },
        [name] if method == Method::PUT && !name.starts_with('_') => match store.create_index(name) {
            true => Ok(Reply::json(200, &json!({ "acknowledged": true, "shards_acknowledged": true, "index": name }))),
            false => {
                Err(Refusal { status: 400, kind: "resource_already_exists_exception", reason: format!("index [{name}] already exists") })
            }
        },
        [name] if delete && !name.starts_with('_') => match store.delete_indices(name) {
            0 if !name.contains('*') => Err(no_such_index(name)),
            _ => Ok(acknowledged()),
        },
        _ => {
            let reason = format!("the stand-in has no handler for [{method} /{}]", path.join("/"));
            Err(Refusal { status: 400, kind: "illegal_argument_exception", reason })
        }
    };
    answer.unwrap_or_else(|refusal| Reply::refusal(&refusal))
}

type Ask = fn(&[(&str, &crate::store::Index)], &Value) -> Result<Value, Refusal>;

fn searched(store: &crate::store::Store, index: &str, body: &[u8], ask: Ask) -> Result<Reply, Refusal> {
    let request = if body.is_empty() { json!({}) } else { read(body)? };
    ask(&store.select(index)?, &request).map(|answer| Reply::json(200, &answer))
}

fn read(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal {
        status: 400,
        kind: "parse_exception",
        reason: format!("the body is no JSON: {error}"),
    })
}

fn greeting() -> Value {
    json!({
        "name": "stand-in",
        "cluster_name": "stand-in",
        "cluster_uuid": "_na_",
        "version": { "number": "8.0.0", "build_flavor": "standpipe-stand-in", "minimum_wire_compatibility_version": "7.17.0" },
        "tagline": "You Know, for Search",
    })
}
