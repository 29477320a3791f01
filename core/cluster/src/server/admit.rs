//! Who may ask: whoever has the token. Without one the manager is on loopback, and asks that a request names it so: a page in a browser that has found a name for
//! 127.0.0.1 is refused, and so is one of another origin.

use super::{
    Shared,
    answer::{Refusal, as_ours},
    application::WISHING,
    assets, probes,
};
use crate::bundle::Hash;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Whatever is not a file is asked and answered by then: longer than a pipeline may take to be planned.
const PATIENCE: Duration = Duration::from_secs(150);

/// Of a manager that ends: what changes something is answered by then. Longer than what is wished of a job takes to be kept.
pub(super) const LAST: Duration = WISHING.saturating_add(Duration::from_secs(1));
/// Of a manager that ends: what changes nothing waits no longer for something to happen.
const LAST_LOOK: Duration = Duration::from_millis(500);

const LAST_WORDS: &str = "the job manager ends: whether it does this before is not known, ask the next one";

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// From this machine, by a name that no page in a browser has chosen.
fn is_from_here(request: &Request) -> bool {
    request.extensions().get::<Peer>().is_some_and(|peer| peer.0.ip().is_loopback()) && names_loopback(request.headers())
}

/// Whether it changes nothing that a user cares for.
fn only_looks(request: &Request) -> bool {
    let path = request.uri().path();
    let is_collected = *request.method() == Method::PUT && path.contains("/taskmanagers/") && path.contains("/collected/");
    matches!(*request.method(), Method::GET | Method::HEAD) || path.ends_with("/beat") || is_collected
}

/// Whether a request may be looked at.
pub(super) async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if probes::is_probe(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    let headers = request.headers();
    let asset = assets::answer(shared.assets, request.method(), request.uri().path());
    let refusal = match &shared.token {
        Some(_) if asset.is_some() => None,
        Some(token) if !has_token(headers, token) => Some((StatusCode::UNAUTHORIZED, "this needs the header Authorization: Bearer TOKEN")),
        None if shared.is_open && !only_looks(&request) && !is_from_here(&request) => {
            Some((StatusCode::FORBIDDEN, "without a token jobs are taken and changed from the manager's own machine alone"))
        }
        None if !shared.is_open && !names_loopback(headers) => {
            Some((StatusCode::FORBIDDEN, "without a token only 127.0.0.1, [::1] and localhost are answered"))
        }
        _ if is_of_another_origin(headers) => Some((StatusCode::FORBIDDEN, "pages of another origin are not answered")),
        _ => None,
    };
    match (refusal, asset) {
        (Some((code, why)), _) => Refusal::one(code, why).into_response(),
        (None, Some(asset)) => asset,
        (None, None) => {
            let is_look = only_looks(&request) || request.uri().path().ends_with("/blobs/missing");
            let (last, ends) = if is_look { (LAST_LOOK, "the job manager ends") } else { (LAST, LAST_WORDS) };
            // Files come slowly, and say so by themselves.
            let patience = if request.method() == Method::PUT { Duration::MAX } else { PATIENCE };
            tokio::select! {
                biased;
                response = next.run(request) => as_ours(response).await,
                () = shared.ends(last) => unavailable(ends),
                () = tokio::time::sleep(patience) => unavailable("it takes too long: the request is given up"),
            }
        }
    }
}

fn unavailable(why: &str) -> Response {
    Refusal::one(StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

/// In a time that does not tell how much of it was right.
fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
    given.is_some_and(|given| Hash::of(given.as_bytes()) == Hash::of(token.as_bytes()))
}

fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).map(host_of).unwrap_or_default();
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_of_another_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return headers.contains_key(header::ORIGIN) };
    origin.split_once("://").map(|(_, authority)| authority) != text(header::HOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(header::HeaderName, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_is_all_of_it() {
        let given = |text: &str| has_token(&headers(&[(header::AUTHORIZATION, text)]), "secret");
        assert!(given("Bearer secret"));
        assert!(!given("Bearer secre") && !given("Bearer secrets") && !given("secret") && !given("Basic secret"));
        assert!(!has_token(&HeaderMap::new(), "secret"));
    }

    #[test]
    fn pages_in_a_browser_that_reach_loopback_by_a_trick_are_refused() {
        let is_loopback = |host: &str| names_loopback(&headers(&[(header::HOST, host)]));
        assert!(["127.0.0.1:8081", "localhost:1", "localhost", "[::1]:8081", "127.0.0.2"].into_iter().all(is_loopback));
        assert!(!["evil.example:8081", "127.0.0.1.evil.example", "", "10.0.0.1:8081", "localhost.evil"].into_iter().any(is_loopback));
        let of = |origin: &str| is_of_another_origin(&headers(&[(header::HOST, "127.0.0.1:8081"), (header::ORIGIN, origin)]));
        assert!(!of("http://127.0.0.1:8081") && of("http://127.0.0.1:9") && of("null") && of("https://evil.example"));
        assert!(!is_of_another_origin(&headers(&[(header::HOST, "127.0.0.1:8081")])));
    }
}
