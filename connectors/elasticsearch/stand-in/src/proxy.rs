//! Proxy mode: requests go on to a real server. Of a bulk request with faulted items only the others are sent; their answers and those of the faulted ones are put
//! together in the order of the request. Called by `server`; plain HTTP only.

use crate::{
    Faults, MAX_BODY_BYTES,
    bulk::{Item, refused},
    server::Reply,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Method, Request, Uri, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use std::io;

/// A real server.
pub(crate) struct Upstream {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Upstream {
    pub(crate) fn new(url: &str) -> io::Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        let is_plain = base.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some());
        if !is_plain {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{url:?} is no address of the form http://HOST:PORT")));
        }
        Ok(Self { base, client: Client::builder(TokioExecutor::new()).build_http() })
    }

    /// Sends a request on, with its body unzipped.
    pub(crate) async fn forward(&self, method: Method, path: &str, headers: &HeaderMap, body: Bytes) -> io::Result<Reply> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for name in [header::CONTENT_TYPE, header::ACCEPT] {
            if let Some(value) = headers.get(&name) {
                request = request.header(name, value);
            }
        }
        self.send(request.body(Full::new(body)).map_err(io::Error::other)?).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> io::Result<Reply> {
        let response = self.client.request(request).await.map_err(io::Error::other)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await.map_err(io::Error::other)?;
        Ok(Reply { status, body: body.to_bytes() })
    }
}

/// Sends the items that are not faulted and answers for all.
pub(crate) async fn bulk(upstream: &Upstream, faults: &Faults, request: u64, index: Option<&str>, items: &[Item<'_>]) -> io::Result<Reply> {
    let mut body = Vec::new();
    let refusals: Vec<_> = items.iter().zip(0..).map(|(item, number)| faults.refusal(request, number, &item.index, item.source)).collect();
    for (item, _) in items.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none()) {
        body.extend_from_slice(item.lines);
    }
    let mut answered = Vec::new().into_iter();
    if !body.is_empty() {
        let path = index.map_or_else(|| "/_bulk".to_owned(), |index| format!("/{index}/_bulk"));
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", upstream.base))
            .header(header::CONTENT_TYPE, "application/x-ndjson");
        let reply = upstream.send(request.body(Full::new(body.into())).map_err(io::Error::other)?).await?;
        if reply.status != 200 {
            return Ok(reply);
        }
        let mut answer: Value = serde_json::from_slice(&reply.body)?;
        if let Some(Value::Array(items)) = answer.get_mut("items").map(Value::take) {
            answered = items.into_iter();
        }
    }
    let mut answers = Vec::with_capacity(items.len());
    for (item, refusal) in items.iter().zip(refusals) {
        answers.push(match refusal {
            Some(refusal) => serde_json::to_value(refused(item, refusal))?,
            None => answered.next().ok_or_else(|| io::Error::other("the server answered fewer items than it was sent"))?,
        });
    }
    let is_error = |answer: &Value| answer.as_object().is_some_and(|answer| answer.values().any(|body| body.get("error").is_some()));
    Ok(Reply::json(200, &json!({ "took": 0, "errors": answers.iter().any(is_error), "items": answers })))
}
