//! The objects of one job, as JSON that Kubernetes takes. The first is the Job, which owns all others: whatever happens to whoever creates them, they end with it.

use crate::{content::Content, lists::Texts, names, pods, secrets::Secrets, settings::Settings, template};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};
use standpipe_sdk::{Error, Result};
use std::time::Duration;

/// The port of the manager's REST interface.
pub(crate) const REST_PORT: u16 = 8081;
/// The port of a task manager's metrics and probes.
pub(crate) const METRICS_PORT: u16 = 9250;
/// The manager's component and container.
pub(crate) const MANAGER: &str = "manager";
/// A task manager's.
pub(crate) const TASK_MANAGER: &str = "taskmanager";
/// Exit code of a manager whose job has failed.
pub(crate) const EXIT_FAILED: i32 = 20;
/// Exit code of a manager whose job was cancelled.
pub(crate) const EXIT_CANCELED: i32 = 21;
/// The annotation of the Job that keeps how the job ended.
pub(crate) const STATUS: &str = "standpipe.io/status";
/// The label of every object that says which job it is of: a name may be another job's later.
pub(crate) const JOBID: &str = "standpipe.io/jobid";
/// The annotation of the stateful set that says how many slots a task manager has.
pub(crate) const SLOTS: &str = "standpipe.io/slots";
/// How long after the submit timeout Kubernetes ends what was begun.
const SUBMIT_MARGIN: Duration = Duration::from_secs(60);

/// What a job's objects are called, and which job it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) id: String,
    pub(crate) namespace: String,
    /// 32 hexadecimal digits.
    pub(crate) jobid: String,
}

impl Names {
    pub(crate) fn bundle(&self) -> String {
        format!("{}-bundle", self.id)
    }

    pub(crate) fn task_manager(&self) -> String {
        format!("{}-taskmanager", self.id)
    }

    pub(crate) fn manager_url(&self) -> String {
        format!("https://{}.{}.svc:{REST_PORT}", self.id, self.namespace)
    }

    /// Every name that the manager is reached by.
    pub(crate) fn manager_hosts(&self) -> Vec<String> {
        let Self { id, namespace, .. } = self;
        let service = format!("{id}.{namespace}.svc");
        vec![
            id.clone(),
            format!("{id}.{namespace}"),
            format!("{service}.cluster.local"),
            service,
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
        ]
    }

    /// The labels that the pods of a component are found by: of this job, and not of another one of its name that may still be going.
    pub(crate) fn selector<'a>(&'a self, component: &'a str) -> [(&'static str, &'a str); 3] {
        [("app.kubernetes.io/instance", &self.id), ("app.kubernetes.io/component", component), (JOBID, &self.jobid)]
    }

    /// Whether an object has the label of this job.
    pub(crate) fn is_of(&self, metadata: &ObjectMeta) -> bool {
        metadata.labels.as_ref().and_then(|labels| labels.get(JOBID)) == Some(&self.jobid)
    }
}

/// The user's pod templates, read.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodTemplates {
    pub(crate) both: Option<Value>,
    pub(crate) jobmanager: Option<Value>,
    pub(crate) taskmanager: Option<Value>,
}

impl PodTemplates {
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn read(settings: &Settings) -> Result<Self> {
        let read = |key: &str, file: &Option<std::path::PathBuf>| file.as_deref().map(|file| template::read(key, file)).transpose();
        Ok(Self {
            both: read("kubernetes.pod.template", &settings.templates.both)?,
            jobmanager: read("kubernetes.pod.template.jobmanager", &settings.templates.jobmanager)?,
            taskmanager: read("kubernetes.pod.template.taskmanager", &settings.templates.taskmanager)?,
        })
    }
}

/// What the objects are made from.
pub(crate) struct Plan<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) names: &'a Names,
    pub(crate) content: &'a Content,
    pub(crate) secrets: &'a Secrets,
    pub(crate) templates: &'a PodTemplates,
}

/// The Job that owns all others, once it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Plan<'_> {
    /// Labels of an object; of a pod's kind with its component.
    pub(crate) fn labels(&self, component: Option<&str>) -> Texts {
        let mut labels = self.settings.labels.clone();
        let own = [
            ("app.kubernetes.io/name", "standpipe"),
            ("app.kubernetes.io/instance", self.names.id.as_str()),
            ("app.kubernetes.io/managed-by", "standpipe"),
            ("app.kubernetes.io/version", env!("CARGO_PKG_VERSION")),
            (JOBID, self.names.jobid.as_str()),
        ];
        let component = component.map(|component| ("app.kubernetes.io/component", component));
        labels.extend(own.into_iter().chain(component).map(|(key, value)| (key.to_owned(), value.to_owned())));
        labels
    }

    /// Whom the manager acts as.
    pub(crate) fn service_account(&self) -> &str {
        self.settings.service_account.as_deref().unwrap_or(&self.names.id)
    }

    /// How many task managers there are to be.
    ///
    /// # Errors
    /// When it is not said and cannot be known.
    pub(crate) fn replicas(&self) -> Result<u32> {
        let needed = self.content.parallelism.map(|parallelism| parallelism.div_ceil(self.settings.slots.max(1)));
        self.settings.replicas.or(needed).ok_or_else(|| {
            let message =
                "the pipeline says its parallelism by a reference, which is resolved where it runs: say how many task managers it needs";
            Error::config("kubernetes.taskmanager.replicas", message)
        })
    }

    fn object(&self, api: &str, kind: &str, name: &str, component: Option<&str>, owner: Option<&Owner>) -> Map<String, Value> {
        let mut metadata = json!({"name": name, "namespace": self.names.namespace, "labels": self.labels(component)});
        if !self.settings.annotations.is_empty() {
            metadata["annotations"] = json!(self.settings.annotations);
        }
        if let Some(Owner { name, uid }) = owner {
            metadata["ownerReferences"] = json!([{
                "apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": false, "blockOwnerDeletion": true
            }]);
        }
        let members = [("apiVersion", api.into()), ("kind", kind.into()), ("metadata", metadata)];
        members.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
    }

    /// With an annotation beside those of the user.
    fn annotated(&self, mut object: Map<String, Value>, key: &str, value: &str) -> Map<String, Value> {
        let mut annotations = self.settings.annotations.clone();
        annotations.insert(key.to_owned(), value.to_owned());
        if let Some(metadata) = object.get_mut("metadata") {
            metadata["annotations"] = json!(annotations);
        }
        object
    }

    /// The first object: the Job, whose pod is the manager. It ends by itself if nobody completes the submission.
    pub(crate) fn job(&self) -> Value {
        let mut job = self.object("batch/v1", "Job", &self.names.id, Some(MANAGER), None);
        let deadline = (self.settings.submit_timeout + SUBMIT_MARGIN).as_secs_f64().ceil() as i64;
        let spec = json!({
            // A pod that was lost is replaced for as long as the job is not over.
            "backoffLimit": i32::MAX,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": self.settings.ttl.as_secs(),
            "activeDeadlineSeconds": deadline,
            "podFailurePolicy": {"rules": [
                {"action": "FailJob", "onExitCodes": {"containerName": MANAGER, "operator": "In", "values": [EXIT_FAILED, EXIT_CANCELED]}},
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
            ]},
            "template": pods::manager(self)
        });
        job.insert("spec".to_owned(), spec);
        Value::Object(job)
    }

    /// All others, in the order in which they are created.
    ///
    /// # Errors
    /// When the configuration does not fit the job.
    pub(crate) fn owned(&self, owner: Option<&Owner>) -> Result<Vec<Value>> {
        let mut objects = Vec::new();
        if self.settings.service_account.is_none() {
            objects.extend(self.access(owner));
        }
        objects.push(self.secret(owner));
        objects.push(self.bundle(owner)?);
        objects.push(self.service(&self.names.id, MANAGER, ("rest", REST_PORT), owner));
        objects.push(self.service(&self.names.task_manager(), TASK_MANAGER, ("metrics", METRICS_PORT), owner));
        objects.push(self.task_managers(owner)?);
        Ok(objects)
    }

    /// A service account that may end what the job has, and nothing else.
    fn access(&self, owner: Option<&Owner>) -> [Value; 3] {
        let id = &self.names.id;
        let with = |object: Map<String, Value>, more: &[(&str, Value)]| {
            let mut object = object;
            object.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
            Value::Object(object)
        };
        let rbac = "rbac.authorization.k8s.io/v1";
        let rule = |group: &str, resource: &str, names: Value, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "resourceNames": names, "verbs": verbs});
        let rules = json!([
            rule("batch", "jobs", json!([id]), &["get", "patch"]),
            rule("apps", "statefulsets", json!([self.names.task_manager()]), &["get", "delete"]),
            rule("", "services", json!([id, self.names.task_manager()]), &["get", "delete"]),
            rule("", "configmaps", json!([self.names.bundle()]), &["get", "delete"]),
            rule("", "secrets", json!([id]), &["delete"]),
        ]);
        let account = self.object("v1", "ServiceAccount", id, None, owner);
        let role = self.object(rbac, "Role", id, None, owner);
        let binding = self.object(rbac, "RoleBinding", id, None, owner);
        let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": id});
        let subjects = json!([{"kind": "ServiceAccount", "name": id, "namespace": self.names.namespace}]);
        [
            with(account, &[("automountServiceAccountToken", true.into())]),
            with(role, &[("rules", rules)]),
            with(binding, &[("roleRef", reference), ("subjects", subjects)]),
        ]
    }

    fn secret(&self, owner: Option<&Owner>) -> Value {
        let mut secret = self.object("v1", "Secret", &self.names.id, None, owner);
        let Secrets { token, authority, certificate, key } = self.secrets;
        let data = [("token", token), ("ca.crt", authority), ("tls.crt", certificate), ("tls.key", key)];
        let data: Map<String, Value> = data.into_iter().map(|(name, text)| (name.to_owned(), STANDARD.encode(text).into())).collect();
        secret.extend([("type".to_owned(), "Opaque".into()), ("immutable".to_owned(), true.into()), ("data".to_owned(), data.into())]);
        Value::Object(secret)
    }

    /// What the manager reads as the folder of the bundle.
    fn bundle(&self, owner: Option<&Owner>) -> Result<Value> {
        let handle = json!({
            "deployment_mode": crate::MODE,
            "jobid": self.names.jobid,
            "kubernetes.cluster.id": self.names.id,
            "kubernetes.namespace": self.names.namespace
        });
        let mut texts = Map::new();
        texts.insert("bundle.json".to_owned(), self.content.description.as_str().into());
        texts.insert("handle.json".to_owned(), serde_json::to_string_pretty(&handle)?.into());
        let mut bytes = Map::new();
        for blob in &self.content.inside {
            // A text stays legible.
            match std::str::from_utf8(&blob.content) {
                Ok(text) if text.chars().all(|c| !c.is_control() || c == '\n') => texts.insert(blob.digits.clone(), text.into()),
                _ => bytes.insert(blob.digits.clone(), STANDARD.encode(&blob.content).into()),
            };
        }
        let mut map = self.object("v1", "ConfigMap", &self.names.bundle(), None, owner);
        map.insert("immutable".to_owned(), true.into());
        map.insert("data".to_owned(), texts.into());
        if !bytes.is_empty() {
            map.insert("binaryData".to_owned(), bytes.into());
        }
        Ok(Value::Object(map))
    }

    /// Names for the pods of a component: also before they are ready, because they find each other by them.
    fn service(&self, name: &str, component: &str, (port_name, port): (&str, u16), owner: Option<&Owner>) -> Value {
        let mut service = self.object("v1", "Service", name, Some(component), owner);
        let selector: Value = self.names.selector(component).into_iter().collect();
        let spec = json!({
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": selector,
            "ports": [{"name": port_name, "port": port, "targetPort": port_name, "protocol": "TCP"}]
        });
        service.insert("spec".to_owned(), spec);
        Value::Object(service)
    }

    fn task_managers(&self, owner: Option<&Owner>) -> Result<Value> {
        let name = self.names.task_manager();
        let set = self.object("apps/v1", "StatefulSet", &name, Some(TASK_MANAGER), owner);
        let mut set = self.annotated(set, SLOTS, &self.settings.slots.to_string());
        let spec = json!({
            "serviceName": name,
            "replicas": self.replicas()?,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": self.names.selector(TASK_MANAGER).into_iter().collect::<Value>()},
            "template": pods::task_manager(self)
        });
        set.insert("spec".to_owned(), spec);
        Ok(Value::Object(set))
    }

    /// Too few slots are refused, templates that take from pods what they are found by, and a job whose checkpoints would be lost.
    ///
    /// # Errors
    /// It says what to do.
    pub(crate) fn check(&self) -> Result<()> {
        let (replicas, slots) = (self.replicas()?, self.settings.slots);
        if let Some(parallelism) = self.content.parallelism.filter(|parallelism| *parallelism > replicas.saturating_mul(slots)) {
            let message = format!(
                "{replicas} task managers of {slots} slots (kubernetes.taskmanager.slots) are too few for a parallelism of {parallelism}"
            );
            return Err(Error::config("kubernetes.taskmanager.replicas", message));
        }
        let (manager, task_manager) = (pods::manager(self), pods::task_manager(self));
        self.check_own(MANAGER, &manager, "kubernetes.pod.template.jobmanager")?;
        self.check_own(TASK_MANAGER, &task_manager, "kubernetes.pod.template.taskmanager")?;
        let Some(folder) = &self.content.local_checkpoints else { return Ok(()) };
        if folder.starts_with('/') && pods::is_shared(folder, &manager, &task_manager) {
            return Ok(());
        }
        let remedy = "give checkpoint.dir a URL that every pod reaches (s3://..., gs://..., az://...), or an absolute path on a claim that all of them \
            share (kubernetes.volumes, kubernetes.volume.mounts)";
        Err(Error::config(
            "",
            format!("checkpoint.dir: {folder:?} is a folder of one pod, which ends with it and which no other pod sees: {remedy}"),
        ))
    }

    /// Whether a pod has, after its templates (the own one is in the file of `key`), its container and the labels that services, the stateful set and later commands find it by.
    fn check_own(&self, component: &str, pod: &Value, key: &str) -> Result<()> {
        let refused = |what: String| Err(Error::config("", format!("kubernetes.pod.template or {key}: {what}")));
        let label = |name: &str| pod.get("metadata").and_then(|metadata| metadata.get("labels")?.get(name)?.as_str());
        let own = self.labels(Some(component)).into_iter().filter(|(name, _)| names::free_key(name).is_err());
        for (name, value) in own {
            if label(&name) != Some(value.as_str()) {
                return refused(format!("label {name} of the {component} pod is to stay {value:?}: it is found by it"));
            }
        }
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
        if !containers.is_some_and(|containers| containers.iter().any(|container| container["name"] == component)) {
            return refused(format!("container {component} is not to be removed: it is the job's"));
        }
        let all = ["/spec/containers", "/spec/initContainers"].into_iter().filter_map(|list| pod.pointer(list)?.as_array()).flatten();
        let text = |container: &Value, member: &str| {
            container.get(member).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        for container in all {
            match (text(container, "name"), text(container, "image")) {
                (Some(_), Some(_)) => {}
                (None, _) => return refused(format!("a container of the {component} pod has no name: {container}")),
                (Some(name), None) => {
                    return refused(format!("container {name:?} of the {component} pod has no image; the job's own is {component:?}"));
                }
            }
        }
        Ok(())
    }
}

/// `standpipe-NAME-RANDOM`, from a pipeline's name.
pub(crate) fn default_id(pipeline: &str, random: &str) -> String {
    let mut plain = String::new();
    for c in pipeline.chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            'a'..='z' | '0'..='9' => plain.push(c),
            _ if plain.is_empty() || plain.ends_with('-') => {}
            _ => plain.push('-'),
        }
    }
    let room = crate::names::MOST_OF_ID.saturating_sub("standpipe--".len() + random.len());
    let name: String = plain.chars().take(room).collect();
    match name.trim_end_matches('-') {
        "" => format!("standpipe-{random}"),
        name => format!("standpipe-{name}-{random}"),
    }
}
