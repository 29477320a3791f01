//! The mode that the settings name, and what each setting is: a key of the mode, of every mode, of another mode, or of the engine.

use super::settings::{Settings, plain};
use crate::{
    exit::{Code, Failure},
    secrets,
};
use schemars::JsonSchema;
use serde_json::{Map, Value, json};
use standpipe_loader::{Catalogue, DeploymentKind, NoKind, Reference, closest, wire::Problem};
use standpipe_pipeline::{EngineSetting, deployment::Setting};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
};

/// The mode if nobody names one.
const DEFAULT_MODE: &str = "session";
/// What the keys of the engine begin with.
pub(crate) const ENGINE: &str = "engine.";
/// The key that names the mode.
pub(crate) const MODE: &str = "deployment_mode";
/// The key that names the distribution.
const HOME: &str = "standpipe_home";
/// What is shown instead of the value of a key that is a secret by its schema (`format: password`).
const HIDDEN: &str = "***";

/// Keys of every mode.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
struct HostKeys {
    /// Where the job runs: the name of a deployment plugin.
    #[schemars(default = "default_mode")]
    deployment_mode: String,
    /// The distribution to ship: the folder with the `standpipe` binary, whose plugins the job gets. Unset: the running one.
    standpipe_home: Option<String>,
    /// A setting of the engine, the prefix removed: `engine.parallelism`, `engine.checkpoint.interval`, `engine.batch_rows`. It counts where the pipeline says nothing
    /// itself; a setting that is overridden is named with its winner.
    #[schemars(rename = "engine.*")]
    engine: Option<String>,
}

fn default_mode() -> String {
    DEFAULT_MODE.to_owned()
}

/// A setting as it counts, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) origin: String,
    /// Nobody has said it.
    pub(crate) is_default: bool,
}

/// A mode with its configuration.
pub(crate) struct Mode {
    /// What names it: `session`, with a version or file if it was set so.
    pub(crate) reference: String,
    pub(crate) kind: DeploymentKind,
    /// For the plugin.
    pub(crate) config: Value,
    /// For the engine.
    pub(crate) engine: Vec<EngineSetting>,
    /// Worth knowing, or with `--strict` an error.
    pub(crate) warnings: Vec<String>,
    /// What is wrong with the plugin's keys, also that one is missing.
    pub(crate) problems: Vec<String>,
    /// Of these, what is wrong with the value of a key that was given.
    pub(crate) wrong: Vec<String>,
    /// Every setting, with defaults.
    pub(crate) shown: Vec<Shown>,
}

/// The keys that somebody knows, with the modes that they are of (none: every mode), and those of them that are secrets.
struct Known<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>, BTreeSet<&'a str>);

impl<'a> Known<'a> {
    fn of(catalogue: &'a Catalogue, chosen: &'a DeploymentKind) -> Self {
        let mut keys = BTreeMap::from([(MODE, BTreeSet::new()), (HOME, BTreeSet::new())]);
        let mut secrets = BTreeSet::new();
        let found = catalogue.kinds("deployment").into_iter().map(|kind| (kind.name.as_str(), &kind.config_schema));
        // Another version than the one that is found by the name alone may have other keys.
        for (name, schema) in found.chain([(chosen.name(), chosen.config_schema())]) {
            for (key, schema) in properties(schema).filter(|(key, _)| *key != HOME) {
                keys.entry(key).or_insert_with(BTreeSet::new).insert(name);
                secrets.extend(Some(key).filter(|_| schema["format"] == "password"));
            }
        }
        Self(keys, secrets)
    }

    /// The value as people are shown it. Messages that hold a secret show it so too, from now on.
    fn shown(&self, setting: &Setting) -> String {
        let bare = setting.key.strip_prefix(ENGINE).unwrap_or(&setting.key);
        if setting.secret || !self.1.contains(bare) {
            return setting.written.clone();
        }
        secrets::remember(HIDDEN, &setting.value);
        HIDDEN.to_owned()
    }

    /// Everything that nobody knows, at once; what is known of the chosen mode is named.
    fn check(&self, settings: &Settings, chosen: &str) -> Vec<String> {
        let is_known = |key: &str| self.0.contains_key(key) || key.strip_prefix(ENGINE).is_some_and(|rest| !rest.is_empty());
        let of_chosen = self.0.iter().filter(|(_, modes)| modes.is_empty() || modes.contains(chosen)).map(|(key, _)| *key);
        let of_chosen = of_chosen.collect::<Vec<_>>().join(", ");
        let unknown = |setting: &Setting| {
            let end = match closest(&setting.key, self.0.keys().copied()) {
                Some(meant) => format!(", did you mean {meant:?}?"),
                None => format!("; known are {of_chosen} and engine.*"),
            };
            format!("{}: unknown key {:?}{end}", setting.origin, setting.key)
        };
        settings.values().filter(|setting| !is_known(&setting.key)).map(unknown).collect()
    }
}

/// The mode's name, and what says it.
fn named(settings: &Settings) -> (&str, &str) {
    settings.get(MODE).map_or((DEFAULT_MODE, "the default"), |setting| (setting.value.as_str(), setting.origin.as_str()))
}

/// Finds the mode. Nothing has been asked, opened or written before.
///
/// # Errors
/// When there is none of that name; it lists those that there are.
pub(crate) fn find(catalogue: &Catalogue, settings: &Settings) -> anyhow::Result<DeploymentKind> {
    let (name, origin) = named(settings);
    let file = Reference::parse(name).ok().and_then(|reference| reference.file);
    catalogue.clone().with_files(file).deployment(name).map_err(|problem| {
        let unknown = match problem {
            NoKind::Unknown(unknown) => unknown,
            other => return Failure::error(Code::Usage, format!("{MODE}: {other} ({origin})")),
        };
        let meant = unknown.suggestion.map(|meant| format!(", did you mean {meant:?}?")).unwrap_or_default();
        let modes = if unknown.found.is_empty() { "none".to_owned() } else { unknown.found.join(", ") };
        let failures: String = unknown.failures.iter().map(|failure| format!("; not loaded: {failure}")).collect();
        let shown = settings.get(MODE).map_or(name, |setting| setting.written.as_str());
        Failure::error(Code::Usage, format!("{MODE}: there is no mode {shown:?}{meant} ({origin}); modes: {modes}{failures}"))
    })
}

/// Sorts the settings for that mode and asks its plugin what it says to them. No I/O.
///
/// # Errors
/// When a key is unknown, or the plugin can say nothing.
pub(crate) fn configure(catalogue: &Catalogue, kind: DeploymentKind, given: &Settings) -> anyhow::Result<Mode> {
    let known = Known::of(catalogue, &kind);
    let unknown = known.check(given, kind.name());
    if !unknown.is_empty() {
        return Err(Failure::error(Code::Usage, unknown.join("\n")));
    }
    let settings = with_defaults(given)?;
    let (mut engine, mut warnings, mut shown) = (Vec::new(), Vec::new(), Vec::new());
    let mut config = Map::new();
    for setting in settings.values() {
        let mut origin = setting.origin.clone();
        if let Some(bare) = setting.key.strip_prefix(ENGINE) {
            if known.0.contains_key(bare) {
                let winner = settings.get(bare).map_or_else(|| "which is not set".to_owned(), |winner| winner.origin.clone());
                warnings.push(format!("{}: {:?} has no effect: {bare:?} overrides it ({winner})", setting.origin, setting.key));
                origin = format!("{origin}, overridden by {bare}");
            } else {
                // As written: a reference is resolved where the job runs.
                engine.push(EngineSetting { key: bare.to_owned(), value: setting.written.clone(), origin: setting.origin.clone() });
            }
        } else if let Some(schema) = property(kind.config_schema(), &setting.key) {
            config.insert(setting.key.clone(), typed(&setting.value, schema));
        } else if known.0.get(setting.key.as_str()).is_some_and(|modes| !modes.is_empty()) {
            origin = format!("{origin}, not used by {}", kind.name());
        }
        let is_default = !given.contains_key(&setting.key);
        shown.push(Shown { key: setting.key.clone(), value: known.shown(setting), origin, is_default });
    }
    let config = Value::Object(config);
    let details = kind.validate(&config).map_err(|error| Failure::error(Code::Usage, error))?;
    let tell = |problem: &Problem| said(kind.name(), problem, &settings);
    let problems = details.problems.iter().map(tell).collect();
    let wrong = details.problems.iter().filter(|problem| given.contains_key(&problem.path)).map(tell).collect();
    for (key, value) in details.effective.iter().filter(|(key, _)| !settings.contains_key(*key)) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        shown.push(Shown { key: key.clone(), value, origin: format!("default of {}", kind.name()), is_default: true });
    }
    shown.sort_by(|one, other| one.key.cmp(&other.key));
    let reference =
        given.get(MODE).filter(|setting| !setting.secret).map_or_else(|| kind.name().to_owned(), |setting| setting.value.clone());
    Ok(Mode { reference, kind, config: escaped(config), engine, warnings, problems, wrong, shown })
}

/// What every mode has without being told.
fn with_defaults(settings: &Settings) -> anyhow::Result<Settings> {
    let mut settings = settings.clone();
    settings.entry(MODE.to_owned()).or_insert_with(|| plain(MODE, DEFAULT_MODE, "default"));
    let home = match home(&settings)? {
        Some(home) => home,
        None => own_home().unwrap_or_default(),
    };
    let origin = settings.get(HOME).map_or_else(|| "default: the running distribution".to_owned(), |setting| setting.origin.clone());
    settings.insert(HOME.to_owned(), plain(HOME, &home.display().to_string(), &origin));
    Ok(settings)
}

/// The folder of the running binary.
fn own_home() -> Option<PathBuf> {
    env::current_exe().ok()?.parent().map(Path::to_owned)
}

/// The distribution that the settings name; `~` is the home of the user.
///
/// # Errors
/// When there is no `standpipe` in it.
pub(crate) fn home(settings: &Settings) -> anyhow::Result<Option<PathBuf>> {
    let Some(setting) = settings.get(HOME) else { return Ok(None) };
    let of_user = setting.value.strip_prefix("~/").zip(env::home_dir()).map(|(rest, home)| home.join(rest));
    let home = of_user.unwrap_or_else(|| PathBuf::from(&setting.value));
    match home.canonicalize() {
        Ok(home) if home.join("standpipe").is_file() => Ok(Some(home)),
        _ => {
            let message = format!("{}: {HOME}: {:?} is no distribution: it has no file standpipe", setting.origin, setting.written);
            Err(Failure::error(Code::Usage, message))
        }
    }
}

/// A text as the value that the schema wants; one that is none stays text, and the plugin says what is wrong with it.
fn typed(text: &str, schema: &Value) -> Value {
    let wants = |name: &str| match &schema["type"] {
        Value::String(only) => only == name,
        Value::Array(names) => names.iter().any(|one| one == name),
        _ => false,
    };
    let parsed = || serde_json::from_str::<Value>(text.trim()).ok();
    if wants("integer") {
        return parsed().filter(Value::is_number).unwrap_or_else(|| text.into());
    }
    if wants("number") {
        return parsed().filter(Value::is_number).unwrap_or_else(|| text.into());
    }
    if wants("boolean") {
        return parsed().filter(Value::is_boolean).unwrap_or_else(|| text.into());
    }
    text.into()
}

/// What is wrong, with the mode, the key, and who set it.
fn said(mode: &str, problem: &Problem, settings: &Settings) -> String {
    let Problem { path, message, suggestion } = problem;
    let meant = suggestion.as_ref().map(|meant| format!(", did you mean {meant:?}?")).unwrap_or_default();
    let origin = settings.get(path).map(|setting| format!("{}: ", setting.origin)).unwrap_or_default();
    let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
    format!("{origin}{MODE} {mode}: {path}{message}{meant}")
}

/// A plugin resolves references in its configuration; these have been.
fn escaped(mut config: Value) -> Value {
    for value in config.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Value::String(text) = value {
            *text = text.replace("${", "$${");
        }
    }
    config
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(key, member)| (key.as_str(), member))
}

/// The schema of a key, if the mode has it.
pub(crate) fn property<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    let found = schema.get("properties")?.get(key)?;
    let target = found.get("$ref").and_then(Value::as_str).and_then(|name| schema.pointer(name.strip_prefix('#')?));
    Some(target.unwrap_or(found))
}

/// The JSON Schema of a file of settings: the keys of every mode, and of those that are found.
pub(crate) fn schema(catalogue: &Catalogue) -> Value {
    let mut members: Map<String, Value> = own_schema().get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let engine = members.remove("engine.*").unwrap_or_default();
    for kind in catalogue.kinds("deployment") {
        for (key, member) in properties(&kind.config_schema) {
            members.entry(key.to_owned()).or_insert_with(|| member.clone());
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Standpipe deployment",
        "type": "object",
        "properties": members,
        "patternProperties": {"^engine\\.": {"description": engine["description"], "type": ["string", "number", "boolean"]}},
        "additionalProperties": false
    })
}

/// The JSON Schema of the keys of every mode.
pub(crate) fn own_schema() -> Value {
    schemars::schema_for!(HostKeys).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_what_the_schema_wants() {
        let number = json!({"type": ["integer", "null"]});
        assert_eq!(typed("8081", &number), json!(8081));
        assert_eq!(typed("x", &number), json!("x"));
        assert_eq!(typed("8081", &json!({"type": "string"})), json!("8081"));
        assert_eq!(typed("true", &json!({"type": "boolean"})), json!(true));
        assert_eq!(typed("-1", &json!({"type": "integer"})), json!(-1));
    }

    #[test]
    fn what_has_been_resolved_is_no_reference() {
        assert_eq!(escaped(json!({"a": "x${y}", "b": 1})), json!({"a": "x$${y}", "b": 1}));
    }
}
