//! Bearer tokens for SASL OAUTHBEARER: librdkafka asks for one when it connects and before the last one expires. A token is usually a JWT (RFC 7519), whose claims tell when
//! it expires and whose it is; of any other token an hour is assumed. Called by the callbacks in `client` and `delivery`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rdkafka::{client::OAuthToken, util::current_time_millis};
use serde::Deserialize;
use standpipe_sdk::{Host, Secret, is_reference};
use std::error::Error;

const HOUR_MS: i64 = 3_600_000;

#[derive(Deserialize, Default)]
struct Claims {
    /// Seconds since the epoch.
    exp: Option<f64>,
    sub: Option<String>,
}

/// The token now: the text itself, or what its reference stands for at this moment.
///
/// # Errors
/// When there is none.
pub fn fetch(configured: Option<&Secret>, host: &Host) -> Result<OAuthToken, Box<dyn Error>> {
    let configured = configured.ok_or("sasl.mechanisms is OAUTHBEARER, but `oauth_token` is missing")?.expose();
    let token = if is_reference(configured) { host.secret(configured).map_err(|error| error.message)?.0 } else { configured.to_owned() };
    let token = token.trim().to_owned();
    if token.is_empty() {
        return Err("`oauth_token` is empty".into());
    }
    let claims = claims(&token).unwrap_or_default();
    #[allow(clippy::cast_possible_truncation, reason = "saturates")]
    let lifetime_ms = claims.exp.map_or_else(|| current_time_millis() + HOUR_MS, |seconds| (seconds * 1_000.0) as i64);
    Ok(OAuthToken { token, principal_name: claims.sub.unwrap_or_default(), lifetime_ms })
}

/// The claims of a JWT, whose signature is the brokers' business.
fn claims(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwt_tells_its_owner_and_its_end() {
        let token = format!("e30.{}.signature", URL_SAFE_NO_PAD.encode(r#"{"sub":"pipeline","exp":1700000000,"aud":["x"]}"#));
        let claims = claims(&token).unwrap();
        assert_eq!((claims.sub.as_deref(), claims.exp), (Some("pipeline"), Some(1.7e9)));
    }

    #[test]
    fn another_token_has_no_claims() {
        assert!(claims("opaque").is_none() && claims("a.!!.c").is_none() && claims("").is_none());
    }
}
