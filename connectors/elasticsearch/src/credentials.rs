//! Who the sink says it is, and how it follows a rotation: when the server refuses the credentials, the references of the configuration are asked for again, and the
//! connections are made anew if something else is behind them now. Part of `client`.

use crate::config::Config;
use elasticsearch::auth::Credentials;
use standpipe_sdk::{Error, Host, Result, Secret};
use std::collections::BTreeMap;

/// Fetches again what is behind the references of the credentials; whether something has changed. The configuration is then as if it had just been read.
///
/// # Errors
/// When a reference cannot be resolved.
pub(crate) fn refresh(config: &mut Config, references: &BTreeMap<String, String>, host: &Host) -> Result<bool> {
    let fetch = |key: &str| references.get(key).map(|text| host.secret(text).map(|(value, _)| value)).transpose();
    let (username, password, api_key) = (fetch("username")?, fetch("password")?, fetch("api_key")?);
    let mut has_changed = false;
    if let Some(value) = username.filter(|value| config.username.as_ref() != Some(value)) {
        config.username = Some(value);
        has_changed = true;
    }
    for (place, value) in [(&mut config.password, password), (&mut config.api_key, api_key)] {
        if let Some(value) = value.filter(|value| place.as_ref().is_none_or(|secret| secret.expose() != value)) {
            *place = Some(Secret::from(value.as_str()));
            has_changed = true;
        }
    }
    Ok(has_changed)
}

/// What every request carries.
pub(crate) fn credentials(config: &Config) -> Result<Option<Credentials>> {
    if let Some(key) = &config.api_key {
        // A file with a key mostly ends with a newline; the client would panic on it.
        let key = key.expose().trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::config("api_key", "is no encoded API key: it is empty or has other characters than base64"));
        }
        return Ok(Some(Credentials::EncodedApiKey(key.to_owned())));
    }
    let basic = config.username.as_ref().zip(config.password.as_ref());
    Ok(basic.map(|(name, password)| Credentials::Basic(name.clone(), password.expose().to_owned())))
}
