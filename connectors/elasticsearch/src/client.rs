//! The connections: one transport of the official client per node, taken in turns; a node that cannot be reached is left out for a while. No product check: whatever
//! speaks `_bulk` is taken, only an Elasticsearch older than 7 is refused, and what answers a greeting with neither a version nor a success. Used by `sink` in `open`,
//! then owned by `sender`.

use crate::{
    config::{Config, Template},
    credentials::{credentials, refresh},
    plan::without_user,
    response::{Fault, TIMEOUT, whole},
};
use bytes::Bytes;
use elasticsearch::{
    cert::{Certificate, CertificateValidation},
    http::{
        Method, Url,
        headers::{CONTENT_TYPE, HeaderMap, HeaderValue},
        transport::{SingleNodeConnectionPool, Transport, TransportBuilder},
    },
};
use serde_json::Value;
use standpipe_sdk::{Error, Host, Result};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The parts of an answer to `_bulk` that `response` needs.
const FILTER: &str = "items.*.status,items.*.error";
/// The oldest major version of Elasticsearch.
const OLDEST: u64 = 7;

/// The nodes of a cluster.
pub(crate) struct Client {
    nodes: Vec<Node>,
    next: usize,
    config: Config,
    /// What the configuration's secrets were written as.
    references: BTreeMap<String, String>,
}

struct Node {
    url: String,
    transport: Transport,
    down_until: Option<Instant>,
}

/// An answer: its status and body; or the node could not be reached, or did not answer in time.
pub(crate) type Reply = Result<(u16, Bytes), Fault>;

impl Client {
    /// `references`: the texts of the configuration with references, as written, by path.
    pub(crate) fn new(config: &Config, references: BTreeMap<String, String>) -> Result<Self> {
        let transports = transports(config)?.into_iter();
        let url = |host: &String| without_user(host).trim_end_matches('/').to_owned();
        let nodes = config.hosts.iter().zip(transports).map(|(host, transport)| Node { url: url(host), transport, down_until: None });
        Ok(Self { nodes: nodes.collect(), next: 0, config: config.clone(), references })
    }

    /// The server refuses the credentials: fetches them again and makes new connections if they have changed. Says whether they have.
    pub(crate) fn renew(&mut self, host: &Host) -> Result<bool> {
        // What cannot be used leaves all as it was, so that it is tried again.
        let mut config = self.config.clone();
        if !refresh(&mut config, &self.references, host)? {
            return Ok(false);
        }
        for (node, transport) in self.nodes.iter_mut().zip(transports(&config)?) {
            node.transport = transport;
        }
        self.config = config;
        Ok(true)
    }

    pub(crate) fn url(&self, node: usize) -> &str {
        &self.nodes[node].url
    }

    /// The next node that is not left out; if all are, the one whose time is over first.
    pub(crate) fn pick(&mut self, now: Instant) -> usize {
        let count = self.nodes.len();
        let in_turn = (0..count).map(|step| (self.next + step) % count);
        let is_up = |node: &usize| self.nodes[*node].down_until.is_none_or(|until| until <= now);
        let node = in_turn.clone().find(is_up).or_else(|| in_turn.min_by_key(|node| self.nodes[*node].down_until)).unwrap_or(0);
        self.next = (node + 1) % count;
        node
    }

    /// A node could not be reached. Says whether there is another to try.
    pub(crate) fn leave_out(&mut self, node: usize, now: Instant, pause: Duration) -> bool {
        self.nodes[node].down_until = Some(now + pause);
        self.nodes.iter().any(|node| node.down_until.is_none_or(|until| until <= now))
    }

    pub(crate) fn bring_back(&mut self, node: usize) {
        self.nodes[node].down_until = None;
    }

    /// Sends a `_bulk` body.
    pub(crate) fn bulk(&self, node: usize, body: Bytes) -> impl Future<Output = Reply> + Send + use<> {
        let (transport, timeout) = (self.nodes[node].transport.clone(), self.config.timeout.0);
        async move {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
            send(&transport, Method::Post, "/_bulk", headers, &[("filter_path", FILTER)], Some(body), timeout).await
        }
    }

    /// Asks every node for its version: one at least must answer, and none may refuse the credentials or be something else.
    pub(crate) async fn probe(&self, host: &Host) -> Result<()> {
        let mut unreachable = None;
        let mut has_answer = false;
        for node in &self.nodes {
            let answer = send(&node.transport, Method::Get, "/", HeaderMap::new(), &[], None::<Bytes>, self.config.connect_timeout.0).await;
            let message = match answer {
                Ok((status @ (401 | 403), body)) => {
                    let fault = whole(status, &body);
                    return Err(Error::external(format!("{} refuses the credentials ({fault})", node.url)).with("status", status));
                }
                Ok((status, body)) => match node.greet(status, &body, host) {
                    Err(error) if error.retryable => error.message,
                    greeted => {
                        has_answer = true;
                        greeted?;
                        continue;
                    }
                },
                Err(fault) => format!("{} is unreachable ({})", node.url, fault.reason),
            };
            if self.nodes.len() > 1 {
                host.warn(&message, &[]);
            }
            unreachable.get_or_insert(message);
        }
        match unreachable {
            Some(message) if !has_answer => Err(Error::external(message).retryable()),
            _ => Ok(()),
        }
    }

    /// Puts an index template, unless there is one of that name that is to be left alone.
    pub(crate) async fn put_template(&mut self, name: &str, template: &Template, body: &Value, host: &Host) -> Result<()> {
        let node = self.pick(Instant::now());
        let Node { url, transport, .. } = &self.nodes[node];
        let path = format!("/_index_template/{name}");
        let failed =
            |fault: Fault| Error::external(format!("{url} does not take the index template {name:?} ({fault})")).with("path", "template");
        if !template.overwrite {
            let (status, answer) =
                send(transport, Method::Get, &path, HeaderMap::new(), &[], None::<Bytes>, self.config.timeout.0).await.map_err(failed)?;
            match status {
                200 => {
                    host.info(format!("the index template {name:?} exists and is left alone"), &[]);
                    return Ok(());
                }
                404 => {}
                _ => return Err(failed(whole(status, &answer))),
            }
        }
        let body = Bytes::from(body.to_string());
        let (status, answer) =
            send(transport, Method::Put, &path, HeaderMap::new(), &[], Some(body), self.config.timeout.0).await.map_err(failed)?;
        if status != 200 {
            return Err(failed(whole(status, &answer)));
        }
        host.info(format!("put the index template {name:?}"), &[]);
        Ok(())
    }
}

impl Node {
    /// Looks at the answer to `GET /`. A node that is starting has a version already; a server error without one is of a proxy, and may pass.
    fn greet(&self, status: u16, body: &[u8], host: &Host) -> Result<()> {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
        let Some(number) = text("/version/number") else {
            return match status {
                200..=299 => {
                    host.warn(format!("{} answers, but not with a version (status {status})", self.url), &[]);
                    Ok(())
                }
                500..=599 => Err(Error::external(format!("{} is not ready ({})", self.url, whole(status, body))).retryable()),
                _ => Err(Error::external(format!("{} is no Elasticsearch ({})", self.url, whole(status, body))).with("status", status)),
            };
        };
        let product = text("/version/distribution").unwrap_or("elasticsearch");
        let major = number.split('.').next().and_then(|major| major.parse::<u64>().ok());
        if product == "elasticsearch" && major.is_some_and(|major| major < OLDEST) {
            return Err(Error::external(format!("{} is Elasticsearch {number}; this sink needs {OLDEST} or later", self.url)));
        }
        host.info("connected", &[("url", self.url.as_str().into()), ("product", product.into()), ("version", number.into())]);
        Ok(())
    }
}

async fn send(
    transport: &Transport,
    method: Method,
    path: &str,
    headers: HeaderMap,
    query: &[(&str, &str)],
    body: Option<Bytes>,
    timeout: Duration,
) -> Reply {
    let fault = |error: elasticsearch::Error| match error.is_timeout() {
        true => Fault::new(0, TIMEOUT, format!("no answer within {timeout:?}")),
        false => Fault::new(0, "no answer", chain(&error)),
    };
    let response = transport.send(method, path, headers, Some(query), body, Some(timeout)).await.map_err(fault)?;
    let status = response.status_code().as_u16();
    Ok((status, response.bytes().await.map_err(fault)?))
}

/// One per host of the configuration.
fn transports(config: &Config) -> Result<Vec<Transport>> {
    let credentials = credentials(config)?;
    let certificates = certificates(config)?;
    let transport = |(place, host): (usize, &String)| {
        let path = format!("hosts[{place}]");
        let url = Url::parse(host).map_err(|error| Error::config(&path, format!("{:?} is no address: {error}", without_user(host))))?;
        let is_loopback = url.host_str().is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]");
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url)).request_body_compression(config.gzip);
        if is_loopback {
            builder = builder.disable_proxy();
        }
        if let Some(credentials) = &credentials {
            builder = builder.auth(credentials.clone());
        }
        if !config.tls.verify {
            builder = builder.cert_validation(CertificateValidation::None);
        } else if let Some(pem) = &certificates {
            let certificate = Certificate::from_pem(pem).map_err(|error| Error::config("tls.ca_file", chain(&error)))?;
            builder = builder.cert_validation(CertificateValidation::Full(certificate));
        }
        builder.build().map_err(|error| Error::config(&path, chain(&error)))
    };
    config.hosts.iter().enumerate().map(transport).collect()
}

fn certificates(config: &Config) -> Result<Option<Vec<u8>>> {
    let Some(path) = &config.tls.ca_file else { return Ok(None) };
    let read = std::fs::read(path);
    read.map(Some).map_err(|error| Error::external(format!("{}: {error}", path.display())).with("path", "tls.ca_file"))
}

/// An error with its causes; the client itself shows the outermost alone.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}
