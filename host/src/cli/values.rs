//! Texts of arguments as what they mean.

use standpipe_checkpoint::Start;
use std::time::Duration;

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("expected KEY=VALUE, found {text:?}"))?;
    if key.is_empty() {
        return Err(format!("expected KEY=VALUE, found {text:?}"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn restore(text: &str) -> Result<Start, String> {
    match text {
        "latest" => Ok(Start::Latest),
        path if path.contains('/') || path.ends_with(".json") => Ok(Start::From(path.to_owned())),
        number => number
            .parse()
            .map(Start::At)
            .map_err(|_| format!("expected latest, the number of a checkpoint, or the path of its manifest, found {text:?}")),
    }
}

/// As [`restore`], for who hands it on.
pub(super) fn restore_text(text: &str) -> Result<String, String> {
    restore(text).map(|_| text.to_owned())
}

pub(super) fn http(text: &str) -> Result<String, String> {
    let is_http = ["http://", "https://"].iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    if is_http { Ok(text.to_owned()) } else { Err(format!("expected http://HOST:PORT, found {text:?}")) }
}

/// Long enough for a few beats of a task manager, short enough that somebody still waits for it.
pub(super) fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration(text)?;
    let may_be = Duration::from_secs(3)..=Duration::from_secs(3600);
    if may_be.contains(&lease) { Ok(lease) } else { Err("expected 3s to 1h".to_owned()) }
}

/// As much as a process needs to begin at least.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    let bytes = standpipe_pipeline::units::parse_size(text).map_err(|error| error.to_string())?;
    if bytes >= 64 << 20 { Ok(bytes) } else { Err("expected 64MiB or more".to_owned()) }
}

pub(super) fn cpus(text: &str) -> Result<f64, String> {
    let cpus: f64 = text.parse().map_err(|_| format!("expected a number of processors, found {text:?}"))?;
    if (0.01..=4096.0).contains(&cpus) { Ok(cpus) } else { Err("expected 0.01 to 4096".to_owned()) }
}

pub(super) fn job_id(text: &str) -> Result<String, String> {
    if standpipe_cluster::protocol::is_id(text) {
        Ok(text.to_owned())
    } else {
        Err("expected 32 hexadecimal digits, in small letters".to_owned())
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    standpipe_pipeline::units::parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_needs_a_key_and_a_value() {
        assert_eq!(key_value("a.b=c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
        assert!(key_value("a.b").is_err() && key_value("=x").is_err());
    }
}
