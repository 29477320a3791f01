//! The pods of the Helm chart, as a cluster that runs jobs: on machines of a test's own network, where each has exactly its command, environment, user and mounts, in the clear and with a certificate.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod helm_support;
mod kubernetes_support;
mod services_support;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use helm_support::{
    CHART, Helm, RELEASE, object, path_of,
    pod::{Namespace, Pod},
    restricted, wait_for_pods,
};
use kubernetes_support::{Api, PATIENCE};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use services_support::Engine;
use standpipe_tests::{
    Folder, KubernetesNode, Lan, Run, all, in_own_network_with, kubernetes, kubernetes_node, repository, standpipe, wait_until, yaml,
};
use std::{collections::BTreeSet, env, fs, os::unix::fs::PermissionsExt, process::Command};
use ureq::Agent;

/// What a test in a network of its own has of the API server, which it does not reach there.
const CLUSTER: &str = "STANDPIPE_TEST_HELM_CLUSTER";
/// Five subtasks do not fit on one task manager, and rows go by key from each to each.
const PIPELINE: &str = "\
name: rests
parallelism: 5
sources:
  numbers: {connector: generator, with: {count: 7000, fields: {n: {kind: sequence}}}}
transforms:
  rests: {input: numbers, select: {rest: 'n % 7'}}
  counts: {input: rests, key_by: [rest], aggregate: {n: 'count(*)'}, emit: final}
sinks:
  out: {input: counts, connector: collect}
";
/// The manager's address.
const MANAGER: &str = "10.77.0.2";
const MACHINES: [(&str, u8); 3] = [("standpipe-manager-0", 2), ("standpipe-taskmanager-0", 3), ("standpipe-taskmanager-1", 4)];

/// The pods, services and Secrets of an installed release; with a certificate the release speaks TLS.
fn installed(helm: Helm, kubeconfig: &str, has_certificate: bool) -> String {
    let api = restricted(kubeconfig);
    let helm = helm.of(kubeconfig, &api);
    if has_certificate {
        api.create(&path_of("Secret"), &certificate(&[format!("standpipe.{}.svc", api.namespace), MANAGER.to_owned()]));
        helm.ask(&["install", RELEASE, CHART], &["--set", "tls.secretName=certificate,jobmanager.persistence.enabled=false"]);
    } else {
        helm.ask(&["install", RELEASE, CHART], &[]);
    }
    wait_for_pods(&api, &MACHINES.map(|(name, _)| name));
    let kinds = ["Pod", "Service", "Secret"].map(|kind| {
        let mut items = api.get(&path_of(kind)).unwrap()["items"].take();
        // A list does not say of each what it is.
        items.as_array_mut().unwrap().iter_mut().for_each(|item| item["kind"] = kind.into());
        items
    });
    json!({"namespace": api.namespace, "kinds": kinds}).to_string()
}

/// Somebody who deploys jobs.
struct Client {
    folder: Folder,
    settings: Vec<String>,
}

impl Client {
    /// With the token and the authority that are in those Secrets.
    fn new(address: &str, token: &Value, certificate: Option<&Value>) -> Self {
        let (host, port) = address.split_once(':').unwrap();
        let settings = ["deployment_mode=session".to_owned(), format!("rest.address={host}"), format!("rest.port={port}")];
        let mut client = Self { folder: Folder::new(), settings: settings.to_vec() };
        client.take_token(token);
        if let Some(certificate) = certificate {
            client.folder.write("ca.crt", decoded(&certificate["data"]["ca.crt"]));
            client.settings.push("rest.tls.ca=ca.crt".to_owned());
        }
        client
    }

    fn take_token(&self, token: &Value) {
        let file = self.folder.write("token", decoded(&token["data"]["token"]));
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn deploy(&self, pipeline: &str, name: &str, more: &[&str]) -> Run {
        self.folder.write(&format!("{name}.yaml"), pipeline);
        let run = standpipe(["deploy", &format!("{name}.yaml"), "--handle", &format!("{name}.json")]).in_directory(self.folder.path());
        let settings = self.settings.iter().map(String::as_str).chain(more.iter().copied());
        settings.fold(run.timeout(2 * PATIENCE), |run, setting| run.args(["-D", setting]))
    }

    fn is_refused_without_its_token(&self) {
        let refused = self.deploy(PIPELINE, "refused", &[]).finish();
        assert!(refused.code != Some(0) && refused.stderr.contains("token"), "{refused:?}");
    }

    fn deployed(&self, pipeline: &str, name: &str) {
        let _ = self.deploy(pipeline, name, &["rest.token.file=token"]).finish().code(0);
    }

    fn deployment(&self, command: &[&str], name: &str) -> String {
        let run = standpipe(["deployment"]).args(command).args(["--handle", &format!("{name}.json")]).in_directory(self.folder.path());
        run.timeout(2 * PATIENCE).finish().code(0).stdout
    }

    /// `None` while nobody answers.
    fn status(&self, name: &str) -> Option<String> {
        let run = standpipe(["deployment", "status", "--handle", &format!("{name}.json")]).in_directory(self.folder.path());
        let finished = run.timeout(PATIENCE).finish();
        (finished.code == Some(0)).then(|| finished.stdout.trim().to_owned())
    }

    /// Its rows are right, and come from both task managers.
    fn run_a_job(&self) {
        self.deployed(PIPELINE, "job");
        assert_eq!(self.deployment(&["wait"], "job"), "FINISHED\n");
        let rows = self.deployment(&["collect", "--format", "csv"], "job");
        let mut rows: Vec<&str> = rows.lines().skip(1).collect();
        rows.sort_unstable();
        assert_eq!(rows, ["0,1000", "1,1000", "2,1000", "3,1000", "4,1000", "5,1000", "6,1000"]);
    }
}

/// Runs the pods of `installed`, and a job on them.
fn run_pods_and_a_job() {
    let cluster: Value = serde_json::from_str(&env::var(CLUSTER).unwrap()).unwrap();
    let list = |kind: usize| cluster["kinds"][kind].as_array().unwrap().clone();
    let (pods, services, secrets, lan) = (list(0), list(1), list(2), Lan::start());
    let machines = MACHINES.map(|(_, number)| lan.machine(number));
    let pods: Vec<_> = MACHINES.iter().zip(&machines).map(|((name, _), machine)| (object(&pods, "Pod", name).clone(), machine)).collect();
    let namespace = Namespace { name: cluster["namespace"].as_str().unwrap(), services: &services, secrets: &secrets, pods: &pods };
    let mut running: Vec<Pod> = pods.iter().map(|(pod, machine)| Pod::start(&namespace, pod, machine)).collect();
    // A kubelet does not look at certificates either.
    let tls = ureq::tls::TlsConfig::builder().disable_verification(true).build();
    let agent: Agent = Agent::config_builder().proxy(None).http_status_as_error(false).tls_config(tls).build().into();
    running.iter_mut().for_each(|pod| pod.wait_until_ready(&agent, PATIENCE));

    let address = running[0].at("rest");
    assert!(address.starts_with(MANAGER), "{address}");
    let certificate = secrets.iter().find(|secret| secret["metadata"]["name"] == "certificate");
    let client = Client::new(&address, object(&secrets, "Secret", "standpipe-token"), certificate);
    client.is_refused_without_its_token();
    client.run_a_job();
    for task_manager in &running[1..] {
        let metrics =
            agent.get(format!("http://{}/metrics", task_manager.at("metrics"))).call().unwrap().body_mut().read_to_string().unwrap();
        assert!(metrics.contains("standpipe_taskmanager_connected 1"), "{metrics}");
    }
}

fn decoded(text: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap()
}

fn pem(kind: &str, der: &[u8]) -> String {
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64_STANDARD.encode(der))
}

/// A Secret with an authority and a certificate by it, as cert-manager makes it.
fn certificate(names: &[String]) -> Value {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let data = json!({
        "ca.crt": pem("CERTIFICATE", authority.der()),
        "tls.crt": pem("CERTIFICATE", own.der()),
        "tls.key": pem("PRIVATE KEY", &key.serialize_der())
    });
    json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "certificate"}, "stringData": data})
}

#[test]
fn its_pods_are_a_cluster_that_runs_a_job() {
    let (Some(helm), Some(kubeconfig)) = (Helm::new(), kubernetes()) else { return };
    if in_own_network_with("its_pods_are_a_cluster_that_runs_a_job", || (CLUSTER, installed(helm, &kubeconfig, false))) {
        run_pods_and_a_job();
    }
}

#[test]
fn its_pods_are_a_cluster_with_a_certificate_too() {
    let (Some(helm), Some(kubeconfig)) = (Helm::new(), kubernetes()) else { return };
    if in_own_network_with("its_pods_are_a_cluster_with_a_certificate_too", || (CLUSTER, installed(helm, &kubeconfig, true))) {
        run_pods_and_a_job();
    }
}

const ENDLESS: &str = "\
name: counts
checkpoint: {interval: 500ms, dir: /mnt/checkpoints}
restart: {strategy: fixed-delay, attempts: 100, delay: 500ms}
sources:
  numbers: {connector: generator, with: {rate: 200, fields: {n: {kind: sequence}}}}
transforms:
  counts: {input: numbers, aggregate: {n: 'count(*)', most: 'max(n)'}, emit: each}
sinks:
  out: {input: counts, connector: collect}
";

/// The name of the engine's image on the node.
fn image_on(node: &KubernetesNode, engine: &Engine) -> String {
    let archive = engine.distribution.at("image.tar");
    engine.docker(&["save", "--output", &archive.display().to_string(), &engine.image]);
    let script = repository().join("tests/services/kubernetes.sh");
    let output = Command::new(script).arg("image").args([&node.folder, &archive]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("image=")).expect("the image is on the node").to_owned()
}

/// A folder that any pod may write; the node is this machine.
fn shared(folder: &Folder, name: &str) -> Value {
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(folder.at(name)).unwrap();
    fs::set_permissions(folder.at(name), fs::Permissions::from_mode(0o777)).unwrap();
    json!({"path": folder.at(name)})
}

/// What somebody has made for the claim of the manager, which no provisioner serves here; gone with the value.
struct Volume<'a>(&'a Api);

impl<'a> Volume<'a> {
    fn new(api: &'a Api, folder: &Value) -> Self {
        let spec = json!({
            "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "hostPath": folder,
            "claimRef": {"namespace": api.namespace, "name": "data-standpipe-manager-0"}
        });
        api.create("api/v1/persistentvolumes", &json!({"metadata": {"name": api.namespace}, "spec": spec}));
        Self(api)
    }
}

impl Drop for Volume<'_> {
    fn drop(&mut self) {
        self.0.delete("api/v1/persistentvolumes/{}");
    }
}

#[test]
fn a_release_on_a_node() {
    if !all() {
        return;
    }
    let (Some(helm), Some(kubeconfig), Some(node)) = (Helm::new(), kubernetes(), kubernetes_node()) else { return };
    let Some(engine) = Engine::start() else { return };
    let (image, folder, api) = (image_on(&node, &engine), Folder::new(), Api::new(&kubeconfig));
    let (repository, tag) = image.rsplit_once(':').unwrap();
    let volume = Volume::new(&api, &shared(&folder, "data"));
    let values = json!({
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "service": {"type": "NodePort"},
        "volumes": [{"name": "checkpoints", "hostPath": shared(&folder, "checkpoints")}],
        "volumeMounts": [{"name": "checkpoints", "mountPath": "/mnt/checkpoints"}],
        "jobmanager": {"resources": {"requests": {"cpu": "50m", "memory": "256Mi"}}},
        "taskmanager": {"resources": {"requests": {"cpu": "50m", "memory": "256Mi"}}}
    });
    let values = folder.write("values.json", values.to_string()).display().to_string();
    let (helm, options) = (helm.of(&kubeconfig, &api), ["--values", &values, "--wait", "--timeout", "4m"]);
    // The kubeconfig's address is the node's, whose ports are the service's.
    let server = yaml(&fs::read_to_string(&kubeconfig).unwrap())["clusters"][0]["cluster"]["server"].clone();
    let host = server.as_str().unwrap().trim_start_matches("https://").split(':').next().unwrap().to_owned();
    let token = || api.get(&Api::path("Secret", "standpipe-token")).unwrap();
    helm.ask(&["install", RELEASE, CHART], &options);
    let port = api.get(&Api::path("Service", RELEASE)).unwrap()["spec"]["ports"][0]["nodePort"].to_string();
    let client = Client::new(&format!("{host}:{port}"), &token(), None);
    client.run_a_job();

    client.deployed(ENDLESS, "counts");
    let kept = || {
        let files = fs::read_dir(folder.at("checkpoints/counts/checkpoints")).into_iter().flatten();
        files.filter_map(|file| Some(file.ok()?.file_name())).collect::<BTreeSet<_>>()
    };
    let runs_on = |what: &str| {
        let before = kept();
        wait_until(what, PATIENCE, || !kept().is_subset(&before) && client.status("counts").as_deref() == Some("RUNNING"));
    };
    runs_on("checkpoints");
    for pod in ["standpipe-taskmanager-0", "standpipe-manager-0"] {
        let before = api.pod(pod)["metadata"]["uid"].clone();
        api.delete_pod(pod);
        wait_until(pod, PATIENCE, || api.find_pod(pod).is_some_and(|found| found["metadata"]["uid"] != before && is_ready(&found)));
        runs_on(pod);
    }
    helm.ask(&["upgrade", RELEASE, CHART], &[&options[..], &["--set", "taskmanager.replicas=3,logLevel=debug"]].concat());
    assert!(["standpipe-taskmanager-2", "standpipe-manager-0"].iter().all(|pod| is_ready(&api.pod(pod))));
    runs_on("an upgrade of all pods");

    helm.ask(&["uninstall", RELEASE, "--wait"], &[]);
    assert_eq!(client.status("counts"), None);
    helm.ask(&["install", RELEASE, CHART], &[&options[..], &["--set", &format!("service.nodePort={port}")]].concat());
    client.take_token(&token());
    runs_on("it is installed again");
    let rows = client.deployment(&["collect", "--limit", "1", "--format", "csv"], "counts");
    let row: Vec<u64> = rows.lines().nth(1).unwrap().split(',').filter_map(|value| value.parse().ok()).collect();
    assert!(row[0] > 200 && row[0] == row[1] + 1, "each number was counted once: {rows}");
    drop(volume);
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}
