//! Words of the JSON's enumerations that this version does not know, because the other side is of a later minor version. What can be left out is left out: a class of
//! types that a plugin takes and no stream here has. What cannot is one line that names the word, never "unknown JSON": a change mode decides what rows mean.

use crate::{
    Error, ErrorCode, Result,
    wire::{ChangeMode, Encoding, StateKind, TypeClass, ValidationDetails, ValidationInputDetails},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What a plugin answered to `validate`, for the host.
pub(crate) fn answer(plugin: &str, bytes: &[u8]) -> Result<ValidationDetails> {
    let unreadable = |error: serde_json::Error| {
        Error::new(ErrorCode::OTHER, format!("breaks the plugin contract: it answers validate with unknown JSON: {error}"))
    };
    let newer = |what: String| {
        let host = standpipe_abi::version_text(standpipe_abi::ABI_MAJOR, standpipe_abi::ABI_MINOR, standpipe_abi::ABI_CANDIDATE);
        Error::unsupported(format!("plugin {plugin} needs a newer host: it {what}, which plugin ABI {host} does not have"))
    };
    let mut json: Value = serde_json::from_slice(bytes).map_err(unreadable)?;
    leave_out_unknown::<TypeClass>(json.get_mut("types"));
    let left_out = leave_out_unknown::<ChangeMode>(json.get_mut("accepts"));
    if let (Some(word), true) = (left_out.first(), json["accepts"].as_array().is_some_and(Vec::is_empty)) {
        return Err(newer(format!("takes streams of the change mode {word:?} alone")));
    }
    if let Some(word) = unknown::<Encoding>(&json["encoding"]) {
        return Err(newer(format!("has the encoding {word:?}")));
    }
    for output in items(&json["outputs"]) {
        if let Some(word) = unknown::<ChangeMode>(&output["mode"]) {
            return Err(newer(format!("gives the output {} the change mode {word:?}", output["name"])));
        }
    }
    for state in items(&json["states"]) {
        if let Some(word) = unknown::<StateKind>(&state["kind"]) {
            return Err(newer(format!("gives the state {} the kind {word:?}", state["name"])));
        }
    }
    serde_json::from_value(json).map_err(unreadable)
}

/// What a host tells of the inputs, for a plugin.
pub(crate) fn input(bytes: &[u8]) -> Result<ValidationInputDetails> {
    let json: Value = serde_json::from_slice(bytes)?;
    for input in items(&json["inputs"]) {
        if let Some(word) = unknown::<ChangeMode>(&input["mode"]) {
            let message = format!("the input {} is a stream of the change mode {word:?}, which this plugin does not know", input["name"]);
            return Err(Error::unsupported(message));
        }
    }
    Ok(serde_json::from_value(json)?)
}

fn items(json: &Value) -> impl Iterator<Item = &Value> {
    json.as_array().into_iter().flatten()
}

/// The word, if it is one and `T` has not got it.
fn unknown<T: DeserializeOwned>(json: &Value) -> Option<&str> {
    json.as_str().filter(|_| T::deserialize(json).is_err())
}

/// Takes unknown words out of a list.
fn leave_out_unknown<T: DeserializeOwned>(list: Option<&mut Value>) -> Vec<String> {
    let mut left_out = Vec::new();
    if let Some(Value::Array(words)) = list {
        words.retain(|word| match unknown::<T>(word) {
            Some(word) => {
                left_out.push(word.to_owned());
                false
            }
            None => true,
        });
    }
    left_out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ValidationDetails, String> {
        answer("later (liblater.so 2.0)", json.as_bytes()).map_err(|error| error.message)
    }

    #[test]
    fn what_a_later_plugin_can_do_besides_is_left_out() {
        let details = read(r#"{"types": ["nested", "tensor"], "accepts": ["upsert", "partial"], "more": {"of": "it"}}"#).unwrap();
        assert_eq!((details.types, details.accepts), (vec![TypeClass::Nested], vec![ChangeMode::Upsert]));
        assert_eq!(read("{}").unwrap(), ValidationDetails::default());
    }

    #[test]
    fn what_a_later_plugin_must_have_is_named() {
        let said = |json: &str| read(json).unwrap_err();
        let line = |what: &str| format!("plugin later (liblater.so 2.0) needs a newer host: it {what}, which plugin ABI 1.0 does not have");
        let mode = said(r#"{"outputs": [{"name": "main", "mode": "append"}, {"name": "late", "mode": "partial"}]}"#);
        assert_eq!(mode, line("gives the output \"late\" the change mode \"partial\""));
        assert_eq!(said(r#"{"encoding": "columns"}"#), line("has the encoding \"columns\""));
        assert_eq!(said(r#"{"states": [{"name": "s", "kind": "queue"}]}"#), line("gives the state \"s\" the kind \"queue\""));
        assert_eq!(said(r#"{"accepts": ["partial"]}"#), line("takes streams of the change mode \"partial\" alone"));
        assert!(said(r#"{"types": 7}"#).starts_with("breaks the plugin contract: it answers validate with unknown JSON: invalid type"));
    }

    #[test]
    fn a_stream_that_a_later_host_has_is_named() {
        let said = |json: &str| input(json.as_bytes()).map_err(|error| error.message);
        let partial = said(r#"{"inputs": [{"name": "readings", "mode": "partial"}], "more": 1}"#);
        assert_eq!(
            partial,
            Err("the input \"readings\" is a stream of the change mode \"partial\", which this plugin does not know".to_owned())
        );
        assert_eq!(said(r#"{"inputs": [{"name": "a", "mode": "upsert"}]}"#).unwrap().inputs[0].mode, ChangeMode::Upsert);
    }
}
