//! The keys of the mode.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use standpipe_sdk::deployment::Problem;
use std::net::Ipv6Addr;

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
        let address = &self.address;
        let is_name = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if is_name || address.parse::<Ipv6Addr>().is_ok() {
            return Vec::new();
        }
        let message = format!("expected a host name or an address, found {address:?}; the port is another key, rest.port");
        vec![Problem { path: "rest.address".to_owned(), message, suggestion: None }]
    }
}
