//! `exhibit-shelf`: puts bundles on a shelf, where they are finished.

use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::bundle::Bundle;
use standpipe_sdk::deployment::{Deployment, Handle, JobStatus};
use standpipe_sdk::{Error, Host, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Unpacks the bundle into a folder.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShelfConfig {
    /// The folder; it is made.
    #[serde(rename = "exhibit-shelf.folder")]
    pub folder: PathBuf,
}

pub struct Shelf(PathBuf);

fn folder(handle: &Handle) -> Result<PathBuf> {
    let folder = handle.get("folder").and_then(|folder| folder.as_str()).map(PathBuf::from);
    folder.ok_or_else(|| Error::data("the handle has no folder"))
}

impl Deployment for Shelf {
    const NAME: &'static str = "exhibit-shelf";
    type Config = ShelfConfig;

    fn open(config: ShelfConfig, _: Host) -> Result<Self> {
        Ok(Self(config.folder))
    }

    fn submit(&mut self, bundle: &Path) -> Result<Handle> {
        fs::create_dir_all(&self.0).map_err(|error| Error::external(format!("{}: {error}", self.0.display())))?;
        Bundle::read(bundle)?.unpack(bundle, &self.0)?;
        Ok([("folder".to_owned(), self.0.display().to_string().into())].into_iter().collect())
    }

    fn status(&mut self, handle: &Handle) -> Result<JobStatus> {
        Ok(if folder(handle)?.exists() {
            JobStatus::new("FINISHED")
        } else {
            JobStatus { cause: Some("it was thrown away".to_owned()), ..JobStatus::new("FAILED") }
        })
    }

    fn cancel(&mut self, handle: &Handle) -> Result<()> {
        folder(handle).map(|_| ())
    }

    fn cleanup(&mut self, handle: &Handle) -> Result<()> {
        let folder = folder(handle)?;
        fs::remove_dir_all(&folder).map_err(|error| Error::external(format!("{}: {error}", folder.display())))
    }
}
