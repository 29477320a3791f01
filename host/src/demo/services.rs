//! The demo's Kafka and Elasticsearch: real ones where the user names them, else stand-ins inside this process, which say that they are that.

use super::log::PluginHost;
use crate::exit::{Code, Failure};
use anyhow::Context;
use arrow_array::{Array, cast::AsArray};
use percent_encoding::percent_decode_str;
use serde_json::json;
use standpipe_elasticsearch_stand_in::{Faults, StandIn};
use standpipe_loader::{Catalogue, CloseReason, InstanceContext, Polled, SourceReader, SplitPosition};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Records that the stand-in for Kafka surely keeps: it drops the oldest of a partition beyond 5 MB, a record takes less than 100 bytes, and all may be in one partition.
pub(super) const STAND_IN_RECORDS: u64 = 50_000;
/// Partitions of the topic. Five baselines share them, so that some have several and some may have none.
pub(super) const PARTITIONS: u16 = 5;
const START: Duration = Duration::from_secs(10);

/// Where Kafka is.
pub(super) struct Kafka {
    /// `HOST:PORT`
    pub(super) bootstrap: String,
    /// One line on what it is.
    pub(super) remark: String,
    /// The stand-in runs as long as its reader is open.
    stand_in: Option<SourceReader>,
}

impl Kafka {
    /// The one at that address, or a stand-in with the topic.
    pub(super) fn provide(address: Option<&str>, catalogue: &Catalogue, topic: &str) -> anyhow::Result<Self> {
        if let Some(address) = address {
            return Ok(Self::named(address));
        }
        let kind = catalogue.source("kafka-stand-in").map_err(|error| Failure::error(Code::Usage, error))?;
        let context = InstanceContext {
            node: "kafka-stand-in".to_owned(),
            parallelism: 1,
            max_parallelism: 1,
            generation: 1,
            ..InstanceContext::default()
        };
        let mut reader = kind.reader(&json!({ "topics": { topic: PARTITIONS } }), &context, Arc::new(PluginHost))?;
        reader.open()?;
        reader.assign(&[SplitPosition { split: "stand-in".to_owned(), ..SplitPosition::default() }])?;
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if let Polled::Batch { batch, .. } = reader.poll(1, u64::MAX, Duration::from_secs(1))? {
                let text = |name: &str| {
                    batch
                        .column_by_name(name)
                        .and_then(|column| column.as_string_opt::<i32>())
                        .filter(|text| !text.is_empty())
                        .map(|text| text.value(0).to_owned())
                };
                let bootstrap = text("bootstrap").context("the stand-in for Kafka gave no address")?;
                let remark = format!("{bootstrap}, {}", text("message").unwrap_or_default());
                return Ok(Self { bootstrap, remark, stand_in: Some(reader) });
            }
        }
        Err(Failure::error(Code::Outside, format!("the stand-in for Kafka did not start within {START:?}")))
    }

    /// The one at that address.
    pub(super) fn named(address: &str) -> Self {
        Self { bootstrap: address.to_owned(), remark: address.to_owned(), stand_in: None }
    }

    /// Whether it ends with this process.
    pub(super) fn is_stand_in(&self) -> bool {
        self.stand_in.is_some()
    }

    /// Ends a stand-in.
    pub(super) fn close(mut self) -> anyhow::Result<()> {
        if let Some(mut reader) = self.stand_in.take() {
            reader.close(CloseReason::Finished)?;
        }
        Ok(())
    }
}

/// Where Elasticsearch is.
pub(super) struct Elasticsearch {
    /// Without user and password.
    pub(super) url: String,
    /// From the URL that the user gave.
    pub(super) login: Option<(String, String)>,
    /// One line on what it is.
    pub(super) remark: String,
    stand_in: Option<StandIn>,
}

impl Elasticsearch {
    /// The one behind that URL, `http://USER:PASSWORD@HOST:PORT` where it wants a login, or a stand-in.
    pub(super) fn provide(url: Option<&str>) -> anyhow::Result<Self> {
        if let Some(url) = url {
            let (url, login) = split_login(url).map_err(|message| Failure::error(Code::Usage, message))?;
            return Ok(Self { remark: url.clone(), url, login, stand_in: None });
        }
        let stand_in = StandIn::start("127.0.0.1:0", Faults::default()).context("cannot start the stand-in for Elasticsearch")?;
        let url = stand_in.url();
        let remark = format!("{url}, a stand-in for Elasticsearch, in memory, inside this process: _bulk and a little of _search");
        Ok(Self { url, login: None, remark, stand_in: Some(stand_in) })
    }

    /// Whether it ends with this process.
    pub(super) fn is_stand_in(&self) -> bool {
        self.stand_in.is_some()
    }
}

/// Takes user and password out of a URL, where they are percent-encoded.
/// <https://www.rfc-editor.org/rfc/rfc3986#section-3.2.1>
fn split_login(url: &str) -> Result<(String, Option<(String, String)>), String> {
    let trimmed = url.trim_end_matches('/');
    let (scheme, rest) = trimmed
        .split_once("://")
        .filter(|(scheme, rest)| matches!(*scheme, "http" | "https") && !rest.is_empty())
        .ok_or("--elasticsearch: expected a URL such as http://127.0.0.1:9200")?;
    let Some((login, host)) = rest.rsplit_once('@') else { return Ok((trimmed.to_owned(), None)) };
    let (user, password) = login.split_once(':').ok_or("--elasticsearch: expected USER:PASSWORD before the @")?;
    let plain = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().map_err(|_| "--elasticsearch: user and password are no UTF-8 text")?;
        Ok::<_, &str>(text.into_owned())
    };
    Ok((format!("{scheme}://{host}"), Some((plain(user)?, plain(password)?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_taken_out_of_the_url() {
        assert_eq!(split_login("http://a:9200/"), Ok(("http://a:9200".to_owned(), None)));
        assert_eq!(
            split_login("https://m%65:p%40ss:word@a:9200"),
            Ok(("https://a:9200".to_owned(), Some(("me".to_owned(), "p@ss:word".to_owned()))))
        );
        for wrong in ["a:9200", "ftp://a", "http://", "http://me@a", "http://me:%ff@a"] {
            assert!(split_login(wrong).is_err(), "{wrong}");
        }
    }
}
