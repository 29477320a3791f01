//! `jobmanager --application DIR`: a manager that has the job of one bundle alone, and ends with it. Here is what only the binary knows: where files of the bundle are on this
//! machine, where the job keeps its checkpoints (`keep`), and who is told of its end (`end`).

mod end;
mod find;
mod keep;

pub(super) use end::{end, over};

use crate::{cli::ApplicationArguments, output::say};
use standpipe_cluster::{
    application,
    bundle::{Bundle, LONGEST_DOCUMENT},
};
use standpipe_loader::bundle::{BLOBS, DESCRIPTION};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Why there is nothing to run.
pub(super) enum Refused {
    /// Another time it may be readable.
    Outside(String),
    /// It never will be: the job has failed.
    Ended(application::Ended),
}

/// The job that the command line names; none: it names none.
pub(super) fn new(arguments: &ApplicationArguments) -> Result<Option<application::Application>, Refused> {
    let (Some(folder), Some(job)) = (&arguments.application, &arguments.jobid) else { return Ok(None) };
    let path = folder.join(DESCRIPTION);
    let failed = |why: String| Refused::Ended(application::Ended::failed(job, format!("{}: {why}", path.display()), now()));
    let document = read(&path).map_err(|error| match error.kind() {
        // Nobody mends it: another start would find it as it is.
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            failed(error.to_string())
        }
        _ => Refused::Outside(format!("{}: {error}", path.display())),
    })?;
    let lines = |errors: Vec<standpipe_cluster::bundle::BundleError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let bundle = Bundle::parse(&document).map_err(|errors| failed(lines(errors)))?;
    if let Some(Err(error)) = arguments.handle.as_deref().map(File::open) {
        say!("warning: --handle: {error}: nobody will clean up when the job has ended");
    }
    let blobs = folder.join(BLOBS);
    let (id, of_end) = (job.clone(), arguments.termination_file.clone());
    let clean = arguments.handle.clone().map(|handle| -> application::Listener { Arc::new(move |ended| end::clean(&handle, ended)) });
    Ok(Some(application::Application {
        job: job.clone(),
        bundle,
        find: Arc::new(move |wanted, into| find::find(wanted, &blobs, into)),
        keeper: Arc::new(move |pipeline, bundle| keep::open(pipeline, bundle, &id)),
        timeout: arguments.application_timeout,
        linger: arguments.linger,
        ended: Arc::new(move |ended| end::tell(of_end.as_deref(), ended)),
        clean,
    }))
}

/// More than a bundle may have is not read.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut document = Vec::new();
    File::open(path)?.take(LONGEST_DOCUMENT as u64 + 1).read_to_end(&mut document)?;
    Ok(document)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
