//! The real services: `cargo xtask test` starts them and gives their addresses in the environment.

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    thread,
};

/// The bootstrap address of a real Kafka, `HOST:PORT`. `None`: the test is to return, it has been noted as skipped.
pub fn kafka() -> Option<String> {
    address("STANDPIPE_TEST_KAFKA", "Kafka")
}

/// The URL of a real OpenSearch. `None`: the test is to return, it has been noted as skipped.
pub fn opensearch() -> Option<String> {
    address("STANDPIPE_TEST_OPENSEARCH", "OpenSearch")
}

/// The URL of a real Elasticsearch 7.10. `None`: the test is to return, it has been noted as skipped.
pub fn elasticsearch() -> Option<String> {
    address("STANDPIPE_TEST_ELASTICSEARCH", "Elasticsearch")
}

/// The URL of a real OpenSearch 3, where `cargo xtask test --all` could start one; nothing is noted without it.
pub fn opensearch3() -> Option<String> {
    env::var("STANDPIPE_TEST_OPENSEARCH3").ok()
}

/// The URL of an S3-compatible server, for `AWS_ENDPOINT_URL`; it takes any key and secret. `None`: the test is to return, it has been noted as skipped.
pub fn s3() -> Option<String> {
    address("STANDPIPE_TEST_S3", "S3")
}

/// A Python that has pyarrow and pandas. `None`: the test is to return, it has been noted as skipped.
pub fn python() -> Option<String> {
    address("STANDPIPE_TEST_PYTHON", "Python with pyarrow")
}

/// The folder of Flink's jars, whose command-line client `tests/services/flink.sh` runs. `None`: the test is to return, it has been noted as skipped.
pub fn flink() -> Option<String> {
    address("STANDPIPE_TEST_FLINK", "Flink's client")
}

/// The path of Helm's program. `None`: the test is to return, it has been noted as skipped.
pub fn helm() -> Option<String> {
    address("STANDPIPE_TEST_HELM", "Helm")
}

/// The path of an administrator's kubeconfig of a real Kubernetes, 1.33 or newer: the control plane, and a node only where [`kubernetes_node`] says so. Nobody's own
/// cluster by accident: `KUBECONFIG` is not asked, `STANDPIPE_TEST_KUBERNETES` names one on purpose. A test takes namespaces of its own and deletes them.
/// `None`: the test is to return, it has been noted as skipped.
pub fn kubernetes() -> Option<String> {
    address("STANDPIPE_TEST_KUBERNETES", "Kubernetes")
}

/// The node of that Kubernetes. `None`: the test is to return; it has been noted as skipped where what takes long is to run.
pub fn kubernetes_node() -> Option<KubernetesNode> {
    let node = env::var("STANDPIPE_TEST_KUBERNETES").ok().and_then(|kubeconfig| {
        let folder = Path::new(&kubeconfig).parent()?.to_owned();
        let host = fs::read_to_string(folder.join("host")).ok()?.trim().to_owned();
        Some(KubernetesNode { folder, host })
    });
    if node.is_none() && all() {
        skip("a Kubernetes node");
    }
    node
}

/// On what the pods of [`kubernetes`] run, where `tests/services/kubernetes.sh` has started it with a node.
pub struct KubernetesNode {
    /// The DIR of `kubernetes.sh image DIR ARCHIVE`, which alone brings an image to the node.
    pub folder: PathBuf,
    /// The address of this machine at which pods reach what listens there; nothing that listens on 127.0.0.1 is within their reach.
    pub host: String,
}

/// Whether what takes long is to run, too: `cargo xtask test --all`.
pub fn all() -> bool {
    env::var_os("STANDPIPE_TEST_ALL").is_some_and(|value| !value.is_empty())
}

fn address(variable: &str, service: &str) -> Option<String> {
    let address = env::var(variable).ok().filter(|address| !address.is_empty());
    if address.is_none() {
        skip(service);
    }
    address
}

/// Notes that this test is skipped for want of a service, so that the summary of `cargo xtask test` says so; panics where skipping is not allowed
/// (`STANDPIPE_TEST_REQUIRE_SERVICES`). The functions above call it by themselves.
pub fn skip(service: &str) {
    assert!(env::var_os("STANDPIPE_TEST_REQUIRE_SERVICES").is_none(), "{service} is required here, and there is none");
    let line = format!("{}: needs {service}\n", thread::current().name().unwrap_or("a test"));
    eprint!("skipped {line}");
    let Some(path) = env::var_os("STANDPIPE_TEST_SKIPPED") else { return };
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
