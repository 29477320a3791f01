//! A pod as the API server has it, run on a machine of a test's own network without a node: with exactly its command, arguments, environment, user and mounts, on a root file system that
//! cannot be written, with the namespace's service names. What a runtime would do with namespaces and images is done by `unshare`, `mount` and `setpriv`. Needs root.

use serde_json::Value;
use standpipe_tests::{Folder, Machine, binary, wait_until};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};
use ureq::Agent;

/// Makes the root $1 of the image's folder $2 and this machine's programs, with what is mounted (each SOURCE TARGET MODE, up to `--`), and becomes what is behind that.
const RUN: &str = r#"
set -eu
root=$1 image=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs "$root"
mkdir -p "$root/usr" "$root/proc" "$root/dev" "$root/etc" "$root/opt/standpipe"
for top in bin lib lib32 lib64 sbin; do
    if [ -h "/$top" ]; then cp -P "/$top" "$root/$top"; elif [ -d "/$top" ]; then mkdir "$root/$top"; mount --bind "/$top" "$root/$top"; fi
done
for top in usr proc dev; do mount --rbind "/$top" "$root/$top"; done
mount --bind "$image" "$root/opt/standpipe"
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$root$2"; else : >"$root$2"; fi
    mount --bind "$1" "$root$2"
    mount -o "remount,bind,$3" "$root$2"
    shift 3
done
shift
mount -o remount,ro "$root"
exec chroot "$root" "$@"
"#;

/// What pods of a namespace have in common.
pub(crate) struct Namespace<'a> {
    pub(crate) name: &'a str,
    /// Its services, Secrets and pods, as the API server has them; a pod's address is what its machine has.
    pub(crate) services: &'a [Value],
    pub(crate) secrets: &'a [Value],
    pub(crate) pods: &'a [(Value, &'a Machine)],
}

/// A pod that runs; with the value it is killed.
pub(crate) struct Pod {
    child: Child,
    name: String,
    address: String,
    container: Value,
    folder: Folder,
}

impl Pod {
    pub(crate) fn start(namespace: &Namespace<'_>, pod: &Value, machine: &Machine) -> Self {
        let (folder, container, security) = (Folder::new(), pod["spec"]["containers"][0].clone(), &pod["spec"]["securityContext"]);
        assert_eq!((&container["securityContext"]["readOnlyRootFilesystem"], &security["runAsNonRoot"]), (&true.into(), &true.into()));
        let number = |key: &str| u32::try_from(security[key].as_u64().unwrap_or_else(|| panic!("no {key}"))).unwrap();
        let (user, group, of_files) = (number("runAsUser"), number("runAsGroup"), number("fsGroup"));
        let env = environment(&container, namespace.name, &machine.address);
        let expanded =
            |key: &str| container[key].as_array().unwrap().iter().map(|text| expand(text.as_str().unwrap(), &env)).collect::<Vec<_>>();

        let mut command = machine.command("unshare");
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c", RUN, "sh"]);
        fs::create_dir(folder.at("root")).unwrap();
        command.arg(folder.at("root")).arg(binary().parent().unwrap());
        for mount in container["volumeMounts"].as_array().unwrap() {
            let source = volume(&folder, namespace, pod, mount["name"].as_str().unwrap(), of_files);
            command.arg(source).arg(mount["mountPath"].as_str().unwrap()).arg(if mount["readOnly"] == true { "ro" } else { "rw" });
        }
        command.arg(folder.write("hosts", hosts(namespace))).args(["/etc/hosts", "ro", "--"]);
        // The image's own current directory.
        command.args(["env", "--chdir=/var/lib/standpipe", "setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]);
        command.args([format!("--reuid={user}"), format!("--regid={group}"), format!("--groups={of_files}"), "--".to_owned()]);
        command
            .args(expanded("command"))
            .args(expanded("args"))
            .env_clear()
            .envs(&env)
            .env("PATH", "/opt/standpipe:/usr/sbin:/usr/bin:/sbin:/bin");
        let log = fs::File::create(folder.at("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        Self { child, name, address: machine.address.clone(), container, folder }
    }

    /// Its address at a port of that name.
    pub(crate) fn at(&self, port: &str) -> String {
        let ports = self.container["ports"].as_array().unwrap();
        let found = ports.iter().find(|found| found["name"] == port).unwrap_or_else(|| panic!("there is no port {port}"));
        format!("{}:{}", self.address, found["containerPort"])
    }

    /// Waits until all its probes, as they are written, are answered.
    pub(crate) fn wait_until_ready(&mut self, agent: &Agent, timeout: Duration) {
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let get = self.container[probe]["httpGet"].clone();
            let scheme = get["scheme"].as_str().unwrap().to_lowercase();
            let url = format!("{scheme}://{}{}", self.at(get["port"].as_str().unwrap()), get["path"].as_str().unwrap());
            wait_until(&format!("{probe} of {}", self.name), timeout, || {
                let status = agent.get(&url).call().map(|answer| answer.status().as_u16());
                let ended = self.child.try_wait().unwrap();
                assert!(ended.is_none(), "{}: {ended:?}:\n{}", self.name, self.log());
                status.is_ok_and(|status| status == 200)
            });
        }
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        self.folder.read("log")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("==> the log of {}\n{}", self.name, self.log());
        }
    }
}

/// The variables of a container, in their order: those that refer to others, to those before them.
fn environment(container: &Value, namespace: &str, address: &str) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for variable in container["env"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("status.podIP") => address.to_owned(),
            Some("metadata.namespace") => namespace.to_owned(),
            Some(other) => panic!("{other} is not known here"),
            None => expand(variable["value"].as_str().unwrap(), &env),
        };
        env.insert(name.to_owned(), value);
    }
    env
}

/// `$(NAME)` is the value of a variable.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let expanded = env.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value));
    assert!(!expanded.contains("$("), "{text}: there is no such variable");
    expanded
}

/// The folder of a volume, with the rights that a node gives it.
fn volume(folder: &Folder, namespace: &Namespace<'_>, pod: &Value, name: &str, group: u32) -> PathBuf {
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == name).unwrap_or_else(|| panic!("there is no volume {name}"));
    let path = folder.at(&format!("volume-{name}"));
    fs::create_dir(&path).unwrap();
    let projected = &volume["projected"];
    if projected.is_object() {
        let mode = u32::try_from(projected["defaultMode"].as_u64().unwrap()).unwrap();
        let sources = projected["sources"].as_array().unwrap();
        sources.iter().for_each(|source| project(&path, namespace, &source["secret"], (mode, group)));
        return path;
    }
    assert!(volume["emptyDir"].is_object() || volume["persistentVolumeClaim"].is_object(), "{volume}");
    chown(&path, Some(0), Some(group)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o2775)).unwrap();
    path
}

/// The named keys of a Secret as files.
fn project(path: &Path, namespace: &Namespace<'_>, source: &Value, (mode, group): (u32, u32)) {
    let secret = super::object(namespace.secrets, "Secret", source["name"].as_str().unwrap());
    for item in source["items"].as_array().unwrap() {
        let file = path.join(item["path"].as_str().unwrap());
        let content = secret["data"][item["key"].as_str().unwrap()].as_str().unwrap_or_else(|| panic!("{item} is not in it"));
        fs::write(&file, base64::Engine::decode(&base64::prelude::BASE64_STANDARD, content).unwrap()).unwrap();
        chown(&file, Some(0), Some(group)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// The names of the services, as the cluster's DNS has them: each is the first pod that it selects, if its ports are that pod's.
fn hosts(namespace: &Namespace<'_>) -> String {
    let mut text = "127.0.0.1 localhost\n".to_owned();
    for service in namespace.services {
        let selector = service["spec"]["selector"].as_object().unwrap();
        let is_selected = |pod: &Value| selector.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value);
        let (pod, machine) = namespace.pods.iter().find(|(pod, _)| is_selected(pod)).unwrap_or_else(|| panic!("{service} selects no pod"));
        let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
        for port in service["spec"]["ports"].as_array().unwrap() {
            let is_it = |found: &&Value| found["name"] == port["targetPort"] && found["containerPort"] == port["port"];
            assert!(ports.iter().any(|found| is_it(&found)), "{service} has a port that its pods lack");
        }
        let name = service["metadata"]["name"].as_str().unwrap();
        text.push_str(&format!("{} {name}.{}.svc\n", machine.address, namespace.name));
    }
    text
}
