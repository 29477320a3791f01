//! The pipeline, wherever it runs: what the demo asks of it.

use super::{cluster, deployed, jobs::Job};
use crate::{
    exit::{Code, Failure},
    output::say,
};

pub(super) enum Main<'a> {
    /// In this process.
    Here(Box<Job>),
    /// On the demo's own cluster.
    There(cluster::Deployed),
    /// Wherever the settings say.
    Away(Box<deployed::Deployed<'a>>),
}

impl Main<'_> {
    /// Says where people see it.
    pub(super) fn introduce(&self) -> anyhow::Result<()> {
        match self {
            Self::Here(_) => {}
            Self::There(job) => say!("the pipeline:  {page}; its windows as a chart: {page}/rows/windows\n", page = job.page()),
            Self::Away(job) => say!("the pipeline:  it is deployed, and removed at the end; its handle: {}\n", job.handle()?),
        }
        Ok(())
    }

    /// Whether it has read so many records, which are all.
    pub(super) fn has_read(&self, all: u64) -> anyhow::Result<bool> {
        match self {
            Self::Here(_) | Self::There(_) => Ok(self.moved()? >= all),
            Self::Away(job) => job.has_read_all(),
        }
    }

    /// What grows as long as it reads: records that it has read, or documents that are there.
    pub(super) fn moved(&self) -> anyhow::Result<u64> {
        match self {
            Self::Here(job) => Ok(job.metrics().totals().rows_in),
            Self::There(job) => job.total("rows_in"),
            Self::Away(job) => job.documents(),
        }
    }

    /// That number, in words.
    pub(super) fn has_moved(&self, moved: u64) -> String {
        match self {
            Self::Here(_) | Self::There(_) => format!("{moved} of them read"),
            Self::Away(job) => format!("{moved} documents are there, the job is {}", job.state()),
        }
    }

    /// How far it is, for people.
    pub(super) fn state(&self) -> String {
        match self {
            Self::Here(_) | Self::There(_) => format!("{} read", self.moved().unwrap_or(0)),
            Self::Away(job) => format!("the job is {}", job.state()),
        }
    }

    /// Documents that it has written; of what runs away those that are there.
    pub(super) fn written(&self) -> anyhow::Result<u64> {
        match self {
            Self::Here(job) => Ok(job.metrics().totals().rows_out),
            Self::There(job) => job.total("rows_out"),
            Self::Away(job) => job.documents(),
        }
    }

    /// As [`Self::written`], by one sink.
    pub(super) fn written_by(&self, sink: &str) -> u64 {
        let path = format!("sinks.{sink}");
        match self {
            Self::Here(job) => job.metrics().nodes().iter().find(|node| node.path == path).map_or(0, |node| node.rows_out.get()),
            Self::There(job) => job.given(&path).unwrap_or(0),
            Self::Away(job) => job.documents_of(sink).unwrap_or(0),
        }
    }

    /// Whether it has ended without a failure.
    pub(super) fn ended(&self) -> anyhow::Result<bool> {
        match self {
            Self::Here(job) => job.ended(),
            Self::There(job) => job.ended(),
            Self::Away(job) => job.ended(),
        }
    }

    /// Fails if it has ended: it should run until it is stopped.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.ended()? {
            return Err(Failure::error(Code::Failed, "the pipeline ended by itself"));
        }
        Ok(())
    }

    /// Stops it; open windows fire.
    pub(super) fn drain(&self) -> anyhow::Result<()> {
        match self {
            Self::Here(job) => {
                job.control().stop(true);
                Ok(())
            }
            Self::There(job) => job.drain(),
            Self::Away(job) => job.drain(),
        }
    }
}
