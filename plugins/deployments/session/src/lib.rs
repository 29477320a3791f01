//! The deployment mode `session`: posts the job to the job manager of a cluster that is running already, by its REST interface, and asks it about the job later. How that is
//! spoken to is in the crate beside it, `rest`.
#![deny(unsafe_code)]

mod config;

pub use config::{Port, SessionConfig};

use arrow_array::RecordBatchReader;
use standpipe_deployment_rest::{Client, JobId, Jobs};
use standpipe_sdk::{
    Deployment, DeploymentDeclaration, Error, Host, Result,
    deployment::{Collect, Handle, JobStatus, LogLines, Savepoint, drains},
};
use std::path::{self, Path};

standpipe_sdk::export_plugin! { deployments: [Session] }

/// See [`SessionConfig`].
pub struct Session {
    config: SessionConfig,
    jobs: Jobs,
}

impl Deployment for Session {
    const NAME: &'static str = "session";
    type Config = SessionConfig;

    fn declare(config: &SessionConfig) -> Result<DeploymentDeclaration> {
        Ok(DeploymentDeclaration { problems: config.problems() })
    }

    fn open(config: SessionConfig, host: Host) -> Result<Self> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(Error::config(problem.path, problem.message));
        }
        let jobs = Jobs::new(Client::new(config.peer()?), host);
        Ok(Self { config, jobs })
    }

    fn submit(&mut self, folder: &Path) -> Result<Handle> {
        Ok(self.handle(&self.jobs.submit(folder)?))
    }

    fn preview(&mut self, folder: &Path) -> Result<String> {
        self.jobs.preview(folder)
    }

    fn status(&mut self, handle: &Handle) -> Result<JobStatus> {
        self.jobs.status(&JobId::of(handle)?)
    }

    fn cancel(&mut self, handle: &Handle) -> Result<()> {
        self.jobs.cancel(&JobId::of(handle)?)
    }

    fn stop(&mut self, handle: &Handle, savepoint: &str) -> Result<Savepoint> {
        self.jobs.stop(&JobId::of(handle)?, savepoint, drains(handle))
    }

    fn rescale(&mut self, handle: &Handle, parallelism: u32, _: &Host) -> Result<()> {
        self.jobs.rescale(&JobId::of(handle)?, parallelism)
    }

    fn logs(&mut self, handle: &Handle, cursor: &str) -> Result<LogLines> {
        self.jobs.logs(&JobId::of(handle)?, cursor)
    }

    fn collect(&mut self, handle: &Handle, wanted: &Collect) -> Result<Box<dyn RecordBatchReader + Send>> {
        self.jobs.collect(&JobId::of(handle)?, wanted)
    }
}

impl Session {
    /// What all later commands need, and no secret.
    fn handle(&self, id: &JobId) -> Handle {
        let SessionConfig { address, port, token_file, tls_ca, .. } = &self.config;
        let mut handle = Handle::new();
        handle.insert("jobid".to_owned(), id.to_string().into());
        handle.insert("rest.address".to_owned(), address.as_str().into());
        handle.insert("rest.port".to_owned(), port.0.into());
        for (key, file) in [("rest.token.file", token_file), ("rest.tls.ca", tls_ca)] {
            // A later command may be in another folder.
            if let Some(file) = file {
                handle.insert(key.to_owned(), path::absolute(file).as_ref().unwrap_or(file).to_string_lossy().into());
            }
        }
        handle
    }
}
