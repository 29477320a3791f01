//! The dashboard's files. They hold nothing of any job, so they are given to whoever asks, also without the token: a browser cannot send one with the address of a page, and
//! the page asks for it. What the page then shows it asks for by the REST interface, like anybody else.

use axum::{
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

/// A file of the dashboard.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// `text/css; charset=utf-8`
    pub content_type: &'static str,
    /// What is in it.
    pub bytes: &'static [u8],
}

/// The file of a path, which begins with `/`.
pub type Assets = fn(&str) -> Option<Asset>;

/// Our own files alone, and no page of anybody else around ours.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'none'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    // Another release has other files of the same names.
    (header::CACHE_CONTROL, "no-cache"),
];

/// The answer to a request that means a file of the dashboard.
pub(super) fn answer(assets: Assets, method: &Method, path: &str) -> Option<Response> {
    let asset = assets(path)?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Some(StatusCode::METHOD_NOT_ALLOWED.into_response());
    }
    let mut response = ([(header::CONTENT_TYPE, asset.content_type)], asset.bytes).into_response();
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_runs_no_code_but_ours_and_is_in_no_frame() {
        let assets: Assets = |path| (path == "/").then_some(Asset { content_type: "text/html; charset=utf-8", bytes: b"<!doctype html>" });
        let page = answer(assets, &Method::GET, "/").unwrap();
        let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(answer(assets, &Method::POST, "/").unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
        assert!(answer(assets, &Method::GET, "/jobs").is_none());
    }
}
