//! The keys of the mode, as they are written. What they mean, and what is wrong with them, is in [`crate::settings`].

use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::units::Time;
use std::time::Duration;

/// Creates a cluster of its own for the job in Kubernetes, which ends with the job.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct KubernetesConfig {
    /// The image of job manager and task managers: one with `standpipe` and its plugins.
    #[serde(rename = "kubernetes.image", default = "image")]
    pub image: String,
    /// The namespace of everything that is created. It has to be there.
    #[serde(rename = "kubernetes.namespace", default = "namespace")]
    pub namespace: String,
    /// The file that says where the cluster is and who asks (a kubeconfig). Where it is not set and there is none, the service account of the pod that this runs in is used.
    #[serde(rename = "kubernetes.config.file", default = "config_file")]
    pub config_file: String,
    /// The context of that file. Unset: its current one.
    #[serde(rename = "kubernetes.context")]
    pub context: Option<String>,
    /// What every object of the job is named by: a DNS label of at most 40 characters. Unset: `standpipe-NAME-` and six random characters.
    #[serde(rename = "kubernetes.cluster.id")]
    pub cluster_id: Option<String>,
    /// When the image is pulled: `Always`, `IfNotPresent` or `Never`. Unset: as Kubernetes does, `Always` for the tag `latest` and `IfNotPresent` for others.
    #[serde(rename = "kubernetes.image.pull.policy")]
    pub image_pull_policy: Option<String>,
    /// Secrets with the credentials of the image's registry: `one,two`.
    #[serde(rename = "kubernetes.image.pull.secrets")]
    pub image_pull_secrets: Option<String>,
    /// The service account of the job manager. Unset: one is created for the job that may touch the job's own objects and nothing else. Task managers get no access at all.
    #[serde(rename = "kubernetes.service.account")]
    pub service_account: Option<String>,
    /// Processors that the job manager asks for: `1`, `500m`.
    #[serde(rename = "kubernetes.jobmanager.cpu", default = "one")]
    pub jobmanager_cpu: String,
    /// Memory that the job manager gets, and no more: `1Gi`.
    #[serde(rename = "kubernetes.jobmanager.memory", default = "jobmanager_memory")]
    pub jobmanager_memory: String,
    /// Processors that each task manager asks for.
    #[serde(rename = "kubernetes.taskmanager.cpu", default = "one")]
    pub taskmanager_cpu: String,
    /// Memory that each task manager gets, and no more.
    #[serde(rename = "kubernetes.taskmanager.memory", default = "taskmanager_memory")]
    pub taskmanager_memory: String,
    /// Slots of each task manager: how many subtasks of a node run there.
    #[serde(rename = "kubernetes.taskmanager.slots", default = "slots")]
    #[schemars(range(min = 1, max = 4096))]
    pub slots: u32,
    /// How many task managers there are. Unset: as many as the job's parallelism needs.
    #[serde(rename = "kubernetes.taskmanager.replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<u32>,
    /// Labels of the nodes that pods may run on: `disktype=ssd,zone=a`.
    #[serde(rename = "kubernetes.node.selector")]
    pub node_selector: Option<String>,
    /// Taints that pods tolerate, as `kubectl taint` writes them: `dedicated=streams:NoSchedule,spot:NoExecute`; or a JSON array of tolerations.
    #[serde(rename = "kubernetes.tolerations")]
    pub tolerations: Option<String>,
    /// Annotations of every object and pod: `a=b,c=d`, or a JSON object, which can have commas in its values.
    #[serde(rename = "kubernetes.annotations")]
    pub annotations: Option<String>,
    /// More labels of every object and pod: `team=metrics`.
    #[serde(rename = "kubernetes.labels")]
    pub labels: Option<String>,
    /// Environment variables of job manager and task managers, which references of the pipeline (`${NAME}`) are resolved by: `ZONE=a,MODE=b`, or a JSON object. Secrets belong into a Secret, and `kubernetes.env.from`.
    #[serde(rename = "kubernetes.env")]
    pub env: Option<String>,
    /// Environment variables by reference: all of `secret/NAME` or `configmap/NAME`, or one, `PASSWORD=secret/NAME/KEY`; several with commas.
    #[serde(rename = "kubernetes.env.from")]
    pub env_from: Option<String>,
    /// Volumes: `NAME=claim/CLAIM`, `NAME=secret/SECRET`, `NAME=configmap/MAP` or `NAME=empty`, several with commas; or a JSON array of volumes.
    #[serde(rename = "kubernetes.volumes")]
    pub volumes: Option<String>,
    /// Where the volumes are in job manager and task managers: `NAME=/path`, `NAME=/path:ro`.
    #[serde(rename = "kubernetes.volume.mounts")]
    pub volume_mounts: Option<String>,
    /// A claim for what the job manager keeps. Unset: that ends with its pod, and the next one goes on from the job's last checkpoint.
    #[serde(rename = "kubernetes.data.claim")]
    pub data_claim: Option<String>,
    /// A file with a pod template (YAML) that is merged over what is generated, for job manager and task managers, as `kubectl patch` does (strategic merge). Their containers are `manager` and `taskmanager`.
    #[serde(rename = "kubernetes.pod.template")]
    pub pod_template: Option<String>,
    /// As `kubernetes.pod.template`, for the job manager alone, and over that.
    #[serde(rename = "kubernetes.pod.template.jobmanager")]
    pub pod_template_jobmanager: Option<String>,
    /// As `kubernetes.pod.template`, for task managers alone, and over that.
    #[serde(rename = "kubernetes.pod.template.taskmanager")]
    pub pod_template_taskmanager: Option<String>,
    /// How long the job's end can be asked for. Then Kubernetes removes what is left of it.
    #[serde(rename = "kubernetes.ttl", default = "ttl")]
    pub ttl: Time,
    /// How long `deploy` waits until the job manager has taken the job. If it is killed meanwhile, Kubernetes ends what it has begun a minute after that time, and removes it after `kubernetes.ttl`.
    #[serde(rename = "kubernetes.submit.timeout", default = "submit_timeout")]
    pub submit_timeout: Time,
    /// How long the job manager stays after the job's end for rows of a sink `collect` that nobody has read yet.
    #[serde(rename = "kubernetes.linger", default = "linger")]
    pub linger: Time,
}

fn image() -> String {
    "standpipe:latest".to_owned()
}

fn namespace() -> String {
    "default".to_owned()
}

/// The default of `kubernetes.config.file`.
pub(crate) fn config_file() -> String {
    "~/.kube/config".to_owned()
}

fn one() -> String {
    "1".to_owned()
}

fn jobmanager_memory() -> String {
    "1Gi".to_owned()
}

fn taskmanager_memory() -> String {
    "2Gi".to_owned()
}

const fn slots() -> u32 {
    1
}

const fn ttl() -> Time {
    Time(Duration::from_secs(3600))
}

const fn submit_timeout() -> Time {
    Time(Duration::from_secs(300))
}

const fn linger() -> Time {
    Time(Duration::from_secs(60))
}
