//! `plugin inspect`: all that a plugin file says of itself. Its manifest function runs in a child process, and what its kinds declare with their defaults is asked in another: a plugin
//! that crashes ends those, not the command.

use crate::{
    exit::{Code, Failure},
    output::{columns, print},
};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use standpipe_loader::bundle::HASH_PREFIX;
use std::{
    fmt::Write as _,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
};

/// What the child process prints, and with what it declares all that `--format json` does.
#[derive(Serialize, Deserialize)]
pub(super) struct Manifest {
    path: String,
    name: String,
    version: String,
    abi: String,
    flavour: String,
    /// Of the content, as bundles have it: `sha256:` and 64 digits.
    hash: String,
    pub(super) description: standpipe_loader::wire::Description,
    /// What each kind declares with its defaults, by `KIND NAME`; null where that depends on the configuration.
    #[serde(default)]
    declares: Map<String, Value>,
}

/// `standpipe plugin manifest`, the child: a manifest function that crashes ends this process, not the one that the user called.
pub(super) fn manifest(file: &Path) -> anyhow::Result<()> {
    let plugin = standpipe_loader::inspect(file).map_err(|error| Failure::error(Code::Usage, error))?;
    let manifest = Manifest {
        path: plugin.path.display().to_string(),
        name: plugin.name.clone(),
        version: plugin.version.clone(),
        abi: plugin.abi.to_string(),
        flavour: plugin.flavour.to_string(),
        hash: format!("{HASH_PREFIX}{}", plugin.hash()),
        description: plugin.description.clone(),
        declares: Map::new(),
    };
    Ok(print(&serde_json::to_string(&manifest)?)?)
}

fn child(command: &str, file: &Path) -> anyhow::Result<std::process::Output> {
    let own = std::env::current_exe().context("cannot find the standpipe binary")?;
    Ok(Command::new(own).args(["plugin", command]).arg(file).stderr(Stdio::piped()).output()?)
}

/// A file's manifest, read in another process.
pub(super) fn read(file: &Path) -> anyhow::Result<Manifest> {
    let output = child("manifest", file)?;
    if let Some(signal) = output.status.signal() {
        return Err(Failure::error(Code::Usage, format!("{}: its manifest function crashed (signal {signal})", file.display())));
    }
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        // The child says itself what it finds wrong, on one line.
        if let Some(said) = text.trim().strip_prefix("error: ") {
            return Err(Failure::error(Code::Usage, said));
        }
        let code = output.status.code().map_or_else(String::new, |code| format!(", with the exit code {code}"));
        return Err(Failure::error(Code::Usage, format!("{}: its manifest function ended the process{code}", file.display())));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::error(Code::Usage, format!("{}: its manifest function printed something or ended the process: {error}", file.display()))
    })
}

/// `standpipe plugin inspect`.
pub(super) fn inspect(file: &Path, json: bool) -> anyhow::Result<()> {
    let mut manifest = read(file)?;
    // A plugin whose `validate` crashes has said what it says of itself all the same.
    let declared = child("declared", file).ok().filter(|output| output.status.success());
    manifest.declares = declared.and_then(|output| serde_json::from_slice(&output.stdout).ok()).unwrap_or_default();
    let text = if json { serde_json::to_string_pretty(&manifest)? + "\n" } else { describe(&manifest)? };
    Ok(print(&text)?)
}

fn describe(manifest: &Manifest) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "{} {}", manifest.name, manifest.version)?;
    writeln!(text, "  file     {}", manifest.path)?;
    writeln!(text, "  content  {}", manifest.hash)?;
    writeln!(text, "  abi      {} ({})", manifest.abi, manifest.flavour)?;
    let build: Vec<String> = manifest.description.build.iter().map(|(key, value)| format!("{key} {}", plain(value))).collect();
    writeln!(text, "  build    {}", build.join(", "))?;
    for kind in &manifest.description.kinds {
        writeln!(text, "\n{} {}: {}", kind.kind, kind.name, kind.summary)?;
        writeln!(text, "  can: {}", can(manifest.declares.get(&format!("{} {}", kind.kind, kind.name))))?;
        let rows = keys(&kind.config_schema, &kind.config_schema);
        if !rows.is_empty() {
            let header = ["key", "type", "default", ""].map(str::to_owned);
            columns(&header, &rows).lines().try_for_each(|line| writeln!(text, "  {line}"))?;
        }
    }
    Ok(text)
}

/// What a kind can do, as far as that is known without a configuration.
fn can(declares: Option<&Value>) -> String {
    match declares.and_then(Value::as_array).map(Vec::as_slice) {
        None => "by configuration".to_owned(),
        Some([]) => "nothing besides".to_owned(),
        Some(words) => words.iter().map(plain).collect::<Vec<_>>().join(", "),
    }
}

/// The reference of a configuration: key, type, default or that it is required, what it is for.
fn keys(root: &Value, schema: &Value) -> Vec<Vec<String>> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let required =
        |key: &str| schema.get("required").and_then(Value::as_array).is_some_and(|required| required.iter().any(|name| name == key));
    let row = |(key, schema): (&String, &Value)| {
        let default = match schema.get("default") {
            _ if required(key) => "required".to_owned(),
            None | Some(Value::Null) => String::new(),
            Some(default) => default.to_string(),
        };
        let summary = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        vec![key.clone(), type_text(root, schema), default, summary.lines().next().unwrap_or_default().to_owned()]
    };
    properties.into_iter().flatten().map(row).collect()
}

/// Parts of a schema that a type is told by.
const MOST_PARTS: u32 = 64;

/// The type of a value by its JSON Schema, in a word or two.
fn type_text(root: &Value, schema: &Value) -> String {
    part_text(root, schema, &mut { MOST_PARTS })
}

/// As far as `left` parts of it go: a schema may refer to itself.
fn part_text(root: &Value, schema: &Value, left: &mut u32) -> String {
    let Some(rest) = left.checked_sub(1) else { return "...".to_owned() };
    *left = rest;
    if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|name| root.pointer(name.strip_prefix('#')?)) {
        return part_text(root, target, left);
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().map(plain).collect::<Vec<_>>().join(" | ");
    }
    if let Some(word) = schema.get("const") {
        return plain(word);
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(choices) = schema.get(choice).and_then(Value::as_array) {
            let mut texts: Vec<String> = choices.iter().map(|choice| part_text(root, choice, left)).filter(|text| text != "null").collect();
            texts.dedup();
            return texts.join(" | ");
        }
    }
    match schema.get("type") {
        Some(Value::Array(types)) => types.iter().map(plain).filter(|word| word != "null").collect::<Vec<_>>().join(" | "),
        Some(Value::String(word)) if word == "array" => match schema.get("items").map(|items| part_text(root, items, left)) {
            Some(items) if !items.is_empty() => format!("list of {items}"),
            _ => "list".to_owned(),
        },
        Some(Value::String(word)) => word.clone(),
        _ => "any".to_owned(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_are_told_in_words() {
        let root = json!({"$defs": {"Mode": {"enum": ["a", "b"]}}});
        for (schema, expected) in [
            (json!({"$ref": "#/$defs/Mode"}), "a | b"),
            (json!({"type": ["string", "null"]}), "string"),
            (json!({"anyOf": [{"$ref": "#/$defs/Mode"}, {"type": "null"}]}), "a | b"),
            (json!({"type": "array", "items": {"type": "integer"}}), "list of integer"),
            (json!({"oneOf": [{"const": "x", "description": "one"}, {"const": "y"}]}), "x | y"),
            (json!({}), "any"),
        ] {
            assert_eq!(type_text(&root, &schema), expected);
        }
    }

    /// A condition is one of a column, or all of several.
    #[test]
    fn a_type_that_refers_to_itself_is_told_too() {
        let root = json!({"$defs": {
            "Itself": {"$ref": "#/$defs/Itself"},
            "Condition": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#/$defs/Condition"}}]},
            "Twice": {"anyOf": [{"$ref": "#/$defs/Twice"}, {"$ref": "#/$defs/Twice"}]},
        }});
        let told = |name: &str| type_text(&root, &json!({"$ref": format!("#/$defs/{name}")}));
        assert_eq!(told("Itself"), "...");
        assert!(told("Condition").starts_with("string | list of string | list of string | "), "{}", told("Condition"));
        assert!(told("Condition").len() < 1_000 && told("Twice").len() < 1_000, "{}", told("Twice"));
    }
}
