//! Threads for requests: as many as there are requests at the same time, which the host bounds. They stay until the transform is closed.

use standpipe_sdk::Result;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

type Work = Box<dyn FnOnce() + Send>;
/// Who puts work in, and who takes it out: all threads take from one.
type Queue = (Sender<Work>, Arc<Mutex<Receiver<Work>>>);

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Workers {
    queue: Option<Queue>,
    threads: usize,
    /// Threads that are not free.
    busy: Arc<AtomicUsize>,
}

impl Workers {
    /// Does it on a thread that is free, or on a new one. The work says itself when its thread is as good as free, before anybody is told of its end.
    pub(crate) fn run(&mut self, work: impl FnOnce(&Busy) + Send + 'static) -> Result<()> {
        let (sender, receiver) = self.queue.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel();
            (sender, Arc::new(Mutex::new(receiver)))
        });
        if self.busy.fetch_add(1, SeqCst) >= self.threads {
            let receiver = Arc::clone(receiver);
            thread::Builder::new().name("http-enrich".to_owned()).spawn(move || serve(&receiver))?;
            self.threads += 1;
        }
        let busy = Busy(Mutex::new(Some(Arc::clone(&self.busy))));
        let work: Work = Box::new(move || {
            work(&busy);
            busy.free();
        });
        Ok(sender.send(work)?)
    }

    /// Threads end when what they do has ended.
    pub(crate) fn close(&mut self) {
        self.queue = None;
    }
}

/// A thread that is not free.
pub(crate) struct Busy(Mutex<Option<Arc<AtomicUsize>>>);

impl Busy {
    /// It is free.
    pub(crate) fn free(&self) {
        if let Some(busy) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            busy.fetch_sub(1, SeqCst);
        }
    }
}

fn serve(queue: &Mutex<Receiver<Work>>) {
    loop {
        // The lock is held while waiting: the others wait for it.
        let work = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match work {
            Ok(work) => work(),
            Err(_) => return,
        }
    }
}
