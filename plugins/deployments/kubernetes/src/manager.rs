//! The job's manager, as it is spoken to: through a forwarded port, with the token and the authority of the job's Secret, which is read when it is needed and kept nowhere else.

use crate::{
    cluster::{Asking, Shared},
    forward::Forward,
    known,
    manifests::{MANAGER, Names, REST_PORT},
};
use k8s_openapi::api::core::v1::Secret;
use standpipe_deployment_rest::{Client, Jobs, Peer, Roots};
use standpipe_sdk::{Error, Host, Result, deployment::JobStatus};
use std::sync::Arc;

/// See the module's documentation.
pub(crate) struct Manager {
    pub(crate) jobs: Jobs,
    pub(crate) client: Client,
    _forward: Forward,
}

impl Manager {
    /// Reads the Secret; connects to the manager only when it is asked something.
    ///
    /// # Errors
    /// When the Secret is not there, or cannot be read.
    pub(crate) fn open(asking: &Asking, cluster: &Shared, names: &Names, host: &Host) -> Result<Self> {
        let secret: Option<Secret> = asking.wait(cluster.get("secrets", &names.id))?;
        let gone = || {
            Error::external(format!("the secret {} of namespace {}, which the job's token is in, is not there", names.id, names.namespace))
        };
        let data = secret.and_then(|secret| secret.data).ok_or_else(gone)?;
        let text = |key: &str| data.get(key).and_then(|value| String::from_utf8(value.0.clone()).ok()).ok_or_else(gone);
        let forward = Forward::open(asking, cluster, names)?;
        let roots = Roots::read(text("ca.crt")?.as_bytes());
        let roots = roots.map_err(|error| Error::external(format!("ca.crt of the secret {}: {error}", names.id)))?;
        let name = format!("the job manager of {} in namespace {}", names.id, names.namespace);
        let client = Client::new(Peer {
            address: "127.0.0.1".to_owned(),
            port: forward.port(),
            roots: Some(roots),
            token: Some(text("token")?),
            place: format!("port {REST_PORT} of the manager of {}", names.id),
            unreachable: format!("{name} cannot be reached through the API server at {}", cluster.server),
            name,
            token_from: format!("the secret {}", names.id),
            why: Some(Arc::new(forward.why())),
            afterwards: Some(Arc::new(afterwards(asking, cluster, names))),
        });
        Ok(Self { jobs: Jobs::new(client.clone(), host.clone()), client, _forward: forward })
    }
}

/// How the job ended, by what Kubernetes keeps of it.
fn afterwards(asking: &Asking, cluster: &Shared, names: &Names) -> impl Fn() -> Option<JobStatus> + Send + Sync + 'static {
    let (runtime, cluster, names) = (asking.handle().clone(), Arc::clone(cluster), names.clone());
    move || {
        runtime.block_on(async {
            let job = cluster.job(&names).await.ok()??;
            let pods = cluster.pods(&names, MANAGER).await.unwrap_or_default();
            known::ended(&job, &pods)
        })
    }
}
