//! A real API server, as the tests of the Kubernetes mode look at it and change it: REST with the administrator's certificate. Each test has a namespace of its own, which goes with it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use standpipe_tests::{Folder, wait_until, yaml};
use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};
use ureq::{
    Agent,
    http::Method,
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
};

/// How long what controllers do may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The plural, by the kind of an object that a job has.
const PATHS: [(&str, &str); 8] = [
    ("Job", "apis/batch/v1/namespaces/{}/jobs"),
    ("ServiceAccount", "api/v1/namespaces/{}/serviceaccounts"),
    ("Role", "apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles"),
    ("RoleBinding", "apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings"),
    ("Secret", "api/v1/namespaces/{}/secrets"),
    ("ConfigMap", "api/v1/namespaces/{}/configmaps"),
    ("Service", "api/v1/namespaces/{}/services"),
    ("StatefulSet", "apis/apps/v1/namespaces/{}/statefulsets"),
];

static NAMESPACES: AtomicUsize = AtomicUsize::new(0);

/// A namespace of the cluster.
pub(crate) struct Api {
    agent: Agent,
    server: String,
    kubeconfig: Value,
    pub(crate) namespace: String,
}

impl Api {
    /// In the cluster of that kubeconfig, in a namespace that is made for it.
    pub(crate) fn new(kubeconfig: &str) -> Self {
        let kubeconfig = yaml(&fs::read_to_string(kubeconfig).unwrap());
        let data = |value: &Value| BASE64_STANDARD.decode(value.as_str().expect("a kubeconfig with the certificates in it")).unwrap();
        let (cluster, user) = (&kubeconfig["clusters"][0]["cluster"], &kubeconfig["users"][0]["user"]);
        let authority = certificates(&data(&cluster["certificate-authority-data"]));
        let own = certificates(&data(&user["client-certificate-data"]));
        let key = PrivateKey::from_pem(&data(&user["client-key-data"])).unwrap();
        let tls =
            TlsConfig::builder().root_certs(RootCerts::from(authority)).client_cert(Some(ClientCert::new_with_certs(&own, key))).build();
        let agent =
            Agent::config_builder().proxy(None).http_status_as_error(false).allow_non_standard_methods(true).tls_config(tls).build();
        let server = cluster["server"].as_str().unwrap().trim_end_matches('/').to_owned();
        let namespace = format!("standpipe-test-{}-{}", std::process::id(), NAMESPACES.fetch_add(1, Relaxed));
        let api = Self { agent: agent.into(), server, kubeconfig, namespace };
        let (status, answer) = api.ask(Method::POST, "api/v1/namespaces", &json!({"metadata": {"name": api.namespace}}));
        assert!(status < 300, "{answer}");
        // Pods want it, and a controller makes it.
        api.wait_for("api/v1/namespaces/{}/serviceaccounts/default", |_| true);
        api
    }

    /// A request; `{}` in the path is the namespace.
    fn ask(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/{}", self.server, path.replace("{}", &self.namespace));
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = ureq::http::Request::builder().method(method).uri(url).header("content-type", kind).body(body.to_string()).unwrap();
        let mut answer = self.agent.run(request).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let url = format!("{}/{}", self.server, path.replace("{}", &self.namespace));
        let mut answer = self.agent.get(url).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        match answer.status().as_u16() {
            200 => Some(body),
            404 => None,
            status => panic!("{path}: {status}: {body}"),
        }
    }

    /// Creates an object; gives it as it is then.
    pub(crate) fn create(&self, path: &str, object: &Value) -> Value {
        let (status, answer) = self.ask(Method::POST, path, object);
        assert!(status < 300, "{path}: {answer}");
        answer
    }

    pub(crate) fn patch(&self, path: &str, change: &Value) -> Value {
        let (status, answer) = self.ask(Method::PATCH, path, change);
        assert!(status < 300, "{path}: {answer}");
        answer
    }

    /// The object, once it is there and as it should be.
    pub(crate) fn wait_for(&self, path: &str, is_good: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        wait_until(path, PATIENCE, || {
            found = self.get(path).filter(|object| is_good(object));
            found.is_some()
        });
        found.unwrap()
    }

    /// The path of an object of that kind.
    pub(crate) fn path(kind: &str, name: &str) -> String {
        let path = PATHS.iter().find(|(known, _)| *known == kind).expect("a kind of a job").1;
        format!("{path}/{name}")
    }

    /// Kinds and names of all that a job has.
    pub(crate) fn objects(&self, id: &str) -> Vec<(String, Value)> {
        let list = |(kind, path): (&str, &str)| {
            let found = self.get(&format!("{path}?labelSelector=app.kubernetes.io/instance={id}")).unwrap();
            let items = found["items"].as_array().unwrap().clone();
            items.into_iter().map(move |item| (format!("{kind} {}", item["metadata"]["name"].as_str().unwrap()), item)).collect::<Vec<_>>()
        };
        PATHS.into_iter().flat_map(list).collect()
    }

    /// The manager's pods.
    pub(crate) fn managers(&self, id: &str) -> Vec<Value> {
        let selector = format!("app.kubernetes.io/instance={id},app.kubernetes.io/component=manager");
        self.get(&format!("api/v1/namespaces/{{}}/pods?labelSelector={selector}")).unwrap()["items"].as_array().unwrap().clone()
    }

    pub(crate) fn find_pod(&self, name: &str) -> Option<Value> {
        self.get(&format!("api/v1/namespaces/{{}}/pods/{name}"))
    }

    pub(crate) fn pod(&self, name: &str) -> Value {
        self.find_pod(name).unwrap()
    }

    /// Waits until nothing is left of a job.
    pub(crate) fn wait_until_gone(&self, id: &str) {
        wait_until(&format!("nothing is left of {id}"), PATIENCE, || self.objects(id).is_empty() && self.managers(id).is_empty());
    }

    /// What a node would say of a pod, where there is none.
    pub(crate) fn say_of_pod(&self, name: &str, status: &Value) {
        self.patch(&format!("api/v1/namespaces/{{}}/pods/{name}/status"), &json!({ "status": status }));
    }

    /// Removes an object, if it is there.
    pub(crate) fn delete(&self, path: &str) {
        let _ = self.ask(Method::DELETE, path, &json!({}));
    }

    /// Removes a pod at once.
    pub(crate) fn delete_pod(&self, name: &str) {
        let (status, answer) = self.ask(Method::DELETE, &format!("api/v1/namespaces/{{}}/pods/{name}"), &json!({"gracePeriodSeconds": 0}));
        assert!(status < 300, "{answer}");
    }

    /// Evicts a pod, as `kubectl drain` does.
    pub(crate) fn evict(&self, name: &str) {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": self.namespace}});
        self.create(&format!("api/v1/namespaces/{{}}/pods/{name}/eviction"), &eviction);
    }

    /// A kubeconfig of somebody else: as this one, with changes of its cluster and another user.
    pub(crate) fn kubeconfig(&self, folder: &Folder, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let mut config = self.kubeconfig.clone();
        let (mut cluster, mut user) = (config["clusters"][0]["cluster"].take(), config["users"][0]["user"].take());
        change(&mut cluster, &mut user);
        config["clusters"][0]["cluster"] = cluster;
        config["users"][0]["user"] = user;
        folder.write("other.kubeconfig", config.to_string()).display().to_string()
    }

    /// A token of a service account.
    pub(crate) fn token_of(&self, account: &str) -> String {
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
        let answer = self.create(&format!("api/v1/namespaces/{{}}/serviceaccounts/{account}/token"), &request);
        answer["status"]["token"].as_str().unwrap().to_owned()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // Its controllers do the rest.
        let _ = self.ask(Method::DELETE, "api/v1/namespaces/{}", &json!({}));
    }
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    parse_pem(pem).filter_map(certificate).collect()
}
