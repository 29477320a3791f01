//! `plugin lock`: writes which plugin files a pipeline runs with. What `plugins.lock` means is the loader's, its text core/pipeline's.

use crate::{
    cli::LockArguments,
    exit::{Code, Failure},
    load,
    output::say,
    plugins,
};
use standpipe_pipeline::{LoadOptions, lock};
use std::{fs, io::Write as _, path::Path};

/// `standpipe plugin lock FILE`. A lock that is there is no condition; what it has for other platforms stays.
pub(super) fn lock(arguments: &LockArguments) -> anyhow::Result<()> {
    let path = arguments.lock.clone().unwrap_or_else(|| arguments.file.with_file_name(lock::FILE_NAME));
    let pipeline = load::read(&arguments.file, &LoadOptions { set: arguments.set.clone(), ..LoadOptions::default() })?;
    let catalogue = plugins::discover(&pipeline.plugin_paths(), &arguments.plugins.plugin_path)?;
    let catalogue = load::of_pipeline(catalogue, &pipeline, None);
    let plan = load::plan_with(&pipeline, &catalogue)?;
    // One that cannot be read is not overwritten: it may be something else.
    let former = if path.exists() { Some(lock::read(&path).map_err(|problems| load::failure(&problems))?) } else { None };
    let lock = lock::of(&plan, &catalogue, &path, former.as_ref());
    write(&path, &lock::text(&lock)).map_err(|error| Failure::error(Code::Outside, format!("{}: {error}", path.display())))?;
    let plugins = lock.plugins.len();
    say!("{}: {plugins} plugin{}", path.display(), if plugins == 1 { "" } else { "s" });
    Ok(())
}

/// In one step: whoever starts the pipeline meanwhile reads the former one or this one.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".plugins.lock-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    // As any file that the user writes: others may read it.
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}
