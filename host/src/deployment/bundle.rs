//! Writes a job's bundle into a folder: `bundle.json`, and `blobs/` with each file under the hash of its content. The same job gives the same bytes.

use crate::{
    cli::DeployArguments,
    exit::{Code, Failure},
};
use anyhow::Context as _;
use standpipe_cluster::{
    blobs::Blobs,
    bundle::{Bundle, BundleError, File, Hash, MOST_BYTES_IN_ALL, MOST_FILES, Options},
};
use standpipe_loader::{
    Catalogue, PluginFile,
    bundle::{BLOBS, DESCRIPTION},
};
use standpipe_pipeline::{EngineSetting, PipelineFile, Plan, lock};
use standpipe_trace::Context;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// A pipeline that has been planned.
pub(crate) struct Job<'a> {
    pub(crate) arguments: &'a DeployArguments,
    pub(crate) pipeline: &'a PipelineFile,
    pub(crate) plan: &'a Plan,
    /// What it was planned with.
    pub(crate) catalogue: &'a Catalogue,
}

/// Writes the bundle of a job; its trace goes on from `context`.
///
/// # Errors
/// When a file cannot be read or written, or cannot be in a bundle.
pub(crate) fn write(to: &Path, job: &Job<'_>, engine: &[EngineSetting], context: Option<&Context>) -> anyhow::Result<()> {
    let Job { arguments, pipeline, plan, catalogue } = *job;
    let folder = to.join(BLOBS);
    let blobs = Blobs::open(&folder)?;
    let pipeline_name = arguments.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut resource_files = resource_files(arguments, pipeline)?;
    let plugin_files = plugin_files(plan, &resource_files);
    // A plugin file that the pipeline names where plugins lie anyway.
    let is_plugin = |name: &str, path: &Path| {
        let plugin = name.strip_prefix(PLUGINS).and_then(|name| plugin_files.get(name.strip_prefix('/')?));
        plugin.is_some_and(|plugin| fs::canonicalize(path).ok() == fs::canonicalize(&plugin.path).ok())
    };
    resource_files.retain(|name, path| !is_plugin(name, path));
    check_sizes(plugin_files.values().map(|plugin| plugin.path.as_path()).chain(resource_files.values().map(PathBuf::as_path)))?;
    let mut plugins = Vec::new();
    for (name, plugin) in plugin_files {
        plugins.push(put(&blobs, name, &plugin.path)?);
    }
    let mut resources = Vec::new();
    resource_files.remove(lock::FILE_NAME);
    for (name, path) in resource_files {
        resources.push(put(&blobs, name, &path)?);
    }
    // What has been chosen here is chosen where the job runs, whatever else is found there.
    let lock = lock::text(&lock::of(plan, catalogue, Path::new(lock::FILE_NAME), None));
    resources.push(put_text(&blobs, lock::FILE_NAME, &lock).with_context(|| folder.display().to_string())?);
    let bundle = Bundle {
        standpipe: env!("CARGO_PKG_VERSION").to_owned(),
        name: plan.name.clone(),
        pipeline: put(&blobs, pipeline_name, &arguments.file)?,
        plugins,
        resources,
        configuration: engine.iter().map(|setting| (format!("engine.{}", setting.key), setting.value.clone())).collect(),
        options: Options {
            parallelism: arguments.parallelism,
            restore: arguments.restore.clone(),
            allow_non_restored_state: arguments.allow_non_restored_state,
            traceparent: context.map(Context::to_string),
        },
    };
    let problems: Vec<String> = bundle.check().iter().map(ToString::to_string).collect();
    if !problems.is_empty() {
        return Err(Failure::error(Code::Usage, problems.join("\n")));
    }
    // Where blobs are while they are written: not a part of the bundle.
    fs::remove_dir(folder.join("writing")).with_context(|| folder.display().to_string())?;
    let description = to.join(DESCRIPTION);
    let text = serde_json::to_string_pretty(&bundle)? + "\n";
    fs::write(&description, text).with_context(|| description.display().to_string())
}

/// Before anything is copied: a folder that was named by mistake may be large.
fn check_sizes<'a>(paths: impl Iterator<Item = &'a Path>) -> anyhow::Result<()> {
    let (mut files, mut bytes) = (0_usize, 0_u64);
    for path in paths {
        let metadata = fs::metadata(path).map_err(|error| Failure::error(Code::Outside, format!("{}: {error}", path.display())))?;
        (files, bytes) = (files + 1, bytes.saturating_add(metadata.len()));
    }
    // The pipeline file is one more.
    let problem = if files >= MOST_FILES {
        BundleError::Many(files + 1)
    } else if bytes > MOST_BYTES_IN_ALL {
        BundleError::LargeInAll(bytes)
    } else {
        return Ok(());
    };
    Err(Failure::error(Code::Usage, problem))
}

/// Puts a file's content among the blobs.
fn put(blobs: &Blobs, name: String, path: &Path) -> anyhow::Result<File> {
    let outside = |error: io::Error| Failure::error(Code::Outside, format!("{}: {error}", path.display()));
    let (hash, bytes) = Hash::read(fs::File::open(path).map_err(outside)?).map_err(outside)?;
    // The hash is checked once more: a file that changes meanwhile is refused.
    blobs
        .put(hash, fs::File::open(path).map_err(outside)?)
        .map_err(|error| Failure::error(Code::Outside, format!("{}: {error}", path.display())))?;
    Ok(File { path: name, hash, bytes })
}

/// As [`put`], of a text of our own.
fn put_text(blobs: &Blobs, name: &str, text: &str) -> anyhow::Result<File> {
    let (hash, bytes) = Hash::read(text.as_bytes())?;
    blobs.put(hash, text.as_bytes())?;
    Ok(File { path: name.to_owned(), hash, bytes })
}

/// The plugin files of a plan by the name that they get; of two with one name the later one gets another, and so does one whose place a resource has.
fn plugin_files(plan: &Plan, resources: &BTreeMap<String, PathBuf>) -> BTreeMap<String, Arc<PluginFile>> {
    let files: BTreeMap<&Path, &Arc<PluginFile>> =
        plan.plugins().into_iter().map(|used| (used.plugin.path.as_path(), used.plugin)).collect();
    let is_taken = |name: &str, path: &Path| {
        let resource = resources.get(&format!("{PLUGINS}/{name}"));
        resource.is_some_and(|resource| fs::canonicalize(resource).ok().as_deref() != Some(path))
    };
    let mut named: BTreeMap<String, Arc<PluginFile>> = BTreeMap::new();
    for (path, plugin) in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let others = (1..).map(|number| format!("{number}-{name}"));
        let free = std::iter::once(name.clone()).chain(others).find(|name| !named.contains_key(name) && !is_taken(name, path));
        named.insert(free.unwrap_or(name), Arc::clone(plugin));
    }
    named
}

/// What goes with the job by its relative path: what `--resource` names, and plugin files that the pipeline names so.
fn resource_files(arguments: &DeployArguments, pipeline: &PipelineFile) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for path in &arguments.resource {
        let refused = |why: &str| Failure::error(Code::Usage, format!("--resource {}: {why}", path.display()));
        let name =
            inside(path).ok_or_else(|| refused("expected a path below the current directory: a job finds its files by relative paths"))?;
        add(&name, path, &mut files).map_err(|error| Failure::error(Code::Outside, format!("--resource {error}")))?;
    }
    for path in pipeline.plugin_paths().into_iter().map(|plugins| plugins.path).filter(|path| path.is_file()) {
        if let Some(name) = inside(&path) {
            files.insert(name, path);
        }
    }
    for (path, place) in pipeline.plugin_files() {
        let refused = "a job finds a plugin file that it names by a relative path: expected one below the current directory";
        let name = inside(&path).ok_or_else(|| Failure::error(Code::Usage, format!("{place}: {}: {refused}", path.display())))?;
        files.insert(name, path);
    }
    // In a folder that goes along the pipeline itself may be: it does so anyway.
    let pipeline = fs::canonicalize(&arguments.file).ok();
    files.retain(|_, path| pipeline.is_none() || fs::canonicalize(path).ok() != pipeline);
    Ok(files)
}

/// The path with `/` and without `.`; `None` if it leads out of the current directory.
fn inside(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(parts.join("/"))
}

/// A file, or all files below a folder.
fn add(name: &str, path: &Path, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    let at = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let metadata = fs::metadata(path).map_err(at)?;
    if metadata.is_file() {
        files.insert(name.to_owned(), path.to_owned());
        return Ok(());
    }
    if !metadata.is_dir() {
        return Err(io::Error::other(format!("{} is neither a file nor a folder", path.display())));
    }
    let entries: BTreeSet<PathBuf> =
        fs::read_dir(path).map_err(at)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>().map_err(at)?;
    for entry in entries {
        let unnamed = || io::Error::other(format!("{}: its name is not UTF-8", entry.display()));
        let own = entry.file_name().and_then(|name| name.to_str()).ok_or_else(unnamed)?;
        let name = if name.is_empty() { own.to_owned() } else { format!("{name}/{own}") };
        // A link into its own folder is a circle.
        if entry.is_dir() && entry.is_symlink() {
            return Err(io::Error::other(format!("{}: a link to a folder", entry.display())));
        }
        add(&name, &entry, files)?;
    }
    Ok(())
}

/// Where plugin files lie in a job's folder.
const PLUGINS: &str = "plugins";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_below_the_current_directory() {
        for (path, name) in
            [("./data/x.csv", Some("data/x.csv")), ("data", Some("data")), (".", Some("")), ("../x", None), ("/x", None), ("a/../b", None)]
        {
            assert_eq!(inside(Path::new(path)).as_deref(), name, "{path}");
        }
    }
}
