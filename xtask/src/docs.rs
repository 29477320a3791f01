//! `cargo xtask docs`: writes the tables of `docs/connectors.md` and `docs/deployment.md` from what the plugins say of themselves (`standpipe plugin inspect FILE --json`) and what
//! the binary says of the keys of every deployment mode.
//!
//! A table stands between `<!-- keys of: sink file -->` and `<!-- end of keys -->`; everything else in the page is written by hand. With `--check` nothing is
//! written, and a table that is not up to date is an error: `cargo xtask lint` calls that.

use crate::cargo::{self, cargo, step};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, process::Command};

const CONNECTORS: &str = "docs/connectors.md";
const DEPLOYMENT: &str = "docs/deployment.md";
/// The keys of no plugin.
const EVERY_MODE: &str = "every mode";
const BEGIN: &str = "<!-- keys of: ";
const END: &str = "<!-- end of keys -->";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write nothing; fail if a table is not up to date
    #[arg(long)]
    check: bool,
}

impl Options {
    /// Nothing is written.
    pub(crate) const fn check() -> Self {
        Self { check: true }
    }
}

/// Builds the plugins, then writes or checks the pages.
pub(crate) fn docs(options: &Options) -> Result<()> {
    step("build", &mut cargo(&["build", "--profile", "ci", "--workspace"]))?;
    let folder = cargo::target().join("ci");
    let (mut deployment, connectors): (BTreeMap<_, _>, BTreeMap<_, _>) =
        kinds(&folder)?.into_iter().partition(|(name, _)| name.starts_with("deployment "));
    deployment.insert(EVERY_MODE.to_owned(), every_mode(&folder)?);
    [(CONNECTORS, connectors), (DEPLOYMENT, deployment)].into_iter().try_for_each(|(name, tables)| update(name, &tables, options.check))
}

/// Writes or checks one page.
fn update(name: &str, tables: &BTreeMap<String, String>, check: bool) -> Result<()> {
    let path = cargo::root().join(name);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
    let written = fill(name, &page, tables)?;
    if written == page {
        return Ok(());
    }
    if check {
        let same = page.lines().zip(written.lines()).take_while(|(found, expected)| found == expected).count();
        bail!("{name}:{} is not what the plugins say; run cargo xtask docs", same + 1);
    }
    fs::write(&path, written).with_context(|| format!("cannot write {name}"))?;
    eprintln!("==> {name} has changed");
    Ok(())
}

/// The table of the keys that every deployment mode has.
fn every_mode(folder: &Path) -> Result<String> {
    let output = Command::new(folder.join("standpipe")).args(["config", "schema", "--own"]).output()?;
    ensure!(output.status.success(), "standpipe config schema: {}", String::from_utf8_lossy(&output.stderr));
    table(&serde_json::from_slice(&output.stdout)?)
}

/// The tables of all kinds of the plugins in a folder, by `sink file`.
fn kinds(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut tables = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with("libstandpipe_") || !name.ends_with(".so") {
            continue;
        }
        let output = Command::new(folder.join("standpipe")).args(["plugin", "inspect", "--json"]).arg(&path).output()?;
        ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let manifest: Value = serde_json::from_slice(&output.stdout)?;
        for kind in manifest["description"]["kinds"].as_array().into_iter().flatten() {
            let name = format!("{} {}", text(&kind["kind"]), text(&kind["name"]));
            tables.insert(name, table(&kind["config_schema"])?);
        }
    }
    Ok(tables)
}

/// The page with its tables replaced.
fn fill(page_name: &str, page: &str, tables: &BTreeMap<String, String>) -> Result<String> {
    let (mut out, mut rest) = (String::new(), page);
    let mut unused: BTreeMap<_, _> = tables.iter().collect();
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(" -->").with_context(|| format!("{page_name}: a marker without its end"))?;
        let (_, after) = after.split_once(END).with_context(|| format!("{page_name}: no {END} after {name}"))?;
        let table =
            unused.remove(&name.to_owned()).with_context(|| format!("{page_name}: no plugin has the {name}, or it is there twice"))?;
        write!(out, "{before}{BEGIN}{name} -->\n{table}{END}")?;
        rest = after;
    }
    out.push_str(rest);
    if let Some((name, _)) = unused.first_key_value() {
        bail!("{page_name} does not describe the {name}: it needs the marker {BEGIN}{name} -->");
    }
    Ok(out)
}

fn table(schema: &Value) -> Result<String> {
    let mut out = String::from("| key | type | default | meaning |\n|---|---|---|---|\n");
    Schema(schema).members("", schema, &mut out)?;
    Ok(out)
}

/// A JSON Schema, to which its parts may refer.
#[derive(Clone, Copy)]
struct Schema<'a>(&'a Value);

impl<'a> Schema<'a> {
    /// A row for each member of an object, followed by those of the objects in it.
    fn members(self, prefix: &str, object: &'a Value, out: &mut String) -> Result<()> {
        for (name, member) in object["properties"].as_object().into_iter().flatten() {
            let is_required = object["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name));
            let key = format!("{prefix}{name}");
            let schema = self.resolve(member);
            let default = match member.get("default").filter(|value| !value.is_null()) {
                _ if is_required => "required".to_owned(),
                Some(Value::String(text)) if !text.is_empty() => format!("`{text}`"),
                Some(value) => format!("`{value}`"),
                None => String::new(),
            };
            let meaning = self.meaning(member, schema);
            writeln!(out, "| `{key}` | {} | {default} | {} |", self.kind(member), cell(&meaning))?;
            self.members(&format!("{key}."), schema, out)?;
            if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
                self.variants(&format!("{key}.NAME"), self.resolve(values), out)?;
            }
        }
        Ok(())
    }

    /// A row for each form of an object that says by a constant which form it has.
    fn variants(self, key: &str, schema: &'a Value, out: &mut String) -> Result<()> {
        for variant in schema["oneOf"].as_array().into_iter().flatten().filter(|variant| variant["properties"].is_object()) {
            let mut tag = String::new();
            let mut keys = Vec::new();
            for (name, member) in variant["properties"].as_object().into_iter().flatten() {
                if let Some(value) = member.get("const") {
                    tag = format!("{name}: {}", text(value));
                    continue;
                }
                let default = member.get("default").map(|value| format!(", default {value}")).unwrap_or_default();
                keys.push(format!("`{name}` ({}{default}): {}", self.kind(member), text(&member["description"])));
            }
            let meaning = [&[text(&variant["description"])][..], &keys].concat().join(" ");
            writeln!(out, "| `{key}: {{{tag}, ...}}` | map | | {} |", cell(&meaning))?;
        }
        Ok(())
    }

    /// What a reference, or the choice between something and nothing, stands for.
    fn resolve(self, schema: &'a Value) -> &'a Value {
        if let Some(target) = schema["$ref"].as_str().and_then(|name| self.0.pointer(name.strip_prefix('#')?)) {
            return target;
        }
        let some: Vec<&'a Value> = schema["anyOf"].as_array().into_iter().flatten().filter(|choice| choice["type"] != "null").collect();
        if let [only] = some[..] { self.resolve(only) } else { schema }
    }

    fn meaning(self, member: &Value, schema: &'a Value) -> String {
        let mut meaning = text(member.get("description").unwrap_or(&schema["description"]));
        for choice in self.resolve(schema)["oneOf"].as_array().into_iter().flatten().filter(|choice| choice["const"].is_string()) {
            write!(meaning, " `{}`: {}", text(&choice["const"]), text(&choice["description"])).unwrap_or_default();
        }
        meaning
    }

    /// What may stand behind a key.
    fn kind(self, schema: &'a Value) -> String {
        let schema = self.resolve(schema);
        for words in ["oneOf", "enum"] {
            let choices = schema[words].as_array().into_iter().flatten();
            let names: Option<Vec<String>> =
                choices.map(|choice| Some(format!("`{}`", choice.get("const").unwrap_or(choice).as_str()?))).collect();
            if let Some(names) = names.filter(|names| !names.is_empty()) {
                return names.join(", ");
            }
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            return choices.iter().map(|choice| self.kind(choice)).collect::<Vec<_>>().join(" or ");
        }
        let names: Vec<&str> = match &schema["type"] {
            Value::String(name) => vec![name],
            Value::Array(names) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
            _ => vec!["any"],
        };
        let pattern = schema["pattern"].as_str().unwrap_or_default();
        let name = |name: &str| match name {
            "string" if pattern.contains("ms") => "duration".to_owned(),
            "string" if pattern.contains("[Bb]") => "size".to_owned(),
            "string" if schema["format"] == "password" => "secret text".to_owned(),
            "string" => "text".to_owned(),
            "integer" => "whole number".to_owned(),
            "boolean" => "`true`, `false`".to_owned(),
            "array" if schema["items"].is_object() => format!("list of {}", self.kind(&schema["items"])),
            "array" => "list".to_owned(),
            "object" if schema["additionalProperties"].is_object() => format!("map to {}", self.kind(&schema["additionalProperties"])),
            "object" => "map".to_owned(),
            other => other.to_owned(),
        };
        names.into_iter().map(name).collect::<Vec<_>>().join(" or ")
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// As it stands in a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_becomes_a_table() {
        let schema = json!({
            "$defs": {
                "Mode": {"oneOf": [{"const": "a", "description": "First."}, {"const": "b", "description": "Last."}]},
                "Retry": {"properties": {"max": {"type": "string", "pattern": "(ms|s)", "default": "10s", "description": "Longest."}}, "type": "object"},
                "Field": {"oneOf": [{"description": "Counts.", "properties": {"kind": {"const": "count"}, "by": {"type": "integer", "default": 1, "description": "Step."}}}]}
            },
            "properties": {
                "hosts": {"type": "array", "items": {"type": "string"}, "description": "Where\n| there."},
                "mode": {"$ref": "#/$defs/Mode", "default": "a", "description": "How."},
                "retry": {"anyOf": [{"$ref": "#/$defs/Retry"}, {"type": "null"}], "description": "Pause."},
                "fields": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Field"}, "description": "Columns."}
            },
            "required": ["hosts"]
        });
        let expected = "| key | type | default | meaning |\n|---|---|---|---|\n\
            | `fields` | map to any |  | Columns. |\n\
            | `fields.NAME: {kind: count, ...}` | map | | Counts. `by` (whole number, default 1): Step. |\n\
            | `hosts` | list of text | required | Where \\| there. |\n\
            | `mode` | `a`, `b` | `a` | How. `a`: First. `b`: Last. |\n\
            | `retry` | map |  | Pause. |\n\
            | `retry.max` | duration | `10s` | Longest. |\n";
        assert_eq!(table(&schema).unwrap(), expected);
    }

    #[test]
    fn every_kind_has_its_place_and_every_place_its_kind() {
        let tables = BTreeMap::from([("sink a".to_owned(), "new\n".to_owned())]);
        let page = format!("x\n{BEGIN}sink a -->\nold\n{END}\ny\n");
        assert_eq!(fill("page", &page, &tables).unwrap(), format!("x\n{BEGIN}sink a -->\nnew\n{END}\ny\n"));
        assert!(fill("page", "", &tables).unwrap_err().to_string().contains("does not describe the sink a"));
        assert!(fill("page", &page.replace("sink a", "sink b"), &tables).unwrap_err().to_string().contains("no plugin has the sink b"));
        assert!(fill("page", &page.replace(END, ""), &tables).is_err());
    }
}
