//! The pods of a job: what job manager and task managers are started with, and as whom. A user's template is merged over what is made here.

use crate::{
    manifests::{MANAGER, METRICS_PORT, Plan, REST_PORT, TASK_MANAGER},
    settings::Resources,
    template,
};
use serde_json::{Map, Value, json};

/// Volumes that every pod has, or the manager's.
pub(crate) const VOLUMES: [&str; 4] = ["data", "tmp", "bundle", "secret"];
/// Where every container has volumes already; that of the manager also the bundle.
pub(crate) const MOUNT_PATHS: [&str; 4] = [HOME, "/tmp", BUNDLE, SECRET];
/// Variables that every container has already, or that of the task managers.
pub(crate) const VARIABLES: [&str; 2] = ["HOME", "POD_IP"];
/// The user of the image, who is not root.
const USER: u32 = 10001;
/// Its home: what is kept is there.
const HOME: &str = "/var/lib/standpipe";
/// Where the bundle is.
const BUNDLE: &str = "/etc/standpipe/bundle";
/// Where the Secret's files are.
const SECRET: &str = "/etc/standpipe/secret";
/// How long a process may take to end.
const GRACE_SECONDS: u32 = 30;
/// How long the manager waits for files that are uploaded.
const UPLOAD_TIMEOUT: &str = "120s";

/// The manager's pod.
pub(crate) fn manager(plan: &Plan<'_>) -> Value {
    let settings = plan.settings;
    let mut args: Vec<String> = ["jobmanager", "--application", BUNDLE, "--jobid"].map(str::to_owned).to_vec();
    args.push(plan.names.jobid.clone());
    args.extend(["--bind".to_owned(), format!("0.0.0.0:{REST_PORT}")]);
    // Of this job alone: a claim may have what another one left there.
    args.extend(["--data".to_owned(), format!("{HOME}/jobmanager/{}", plan.names.jobid)]);
    args.extend(["--token-file".to_owned(), format!("{SECRET}/token")]);
    args.extend(["--tls-cert".to_owned(), format!("{SECRET}/tls.crt"), "--tls-key".to_owned(), format!("{SECRET}/tls.key")]);
    args.extend(["--termination-file", "/dev/termination-log", "--handle"].map(str::to_owned));
    args.push(format!("{BUNDLE}/handle.json"));
    args.extend(["--application-timeout".to_owned(), UPLOAD_TIMEOUT.to_owned(), "--linger".to_owned(), seconds(settings.linger)]);
    let data = match &settings.data_claim {
        Some(claim) => json!({"name": "data", "persistentVolumeClaim": {"claimName": claim}}),
        None => json!({"name": "data", "emptyDir": {}}),
    };
    let mut items = vec![json!({"key": "bundle.json", "path": "bundle.json"}), json!({"key": "handle.json", "path": "handle.json"})];
    items.extend(plan.content.inside.iter().map(|blob| json!({"key": blob.digits, "path": format!("blobs/{}", blob.digits)})));
    let volumes = vec![
        data,
        json!({"name": "tmp", "emptyDir": {}}),
        json!({"name": "bundle", "configMap": {"name": plan.names.bundle(), "items": items}}),
        json!({"name": "secret", "secret": {"secretName": plan.names.id, "defaultMode": 0o440}}),
    ];
    let mut mounts = own_mounts();
    mounts.push(json!({"name": "bundle", "mountPath": BUNDLE, "readOnly": true}));
    mounts.push(json!({"name": "secret", "mountPath": SECRET, "readOnly": true}));
    let container = json!({
        "args": args,
        "ports": [{"name": "rest", "containerPort": REST_PORT}],
        "startupProbe": probe("/healthz", "rest", "HTTPS", 2, 90),
        "readinessProbe": probe("/readyz", "rest", "HTTPS", 5, 3),
        "livenessProbe": probe("/healthz", "rest", "HTTPS", 10, 6)
    });
    let mut spec = pod(plan, volumes, with_common(plan, MANAGER, container, &settings.jobmanager, Vec::new(), mounts));
    spec["restartPolicy"] = "Never".into();
    spec["serviceAccountName"] = plan.service_account().into();
    // Also of an account that gives none by itself: without it nobody clears away what the job had.
    spec["automountServiceAccountToken"] = true.into();
    merged(plan, json!({"metadata": metadata(plan, MANAGER), "spec": spec}), plan.templates.jobmanager.as_ref(), TASK_MANAGER)
}

/// A task manager's pod.
pub(crate) fn task_manager(plan: &Plan<'_>) -> Value {
    let settings = plan.settings;
    let mut args: Vec<String> = ["taskmanager", "--slots"].map(str::to_owned).to_vec();
    args.extend([settings.slots.to_string(), "--jobmanager".to_owned(), plan.names.manager_url()]);
    // Its address is known at once, and a name only when the cluster's DNS has heard of it; a pod that replaces it registers anew either way.
    args.extend(["--host", "$(POD_IP)", "--data"].map(str::to_owned));
    args.push(format!("{HOME}/taskmanager"));
    args.extend(["--token-file".to_owned(), format!("{SECRET}/token"), "--ca-file".to_owned(), format!("{SECRET}/ca.crt")]);
    args.extend(["--metrics".to_owned(), format!("0.0.0.0:{METRICS_PORT}")]);
    let items = ["token", "ca.crt"].map(|key| json!({"key": key, "path": key}));
    let volumes = vec![
        json!({"name": "data", "emptyDir": {}}),
        json!({"name": "tmp", "emptyDir": {}}),
        json!({"name": "secret", "secret": {"secretName": plan.names.id, "defaultMode": 0o440, "items": items}}),
    ];
    let mut mounts = own_mounts();
    mounts.push(json!({"name": "secret", "mountPath": SECRET, "readOnly": true}));
    let container = json!({
        "args": args,
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
        "startupProbe": probe("/healthz", "metrics", "HTTP", 2, 90),
        "readinessProbe": probe("/readyz", "metrics", "HTTP", 5, 3),
        "livenessProbe": probe("/healthz", "metrics", "HTTP", 10, 6)
    });
    let env = vec![json!({"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})];
    let mut spec = pod(plan, volumes, with_common(plan, TASK_MANAGER, container, &settings.taskmanager, env, mounts));
    spec["automountServiceAccountToken"] = false.into();
    merged(plan, json!({"metadata": metadata(plan, TASK_MANAGER), "spec": spec}), plan.templates.taskmanager.as_ref(), MANAGER)
}

/// The user's templates over a generated one; what the template of both says of the other kind's container is none of its business.
fn merged(plan: &Plan<'_>, mut pod: Value, own: Option<&Value>, other: &str) -> Value {
    let both = plan.templates.both.clone().map(|mut template| {
        if let Some(containers) = template.pointer_mut("/spec/containers").and_then(Value::as_array_mut) {
            containers.retain(|container| container.get("name").and_then(Value::as_str) != Some(other));
        }
        template
    });
    for template in both.iter().chain(own) {
        // What says of the template itself that it is one of a pod has no place in it.
        let parts = ["metadata", "spec"].into_iter().filter_map(|part| Some((part.to_owned(), template.get(part)?.clone())));
        template::merge(&mut pod, &Value::Object(parts.collect::<Map<_, _>>()));
    }
    pod
}

fn metadata(plan: &Plan<'_>, component: &str) -> Value {
    let mut metadata = json!({"labels": plan.labels(Some(component))});
    if !plan.settings.annotations.is_empty() {
        metadata["annotations"] = json!(plan.settings.annotations);
    }
    metadata
}

fn own_mounts() -> Vec<Value> {
    vec![json!({"name": "data", "mountPath": HOME}), json!({"name": "tmp", "mountPath": "/tmp"})]
}

/// What every container of ours has.
fn with_common(plan: &Plan<'_>, name: &str, mut container: Value, resources: &Resources, env: Vec<Value>, mut mounts: Vec<Value>) -> Value {
    let settings = plan.settings;
    mounts.extend(settings.volume_mounts.iter().cloned());
    let mut variables = vec![json!({"name": "HOME", "value": HOME})];
    variables.extend(settings.env.iter().map(|(name, value)| json!({"name": name, "value": literal(value)})));
    variables.extend(settings.env_from.single.iter().cloned());
    variables.extend(env);
    container["name"] = name.into();
    container["image"] = settings.image.as_str().into();
    container["command"] = json!(["standpipe"]);
    container["env"] = variables.into();
    container["volumeMounts"] = mounts.into();
    container["resources"] =
        json!({"requests": {"cpu": resources.cpu, "memory": resources.memory}, "limits": {"memory": resources.memory}});
    container["securityContext"] = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]}
    });
    if let Some(policy) = &settings.image_pull_policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
    if !settings.env_from.whole.is_empty() {
        container["envFrom"] = settings.env_from.whole.clone().into();
    }
    container
}

/// What every pod has.
fn pod(plan: &Plan<'_>, mut volumes: Vec<Value>, container: Value) -> Value {
    let settings = plan.settings;
    volumes.extend(settings.volumes.iter().cloned());
    let mut spec = json!({
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"}
        },
        "containers": [container],
        "volumes": volumes
    });
    if !settings.image_pull_secrets.is_empty() {
        spec["imagePullSecrets"] = settings.image_pull_secrets.iter().map(|name| json!({ "name": name })).collect();
    }
    if !settings.node_selector.is_empty() {
        spec["nodeSelector"] = json!(settings.node_selector);
    }
    if !settings.tolerations.is_empty() {
        spec["tolerations"] = settings.tolerations.clone().into();
    }
    spec
}

fn probe(path: &str, port: &str, scheme: &str, period: u32, failures: u32) -> Value {
    json!({"httpGet": {"path": path, "port": port, "scheme": scheme}, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures})
}

/// `$(NAME)` in a variable's value would be another's value.
fn literal(value: &str) -> String {
    value.replace("$(", "$$(")
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{}s", duration.as_secs_f64().ceil())
}

/// Where pods keep a folder: whether both can write to a volume there that outlives a pod, and the same part of the same one.
pub(crate) fn is_shared(folder: &str, manager: &Value, task_manager: &Value) -> bool {
    let place = volume_of(folder, manager, MANAGER);
    let is_of_node = place.is_some_and(|(volume, _)| volume.contains_key("hostPath"));
    place.is_some() && place == volume_of(folder, task_manager, TASK_MANAGER) && (!is_of_node || is_one_node(manager, task_manager))
}

/// Whether both are on the same node, wherever they are replaced.
fn is_one_node(manager: &Value, task_manager: &Value) -> bool {
    let node = |pod: &Value| {
        let selected = pod.pointer("/spec/nodeSelector/kubernetes.io~1hostname");
        selected.or_else(|| pod.pointer("/spec/nodeName")).and_then(Value::as_str).map(str::to_owned)
    };
    node(manager).is_some() && node(manager) == node(task_manager)
}

/// The volume that a folder is on, and the part of it that is mounted, unless it ends with its pod or cannot be written.
fn volume_of<'a>(folder: &str, pod: &'a Value, container: &str) -> Option<(&'a Map<String, Value>, &'a Value)> {
    let list = |value: &'a Value, name: &str| value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let spec = pod.get("spec")?;
    let container = list(spec, "containers").iter().find(|one| one["name"] == container)?;
    let holds = |path: &str| folder.strip_prefix(path.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mounts = list(container, "volumeMounts").iter().filter(|mount| mount["mountPath"].as_str().is_some_and(holds));
    let mount = mounts.max_by_key(|mount| mount["mountPath"].as_str().map_or(0, str::len))?;
    let volume = list(spec, "volumes").iter().find(|volume| volume["name"] == mount["name"])?.as_object()?;
    let passing = ["emptyDir", "configMap", "secret", "downwardAPI", "projected", "ephemeral"];
    let is_kept = mount["readOnly"] != true && !passing.iter().any(|kind| volume.contains_key(*kind));
    is_kept.then_some((volume, &mount["subPath"]))
}
