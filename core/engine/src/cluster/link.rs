//! A connection as timely uses it. Timely's threads panic when a connection breaks, and the workers go on waiting: here a break ends the job with its cause, and
//! the thread ends in silence.

use super::Wire;
use crate::runtime::{
    error::{Cause, JobError, Phase},
    job::Job,
};
use crossbeam_channel::Sender;
use std::{
    io::{self, Read, Write},
    net::Shutdown,
    panic::resume_unwind,
    sync::Arc,
    time::Duration,
};
use timely::communication::allocator::zero_copy::stream::Stream;

/// Timely's last message is a header of zeros (`timely_communication::networking::MessageHeader`); an end of the stream behind it is a clean one,
/// which over TLS is one that TLS has said.
const LAST: usize = 48;

/// See the module's documentation.
pub(crate) struct Link {
    job: Arc<Job>,
    /// The process at the other end.
    process: u32,
    stream: Wire,
    /// Zeros at the end of what has come.
    zeros: usize,
    /// Dropped when nothing is left to be sent or to come.
    open: Sender<()>,
}

/// How long whoever knows better has to say why a connection is broken.
const BETTER: Duration = Duration::from_secs(1);

impl Link {
    pub(crate) fn new(job: &Arc<Job>, process: u32, stream: Wire, open: Sender<()>) -> Self {
        Self { job: Arc::clone(job), process, stream, zeros: 0, open }
    }

    /// Ends the job, and the thread that calls: timely has no way to be told.
    fn broken(&self, why: &str) -> ! {
        // The other process has said why it ends, or has just ended.
        _ = self.job.cancel_signal().recv_timeout(BETTER);
        let message = format!("the connection to process {} is broken: {why}", self.process);
        self.job.fail(JobError::new("", Phase::Running, Cause::Peer(message)));
        // Without the panic hook: there is nothing to print.
        resume_unwind(Box::new("a connection of timely is broken"))
    }

    fn done<T>(&self, result: io::Result<T>) -> T {
        result.unwrap_or_else(|error| self.broken(&error.to_string()))
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break self.done(other),
            }
        };
        if read == 0 && !buffer.is_empty() && self.zeros < LAST {
            self.broken("it has been closed");
        }
        let zeros = buffer[..read].iter().rev().take(LAST).take_while(|byte| **byte == 0).count();
        self.zeros = if zeros == read { (self.zeros + zeros).min(LAST) } else { zeros };
        Ok(read)
    }
}

impl Write for Link {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self.stream.write(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            other => Ok(self.done(other)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.stream.flush();
        self.done(flushed);
        Ok(())
    }
}

impl Stream for Link {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { job: Arc::clone(&self.job), process: self.process, stream: self.stream.try_clone()?, zeros: 0, open: self.open.clone() })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self.stream.shutdown(how) {
            // The other end has closed it before.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }
}
