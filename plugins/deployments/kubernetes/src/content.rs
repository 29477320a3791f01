//! What is submitted, as far as the manifests depend on it: which of a bundle's files go along in a config map, how many subtasks its largest node has, where it keeps checkpoints.

use serde_json::Value;
use standpipe_sdk::{
    Error, Result,
    bundle::{self, Bundle, BundleFile, HASH_PREFIX},
};
use std::{collections::BTreeSet, fs, path::Path};

/// Bytes that a config map may have: Kubernetes takes 1 MiB, keys and all.
pub(crate) const MOST_BYTES: usize = 900 << 10;
/// Subtasks of a node at the most, as pipelines have it.
const MOST_SUBTASKS: u64 = 4096;

/// A file of the bundle that goes along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    /// The 64 digits: its key, and its name in `blobs/`.
    pub(crate) digits: String,
    pub(crate) content: Vec<u8>,
}

/// What the manifests need to know of a bundle.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) bundle: Bundle,
    /// The bytes of `bundle.json`.
    pub(crate) description: String,
    /// In the config map.
    pub(crate) inside: Vec<Blob>,
    /// Not in it: the image has them, or they are uploaded.
    pub(crate) outside: Vec<BundleFile>,
    /// Subtasks of its largest node; none: the pipeline says it by a reference, which is resolved where it runs.
    pub(crate) parallelism: Option<u32>,
    /// Where it keeps checkpoints, if that is a folder and no URL.
    pub(crate) local_checkpoints: Option<String>,
}

impl Content {
    /// Reads the bundle in a folder; the config map gets so many bytes of it.
    ///
    /// # Errors
    /// When it cannot be read, or its description alone is too large.
    pub(crate) fn read(folder: &Path, most: usize) -> Result<Self> {
        let bundle = Bundle::read(folder)?;
        let outside = |path: &Path, error: std::io::Error| Error::external(format!("{}: {error}", path.display()));
        let path = folder.join(bundle::DESCRIPTION);
        let description = fs::read_to_string(&path).map_err(|error| outside(&path, error))?;
        let path = bundle::blob(folder, &bundle.pipeline);
        let pipeline = fs::read(&path).map_err(|error| outside(&path, error))?;
        if description.len() > most {
            let message =
                format!("the job's description has {} bytes, and a config map takes {most}: give it fewer files", description.len());
            return Err(Error::config("", message));
        }
        let (fitting, rest) = split(&bundle, most - description.len());
        let blob = |file: &BundleFile| {
            let path = bundle::blob(folder, file);
            let content = fs::read(&path).map_err(|error| outside(&path, error))?;
            Ok(Blob { digits: digits(file).to_owned(), content })
        };
        let inside = fitting.iter().map(blob).collect::<Result<_>>()?;
        // The host has read it already. What only its reader understands is not known here: how many task managers it takes has to be said then.
        let tree: Option<Value> = serde_saphyr::from_slice(&pipeline).ok();
        let parallelism = tree.as_ref().and_then(|tree| parallelism(&bundle, tree));
        let local_checkpoints = tree.as_ref().and_then(|tree| local_checkpoints(&bundle, tree));
        Ok(Self { description, inside, outside: rest, parallelism, local_checkpoints, bundle })
    }
}

fn digits(file: &BundleFile) -> &str {
    file.hash.strip_prefix(HASH_PREFIX).unwrap_or(&file.hash)
}

/// The files that fit, and the others: first the pipeline, then resources, then plugin files; of each content once.
fn split(bundle: &Bundle, most: usize) -> (Vec<BundleFile>, Vec<BundleFile>) {
    let (mut inside, mut outside, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut left = most as u64;
    for file in std::iter::once(&bundle.pipeline).chain(&bundle.resources).chain(&bundle.plugins) {
        if !seen.insert(file.hash.clone()) {
            continue;
        }
        // Its key counts, too.
        let bytes = file.bytes.saturating_add(digits(file).len() as u64);
        if bytes <= left {
            left -= bytes;
            inside.push(file.clone());
        } else {
            outside.push(file.clone());
        }
    }
    (inside, outside)
}

/// The nodes of a pipeline.
fn nodes(tree: &Value) -> impl Iterator<Item = &Value> {
    let sections = ["sources", "transforms", "sinks"].into_iter().filter_map(|section| tree.get(section)?.as_object());
    sections.flat_map(|section| section.values())
}

/// Subtasks of the largest node, if that can be known here.
fn parallelism(bundle: &Bundle, tree: &Value) -> Option<u32> {
    let count =
        |value: &Value| value.as_u64().filter(|count| (1..=MOST_SUBTASKS).contains(count)).and_then(|count| u32::try_from(count).ok());
    let of_engine = bundle.configuration.get("engine.parallelism");
    let of_job = match (bundle.options.parallelism, tree.get("parallelism"), of_engine) {
        (Some(said), _, _) => said,
        (None, Some(said), _) => count(said)?,
        (None, None, Some(said)) => said.trim().parse().ok()?,
        (None, None, None) => 1,
    };
    let mut most = of_job;
    for node in nodes(tree).filter_map(|node| node.get("parallelism")) {
        most = most.max(count(node)?);
    }
    Some(most)
}

/// The folder of checkpoints, if they are kept in one.
fn local_checkpoints(bundle: &Bundle, tree: &Value) -> Option<String> {
    let setting = |key: &str| bundle.configuration.get(&format!("engine.checkpoint.{key}")).map(String::as_str);
    let of_pipeline = |key: &str| tree.get("checkpoint")?.get(key)?.as_str();
    let is_kept =
        tree.get("checkpoint").is_some_and(|section| !section.is_null()) || setting("interval").is_some() || setting("dir").is_some();
    let dir = of_pipeline("dir").or_else(|| setting("dir")).unwrap_or("checkpoints");
    let is_elsewhere = dir.contains("${") || dir.split_once("://").is_some_and(|(scheme, _)| scheme != "file");
    (is_kept && !is_elsewhere).then(|| dir.strip_prefix("file://").unwrap_or(dir).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bundle_of;
    use serde_json::json;

    #[test]
    fn what_fits_goes_along_the_pipeline_first() {
        let folder = bundle_of("name: n\n", &[("small.so", 100), ("large.so", 2000), ("last.so", 50)], &[("data.csv", 300)]);
        let all = Content::read(folder.path(), MOST_BYTES).unwrap();
        assert_eq!((all.inside.len(), all.outside.len()), (5, 0));
        assert_eq!(all.inside[0].content, b"name: n\n");
        let some = Content::read(folder.path(), all.description.len() + 1000).unwrap();
        let names: Vec<&str> = some.outside.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["large.so"], "what is behind it and fits goes along");
        assert_eq!(some.inside.iter().map(|blob| blob.content.len()).collect::<Vec<_>>(), [8, 300, 100, 50]);
        let none = Content::read(folder.path(), 10).unwrap_err();
        assert!(none.message.contains("and a config map takes 10"), "{}", none.message);
    }

    #[test]
    fn a_content_that_is_there_twice_goes_along_once() {
        let folder = bundle_of("name: n\n", &[], &[("a.csv", 70), ("b.csv", 70)]);
        assert_eq!(Content::read(folder.path(), MOST_BYTES).unwrap().inside.len(), 2);
    }

    #[test]
    fn parallelism_is_that_of_the_largest_node() {
        let of = |pipeline: &str, change: &dyn Fn(&mut Bundle)| {
            let folder = bundle_of(pipeline, &[], &[]);
            let mut bundle = Bundle::read(folder.path()).unwrap();
            change(&mut bundle);
            parallelism(&bundle, &serde_saphyr::from_str(pipeline).unwrap())
        };
        let nothing = |_: &mut Bundle| {};
        let engine = |bundle: &mut Bundle| drop(bundle.configuration.insert("engine.parallelism".to_owned(), "3".to_owned()));
        let option = |bundle: &mut Bundle| bundle.options.parallelism = Some(2);
        assert_eq!(of("name: n", &nothing), Some(1));
        assert_eq!(of("name: n", &engine), Some(3));
        assert_eq!(of("parallelism: 5", &engine), Some(5));
        assert_eq!(of("parallelism: 5", &option), Some(2));
        assert_eq!(of("sinks: {a: {parallelism: 7}, b: {}}", &option), Some(7));
        assert_eq!(of("parallelism: ${N}", &nothing), None);
        assert_eq!(of("sinks: {a: {parallelism: '${N}'}}", &nothing), None);
    }

    #[test]
    fn a_folder_of_checkpoints_is_told_from_a_url() {
        let folder = bundle_of("name: n", &[], &[]);
        let of = |tree: Value, configuration: &[(&str, &str)]| {
            let mut bundle = Bundle::read(folder.path()).unwrap();
            bundle.configuration = configuration.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            local_checkpoints(&bundle, &tree)
        };
        assert_eq!(of(json!({"name": "n"}), &[]), None);
        assert_eq!(of(json!({"checkpoint": {"interval": "1s"}}), &[]).as_deref(), Some("checkpoints"));
        assert_eq!(of(json!({"checkpoint": {"dir": "/mnt/c"}}), &[]).as_deref(), Some("/mnt/c"));
        assert_eq!(of(json!({"checkpoint": {"dir": "file:///mnt/c"}}), &[]).as_deref(), Some("/mnt/c"));
        assert_eq!(of(json!({"checkpoint": {"dir": "s3://b/c"}}), &[]), None);
        assert_eq!(of(json!({"checkpoint": {"dir": "${DIR}"}}), &[]), None);
        assert_eq!(of(json!({"checkpoint": {"interval": "1s"}}), &[("engine.checkpoint.dir", "s3://b")]), None);
        assert_eq!(of(json!({}), &[("engine.checkpoint.interval", "1s")]).as_deref(), Some("checkpoints"));
    }
}
