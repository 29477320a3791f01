//! Lists and maps as one line of a setting: `a=b,c=d`, tolerations as `kubectl taint` writes taints, volumes and references by their kind. What lines cannot say, JSON can.
//! They become the JSON that pods have; nothing here knows which key they are of.

use crate::names::{self, Checked};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A map of texts, in its order.
pub(crate) type Texts = BTreeMap<String, String>;

/// The parts of a list without the spaces around them.
pub(crate) fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// `a=b,c=d`, or a JSON object of texts.
pub(crate) fn map(text: &str, key: fn(&str) -> Checked, value: fn(&str) -> Checked) -> Result<Texts, String> {
    let mut found = Texts::new();
    let pairs: Vec<(String, String)> = if text.trim_start().starts_with('{') {
        let object: Texts = serde_json::from_str(text).map_err(|error| format!("no JSON object of texts: {error}"))?;
        object.into_iter().collect()
    } else {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("expected KEY=VALUE, found {part:?}"))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        };
        parts(text).map(pair).collect::<Result<_, String>>()?
    };
    for (name, said) in pairs {
        key(&name)?;
        value(&said).map_err(|why| format!("{name}: {why}"))?;
        if found.insert(name.clone(), said).is_some() {
            return Err(format!("{name} is there twice"));
        }
    }
    Ok(found)
}

/// Any text will do.
pub(crate) fn anything(_: &str) -> Checked {
    Ok(())
}

/// Names of objects.
pub(crate) fn objects(text: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for name in parts(text) {
        names::object_name(name)?;
        if found.iter().any(|other| other == name) {
            return Err(format!("{name} is there twice"));
        }
        found.push(name.to_owned());
    }
    Ok(found)
}

/// A JSON array of objects that each have that member.
fn array(text: &str, member: &str) -> Result<Vec<Value>, String> {
    let items: Vec<Map<String, Value>> = serde_json::from_str(text).map_err(|error| format!("no JSON array of objects: {error}"))?;
    match items.iter().find(|item| !item.contains_key(member)) {
        Some(item) => Err(format!("expected a member {member:?} in {}", Value::Object(item.clone()))),
        None => Ok(items.into_iter().map(Value::Object).collect()),
    }
}

/// `KEY=VALUE:EFFECT`, `KEY:EFFECT`, `KEY`.
pub(crate) fn tolerations(text: &str) -> Result<Vec<Value>, String> {
    if text.trim_start().starts_with('[') {
        let items: Vec<Map<String, Value>> =
            serde_json::from_str(text).map_err(|error| format!("no JSON array of tolerations: {error}"))?;
        return Ok(items.into_iter().map(Value::Object).collect());
    }
    parts(text).map(toleration).collect()
}

fn toleration(text: &str) -> Result<Value, String> {
    let (taint, effect) = text.split_once(':').map_or((text, None), |(taint, effect)| (taint, Some(effect)));
    let (key, value) = taint.split_once('=').map_or((taint, None), |(key, value)| (key, Some(value)));
    names::qualified_name(key)?;
    let mut toleration = json!({"key": key, "operator": if value.is_some() { "Equal" } else { "Exists" }});
    if let Some(value) = value {
        names::label_value(value)?;
        toleration["value"] = value.into();
    }
    match effect {
        Some(effect @ ("NoSchedule" | "PreferNoSchedule" | "NoExecute")) => toleration["effect"] = effect.into(),
        Some(effect) => return Err(format!("expected NoSchedule, PreferNoSchedule or NoExecute behind \":\", found {effect:?}")),
        None => {}
    }
    Ok(toleration)
}

/// Variables that are taken from elsewhere: whole maps (`envFrom`), and single ones (`env`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Variables {
    pub(crate) whole: Vec<Value>,
    pub(crate) single: Vec<Value>,
}

/// `secret/NAME`, `configmap/NAME`, `VARIABLE=secret/NAME/KEY`.
pub(crate) fn variables(text: &str) -> Result<Variables, String> {
    let mut found = Variables::default();
    for part in parts(text) {
        let wrong = || format!("expected secret/NAME, configmap/NAME or VARIABLE=secret/NAME/KEY, found {part:?}");
        let (variable, reference) = part.split_once('=').map_or((None, part), |(variable, reference)| (Some(variable), reference));
        let words: Vec<&str> = reference.split('/').collect();
        let (whole, single) = match words.first() {
            Some(&"secret") => ("secretRef", "secretKeyRef"),
            Some(&"configmap") => ("configMapRef", "configMapKeyRef"),
            _ => return Err(wrong()),
        };
        match (variable, words.as_slice()) {
            (None, [_, name]) => {
                names::object_name(name)?;
                found.whole.push(json!({whole: {"name": name}}));
            }
            (Some(variable), [_, name, key]) => {
                names::variable(variable)?;
                names::object_name(name)?;
                names::data_key(key)?;
                found.single.push(json!({"name": variable, "valueFrom": {single: {"name": name, "key": key}}}));
            }
            _ => return Err(wrong()),
        }
    }
    Ok(found)
}

/// `NAME=claim/CLAIM`, `NAME=secret/SECRET`, `NAME=configmap/MAP`, `NAME=empty`.
pub(crate) fn volumes(text: &str) -> Result<Vec<Value>, String> {
    if text.trim_start().starts_with('[') {
        return array(text, "name");
    }
    parts(text).map(volume).collect()
}

fn volume(text: &str) -> Result<Value, String> {
    let wrong = || format!("expected NAME=claim/CLAIM, NAME=secret/SECRET, NAME=configmap/MAP or NAME=empty, found {text:?}");
    let (name, source) = text.split_once('=').ok_or_else(wrong)?;
    names::label_name(name)?;
    let (kind, object) = source.split_once('/').map_or((source, None), |(kind, object)| (kind, Some(object)));
    if let Some(object) = object {
        names::object_name(object)?;
    }
    match (kind, object) {
        ("claim", Some(object)) => Ok(json!({"name": name, "persistentVolumeClaim": {"claimName": object}})),
        ("secret", Some(object)) => Ok(json!({"name": name, "secret": {"secretName": object}})),
        ("configmap", Some(object)) => Ok(json!({"name": name, "configMap": {"name": object}})),
        ("empty", None) => Ok(json!({"name": name, "emptyDir": {}})),
        _ => Err(wrong()),
    }
}

/// `NAME=/path`, `NAME=/path:ro`.
pub(crate) fn mounts(text: &str) -> Result<Vec<Value>, String> {
    let mount = |part: &str| {
        let (name, place) = part.split_once('=').ok_or_else(|| format!("expected NAME=/path or NAME=/path:ro, found {part:?}"))?;
        let (path, read_only) = place.strip_suffix(":ro").map_or((place, false), |path| (path, true));
        names::label_name(name)?;
        names::mount_path(path)?;
        let mut mount = json!({"name": name, "mountPath": path});
        if read_only {
            mount["readOnly"] = true.into();
        }
        Ok(mount)
    };
    parts(text).map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_pairs_or_json() {
        let labels = |text| map(text, names::free_key, names::label_value);
        assert_eq!(labels(" a = b , c=").unwrap(), Texts::from([("a".into(), "b".into()), ("c".into(), String::new())]));
        assert_eq!(map(r#"{"a": "b,c"}"#, names::free_key, anything).unwrap(), Texts::from([("a".into(), "b,c".into())]));
        for (text, why) in [
            ("a", "expected KEY=VALUE, found \"a\""),
            ("a=b,a=c", "a is there twice"),
            ("a=b c", "a: expected a value"),
            ("{\"a\": 1}", "no JSON object of texts"),
            ("app.kubernetes.io/name=x", "is set by the mode itself"),
        ] {
            assert!(labels(text).is_err_and(|found| found.contains(why)), "{text}: {:?}", labels(text));
        }
    }

    #[test]
    fn tolerations_are_taints() {
        let expected = json!([
            {"key": "dedicated", "operator": "Equal", "value": "streams", "effect": "NoSchedule"},
            {"key": "spot", "operator": "Exists", "effect": "NoExecute"},
            {"key": "x", "operator": "Exists"}
        ]);
        assert_eq!(Value::from(tolerations("dedicated=streams:NoSchedule, spot:NoExecute,x").unwrap()), expected);
        assert_eq!(tolerations(r#"[{"operator": "Exists"}]"#).unwrap(), [json!({"operator": "Exists"})]);
        assert!(tolerations("a:Never").unwrap_err().contains("found \"Never\""));
        assert!(tolerations("[1]").unwrap_err().starts_with("no JSON array of tolerations"));
    }

    #[test]
    fn variables_are_references() {
        let found = variables("secret/a,configmap/b,P=secret/a/k,Q=configmap/b/k").unwrap();
        assert_eq!(Value::from(found.whole), json!([{"secretRef": {"name": "a"}}, {"configMapRef": {"name": "b"}}]));
        let single = json!([
            {"name": "P", "valueFrom": {"secretKeyRef": {"name": "a", "key": "k"}}},
            {"name": "Q", "valueFrom": {"configMapKeyRef": {"name": "b", "key": "k"}}}
        ]);
        assert_eq!(Value::from(found.single), single);
        for text in ["a", "secret", "secret/a/k", "P=secret/a", "P=a", "secret/A", "1=secret/a/k"] {
            assert!(variables(text).is_err(), "{text}");
        }
    }

    #[test]
    fn volumes_have_a_kind_and_a_place() {
        let found = volumes("a=claim/c,b=secret/s,d=configmap/m,e=empty").unwrap();
        let expected = json!([
            {"name": "a", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "b", "secret": {"secretName": "s"}},
            {"name": "d", "configMap": {"name": "m"}},
            {"name": "e", "emptyDir": {}}
        ]);
        assert_eq!(Value::from(found), expected);
        assert_eq!(
            mounts("a=/x:ro,b=/y").unwrap(),
            [json!({"name": "a", "mountPath": "/x", "readOnly": true}), json!({"name": "b", "mountPath": "/y"})]
        );
        for text in ["a", "a=claim", "a=x/y", "a=empty/x", "A=empty", "[{}]"] {
            assert!(volumes(text).is_err(), "{text}");
        }
        assert!(mounts("a=x").is_err() && mounts("a").is_err());
    }
}
