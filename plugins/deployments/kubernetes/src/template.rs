//! A user's pod template over a generated one, as Kubernetes' strategic merge patch has it: maps are merged, `null` removes, lists of named things are merged by that name, and
//! every other list replaces the one below. `$patch: delete` in a named thing removes it, `$patch: replace` in a map replaces all of it.

use serde_json::{Map, Value};
use standpipe_sdk::{Error, Result};
use std::{fs, path::Path};

/// The member that things of a list are the same by, as the API has it (`patchMergeKey`).
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "ephemeralContainers" | "env" | "volumes" | "imagePullSecrets" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        "ports" => Some("containerPort"),
        "hostAliases" => Some("ip"),
        "topologySpreadConstraints" => Some("topologyKey"),
        _ => None,
    }
}

/// Merges a template into a pod template.
pub(crate) fn merge(base: &mut Value, patch: &Value) {
    let (Value::Object(members), Some(changes)) = (&mut *base, patch.as_object()) else {
        *base = without_directives(patch);
        return;
    };
    if changes.get("$patch").and_then(Value::as_str) == Some("replace") {
        *base = without_directives(patch);
        return;
    }
    for (name, change) in changes.iter().filter(|(name, _)| !name.starts_with('$')) {
        match (change, merge_key(name)) {
            (Value::Null, _) => drop(members.remove(name)),
            (Value::Array(items), Some(key)) => {
                merge_list(members.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new())), items, key)
            }
            (change, _) => merge(members.entry(name.clone()).or_insert(Value::Null), change),
        }
    }
}

fn merge_list(base: &mut Value, items: &[Value], key: &str) {
    let Value::Array(list) = base else {
        *base = Value::Array(items.iter().map(without_directives).collect());
        return;
    };
    for item in items {
        let at = list.iter().position(|one| one.get(key).is_some() && one.get(key) == item.get(key));
        let is_removed = item.get("$patch").and_then(Value::as_str) == Some("delete");
        match at.and_then(|at| list.get_mut(at).map(|one| (at, one))) {
            Some((at, _)) if is_removed => drop(list.remove(at)),
            Some((_, one)) => merge(one, item),
            None if is_removed => {}
            None => list.push(without_directives(item)),
        }
    }
}

/// What is taken over as a whole.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().filter(|(name, value)| !name.starts_with("$patch") && !value.is_null());
            Value::Object(members.map(|(name, value)| (name.clone(), without_directives(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_directives).collect()),
        other => other.clone(),
    }
}

/// Reads a template: the `metadata` and `spec` of a pod.
///
/// # Errors
/// When the file of that key cannot be read, or has something else in it.
pub(crate) fn read(key: &str, file: &Path) -> Result<Value> {
    let named = |why: String| Error::config(key, format!("{}: {why}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| Error::external(format!("{key}: {}: {error}", file.display())))?;
    let template: Value = serde_saphyr::from_str(&text).map_err(|error| {
        let text = error.to_string();
        named(text.lines().next().unwrap_or("no YAML").to_owned())
    })?;
    let members: &Map<String, Value> = template.as_object().ok_or_else(|| named("expected a map with metadata and spec".to_owned()))?;
    let known = ["apiVersion", "kind", "metadata", "spec"];
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(named(format!("expected metadata and spec of a pod, found {unknown:?}"))),
        None => Ok(template),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn named_things_are_merged_and_other_lists_replaced() {
        let mut base = json!({
            "metadata": {"labels": {"a": "1"}},
            "spec": {
                "containers": [{"name": "manager", "args": ["a", "b"], "env": [{"name": "X", "value": "1"}], "resources": {"limits": {"memory": "1Gi"}}}],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
                "tolerations": [{"key": "a"}],
                "nodeSelector": {"zone": "a", "disk": "ssd"}
            }
        });
        merge(
            &mut base,
            &json!({
                "metadata": {"labels": {"b": "2"}},
                "spec": {
                    "containers": [
                        {"name": "manager", "env": [{"name": "X", "value": "2"}, {"name": "Y", "value": "3"}], "resources": {"limits": {"cpu": "2"}}},
                        {"name": "sidecar", "image": "x"}
                    ],
                    "volumes": [{"name": "data", "emptyDir": null, "hostPath": {"path": "/x"}}, {"name": "tmp", "$patch": "delete"}],
                    "tolerations": [{"key": "b"}],
                    "nodeSelector": {"$patch": "replace", "zone": "b"},
                    "hostNetwork": null
                }
            }),
        );
        let expected = json!({
            "metadata": {"labels": {"a": "1", "b": "2"}},
            "spec": {
                "containers": [
                    {
                        "name": "manager", "args": ["a", "b"], "env": [{"name": "X", "value": "2"}, {"name": "Y", "value": "3"}],
                        "resources": {"limits": {"memory": "1Gi", "cpu": "2"}}
                    },
                    {"name": "sidecar", "image": "x"}
                ],
                "volumes": [{"name": "data", "hostPath": {"path": "/x"}}],
                "tolerations": [{"key": "b"}],
                "nodeSelector": {"zone": "b"}
            }
        });
        assert_eq!(base, expected);
    }

    #[test]
    fn a_template_is_a_pods() {
        let folder = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            let file = folder.path().join("t.yaml");
            fs::write(&file, text).unwrap();
            read("kubernetes.pod.template", &file).map_err(|error| error.message)
        };
        assert_eq!(of("spec: {nodeName: a}").unwrap(), json!({"spec": {"nodeName": "a"}}));
        assert!(of("[]").unwrap_err().contains("t.yaml: expected a map with metadata and spec"));
        assert!(of("containers: []").unwrap_err().contains("found \"containers\""));
        assert!(of("a: [").unwrap_err().contains("t.yaml: "));
        let gone = read("kubernetes.pod.template", Path::new("/no/such.yaml")).unwrap_err();
        assert!(gone.message.starts_with("kubernetes.pod.template: /no/such.yaml: No such file"), "{}", gone.message);
    }
}
