//! Helm and the chart, as its tests use them: what it renders, installs, upgrades and removes, with nothing of the user's own settings; and its pods, run on this machine (`pod`).

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod pod;

use super::kubernetes_support::{Api, PATIENCE};
use serde_json::Value;
use standpipe_tests::{Folder, repository, wait_until, yaml};
use std::process::{Command, Output};

/// Helm, with folders of its own for what it keeps.
pub(crate) struct Helm {
    program: String,
    folder: Folder,
    cluster: Vec<String>,
}

/// What is said to Helm of the chart: `--set`, `--values`, ...
pub(crate) type Options<'a> = &'a [&'a str];

impl Helm {
    /// `None`: the test is to return, it has been noted as skipped.
    pub(crate) fn new() -> Option<Self> {
        Some(Self { program: standpipe_tests::helm()?, folder: Folder::new(), cluster: Vec::new() })
    }

    /// For that namespace.
    pub(crate) fn of(mut self, kubeconfig: &str, api: &Api) -> Self {
        self.cluster = ["--kubeconfig", kubeconfig, "--namespace", &api.namespace].map(str::to_owned).to_vec();
        self
    }

    fn run(&self, arguments: &[&str], options: Options<'_>) -> Output {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(&self.cluster).args(options).current_dir(repository());
        for kind in ["CACHE", "CONFIG", "DATA"] {
            command.env(format!("HELM_{kind}_HOME"), self.folder.at(kind));
        }
        // Nobody's own cluster by accident.
        command.env_remove("KUBECONFIG").env_remove("HELM_NAMESPACE").output().unwrap()
    }

    /// What it prints.
    pub(crate) fn ask(&self, arguments: &[&str], options: Options<'_>) -> String {
        let output = self.run(arguments, options);
        assert!(output.status.success(), "helm {arguments:?} {options:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says of what it does not do.
    pub(crate) fn refuse(&self, arguments: &[&str], options: Options<'_>) -> String {
        let output = self.run(arguments, options);
        assert!(!output.status.success(), "helm {arguments:?} {options:?} did it: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The chart's text for a release.
    pub(crate) fn text(&self, release: &str, options: Options<'_>) -> String {
        self.ask(&["template", release, CHART], options)
    }

    /// The chart's objects for a release.
    pub(crate) fn render(&self, release: &str, options: Options<'_>) -> Vec<Value> {
        documents(&self.text(release, options))
    }
}

/// The chart's folder, below the repository's root.
pub(crate) const CHART: &str = "docker/kubernetes/chart";
/// A release whose objects have its own name.
pub(crate) const RELEASE: &str = "standpipe";

/// The objects of a text; what is before the first `---` is none.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    text.split("---\n").skip(1).map(yaml).collect()
}

/// The object of a kind and name.
pub(crate) fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(is_it).unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The path of the objects of a kind.
pub(crate) fn path_of(kind: &str) -> String {
    let own = [
        ("Ingress", "apis/networking.k8s.io/v1/namespaces/{}/ingresses"),
        ("NetworkPolicy", "apis/networking.k8s.io/v1/namespaces/{}/networkpolicies"),
        ("PodDisruptionBudget", "apis/policy/v1/namespaces/{}/poddisruptionbudgets"),
        ("PersistentVolumeClaim", "api/v1/namespaces/{}/persistentvolumeclaims"),
        ("Pod", "api/v1/namespaces/{}/pods"),
    ];
    let known = own.iter().find(|(known, _)| *known == kind);
    known.map_or_else(|| Api::path(kind, "").trim_end_matches('/').to_owned(), |(_, path)| (*path).to_owned())
}

/// The names of all objects of a kind in the namespace.
pub(crate) fn names_of(api: &Api, kind: &str) -> Vec<String> {
    let found = api.get(&path_of(kind)).unwrap();
    found["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// A namespace in which a pod that might have more rights than it needs is refused: the Pod Security Standard `restricted`.
pub(crate) fn restricted(kubeconfig: &str) -> Api {
    let api = Api::new(kubeconfig);
    api.patch("api/v1/namespaces/{}", &serde_json::json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}));
    api
}

/// Waits for pods, which the namespace's policy has then let in.
pub(crate) fn wait_for_pods(api: &Api, names: &[&str]) {
    wait_until("the pods", PATIENCE, || names_of(api, "Pod") == names);
}
