//! The connector `file`: a source that reads lines of files, named pipes or standard input, and a sink that writes one file, or parts into a folder of a disk or
//! an object store.
//!
//! Both deal in records, that is bytes: the host decodes and encodes them by the pipeline's `format`. The source finds its files in `enumerate` and cuts them
//! into records in `lines`; the sink (`sink`) puts a file under its final name only when it is whole: the one of `single` by `target`, the parts of `parts` when
//! a checkpoint has them. Formats that are more than their records (parquet, csv with a header) it encodes itself (`content`).
#![deny(unsafe_code)]

mod content;
mod enumerate;
mod lines;
mod parts;
mod single;
mod sink;
mod source;
mod target;

pub use enumerate::FileEnumerator;
pub use sink::{FileSink, FileSinkConfig, Roll};
pub use source::{FileSource, FileSourceConfig, MetadataColumn};

standpipe_sdk::export_plugin! { sources: [FileSource], sinks: [FileSink] }

/// What cannot be done with something outside, and why.
fn outside(what: &str, path: impl std::fmt::Display, error: impl std::fmt::Display) -> standpipe_sdk::Error {
    standpipe_sdk::Error::external(format!("cannot {what} {path}: {error}"))
}
