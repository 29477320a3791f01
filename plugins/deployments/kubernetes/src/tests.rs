//! The manifests of a job: what they are, to the letter (`golden/`; `STANDPIPE_BLESS=1` writes it), that Kubernetes' own types hold all of them, and what is refused before one is made.

use crate::{
    content::{self, Content},
    manifests::{Names, Owner, Plan, PodTemplates, default_id},
    names, pods, preview,
    secrets::Secrets,
    settings::Settings,
    testing::{bundle_of, config},
};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    batch::v1::Job,
    core::v1::{ConfigMap, Secret, Service, ServiceAccount},
    rbac::v1::{Role, RoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{env, fs, path::Path};
use tempfile::TempDir;

const JOBID: &str = "0123456789abcdef0123456789abcdef";
const PIPELINE: &str = "name: host-metrics\nparallelism: 3\ncheckpoint: {interval: 10s, dir: s3://bucket/checkpoints}\n";

/// Every key that makes a difference to a manifest.
fn every_key(folder: &Path) -> Value {
    let template = folder.join("pod.yaml");
    fs::write(&template, "spec: {priorityClassName: streams}\n").unwrap();
    let of_task_managers = folder.join("taskmanager.yaml");
    fs::write(
        &of_task_managers,
        "spec:\n  containers:\n  - name: taskmanager\n    resources: {limits: {cpu: \"4\"}}\n  - {name: sidecar, image: sidecar:1}\n",
    )
    .unwrap();
    json!({
        "kubernetes.image": "registry.example.com/team/standpipe:0.1.0",
        "kubernetes.namespace": "streams",
        "kubernetes.cluster.id": "metrics",
        "kubernetes.image.pull.policy": "Always",
        "kubernetes.image.pull.secrets": "registry,other",
        "kubernetes.service.account": "standpipe",
        "kubernetes.jobmanager.cpu": "500m",
        "kubernetes.jobmanager.memory": "512Mi",
        "kubernetes.taskmanager.cpu": "2",
        "kubernetes.taskmanager.memory": "4Gi",
        "kubernetes.taskmanager.slots": 4,
        "kubernetes.taskmanager.replicas": 3,
        "kubernetes.node.selector": "disktype=ssd",
        "kubernetes.tolerations": "dedicated=streams:NoSchedule",
        "kubernetes.annotations": "example.com/owner=metrics",
        "kubernetes.labels": "team=metrics",
        "kubernetes.env": "ZONE=a,LITERAL=$(HOME)",
        "kubernetes.env.from": "secret/kafka,PASSWORD=secret/es/password",
        "kubernetes.volumes": "checkpoints=claim/shared",
        "kubernetes.volume.mounts": "checkpoints=/mnt/checkpoints",
        "kubernetes.data.claim": "manager-data",
        "kubernetes.pod.template": template,
        "kubernetes.pod.template.taskmanager": of_task_managers,
        "kubernetes.ttl": "10m",
        "kubernetes.submit.timeout": "2m",
        "kubernetes.linger": "30s"
    })
}

/// A job with those keys.
struct Made {
    settings: Settings,
    names: Names,
    content: Content,
    secrets: Secrets,
    templates: PodTemplates,
    _folder: TempDir,
}

impl Made {
    fn of(keys: Value, pipeline: &str) -> Self {
        let settings = Settings::read(&config(keys)).unwrap();
        let folder = bundle_of(pipeline, &[("libconnector.so", 10)], &[("data.csv", 10)]);
        let content = Content::read(folder.path(), content::MOST_BYTES).unwrap();
        let id = settings.cluster_id.clone().unwrap_or_else(|| default_id("Host metrics", "abc234"));
        let names = Names { id, namespace: settings.namespace.clone(), jobid: JOBID.to_owned() };
        let templates = PodTemplates::read(&settings).unwrap();
        Self { settings, names, content, secrets: Secrets::placeholders(), templates, _folder: folder }
    }

    fn plan(&self) -> Plan<'_> {
        let Self { settings, names, content, secrets, templates, .. } = self;
        Plan { settings, names, content, secrets, templates }
    }

    fn refusal(&self) -> String {
        self.plan().check().unwrap_err().message
    }
}

fn golden(name: &str, made: &Made) {
    let found = preview::documents(&made.plan()).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if env::var_os("STANDPIPE_BLESS").is_some() {
        fs::write(&file, &found).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(found, expected, "{} is out of date: STANDPIPE_BLESS=1 writes it", file.display());
    let documents: Vec<Value> = serde_saphyr::from_multiple(&found).unwrap();
    let made: Vec<Value> = std::iter::once(made.plan().job()).chain(made.plan().owned(None).unwrap()).collect();
    assert_eq!(documents, made, "YAML says the same");
}

#[test]
fn a_job_without_any_key() {
    golden("minimal.yaml", &Made::of(json!({}), PIPELINE));
}

#[test]
fn a_job_with_every_key() {
    let folder = tempfile::tempdir().unwrap();
    golden("every-key.yaml", &Made::of(every_key(folder.path()), PIPELINE));
}

/// All of a manifest, and nothing else, is in the type.
fn holds<K: DeserializeOwned + Serialize>(manifest: &Value) {
    let typed: K = serde_json::from_value(manifest.clone()).unwrap_or_else(|error| panic!("{error}: {manifest}"));
    assert_eq!(&serde_json::to_value(typed).unwrap(), manifest, "a member is unknown");
}

#[test]
fn the_types_of_kubernetes_hold_every_manifest() {
    let folder = tempfile::tempdir().unwrap();
    for keys in [json!({}), every_key(folder.path())] {
        let made = Made::of(keys, PIPELINE);
        let plan = made.plan();
        let owner = Owner { name: plan.names.id.clone(), uid: "u".to_owned() };
        holds::<Job>(&plan.job());
        for manifest in plan.owned(Some(&owner)).unwrap() {
            match manifest["kind"].as_str().unwrap() {
                "ServiceAccount" => holds::<ServiceAccount>(&manifest),
                "Role" => holds::<Role>(&manifest),
                "RoleBinding" => holds::<RoleBinding>(&manifest),
                "Secret" => holds::<Secret>(&manifest),
                "ConfigMap" => holds::<ConfigMap>(&manifest),
                "Service" => holds::<Service>(&manifest),
                "StatefulSet" => holds::<StatefulSet>(&manifest),
                kind => panic!("{kind}"),
            }
            let owners = &manifest["metadata"]["ownerReferences"];
            let expected = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": plan.names.id, "uid": "u", "controller": false, "blockOwnerDeletion": true}]);
            assert_eq!(owners, &expected, "{manifest}");
        }
    }
}

#[test]
fn every_pod_runs_as_nobody_in_particular() {
    let folder = tempfile::tempdir().unwrap();
    for keys in [json!({}), every_key(folder.path())] {
        let made = Made::of(keys, PIPELINE);
        let plan = made.plan();
        let set = plan.owned(None).unwrap().pop().unwrap();
        for pod in [&plan.job()["spec"]["template"], &set["spec"]["template"]] {
            let (of_pod, of_container) = (&pod["spec"]["securityContext"], &pod["spec"]["containers"][0]["securityContext"]);
            assert_eq!((&of_pod["runAsNonRoot"], &of_pod["runAsUser"], &of_pod["fsGroup"]), (&json!(true), &json!(10001), &json!(10001)));
            assert_eq!(of_pod["seccompProfile"]["type"], "RuntimeDefault");
            assert_eq!(
                *of_container,
                json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
            );
        }
        assert_eq!(set["spec"]["template"]["spec"]["automountServiceAccountToken"], false, "task managers have no access");
        let secrets = &set["spec"]["template"]["spec"]["volumes"][2]["secret"]["items"];
        assert_eq!(*secrets, json!([{"key": "token", "path": "token"}, {"key": "ca.crt", "path": "ca.crt"}]), "no private key");
    }
}

#[test]
fn the_manager_has_rights_on_its_own_objects_alone() {
    let made = Made::of(json!({}), PIPELINE);
    let objects = made.plan().owned(None).unwrap();
    let role = objects.iter().find(|object| object["kind"] == "Role").unwrap();
    for rule in role["rules"].as_array().unwrap() {
        let names = rule["resourceNames"].as_array().unwrap();
        assert!(!names.is_empty() && names.iter().all(|name| name.as_str().unwrap().starts_with(&made.names.id)), "{rule}");
        assert!(!rule.to_string().contains('*'), "{rule}");
    }
    let given = Made::of(json!({"kubernetes.service.account": "own"}), PIPELINE);
    let kinds: Vec<Value> = given.plan().owned(None).unwrap().into_iter().map(|object| object["kind"].clone()).collect();
    assert_eq!(Value::from(kinds), json!(["Secret", "ConfigMap", "Service", "Service", "StatefulSet"]), "none is created");
}

#[test]
fn task_managers_are_as_many_as_the_job_needs() {
    let replicas = |keys: Value, pipeline: &str| Made::of(keys, pipeline).plan().replicas().map_err(|error| error.message);
    assert_eq!(replicas(json!({}), PIPELINE), Ok(3));
    assert_eq!(replicas(json!({"kubernetes.taskmanager.slots": 2}), PIPELINE), Ok(2));
    assert_eq!(replicas(json!({"kubernetes.taskmanager.replicas": 1}), "parallelism: ${N}"), Ok(1));
    let few = Made::of(json!({"kubernetes.taskmanager.replicas": 1, "kubernetes.taskmanager.slots": 2}), PIPELINE).refusal();
    assert_eq!(few, "1 task managers of 2 slots (kubernetes.taskmanager.slots) are too few for a parallelism of 3");
    assert!(replicas(json!({}), "parallelism: ${N}").unwrap_err().ends_with("say how many task managers it needs"));
}

#[test]
fn checkpoints_in_a_folder_of_a_pod_are_refused() {
    let local = "name: n\ncheckpoint: {interval: 1s, dir: /mnt/checkpoints}\n";
    let shared = |volume: &str| json!({"kubernetes.volumes": format!("c={volume}"), "kubernetes.volume.mounts": "c=/mnt"});
    let relative = Made::of(json!({}), "name: n\ncheckpoint: {interval: 1s}\n").refusal();
    assert!(relative.starts_with("checkpoint.dir: \"checkpoints\" is a folder of one pod") && relative.contains("s3://"), "{relative}");
    assert!(Made::of(json!({}), local).refusal().contains("\"/mnt/checkpoints\""));
    assert!(Made::of(shared("empty"), local).refusal().contains("folder of one pod"), "it ends with its pod");
    assert!(Made::of(shared("claim/x"), local).plan().check().is_ok());
    let with = |more: &[(&str, &str)]| {
        let mut keys = shared("claim/x");
        more.iter().for_each(|(key, value)| keys[*key] = (*value).into());
        Made::of(keys, local).plan().check().is_ok()
    };
    assert!(!with(&[("kubernetes.volume.mounts", "c=/mnt:ro")]), "nobody can write there");
    let of_node = ("kubernetes.volumes", r#"[{"name": "c", "hostPath": {"path": "/x"}}]"#);
    assert!(!with(&[of_node]), "each node has its own");
    assert!(with(&[of_node, ("kubernetes.node.selector", "kubernetes.io/hostname=n")]), "there is one node");
    assert!(Made::of(json!({}), PIPELINE).plan().check().is_ok());
}

#[test]
fn templates_leave_pods_what_they_are_found_by() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pod.yaml");
    let of = |key: &str, text: &str| {
        fs::write(&file, text).unwrap();
        Made::of(json!({key: file, "kubernetes.cluster.id": "j", "kubernetes.labels": "team=a"}), PIPELINE)
            .plan()
            .check()
            .map_err(|error| error.message)
    };
    let both = "kubernetes.pod.template";
    assert_eq!(of(both, "metadata: {labels: {team: b, more: c}}"), Ok(()), "those of the user are the user's");
    let changed = of(both, "metadata: {labels: {app.kubernetes.io/instance: other}}").unwrap_err();
    assert!(
        changed.starts_with("kubernetes.pod.template or ")
            && changed.contains("app.kubernetes.io/instance of the manager pod is to stay \"j\""),
        "{changed}"
    );
    for gone in
        ["metadata: null", "metadata: {labels: {$patch: replace, team: b}}", "metadata: {labels: {app.kubernetes.io/component: null}}"]
    {
        let refused = of("kubernetes.pod.template.taskmanager", gone).unwrap_err();
        assert!(
            refused.contains("kubernetes.pod.template.taskmanager: label app.kubernetes.io/component of the taskmanager pod"),
            "{refused}"
        );
    }
    let removed = of(both, "spec: {containers: [{name: taskmanager, $patch: delete}, {name: x, image: busybox}]}").unwrap_err();
    assert!(removed.ends_with("container taskmanager is not to be removed: it is the job's"), "{removed}");
    let misspelt = of(both, "spec: {containers: [{name: task-manager, resources: {}}]}").unwrap_err();
    assert!(misspelt.contains("container \"task-manager\" of the manager pod has no image; the job's own is \"manager\""), "{misspelt}");
    let nameless = of("kubernetes.pod.template.taskmanager", "spec: {initContainers: [{image: x}]}").unwrap_err();
    assert!(nameless.contains("a container of the taskmanager pod has no name: {\"image\":\"x\"}"), "{nameless}");
}

#[test]
fn what_a_template_of_both_says_of_one_container_is_for_its_pods() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pod.yaml");
    fs::write(&file, "spec: {containers: [{name: taskmanager, resources: {limits: {cpu: '4'}}}, {name: x, image: busybox}]}").unwrap();
    let made = Made::of(json!({"kubernetes.pod.template": file}), PIPELINE);
    let plan = made.plan();
    assert!(plan.check().is_ok());
    let names = |pod: &Value| {
        let containers = pod["spec"]["containers"].as_array().unwrap().iter();
        containers.map(|container| container["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (manager, task_manager) = (pods::manager(&plan), pods::task_manager(&plan));
    assert_eq!((names(&manager), names(&task_manager)), (vec!["manager".into(), "x".into()], vec!["taskmanager".into(), "x".into()]));
    assert_eq!(task_manager["spec"]["containers"][0]["resources"]["limits"]["cpu"], "4");
}

#[test]
fn names_fit_what_kubernetes_makes_of_them() {
    for (name, expected) in [
        ("host-metrics", "standpipe-host-metrics-abc234"),
        ("Host metrics!", "standpipe-host-metrics-abc234"),
        ("Überall", "standpipe-berall-abc234"),
        ("---", "standpipe-abc234"),
        ("a-very-long-name-of-a-pipeline-indeed", "standpipe-a-very-long-name-of-a-p-abc234"),
        ("exactly-twenty-two-cha-rs", "standpipe-exactly-twenty-two-cha-abc234"),
    ] {
        let id = default_id(name, "abc234");
        assert_eq!(id, expected);
        assert_eq!(names::cluster_id(&id), Ok(()));
        let made = Names { id, namespace: "n".to_owned(), jobid: JOBID.to_owned() };
        // The revision of a stateful set, which is a label of its pods, has ten more.
        assert!(made.task_manager().len() + 11 <= 63);
    }
}

#[test]
fn a_preview_has_no_secret_and_says_what_it_leaves_out() {
    let mut made = Made::of(json!({}), PIPELINE);
    made.content.outside = vec![made.content.bundle.plugins[0].clone()];
    let text = preview::documents(&made.plan()).unwrap();
    assert!(text.contains("# made-at-deploy: at deploy each value is made anew"), "{text}");
    assert!(text.contains("#   libconnector.so (10 bytes, sha256:"), "{text}");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let secret = documents.iter().find(|document| document["kind"] == "Secret").unwrap();
    assert!(secret["data"].as_object().unwrap().values().all(|value| value == "bWFkZS1hdC1kZXBsb3k="), "{secret}");
}
