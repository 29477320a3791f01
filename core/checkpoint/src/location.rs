//! Where checkpoints are: a folder, or a URL that the object_store library knows. Credentials come from the options of the pipeline file, else from the environment
//! (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...), else from where the library looks by itself (web identity, instance metadata).

use crate::CheckpointError;
use object_store::{ObjectStore, ObjectStoreScheme, local::LocalFileSystem, parse_url_opts, path::Path};
use std::{env, fs, path::PathBuf, sync::Arc};
use url::Url;

/// A place for the checkpoints of jobs.
#[derive(Debug, Clone)]
pub struct Location {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Within the store.
    pub(crate) prefix: Path,
    /// On this machine's disk, where it is there.
    pub(crate) folder: Option<PathBuf>,
    /// As written.
    url: String,
}

/// Prefixes of the environment's variables that are options of a scheme.
fn variables(scheme: &ObjectStoreScheme) -> &'static [&'static str] {
    match scheme {
        ObjectStoreScheme::AmazonS3 => &["AWS_"],
        ObjectStoreScheme::GoogleCloudStorage => &["GOOGLE_"],
        ObjectStoreScheme::MicrosoftAzure => &["AZURE_"],
        _ => &[],
    }
}

impl Location {
    /// The place that a text names: a folder (relative to the current one), `file:///...`, `s3://bucket/...`, `gs://...`, `az://...`. A folder is made if it is missing.
    ///
    /// `options` are the library's (`aws_endpoint`, `aws_allow_http`, ...), stronger than the environment.
    ///
    /// # Errors
    /// When the text names nothing that checkpoints can be in, or the folder cannot be made. A server is not asked yet.
    pub fn open(text: &str, options: &[(String, String)]) -> Result<Self, CheckpointError> {
        let refused = |reason: String| CheckpointError::Location { url: text.to_owned(), reason };
        if !text.contains("://") {
            return Self::folder(text, PathBuf::from(text)).map_err(|error| refused(error.to_string()));
        }
        let url = Url::parse(text).map_err(|error| refused(error.to_string()))?;
        let (scheme, _) = ObjectStoreScheme::parse(&url).map_err(|error| refused(error.to_string()))?;
        match scheme {
            ObjectStoreScheme::Local => {
                let folder = url.to_file_path().map_err(|()| refused("it is no path".to_owned()))?;
                Self::folder(text, folder).map_err(|error| refused(error.to_string()))
            }
            ObjectStoreScheme::AmazonS3 | ObjectStoreScheme::GoogleCloudStorage | ObjectStoreScheme::MicrosoftAzure => {
                let prefixes = variables(&scheme);
                let known = env::vars().filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)));
                let all = known.map(|(name, value)| (name.to_ascii_lowercase(), value)).chain(options.iter().cloned());
                let (store, prefix) = parse_url_opts(&url, all).map_err(|error| refused(error.to_string()))?;
                Ok(Self { store: store.into(), prefix, folder: None, url: text.to_owned() })
            }
            // Checkpoints in the memory of the process that they are to outlive; and plain HTTP cannot create without replacing.
            _ => Err(refused("use a folder, file://, s3://, gs:// or az://".to_owned())),
        }
    }

    fn folder(text: &str, folder: PathBuf) -> Result<Self, Box<dyn std::error::Error>> {
        fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let store = LocalFileSystem::new_with_prefix(&folder)?;
        Ok(Self { store: Arc::new(store), prefix: Path::default(), folder: Some(folder), url: text.to_owned() })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Whether both name the same place.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let url = |location: &Self| location.url.trim_end_matches('/').to_owned();
        match (&self.folder, &other.folder) {
            (Some(folder), Some(other)) => folder == other,
            (None, None) => url(self) == url(other),
            _ => false,
        }
    }

    /// Whether other machines see it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.folder.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_place_is_refused() {
        for (text, reason) in [
            ("http://127.0.0.1/x", "use a folder, file://, s3://, gs:// or az://"),
            ("memory:///x", "use a folder, file://, s3://, gs:// or az://"),
            ("ftp://x/y", "Unable to recognise URL \"ftp://x/y\""),
            ("s3://", "Unable to recognise URL \"s3://\""),
        ] {
            let error = Location::open(text, &[]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is no place for checkpoints: ")) && error.contains(reason), "{error}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = file.path().join("below").display().to_string();
        assert!(Location::open(&text, &[]).unwrap_err().to_string().contains("Not a directory"));
    }

    #[test]
    fn a_folder_is_made() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b c");
        let location = Location::open(&folder.display().to_string(), &[]).unwrap();
        assert!(folder.is_dir() && !location.is_shared());
        let url = Url::from_file_path(root.path().join("d")).unwrap();
        assert_eq!(Location::open(url.as_str(), &[]).unwrap().folder.unwrap(), root.path().canonicalize().unwrap().join("d"));
    }
}
