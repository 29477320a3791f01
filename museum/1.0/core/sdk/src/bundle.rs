//! What a deployment mode submits: a job's pipeline, the plugin files that it uses, its resources and its configuration, in a folder.
//!
//! The folder has `bundle.json`, the description, and `blobs/`, where each file lies under the SHA-256 of its content (64 hexadecimal digits). The same job gives the same
//! bytes, so that a mode need only send what the other side lacks.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Component, Path, PathBuf},
};

/// The description's name in a bundle's folder.
pub const DESCRIPTION: &str = "bundle.json";
/// The folder of the files' contents in a bundle's folder.
pub const BLOBS: &str = "blobs";
/// What a hash begins with.
pub const HASH_PREFIX: &str = "sha256:";
/// Where [`Bundle::unpack`] puts plugin files.
pub const PLUGINS: &str = "plugins";

/// A file of a bundle.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BundleFile {
    /// Relative, with `/`, without `..`.
    pub path: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub hash: String,
    /// Its length.
    pub bytes: u64,
}

/// How the job is to be started.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(default)]
pub struct BundleOptions {
    /// `--parallelism`, before the pipeline's own.
    pub parallelism: Option<u32>,
    /// The checkpoint or savepoint to go on from.
    pub restore: Option<String>,
    /// Whether state of nodes that are not in the pipeline any more may be left behind.
    pub allow_non_restored_state: bool,
}

/// A bundle's description.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The version of the host that wrote it.
    pub standpipe: String,
    /// The pipeline's name.
    pub name: String,
    /// The pipeline file, as it was written.
    pub pipeline: BundleFile,
    /// Plugin files; `path` is the file's name.
    #[serde(default)]
    pub plugins: Vec<BundleFile>,
    /// Files that the pipeline reads by relative paths.
    #[serde(default)]
    pub resources: Vec<BundleFile>,
    /// `engine.KEY` to its value: what counts where the pipeline says nothing.
    #[serde(default)]
    pub configuration: BTreeMap<String, String>,
    /// How it is to be started.
    #[serde(default)]
    pub options: BundleOptions,
}

impl Bundle {
    /// Reads the description of the bundle in that folder.
    ///
    /// # Errors
    /// When it is not there, or no description, or names a file outside of the job's folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(DESCRIPTION);
        let bytes = fs::read(&path).map_err(|error| outside(&path, &error))?;
        let bundle: Self =
            serde_json::from_slice(&bytes).map_err(|error| Error::data(format!("{}: no bundle: {error}", path.display())))?;
        if let Some(file) = bundle.files().find(|file| !is_inside(&file.path) || content_name(file).is_none()) {
            return Err(Error::data(format!("{}: the path or hash of {:?} is none of a bundle", path.display(), file.path)));
        }
        Ok(bundle)
    }

    /// All its files: the pipeline, plugins, resources.
    pub fn files(&self) -> impl Iterator<Item = &BundleFile> {
        std::iter::once(&self.pipeline).chain(&self.plugins).chain(&self.resources)
    }

    /// The arguments of `standpipe` that run the job in the folder where it is laid out.
    #[must_use]
    pub fn run_arguments(&self) -> Vec<String> {
        let mut arguments = ["run", &self.pipeline.path, "--plugin-path", PLUGINS].map(str::to_owned).to_vec();
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        if let Some(parallelism) = self.options.parallelism {
            add("--parallelism", parallelism.to_string());
        }
        if let Some(restore) = &self.options.restore {
            add("--restore", restore.clone());
        }
        for (key, value) in self.configuration.iter().filter_map(|(key, value)| Some((key.strip_prefix("engine.")?, value))) {
            add("--engine", format!("{key}={value}"));
        }
        if self.options.allow_non_restored_state {
            arguments.push("--allow-non-restored-state".to_owned());
        }
        arguments
    }

    /// Where each file lies when the job is laid out.
    pub fn places(&self) -> impl Iterator<Item = (PathBuf, &BundleFile)> {
        let own = std::iter::once(&self.pipeline).chain(&self.resources).map(|file| (PathBuf::from(&file.path), file));
        own.chain(self.plugins.iter().map(|file| (Path::new(PLUGINS).join(&file.path), file)))
    }

    /// Lays the job out in a folder, which must be there: the pipeline and resources under their paths, plugin files in `plugins/`, the description.
    ///
    /// # Errors
    /// When something cannot be written, or a file of the job has the name of the description.
    pub fn unpack(&self, bundle: &Path, to: &Path) -> Result<()> {
        if let Some(file) = self.files().find(|file| file.path == DESCRIPTION) {
            return Err(Error::config(
                "",
                format!("{:?} is the name of the bundle's own description: give the file another one", file.path),
            ));
        }
        for (place, file) in self.places() {
            let target = to.join(place);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).map_err(|error| outside(parent, &error))?;
            }
            fs::copy(blob(bundle, file), &target).map_err(|error| outside(&target, &error))?;
        }
        let target = to.join(DESCRIPTION);
        fs::copy(bundle.join(DESCRIPTION), &target).map_err(|error| outside(&target, &error))?;
        Ok(())
    }
}

/// Where the content of a file lies.
#[must_use]
pub fn blob(bundle: &Path, file: &BundleFile) -> PathBuf {
    bundle.join(BLOBS).join(content_name(file).unwrap_or_default())
}

/// The digits of a file's hash, if they are such.
fn content_name(file: &BundleFile) -> Option<&str> {
    let digits = file.hash.strip_prefix(HASH_PREFIX)?;
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (digits.len() == 64 && digits.bytes().all(is_digit)).then_some(digits)
}

/// Whether a path leads nowhere else than below the folder that it is relative to.
#[must_use]
pub fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|component| matches!(component, Component::Normal(_)))
}

fn outside(path: &Path, error: &io::Error) -> Error {
    Error::external(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(path: &str, digits: &str) -> String {
        serde_json::json!({"standpipe": "1", "name": "n", "pipeline": {"path": path, "hash": format!("sha256:{digits}"), "bytes": 1}})
            .to_string()
    }

    #[test]
    fn settings_of_the_engine_lose_their_prefix() {
        let mut bundle: Bundle = serde_json::from_str(&bundle("a.yaml", "")).unwrap();
        let settings = [("engine.parallelism", "2"), ("engine.checkpoint.interval", "1s"), ("engine.state.backend", "disk")];
        bundle.configuration = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        bundle.options = BundleOptions { parallelism: Some(3), restore: Some("latest".to_owned()), allow_non_restored_state: true };
        let expected = "run a.yaml --plugin-path plugins --parallelism 3 --restore latest --engine checkpoint.interval=1s --engine parallelism=2 \
            --engine state.backend=disk --allow-non-restored-state";
        assert_eq!(bundle.run_arguments().join(" "), expected);
    }

    #[test]
    fn a_file_of_the_job_does_not_take_the_place_of_the_description() {
        let bundle: Bundle = serde_json::from_str(&bundle(DESCRIPTION, &"0a".repeat(32))).unwrap();
        let error = bundle.unpack(Path::new("/no/such"), Path::new("/no/such")).unwrap_err();
        assert!(error.message.starts_with("\"bundle.json\" is the name of"), "{}", error.message);
    }

    #[test]
    fn a_description_that_leads_out_of_its_folder_is_refused() {
        let folder = std::env::temp_dir().join(format!("standpipe-sdk-bundle-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let read = |text: &str| {
            fs::write(folder.join(DESCRIPTION), text).unwrap();
            Bundle::read(&folder).map_err(|error| error.message)
        };
        let digits = "0a".repeat(32);
        assert_eq!(read(&bundle("a/b.yaml", &digits)).unwrap().name, "n");
        for (path, digits) in
            [("../b.yaml", digits.as_str()), ("/b.yaml", &digits), ("", &digits), ("b.yaml", "../x"), ("b.yaml", &digits.to_uppercase())]
        {
            assert!(read(&bundle(path, digits)).unwrap_err().contains("is none of a bundle"), "{path} {digits}");
        }
        assert!(read("{}").unwrap_err().contains("no bundle: missing field"));
        fs::remove_dir_all(&folder).unwrap();
        assert!(Bundle::read(&folder).unwrap_err().message.contains(DESCRIPTION));
    }
}
