//! `deployment collect` and `job collect`: rows of a job, as they come, to standard output or into a file. Where they come from is the mode's business (`deployment`), or
//! that of [`super::look`] for a job of this machine.

use super::{
    deployment::{asked, with, with_handle},
    state::rows::Printer,
};
use crate::{
    cli::{CollectArguments, CollectFormat, CollectedRows, JobCollectArguments, StateFormat},
    deployment::services::Services,
    exit::{Code, Failure},
    output::write_bytes,
};
use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_ipc::writer::StreamWriter;
use standpipe_formats::{FileEncoder, FormatKind, FormatSpec, file_encoder};
use standpipe_loader::{Collect, DeploymentInstance, Handle};
use std::{
    fs::{self, File, Permissions},
    io::{IsTerminal, Write, stdout},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};
use tempfile::NamedTempFile;

/// `standpipe deployment collect`.
pub(super) fn collect(arguments: &CollectArguments) -> anyhow::Result<()> {
    check(&arguments.rows)?;
    let node = arguments.node.as_deref().or(arguments.name.as_deref());
    with(&arguments.job, |mode, handle, services| of_mode(node, &arguments.rows, mode, handle, services))
}

/// `standpipe job collect --handle FILE`, and with `--jobmanager`, where the handle is made of the job's id.
pub(super) fn collect_by(handle: &Handle, origin: &str, node: Option<&str>, arguments: &JobCollectArguments) -> anyhow::Result<()> {
    check(&arguments.rows)?;
    with_handle(handle, origin, &arguments.settings, &arguments.plugins, |mode, handle, services| {
        of_mode(node, &arguments.rows, mode, handle, services)
    })
}

/// What cannot be printed where it is to go.
pub(super) fn check(rows: &CollectedRows) -> anyhow::Result<()> {
    let is_binary = matches!(rows.format, CollectFormat::Arrow | CollectFormat::Parquet);
    if is_binary && rows.output.is_none() && stdout().is_terminal() {
        let message = "this format is not for a terminal: give --output FILE, or send standard output elsewhere";
        return Err(Failure::error(Code::Usage, message));
    }
    Ok(())
}

fn of_mode(
    node: Option<&str>,
    wanted: &CollectedRows,
    mode: &mut DeploymentInstance,
    handle: &Handle,
    services: &Services,
) -> anyhow::Result<()> {
    let collect = Collect {
        node: node.unwrap_or_default().to_owned(),
        limit: wanted.limit,
        timeout: wanted.timeout.map(|timeout| timeout.max(Duration::from_millis(1))),
    };
    write(asked(mode.collect(handle, &collect))?, wanted, || services.is_cancelled())
}

/// Prints rows until there are no more, or the user has had enough.
pub(super) fn write(rows: Box<dyn RecordBatchReader + '_>, wanted: &CollectedRows, is_cancelled: impl Fn() -> bool) -> anyhow::Result<()> {
    let mut out = Out::new(wanted.output.as_deref())?;
    let mut printer = RowPrinter::new(wanted.format, rows.as_ref())?;
    let mut failed = None;
    for batch in rows {
        match batch {
            Ok(batch) if out.write(&printer.rows(&batch)?)? => {}
            Ok(_) => return Ok(()),
            // What has come is what was wanted.
            Err(_) if is_cancelled() => break,
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    // What came before a failure is shown all the same, but not as a file that looks whole.
    match failed {
        Some(error) if wanted.output.is_some() => Err(broken(&error)),
        failed => {
            out.write(&printer.finish()?)?;
            out.finish()?;
            failed.map_or(Ok(()), |error| Err(broken(&error)))
        }
    }
}

fn broken(error: &dyn std::fmt::Display) -> anyhow::Error {
    let text = error.to_string();
    let text = ["C Data interface error: ", "External error: "]
        .iter()
        .fold(text.as_str(), |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
    Failure::error(Code::Failed, text)
}

/// Rows in one of the formats.
enum RowPrinter {
    Text(Printer),
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Parquet(Box<dyn FileEncoder>, Vec<u8>),
}

impl RowPrinter {
    fn new(format: CollectFormat, rows: &dyn RecordBatchReader) -> anyhow::Result<Self> {
        let schema = rows.schema();
        Ok(match format {
            CollectFormat::Table => Self::Text(Printer::new(&schema, StateFormat::Text)),
            CollectFormat::Json => Self::Text(Printer::new(&schema, StateFormat::Json)),
            CollectFormat::Csv => Self::Text(Printer::new(&schema, StateFormat::Csv)),
            CollectFormat::Arrow => Self::Arrow(Box::new(StreamWriter::try_new(Vec::new(), &schema).map_err(|error| broken(&error))?)),
            CollectFormat::Parquet => {
                let mut encoder = file_encoder(&FormatSpec::from(FormatKind::Parquet), &schema).map_err(|error| broken(&error))?;
                let mut bytes = Vec::new();
                encoder.begin(&mut bytes).map_err(|error| broken(&error))?;
                Self::Parquet(encoder, bytes)
            }
        })
    }

    fn rows(&mut self, batch: &RecordBatch) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Text(printer) => Ok(printer.rows(batch)?.into_bytes()),
            Self::Arrow(writer) => {
                writer.write(batch).map_err(|error| broken(&error))?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Self::Parquet(encoder, bytes) => {
                encoder.write(batch, bytes).map_err(|error| broken(&error))?;
                Ok(std::mem::take(bytes))
            }
        }
    }

    fn finish(self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Text(printer) => Ok(printer.rest()?.into_bytes()),
            Self::Arrow(mut writer) => {
                writer.finish().map_err(|error| broken(&error))?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Self::Parquet(mut encoder, mut bytes) => {
                encoder.finish(&mut bytes).map_err(|error| broken(&error))?;
                Ok(bytes)
            }
        }
    }
}

/// Standard output, or a file that is there when all of it is.
enum Out<'a> {
    Stdout,
    File(&'a Path, NamedTempFile),
    /// A device or a pipe, which is written as it is.
    Device(&'a Path, File),
}

impl<'a> Out<'a> {
    fn new(path: Option<&'a Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            return File::options().write(true).open(path).map(|file| Self::Device(path, file)).map_err(|error| at(path, &error));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As a file is made usually, not for its owner alone.
        let permissions = Permissions::from_mode(0o666);
        tempfile::Builder::new()
            .permissions(permissions)
            .tempfile_in(folder)
            .map(|file| Self::File(path, file))
            .map_err(|error| at(path, &error))
    }

    /// False: nobody reads it.
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<bool> {
        match self {
            Self::Stdout => Ok(write_bytes(bytes)?),
            Self::File(path, file) => file.write_all(bytes).map(|()| true).map_err(|error| at(path, &error)),
            Self::Device(path, file) => file.write_all(bytes).map(|()| true).map_err(|error| at(path, &error)),
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Stdout | Self::Device(..) => Ok(()),
            Self::File(path, file) => file.persist(path).map(drop).map_err(|error| at(path, &error.error)),
        }
    }
}

fn at(path: &Path, error: &std::io::Error) -> anyhow::Error {
    Failure::error(Code::Outside, format!("--output {}: {error}", path.display()))
}
