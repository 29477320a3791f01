//! What a manifest says in texts: the names that messages are made of, and the JSON that describes the kinds. It comes from a file that anybody may have written, so what is no name is refused here,
//! before it is in a line that somebody reads.

use standpipe_sdk::wire::Description;

/// Of a name or version, in bytes.
const LONGEST: usize = 255;

/// Characters of what is said of a description.
const MOST_SAID: usize = 200;

/// Whether it can stand in a message: it is one line, and no page.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST && !text.contains(char::is_control)
}

/// The description of a plugin.
///
/// # Errors
/// What is wrong with it, one line.
pub(crate) fn description(json: &str) -> Result<Description, String> {
    let description: Description = serde_json::from_str(json).map_err(|error| {
        // It has the value that is wrong, whatever that is.
        let said = error.to_string();
        let (end, behind) = (said.rfind(" at line ").unwrap_or(said.len()), said.chars().count() > MOST_SAID);
        let shown: String = said.chars().take(MOST_SAID).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
        let place = if behind { format!(" ...{}", &said[end..]) } else { String::new() };
        format!("its description is no JSON that this host knows: {shown}{place}")
    })?;
    match description.kinds.iter().find(|kind| !is_name(&kind.kind) || !is_name(&kind.name)) {
        Some(kind) => {
            let shown: String = kind.name.chars().take(40).collect();
            Err(format!("the name {shown:?} of a kind in its description must have 1 to {LONGEST} bytes and no control characters"))
        }
        None => Ok(description),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AbiVersion, Flavour, PluginFile, library::read_kinds};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use standpipe_hostile::{
        bytes, cases,
        json::{self, nested},
    };
    use std::{path::PathBuf, ptr, sync::LazyLock};

    /// As plugins in Rust have it, with a kind of each.
    static SAMPLE: LazyLock<Value> = LazyLock::new(|| {
        let kinds = ["source", "transform", "sink", "scalar", "aggregate", "deployment", "lookup"];
        let schema = json!({"type": "object", "properties": {"path": {"type": "string", "default": "-"}, "mode": {"$ref": "#/$defs/Mode"}},
            "required": ["path"], "additionalProperties": false, "$defs": {"Mode": {"anyOf": [{"enum": ["a", "b"]}, {"$ref": "#"}]}}});
        let kind = |kind: &str| json!({"kind": kind, "name": format!("{kind}-of-it"), "summary": "What it does.", "config_schema": schema});
        json!({"kinds": kinds.map(kind), "build": {"sdk": "1.0.0", "target": "x86_64", "profile": "release"}})
    });

    /// All that is done with a description before any of its tables is there.
    fn read(json: &str) -> Result<Description, String> {
        let description = description(json)?;
        let file = PluginFile {
            path: PathBuf::from("plugin.so"),
            name: "sample".to_owned(),
            version: "0.1.0".to_owned(),
            abi: AbiVersion::HOST,
            flavour: Flavour::C,
            description: description.clone(),
            content: None,
            hash: std::sync::OnceLock::new(),
        };
        // Kinds that this host knows have no table here, the others are left out.
        match read_kinds(&file, &|_, _| ptr::null()) {
            Ok(kinds) => assert!(kinds.is_empty()),
            Err(missing) => assert!(!missing.contains(char::is_control) && missing.ends_with("is missing"), "{missing}"),
        }
        Ok(description)
    }

    fn check(json: &str) -> Result<(), TestCaseError> {
        if let Err(why) = read(json) {
            prop_assert!(why.len() < 1_000 && !why.contains(char::is_control), "{why:?}");
        }
        Ok(())
    }

    const WORDS: &[&str] =
        &["\"kinds\"", "\"kind\":\"sink\"", "\\n", "\\u0000", "\\ud800", "null", "1e999", "{", "}", "[", "]", ",", ":", "\""];

    proptest! {
        #![proptest_config(cases(1_000))]

        #[test]
        fn values_that_are_others(changes in json::changes()) {
            check(&json::changed(&SAMPLE, &changes).to_string())?;
        }

        #[test]
        fn bytes_that_are_others(changes in bytes::changes(WORDS)) {
            check(&String::from_utf8_lossy(&bytes::changed(SAMPLE.to_string().as_bytes(), &changes)))?;
        }

        #[test]
        fn any_text(text in "\\PC{0,80}") {
            check(&text)?;
        }
    }

    #[test]
    fn the_sample_is_right() {
        assert_eq!(description(&SAMPLE.to_string()).unwrap().kinds.len(), 7);
        assert_eq!(read("{}").unwrap(), Description::default());
    }

    #[test]
    fn what_is_no_name_is_no_line() {
        for name in ["", "a\nb", "\u{1b}[2J", &"x".repeat(256)] {
            let json = json!({"kinds": [{"kind": "sink", "name": name, "config_schema": {}}]}).to_string();
            let why = description(&json).unwrap_err();
            assert!(why.ends_with(" of a kind in its description must have 1 to 255 bytes and no control characters"), "{why}");
        }
        let why = description(&json!({"kinds": "x".repeat(1 << 20)}).to_string()).unwrap_err();
        assert!(why.len() < 400 && why.contains("xxx ... at line 1 column "), "{why}");
        let why = description(&json!({"kinds": "a\nb"}).to_string()).unwrap_err();
        assert!(why.starts_with("its description is no JSON that this host knows: invalid type: string \"a\\nb\""), "{why}");
    }

    #[test]
    fn nesting_has_an_end() {
        for text in [nested("[", "1", "]", 1_000_000), nested("{\"kinds\":", "1", "}", 1_000_000), "[".repeat(1_000_000)] {
            check(&text).unwrap();
        }
        // As deep as JSON may be; whoever reads it later goes as deep.
        let schema: Value = serde_json::from_str(&nested("{\"items\":", "{}", "}", 110)).unwrap();
        read(&json!({"kinds": [{"kind": "sink", "name": "deep", "config_schema": schema}]}).to_string()).unwrap();
    }
}
