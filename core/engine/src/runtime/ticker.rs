//! The job's clock: a tick that all sources of the process take as the timestamp of what they emit; where a job has several processes, each has one, and all follow the
//! one that is ahead. It runs only while a source has emitted since the last tick, so
//! an idle job has no wake-ups; a source at the end of its byte budget asks for a tick at once.

use crate::dataflow::time::{self, CheckpointId, Tick, Time};
use parking_lot::{Condvar, Mutex};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

type Wake = Box<dyn Fn() + Send + Sync>;
type Tell = Box<dyn Fn(Time) + Send + Sync>;

/// See the module's documentation.
pub(crate) struct Ticker {
    current: AtomicU64,
    /// A source has emitted since the last tick.
    pending: AtomicBool,
    stopped: AtomicBool,
    /// Guards nothing; pairs with `wakeup`.
    lock: Mutex<()>,
    wakeup: Condvar,
    sources: Mutex<Vec<Wake>>,
    /// Tells the other processes of a new time.
    others: Mutex<Option<Tell>>,
}

impl Ticker {
    pub(crate) fn new(start: Time) -> Self {
        Self {
            current: AtomicU64::new(start),
            pending: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            lock: Mutex::new(()),
            wakeup: Condvar::new(),
            sources: Mutex::default(),
            others: Mutex::default(),
        }
    }

    /// The timestamp for what a source emits now.
    pub(crate) fn current(&self) -> Time {
        self.current.load(SeqCst)
    }

    /// Adds a source that a tick must wake.
    pub(crate) fn subscribe(&self, wake: Wake) {
        self.sources.lock().push(wake);
    }

    /// A source has emitted: there will be a tick.
    pub(crate) fn emitted(&self) {
        if !self.pending.swap(true, SeqCst) {
            let _guard = self.lock.lock();
            self.wakeup.notify_all();
        }
    }

    /// Ticks, unless `seen` is past already.
    pub(crate) fn advance(&self, seen: Time) {
        let next = time::next_tick(seen);
        if self.current.compare_exchange(seen, next, SeqCst, SeqCst).is_ok() {
            self.changed(next);
        }
    }

    /// From now on sources emit what belongs behind that cut, and tell where they stand.
    pub(crate) fn enter(&self, checkpoint: CheckpointId) {
        let first = time::time(checkpoint, Tick::FIRST);
        self.current.fetch_max(first, SeqCst);
        self.changed(first);
    }

    /// Another process is at that time: all are at the latest of any, or an idle source here would hold the others' ticks back. Whether that is news.
    pub(crate) fn follow(&self, time: Time) -> bool {
        let is_news = self.current.fetch_max(time, SeqCst) < time;
        if is_news {
            self.wake_sources();
        }
        is_news
    }

    /// How the other processes are told of a time that this one is the first to have.
    pub(crate) fn tell_others(&self, tell: Tell) {
        *self.others.lock() = Some(tell);
    }

    fn changed(&self, time: Time) {
        if let Some(tell) = &*self.others.lock() {
            tell(time);
        }
        self.wake_sources();
    }

    /// Makes every source look.
    pub(crate) fn wake_sources(&self) {
        self.sources.lock().iter().for_each(|wake| wake());
    }

    /// Ends [`Self::run`].
    pub(crate) fn stop(&self) {
        self.stopped.store(true, SeqCst);
        let _guard = self.lock.lock();
        self.wakeup.notify_all();
    }

    /// Ticks every `interval` while sources emit, until [`Self::stop`].
    pub(crate) fn run(&self, interval: Duration) {
        loop {
            let mut guard = self.lock.lock();
            while !self.pending.load(SeqCst) && !self.stopped.load(SeqCst) {
                self.wakeup.wait(&mut guard);
            }
            if !self.stopped.load(SeqCst) {
                self.wakeup.wait_for(&mut guard, interval);
            }
            if self.stopped.load(SeqCst) {
                return;
            }
            drop(guard);
            self.pending.store(false, SeqCst);
            self.advance(self.current());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, atomic::AtomicUsize, mpsc};

    #[test]
    fn ticks_follow_emission_and_nothing_else() {
        let ticker = Arc::new(Ticker::new(0));
        let (sent, received) = mpsc::channel();
        ticker.subscribe(Box::new(move || _ = sent.send(())));
        let thread = std::thread::spawn({
            let ticker = ticker.clone();
            move || ticker.run(Duration::from_millis(1))
        });
        assert!(received.recv_timeout(Duration::from_millis(30)).is_err(), "no tick without data");
        for tick in 1..=3 {
            ticker.emitted();
            received.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(ticker.current(), tick);
        }
        ticker.stop();
        thread.join().unwrap();
    }

    #[test]
    fn tickers_of_several_processes_follow_the_one_that_is_ahead() {
        let ticker = Ticker::new(5);
        let (told, hears) = mpsc::channel();
        ticker.tell_others(Box::new(move |time| told.send(time).unwrap()));
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        ticker.subscribe(Box::new(move || _ = count.fetch_add(1, SeqCst)));
        assert!(ticker.follow(9) && !ticker.follow(9) && !ticker.follow(7));
        assert_eq!((ticker.current(), woken.load(SeqCst)), (9, 1));
        ticker.advance(9);
        let behind = CheckpointId::new(3).unwrap();
        ticker.enter(behind);
        let first = time::time(behind, Tick::FIRST);
        assert_eq!(hears.try_iter().collect::<Vec<_>>(), [10, first], "what was heard is not said again");
        assert_eq!(ticker.current(), first);
    }

    #[test]
    fn a_tick_that_several_ask_for_comes_once() {
        let ticker = Ticker::new(5);
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        ticker.subscribe(Box::new(move || {
            count.fetch_add(1, SeqCst);
        }));
        (0..3).for_each(|_| ticker.advance(5));
        assert_eq!((ticker.current(), woken.load(SeqCst)), (6, 1));
    }
}
