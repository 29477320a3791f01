//! The keys of the mode.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use standpipe_deployment_rest::{Peer, Roots};
use standpipe_sdk::{Error, Result as SdkResult, Secret, deployment::Problem};
use std::{
    fs,
    net::Ipv6Addr,
    path::{Path, PathBuf},
};

/// Posts the job to the job manager of a running session cluster.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct SessionConfig {
    /// The job manager's host name or address.
    #[serde(rename = "rest.address")]
    pub address: String,
    /// The port of its REST interface.
    #[serde(rename = "rest.port")]
    pub port: Port,
    /// The token that the job manager wants. What is on a command line, others on the machine can read: a reference (`${NAME}`) in a file, or `rest.token.file`, keeps it to oneself.
    #[serde(rename = "rest.token")]
    pub token: Option<Secret>,
    /// A file with that token. Its path stays in the handle, so that later commands need not name it.
    #[serde(rename = "rest.token.file")]
    pub token_file: Option<PathBuf>,
    /// A file of certificates (PEM) by which the job manager's own is known. Set: it is spoken to over TLS, and nobody else is.
    #[serde(rename = "rest.tls.ca")]
    pub tls_ca: Option<PathBuf>,
}

/// A port, 1 to 65535.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
#[schemars(inline)]
pub struct Port(#[schemars(range(min = 1))] pub u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let port = value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        port.map(Self).ok_or_else(|| D::Error::custom(format!("expected a port from 1 to 65535, found {value}")))
    }
}

impl SessionConfig {
    /// What is wrong with the values.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.wrong_address().into_iter().collect();
        if self.token.is_some() && self.token_file.is_some() {
            let message = "is said beside rest.token: one of them is enough".to_owned();
            problems.push(Problem { path: "rest.token.file".to_owned(), message, suggestion: None });
        }
        problems
    }

    fn wrong_address(&self) -> Option<Problem> {
        let address = &self.address;
        let is_name = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if is_name || address.parse::<Ipv6Addr>().is_ok() {
            return None;
        }
        let message = format!("expected a host name or an address, found {address:?}; the port is another key, rest.port");
        Some(Problem { path: "rest.address".to_owned(), message, suggestion: None })
    }

    /// The manager that the keys name.
    ///
    /// # Errors
    /// When the token or the certificates cannot be read.
    pub(crate) fn peer(&self) -> SdkResult<Peer> {
        let Self { address, port: Port(port), .. } = self;
        let place = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
        Ok(Peer {
            address: address.clone(),
            port: *port,
            roots: self.tls_ca.as_deref().map(roots).transpose()?,
            token: self.read_token()?,
            name: format!("the job manager at {place}"),
            unreachable: format!("no job manager can be reached at {place} (rest.address, rest.port)"),
            place,
            token_from: "rest.token.file or rest.token".to_owned(),
            why: None,
            afterwards: None,
        })
    }

    /// The token, if there is one.
    ///
    /// # Errors
    /// When its file cannot be read, or it could not be in a header.
    fn read_token(&self) -> SdkResult<Option<String>> {
        let (key, text) = match (&self.token, &self.token_file) {
            (Some(token), _) => ("rest.token", token.expose().to_owned()),
            (None, Some(file)) => {
                let unreadable = |error| Error::external(format!("rest.token.file: {}: {error}", file.display()));
                ("rest.token.file", fs::read_to_string(file).map_err(unreadable)?.trim().to_owned())
            }
            (None, None) => return Ok(None),
        };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::config(key, "a token has characters of ASCII without spaces"));
        }
        Ok(Some(text))
    }
}

/// The certificates of a file.
fn roots(file: &Path) -> SdkResult<Roots> {
    let pem = fs::read(file).map_err(|error| Error::external(format!("rest.tls.ca: {}: {error}", file.display())))?;
    Roots::read(&pem).map_err(|error| Error::config("rest.tls.ca", format!("{}: {error}", file.display())))
}
