//! The way to the API server: where it is, who asks, and the few calls that the mode makes. Each call ends: by an answer, a timeout or the user. No proxy is asked.

use crate::{
    manifests::Names,
    refusals::{Asked, chain, unusable},
    settings::Settings,
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        batch::v1::Job,
        core::v1::{ConfigMap, Event, Pod, Secret, Service, ServiceAccount},
        rbac::v1::{Role, RoleBinding},
    },
};
use kube::{
    Api, Client, Config, Resource,
    api::{
        DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, Portforwarder, PostParams, Preconditions, PropagationPolicy,
    },
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, Request},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use standpipe_sdk::{Error, Host, Result};
use std::{fmt::Debug, future::Future, sync::Arc, time::Duration};
use tokio::{
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};

/// Whose fields these are.
pub(crate) const FIELD_MANAGER: &str = "standpipe";
/// Until a connection is there.
const CONNECT: Duration = Duration::from_secs(10);
/// Until an answer is there.
const ANSWER: Duration = Duration::from_secs(30);
/// How often it is looked whether the user has had enough.
const LOOK: Duration = Duration::from_millis(100);

/// A namespace of a cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) server: String,
    /// The context of the kubeconfig that says so; none: it is the cluster of the pod that this runs in.
    pub(crate) context: Option<String>,
}

/// Runs what is asked of a cluster, on this thread; what goes on in between is on two of its own.
pub(crate) struct Asking {
    runtime: Runtime,
    host: Host,
}

impl Asking {
    /// # Errors
    /// When there are no threads.
    pub(crate) fn new(host: Host) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("kubernetes").enable_all().build();
        let runtime = runtime.map_err(|error| Error::external(format!("threads: {error}")))?;
        Ok(Self { runtime, host })
    }

    /// Waits for an answer, or until the user has had enough.
    pub(crate) fn wait<T>(&self, asked: impl Future<Output = Result<T>>) -> Result<T> {
        // Answers may come faster than it is looked below.
        if self.host.cancelled() {
            return Err(Error::cancelled());
        }
        self.runtime.block_on(async {
            let mut asked = std::pin::pin!(asked);
            loop {
                tokio::select! {
                    answer = &mut asked => return answer,
                    () = sleep(LOOK) => if self.host.cancelled() { return Err(Error::cancelled()) },
                }
            }
        })
    }

    /// As [`Self::wait`], whatever the user says: what is begun is cleaned up.
    pub(crate) fn wait_for_all<T>(&self, asked: impl Future<Output = T>) -> T {
        self.runtime.block_on(asked)
    }

    pub(crate) fn handle(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }
}

/// A kind of object that is written or removed.
type Written = (&'static str, ApiResource);

/// The resource (as RBAC calls it) of a manifest.
///
/// # Errors
/// When it is none of ours, which is a bug.
fn resource_of(manifest: &Value) -> Result<Written> {
    fn of<K: Resource<DynamicType = ()>>(resource: &'static str) -> Written {
        (resource, ApiResource::erase::<K>(&()))
    }
    match manifest.get("kind").and_then(Value::as_str).unwrap_or_default() {
        "Job" => Ok(of::<Job>("jobs")),
        "ServiceAccount" => Ok(of::<ServiceAccount>("serviceaccounts")),
        "Role" => Ok(of::<Role>("roles")),
        "RoleBinding" => Ok(of::<RoleBinding>("rolebindings")),
        "Secret" => Ok(of::<Secret>("secrets")),
        "ConfigMap" => Ok(of::<ConfigMap>("configmaps")),
        "Service" => Ok(of::<Service>("services")),
        "StatefulSet" => Ok(of::<StatefulSet>("statefulsets")),
        kind => Err(Error::new(standpipe_sdk::ErrorCode::OTHER, format!("no resource of kind {kind:?}"))),
    }
}

/// The object's name in a manifest.
fn name_of(manifest: &Value) -> &str {
    manifest.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

impl Cluster {
    /// By the kubeconfig, or from within a pod. Nobody is asked yet, but for a command that a kubeconfig gets credentials from.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub(crate) async fn connect(settings: &Settings, namespace: &str) -> Result<Self> {
        let (config, context) = config(settings).await?;
        let server = config.cluster_url.to_string();
        // Of several providers in one process none is the default by itself.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = settings.config_file.display().to_string();
        let client = Client::try_from(config).map_err(|error| unusable(&file, &error))?;
        Ok(Self { client, namespace: namespace.to_owned(), server, context })
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits for an answer, not for ever.
    async fn ask<T>(&self, verb: &str, resource: &str, name: &str, asked: impl Future<Output = kube::Result<T>>) -> Result<T> {
        let question = Asked { verb, resource, name, namespace: &self.namespace, server: &self.server };
        match timeout(ANSWER, asked).await {
            Ok(answer) => answer.map_err(|error| question.failed(&error)),
            Err(_) => {
                Err(Error::external(format!("the API server at {} does not answer within {} s", self.server, ANSWER.as_secs())).retryable())
            }
        }
    }

    fn dynamic(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, resource)
    }

    /// Creates an object that must not be there. A member that Kubernetes does not know is an error, as it is of what is applied; by itself it would be left out silently.
    pub(crate) async fn create(&self, manifest: &Value) -> Result<DynamicObject> {
        let (resource, api) = resource_of(manifest)?;
        let named = |why: String| Error::external(format!("{resource} {}: {why}", name_of(manifest)));
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let path = DynamicObject::url_path(&api, Some(&self.namespace));
        let request = Request::new(path).create(&parameters, manifest.to_string().into_bytes());
        let mut request = request.map_err(|error| named(error.to_string()))?;
        // Not among the parameters.
        let strict = format!("{}&fieldValidation=Strict", request.uri());
        *request.uri_mut() = strict.parse().map_err(|error| named(format!("{strict}: {error}")))?;
        self.ask("create", resource, name_of(manifest), self.client.request(request)).await
    }

    /// The object of a manifest, if it is there.
    pub(crate) async fn find(&self, manifest: &Value) -> Result<Option<DynamicObject>> {
        let (resource, api) = resource_of(manifest)?;
        self.ask("get", resource, name_of(manifest), self.dynamic(&api).get_opt(name_of(manifest))).await
    }

    /// Server-side apply. Fields of others stay theirs: that is an error.
    pub(crate) async fn apply(&self, manifest: &Value) -> Result<DynamicObject> {
        let (resource, api) = resource_of(manifest)?;
        let parameters = PatchParams::apply(FIELD_MANAGER);
        self.ask("patch", resource, name_of(manifest), self.dynamic(&api).patch(name_of(manifest), &parameters, &Patch::Apply(manifest)))
            .await
    }

    /// What the name of a manifest's object is taken for, in a message.
    pub(crate) fn resource(manifest: &Value) -> &'static str {
        resource_of(manifest).map_or("object", |(resource, _)| resource)
    }

    pub(crate) async fn get<K>(&self, resource: &str, name: &str) -> Result<Option<K>>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        self.ask("get", resource, name, self.api::<K>().get_opt(name)).await
    }

    /// Changes members of an object.
    pub(crate) async fn merge<K>(&self, resource: &str, name: &str, change: &Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.ask("patch", resource, name, self.api::<K>().patch(name, &parameters, &Patch::Merge(change))).await
    }

    /// Removes an object with all that it owns; whether it was there.
    pub(crate) async fn delete<K>(&self, resource: &str, name: &str) -> Result<bool>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        self.delete_by::<K>(resource, name, None, PropagationPolicy::Background).await
    }

    /// Removes the Job of that name and uid; what it owns goes after it, or, if it is waited for that, before. Whether it was there.
    pub(crate) async fn delete_job(&self, name: &str, uid: &str, policy: PropagationPolicy) -> Result<bool> {
        self.delete_by::<Job>("jobs", name, Some(uid), policy).await
    }

    async fn delete_by<K>(&self, resource: &str, name: &str, uid: Option<&str>, policy: PropagationPolicy) -> Result<bool>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let preconditions = uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let parameters = DeleteParams { propagation_policy: Some(policy), preconditions, ..DeleteParams::default() };
        let api = self.api::<K>();
        let asked = async {
            match api.delete(name, &parameters).await {
                Ok(_) => Ok(true),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.ask("delete", resource, name, asked).await
    }

    /// The Job, if it is there and that of this job.
    pub(crate) async fn job(&self, names: &Names) -> Result<Option<Job>> {
        let job: Option<Job> = self.get("jobs", &names.id).await?;
        Ok(job.filter(|job| names.is_of(&job.metadata)))
    }

    /// Removes an object once all that it owns is gone; whether it was there.
    pub(crate) async fn delete_with_dependents<K>(&self, resource: &str, name: &str) -> Result<bool>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        self.delete_by::<K>(resource, name, None, PropagationPolicy::Foreground).await
    }

    /// The pods of a component, the newest first.
    pub(crate) async fn pods(&self, names: &Names, component: &str) -> Result<Vec<Pod>> {
        let selector: Vec<String> = names.selector(component).iter().map(|(label, value)| format!("{label}={value}")).collect();
        let parameters = ListParams::default().labels(&selector.join(","));
        let mut pods = self.ask("list", "pods", &names.id, self.api::<Pod>().list(&parameters)).await?.items;
        pods.sort_by(|one, other| other.metadata.creation_timestamp.cmp(&one.metadata.creation_timestamp));
        Ok(pods)
    }

    /// What has been told of an object, if that may be read.
    pub(crate) async fn events(&self, kind: &str, name: &str) -> Vec<Event> {
        let parameters = ListParams::default().fields(&format!("involvedObject.kind={kind},involvedObject.name={name}"));
        self.ask("list", "events", name, self.api::<Event>().list(&parameters)).await.map(|list| list.items).unwrap_or_default()
    }

    /// A connection into a pod.
    pub(crate) async fn forward(&self, pod: &str, port: u16) -> Result<Portforwarder> {
        self.ask("get", "pods/portforward", pod, self.api::<Pod>().portforward(pod, &[port])).await
    }

    /// The last lines of a pod's log. Bytes are not limited: Kubernetes would leave out the newest.
    pub(crate) async fn log(&self, pod: &str, container: &str, lines: i64) -> Result<String> {
        let parameters = LogParams { container: Some(container.to_owned()), tail_lines: Some(lines), ..LogParams::default() };
        self.ask("get", "pods/log", pod, self.api::<Pod>().logs(pod, &parameters)).await
    }
}

/// Of the file, with the context, or of the pod that this runs in where nobody has named a file and there is none.
async fn config(settings: &Settings) -> Result<(Config, Option<String>)> {
    let file = &settings.config_file;
    let shown = file.display().to_string();
    if settings.config_file_is_default && !file.exists() {
        let how = "say where the cluster is by kubernetes.config.file";
        let mut config = Config::incluster()
            .map_err(|error| Error::external(format!("there is no {shown}, and this is no pod of a cluster ({}): {how}", chain(&error))))?;
        config.connect_timeout = Some(CONNECT);
        return Ok((config, None));
    }
    let kubeconfig = Kubeconfig::read_from(file).map_err(|error| unusable(&shown, &error))?;
    let proxies: Vec<String> = kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref()?.proxy_url.clone()).collect();
    let options = KubeConfigOptions { context: settings.context.clone(), ..KubeConfigOptions::default() };
    let chosen = settings.context.clone().or_else(|| kubeconfig.current_context.clone()).filter(|context| !context.is_empty());
    let contexts: Vec<String> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    if let Some(context) = settings.context.as_ref().filter(|context| !contexts.contains(context)) {
        let message = format!("{shown} has no context {context:?}: it has {}", contexts.join(", "));
        return Err(Error::config("kubernetes.context", message));
    }
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(&shown, &error))?;
    match &config.proxy_url {
        Some(proxy) if proxies.iter().any(|named| named.trim_end_matches('/') == proxy.to_string().trim_end_matches('/')) => {
            let message = format!("{shown}: its proxy-url {proxy} is not supported: the API server is asked directly");
            return Err(Error::config("kubernetes.config.file", message));
        }
        // That of the environment, which nobody has named for this.
        _ => config.proxy_url = None,
    }
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(ANSWER);
    Ok((config, chosen))
}

/// The client with what it is asked by, shared with what is forwarded.
pub(crate) type Shared = Arc<Cluster>;
