//! The configuration, understood: every value checked, all that is wrong told at once, each under its key.

use crate::{
    config::{self, KubernetesConfig},
    lists::{self, Texts, Variables},
    names::{self, Checked},
};
use serde_json::Value;
use standpipe_sdk::deployment::Problem;
use std::{
    collections::BTreeSet,
    env,
    path::{self, Path, PathBuf},
    time::Duration,
};

/// What a pod asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) cpu: String,
    pub(crate) memory: String,
}

/// The configuration of the mode.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) image: String,
    pub(crate) namespace: String,
    /// Absolute.
    pub(crate) config_file: PathBuf,
    /// Nobody has said another file: it need not be there.
    pub(crate) config_file_is_default: bool,
    pub(crate) context: Option<String>,
    pub(crate) cluster_id: Option<String>,
    pub(crate) image_pull_policy: Option<String>,
    pub(crate) image_pull_secrets: Vec<String>,
    pub(crate) service_account: Option<String>,
    pub(crate) jobmanager: Resources,
    pub(crate) taskmanager: Resources,
    pub(crate) slots: u32,
    pub(crate) replicas: Option<u32>,
    pub(crate) node_selector: Texts,
    pub(crate) tolerations: Vec<Value>,
    pub(crate) annotations: Texts,
    pub(crate) labels: Texts,
    pub(crate) env: Texts,
    pub(crate) env_from: Variables,
    pub(crate) volumes: Vec<Value>,
    pub(crate) volume_mounts: Vec<Value>,
    pub(crate) data_claim: Option<String>,
    pub(crate) templates: Templates,
    pub(crate) ttl: Duration,
    pub(crate) submit_timeout: Duration,
    pub(crate) linger: Duration,
}

/// The files of pod templates.
#[derive(Debug, Clone, Default)]
pub(crate) struct Templates {
    pub(crate) both: Option<PathBuf>,
    pub(crate) jobmanager: Option<PathBuf>,
    pub(crate) taskmanager: Option<PathBuf>,
}

/// Collects what is wrong.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, key: &str, message: String) {
        self.0.push(Problem { path: key.to_owned(), message, suggestion: None });
    }

    fn check(&mut self, key: &str, checked: Checked) {
        if let Err(message) = checked {
            self.add(key, message);
        }
    }

    /// The value of a key that need not be set, or what stands for none.
    fn read<T: Default>(&mut self, key: &str, text: Option<&String>, read: impl FnOnce(&str) -> Result<T, String>) -> T {
        match text.map(|text| read(text)) {
            Some(Ok(value)) => value,
            Some(Err(message)) => {
                self.add(key, message);
                T::default()
            }
            None => T::default(),
        }
    }

    fn duration(&mut self, key: &str, given: Duration, least: Duration, most: Duration) -> Duration {
        if given < least || given > most {
            self.add(key, format!("expected {} s to {} s, found {} s", least.as_secs(), most.as_secs(), given.as_secs_f64()));
        }
        given
    }
}

impl Settings {
    /// # Errors
    /// Everything that is wrong.
    pub(crate) fn read(config: &KubernetesConfig) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        check_names(config, &mut problems);
        let optional = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let config_file = if config.config_file.is_empty() { config::config_file() } else { config.config_file.clone() };
        let map = lists::map;
        let settings = Self {
            image: config.image.clone(),
            namespace: config.namespace.clone(),
            config_file: absolute(&config_file),
            config_file_is_default: config_file == config::config_file(),
            context: optional(&config.context),
            cluster_id: optional(&config.cluster_id),
            image_pull_policy: optional(&config.image_pull_policy),
            image_pull_secrets: problems.read("kubernetes.image.pull.secrets", config.image_pull_secrets.as_ref(), lists::objects),
            service_account: optional(&config.service_account),
            jobmanager: Resources { cpu: config.jobmanager_cpu.clone(), memory: config.jobmanager_memory.clone() },
            taskmanager: Resources { cpu: config.taskmanager_cpu.clone(), memory: config.taskmanager_memory.clone() },
            slots: config.slots,
            replicas: config.replicas,
            node_selector: problems.read("kubernetes.node.selector", config.node_selector.as_ref(), |text| {
                map(text, names::qualified_name, names::label_value)
            }),
            tolerations: problems.read("kubernetes.tolerations", config.tolerations.as_ref(), lists::tolerations),
            annotations: problems
                .read("kubernetes.annotations", config.annotations.as_ref(), |text| map(text, names::free_key, lists::anything)),
            labels: problems.read("kubernetes.labels", config.labels.as_ref(), |text| map(text, names::free_key, names::label_value)),
            env: problems.read("kubernetes.env", config.env.as_ref(), |text| map(text, names::variable, lists::anything)),
            env_from: problems.read("kubernetes.env.from", config.env_from.as_ref(), lists::variables),
            volumes: problems.read("kubernetes.volumes", config.volumes.as_ref(), lists::volumes),
            volume_mounts: problems.read("kubernetes.volume.mounts", config.volume_mounts.as_ref(), lists::mounts),
            data_claim: optional(&config.data_claim),
            templates: Templates {
                both: optional(&config.pod_template).map(|file| absolute(&file)),
                jobmanager: optional(&config.pod_template_jobmanager).map(|file| absolute(&file)),
                taskmanager: optional(&config.pod_template_taskmanager).map(|file| absolute(&file)),
            },
            ttl: problems.duration("kubernetes.ttl", config.ttl.0, Duration::from_secs(1), Duration::from_secs(86_400 * 365)),
            submit_timeout: problems.duration(
                "kubernetes.submit.timeout",
                config.submit_timeout.0,
                Duration::from_secs(1),
                Duration::from_secs(86_400),
            ),
            linger: problems.duration("kubernetes.linger", config.linger.0, Duration::ZERO, Duration::from_secs(86_400)),
        };
        settings.check_mounts(&mut problems);
        settings.check_variables(&mut problems);
        if problems.0.is_empty() { Ok(settings) } else { Err(problems.0) }
    }

    /// A mount has its volume; a volume has another name than ours.
    fn check_mounts(&self, problems: &mut Problems) {
        let name = |value: &Value| value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let volumes: Vec<String> = self.volumes.iter().map(name).collect();
        for (at, volume) in volumes.iter().enumerate() {
            if crate::pods::VOLUMES.contains(&volume.as_str()) {
                problems
                    .add("kubernetes.volumes", format!("{volume} is the name of a volume that the mode has itself: give it another one"));
            } else if volumes.iter().take(at).any(|other| other == volume) {
                problems.add("kubernetes.volumes", format!("{volume} is there twice"));
            }
        }
        let path = |mount: &Value| mount["mountPath"].as_str().unwrap_or_default().trim_end_matches('/').to_owned();
        let mut seen: BTreeSet<String> = crate::pods::MOUNT_PATHS.map(str::to_owned).into();
        for mount in &self.volume_mounts {
            let (volume, path) = (name(mount), path(mount));
            if !volumes.contains(&volume) {
                problems.add("kubernetes.volume.mounts", format!("there is no volume {volume:?} in kubernetes.volumes"));
            }
            if let Some(path) = seen.replace(path) {
                problems.add("kubernetes.volume.mounts", format!("{path} has a volume already"));
            }
        }
    }

    /// Each variable has one value: of two Kubernetes takes the last, or refuses both, in words that name no key.
    fn check_variables(&self, problems: &mut Problems) {
        let mut seen = BTreeSet::from(crate::pods::VARIABLES);
        let single = self.env_from.single.iter().filter_map(|variable| variable["name"].as_str());
        let all = self.env.keys().map(|name| ("kubernetes.env", name.as_str())).chain(single.map(|name| ("kubernetes.env.from", name)));
        for (key, name) in all {
            if !seen.insert(name) {
                problems.add(
                    key,
                    format!("variable {name} has a value already: of kubernetes.env, of kubernetes.env.from or of the mode itself"),
                );
            }
        }
    }
}

/// Values that are one text.
fn check_names(config: &KubernetesConfig, problems: &mut Problems) {
    problems.check("kubernetes.image", names::image(&config.image));
    problems.check("kubernetes.namespace", names::label_name(&config.namespace));
    for (key, value, check) in [
        ("kubernetes.cluster.id", &config.cluster_id, names::cluster_id as fn(&str) -> Checked),
        ("kubernetes.service.account", &config.service_account, names::object_name),
        ("kubernetes.data.claim", &config.data_claim, names::object_name),
    ] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            problems.check(key, check(value));
        }
    }
    for (key, value, check) in [
        ("kubernetes.jobmanager.cpu", &config.jobmanager_cpu, names::cpu as fn(&str) -> Checked),
        ("kubernetes.jobmanager.memory", &config.jobmanager_memory, names::memory),
        ("kubernetes.taskmanager.cpu", &config.taskmanager_cpu, names::cpu),
        ("kubernetes.taskmanager.memory", &config.taskmanager_memory, names::memory),
    ] {
        problems.check(key, check(value));
    }
    if let Some(policy) =
        config.image_pull_policy.as_ref().filter(|policy| !["", "Always", "IfNotPresent", "Never"].contains(&policy.as_str()))
    {
        problems.add("kubernetes.image.pull.policy", format!("expected Always, IfNotPresent or Never, found {policy:?}"));
    }
    if !(1..=4096).contains(&config.slots) {
        problems.add("kubernetes.taskmanager.slots", format!("expected 1 to 4096, found {}", config.slots));
    }
    if let Some(replicas) = config.replicas.filter(|replicas| !(1..=1000).contains(replicas)) {
        problems.add("kubernetes.taskmanager.replicas", format!("expected 1 to 1000, found {replicas}"));
    }
}

/// The path from the root, of one whose `~` is the user's home.
fn absolute(text: &str) -> PathBuf {
    let home = || env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let path = match text.strip_prefix('~') {
        Some("") => home().unwrap_or_else(|| PathBuf::from(text)),
        Some(rest) if rest.starts_with('/') => home().map_or_else(|| PathBuf::from(text), |home| home.join(rest.trim_start_matches('/'))),
        _ => PathBuf::from(text),
    };
    path::absolute(Path::new(&path)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;
    use serde_json::json;

    fn problems(more: Value) -> Vec<String> {
        let found = Settings::read(&config(more)).err().unwrap_or_default();
        found.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn defaults_are_those_that_are_documented() {
        let settings = Settings::read(&config(json!({}))).unwrap();
        assert_eq!((settings.image.as_str(), settings.namespace.as_str()), ("standpipe:latest", "default"));
        assert_eq!(settings.config_file, env::home_dir().unwrap().join(".kube/config"));
        assert!(settings.config_file_is_default);
        let schema = schemars::schema_for!(KubernetesConfig).to_value();
        let default = |key: &str| schema["properties"][key]["default"].clone();
        assert_eq!(default("kubernetes.config.file"), "~/.kube/config");
        assert_eq!(default("kubernetes.ttl"), "1h");
        assert_eq!(default("kubernetes.submit.timeout"), "5m");
        assert_eq!(default("kubernetes.linger"), "1m");
        assert_eq!(default("kubernetes.taskmanager.slots"), 1);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let found = problems(json!({
            "kubernetes.image": "Standpipe:",
            "kubernetes.namespace": "a.b",
            "kubernetes.cluster.id": "0",
            "kubernetes.image.pull.policy": "always",
            "kubernetes.image.pull.secrets": "A",
            "kubernetes.service.account": "A",
            "kubernetes.jobmanager.cpu": "x",
            "kubernetes.jobmanager.memory": "512m",
            "kubernetes.taskmanager.cpu": "0",
            "kubernetes.taskmanager.memory": "1GB",
            "kubernetes.taskmanager.slots": 0,
            "kubernetes.taskmanager.replicas": 0,
            "kubernetes.node.selector": "a",
            "kubernetes.tolerations": "a:b",
            "kubernetes.annotations": "standpipe.io/status=x",
            "kubernetes.labels": "a=b c",
            "kubernetes.env": "1=2",
            "kubernetes.env.from": "x",
            "kubernetes.volumes": "data=empty",
            "kubernetes.volume.mounts": "x=/x",
            "kubernetes.data.claim": "A",
            "kubernetes.ttl": "0s",
            "kubernetes.submit.timeout": "25h",
            "kubernetes.linger": "25h"
        }));
        assert_eq!(found.len(), 24, "{found:#?}");
        for line in [
            "kubernetes.jobmanager.memory: expected memory such as 512Mi or 2Gi, found \"512m\"",
            "kubernetes.image.pull.policy: expected Always, IfNotPresent or Never, found \"always\"",
            "kubernetes.volumes: data is the name of a volume that the mode has itself: give it another one",
            "kubernetes.volume.mounts: there is no volume \"x\" in kubernetes.volumes",
            "kubernetes.taskmanager.slots: expected 1 to 4096, found 0",
            "kubernetes.submit.timeout: expected 1 s to 86400 s, found 90000 s",
        ] {
            assert!(found.iter().any(|found| found.starts_with(line)), "{line}: {found:#?}");
        }
    }

    #[test]
    fn what_is_there_twice_is_told_under_its_key() {
        let found = problems(json!({
            "kubernetes.env": "HOME=/x,A=1",
            "kubernetes.env.from": "A=secret/s/a,B=secret/s/b,B=secret/s/c",
            "kubernetes.image.pull.secrets": "one,one",
            "kubernetes.volumes": "v=empty",
            "kubernetes.volume.mounts": "v=/tmp/,v=/a,v=/a"
        }));
        let taken = |key: &str, name: &str| {
            format!("{key}: variable {name} has a value already: of kubernetes.env, of kubernetes.env.from or of the mode itself")
        };
        let expected = [
            "kubernetes.image.pull.secrets: one is there twice".to_owned(),
            "kubernetes.volume.mounts: /tmp has a volume already".to_owned(),
            "kubernetes.volume.mounts: /a has a volume already".to_owned(),
            taken("kubernetes.env", "HOME"),
            taken("kubernetes.env.from", "A"),
            taken("kubernetes.env.from", "B"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_that_is_said_by_an_empty_text_is_the_default() {
        let settings = Settings::read(&config(json!({"kubernetes.config.file": ""}))).unwrap();
        assert!(settings.config_file_is_default && settings.config_file.ends_with(".kube/config"));
    }

    #[test]
    fn a_tilde_is_the_home_of_the_user() {
        let home = env::home_dir().unwrap();
        assert_eq!(absolute("~/x/y"), home.join("x/y"));
        assert_eq!(absolute("~"), home);
        assert_eq!(absolute("/x"), Path::new("/x"));
        assert_eq!(absolute("x"), env::current_dir().unwrap().join("x"));
        assert_eq!(absolute("~x"), env::current_dir().unwrap().join("~x"));
    }
}
