//! What requests are answered with: JSON, and errors as Flink has them.

use axum::{
    body::to_bytes,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Of an error that is not ours, in bytes.
const LONGEST_ERROR: usize = 16 << 10;

/// Of what is said of a body, in characters.
const LONGEST_SAID: usize = 500;

pub(super) type Answer = Result<Response, Refusal>;

/// An answer that is not what was asked for; as Flink does, with all that is wrong.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) Value);

impl Refusal {
    pub(super) fn new(code: StatusCode, errors: &[impl ToString]) -> Self {
        Self(code, json!({"errors": errors.iter().map(ToString::to_string).collect::<Vec<_>>()}))
    }

    pub(super) fn one(code: StatusCode, error: impl ToString) -> Self {
        Self::new(code, &[error.to_string()])
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        answer(self.0, &self.1)
    }
}

pub(super) fn answer(code: StatusCode, value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (code, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

pub(super) fn ok(value: &impl serde::Serialize) -> Answer {
    Ok(answer(StatusCode::OK, value))
}

/// An error of the library's (a body that is too long, a query that is not understood, a method that a path does not have) in the form of ours.
pub(super) async fn as_ours(response: Response) -> Response {
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let body = to_bytes(response.into_body(), LONGEST_ERROR).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let error = if text.is_empty() { status.canonical_reason().unwrap_or("refused") } else { text.trim() };
    Refusal::one(status, error).into_response()
}

/// JSON of a request's body.
pub(super) fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        // It has the value that is wrong, however long that is.
        let said: String = error.to_string().chars().take(LONGEST_SAID).collect();
        Refusal::one(StatusCode::BAD_REQUEST, format!("the body is not understood: {said}"))
    })
}

/// The body of a request, which may be empty.
pub(super) fn optional<T: serde::de::DeserializeOwned + Default>(body: &[u8]) -> Result<T, Refusal> {
    if body.is_empty() { Ok(T::default()) } else { parse(body) }
}

/// What waits for a disk or a process is not done on a thread of the network.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let failed = |error| Refusal::one(StatusCode::INTERNAL_SERVER_ERROR, format!("it went wrong in here: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(failed)
}
