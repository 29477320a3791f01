//! The host as an instance in a process of its own sees it: what it tells goes to the parent, what it asks comes back from there. Like the host's own services, nothing here waits, but
//! for a secret.
//!
//! Metrics are added up here and told with the next reply, or a moment later: a plugin may count every row.

use super::die;
use crate::{
    batch::Parcel,
    wire::{self, Wire, WireError, patiently, wait},
    words::{Back, Envelope, News},
};
use rustix::{
    event::{EventfdFlags, PollFlags, eventfd},
    fd::OwnedFd,
};
use standpipe_loader::{HostServices, LogLevel, MetricKind, Rejected};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long metrics may wait for a reply to go with.
const METRICS: Duration = Duration::from_millis(200);
/// Values of histograms that wait at most.
const MOST_VALUES: usize = 1024;

/// See the module's documentation.
pub(super) struct Link {
    news: Arc<OwnedFd>,
    /// One message at a time; how many there were.
    telling: Mutex<u64>,
    cancelled: AtomicBool,
    /// Answers by their question; `None`: it is asked.
    secrets: Mutex<HashMap<u64, Option<Answer>>>,
    answered: Condvar,
    asked: AtomicU64,
    metrics: Mutex<Metrics>,
    /// Wakes the main thread.
    bell: OwnedFd,
    /// A call that was pending has ended.
    has_ended: AtomicBool,
}

type Answer = Result<(String, u64), String>;

#[derive(Default)]
struct Metrics {
    ids: HashMap<(String, String), u64>,
    kinds: Vec<MetricKind>,
    /// What was not told yet: sums of counters, the last of gauges.
    values: BTreeMap<u64, f64>,
    recorded: Vec<(u64, f64)>,
}

impl Metrics {
    fn is_empty(&self) -> bool {
        self.values.is_empty() && self.recorded.is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Over a socket, of which a thread hears from now on.
    pub(super) fn start(news: OwnedFd) -> io::Result<Arc<Self>> {
        let news = Wire::new(news);
        let link = Arc::new(Self {
            news: Arc::clone(news.socket()),
            telling: Mutex::new(0),
            cancelled: AtomicBool::new(false),
            secrets: Mutex::default(),
            answered: Condvar::new(),
            asked: AtomicU64::new(0),
            metrics: Mutex::default(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            has_ended: AtomicBool::new(false),
        });
        let hears = Arc::clone(&link);
        thread::Builder::new().name("parent".to_owned()).spawn(move || hears.hear(news))?;
        Ok(link)
    }

    /// Hears what the parent says, until it is gone.
    fn hear(&self, mut news: Wire) {
        loop {
            match news.receive::<Back>(&mut patiently) {
                Ok(received) => match received.envelope.message {
                    Back::Cancelled => self.cancelled.store(true, SeqCst),
                    Back::Secret { id, value } => {
                        lock(&self.secrets).insert(id, Some(value));
                        self.answered.notify_all();
                    }
                },
                Err(_) => die(),
            }
        }
    }

    /// Tells the parent something.
    fn tell(&self, news: News) {
        self.tell_with(news, Parcel::default(), Vec::new(), Vec::new());
    }

    pub(super) fn tell_with(&self, message: News, parcel: Parcel, released: Vec<u32>, gone: Vec<u32>) {
        let mut count = lock(&self.telling);
        let envelope = Envelope { released, gone, told: 0, message };
        match wire::send(&self.news, &envelope, &parcel.inline, &parcel.files, &mut patiently) {
            Ok(()) => *count += 1,
            Err(_) => die(),
        }
    }

    /// How many news there were.
    pub(super) fn told(&self) -> u64 {
        *lock(&self.telling)
    }

    /// Waits for a socket, for the bell, or until metrics have waited long enough. True: there is something to tell.
    pub(super) fn wait(&self, socket: BorrowedFd<'_>, what: PollFlags) -> Result<bool, WireError> {
        let mut at_most = (!lock(&self.metrics).is_empty()).then_some(METRICS);
        loop {
            let [ready, rings] = wait(&[(socket, what), (self.bell.as_fd(), PollFlags::IN)], at_most)?;
            if ready {
                return Ok(false);
            }
            if !rings {
                return Ok(at_most.is_some());
            }
            // It counts to any number: empty at once.
            _ = rustix::io::read(&self.bell, &mut [0; 8]);
            if self.has_ended.swap(false, SeqCst) {
                return Ok(true);
            }
            at_most = Some(METRICS);
        }
    }

    fn ring(&self) {
        // Full, it rings already.
        _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Tells of the metrics that have changed.
    pub(super) fn tell_metrics(&self) {
        let mut metrics = lock(&self.metrics);
        if metrics.is_empty() {
            return;
        }
        let mut values: Vec<(u64, f64)> = std::mem::take(&mut metrics.values).into_iter().collect();
        values.append(&mut metrics.recorded);
        drop(metrics);
        self.tell(News::Metrics(values));
    }
}

impl HostServices for Link {
    fn log(&self, level: LogLevel, json: &str) {
        self.tell(News::Log { level: level as u32, json: json.to_owned() });
    }

    fn register_metric(&self, name: &str, kind: MetricKind, labels: &str) -> u64 {
        let mut metrics = lock(&self.metrics);
        let id = metrics.kinds.len() as u64;
        if let Some(known) = metrics.ids.get(&(name.to_owned(), labels.to_owned())) {
            return *known;
        }
        metrics.ids.insert((name.to_owned(), labels.to_owned()), id);
        metrics.kinds.push(kind);
        // Under the lock: nobody tells of its values before.
        self.tell(News::Metric { id, name: name.to_owned(), kind: kind as u32, labels: labels.to_owned() });
        id
    }

    fn update_metric(&self, id: u64, value: f64) {
        let mut metrics = lock(&self.metrics);
        let was_empty = metrics.is_empty();
        match usize::try_from(id).ok().and_then(|id| metrics.kinds.get(id)) {
            None => return,
            Some(MetricKind::Counter) => *metrics.values.entry(id).or_default() += value,
            Some(MetricKind::Gauge) => _ = metrics.values.insert(id, value),
            Some(MetricKind::Histogram) => metrics.recorded.push((id, value)),
        }
        let is_full = metrics.recorded.len() >= MOST_VALUES;
        drop(metrics);
        if is_full {
            self.tell_metrics();
        } else if was_empty {
            self.ring();
        }
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }

    fn wake(&self) {
        self.tell(News::Wake);
    }

    fn secret(&self, reference: &str) -> Result<(String, u64), String> {
        let id = self.asked.fetch_add(1, SeqCst);
        lock(&self.secrets).insert(id, None);
        self.tell(News::Secret { id, reference: reference.to_owned() });
        let secrets = lock(&self.secrets);
        let is_open = |secrets: &mut HashMap<u64, Option<Answer>>| matches!(secrets.get(&id), Some(None));
        let mut secrets = self.answered.wait_while(secrets, is_open).unwrap_or_else(PoisonError::into_inner);
        secrets.remove(&id).flatten().unwrap_or_else(|| Err("there was no answer".to_owned()))
    }

    fn now(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn completed(&self) {
        if !self.has_ended.swap(true, SeqCst) {
            self.ring();
        }
    }

    fn ack(&self, up_to_seq: u64) {
        self.tell(News::Ack(up_to_seq));
    }

    fn reject(&self, seq: u64, rejections: Vec<Rejected>) {
        let rejections = rejections.into_iter().map(|rejected| (rejected.row, rejected.reason, rejected.details)).collect();
        self.tell(News::Reject { seq, rejections });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// An instance's host, and the parent's end of it, which stays: a process whose parent is gone ends.
    fn link() -> (Arc<Link>, &'static mut Wire) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Link::start(ours.into()).unwrap(), Box::leak(Box::new(Wire::new(theirs.into()))))
    }

    fn told(parent: &mut Wire) -> News {
        parent.receive::<News>(&mut patiently).unwrap().envelope.message
    }

    #[test]
    fn metrics_are_added_up_and_told_at_once() {
        let (link, parent) = link();
        let counter = link.register_metric("rows", MetricKind::Counter, "{}");
        assert!(matches!(told(parent), News::Metric { id, name, .. } if id == counter && name == "rows"));
        assert_eq!(link.register_metric("rows", MetricKind::Counter, "{}"), counter, "told once");
        let gauge = link.register_metric("open", MetricKind::Gauge, "{}");
        let histogram = link.register_metric("took", MetricKind::Histogram, "{}");
        assert!(matches!((told(parent), told(parent)), (News::Metric { .. }, News::Metric { .. })));
        for value in 1..=100 {
            link.update_metric(counter, f64::from(value));
            link.update_metric(gauge, f64::from(value));
        }
        link.update_metric(histogram, 7.0);
        link.update_metric(u64::MAX, 1.0);
        link.tell_metrics();
        let News::Metrics(values) = told(parent) else { panic!("no values") };
        assert_eq!(values, [(counter, 5050.0), (gauge, 100.0), (histogram, 7.0)]);
        assert_eq!(link.told(), 4);
    }

    #[test]
    fn a_secret_and_a_cancellation_come_from_the_parent() {
        let (link, parent) = link();
        let asks = Arc::clone(&link);
        let asked = thread::spawn(move || asks.secret("${env:TOKEN}"));
        let News::Secret { id, reference } = told(parent) else { panic!("no question") };
        assert_eq!(reference, "${env:TOKEN}");
        let say = |back: Back| {
            let envelope = Envelope { released: Vec::new(), gone: Vec::new(), told: 0, message: back };
            wire::send(parent.socket(), &envelope, &[], &[], &mut patiently).unwrap();
        };
        say(Back::Secret { id, value: Ok(("sesame".to_owned(), 3)) });
        assert_eq!(asked.join().unwrap(), Ok(("sesame".to_owned(), 3)));
        assert!(!link.cancelled());
        say(Back::Cancelled);
        while !link.cancelled() {
            thread::yield_now();
        }
    }

    #[test]
    fn a_call_that_has_ended_wakes_whoever_waits() {
        let (link, _parent) = link();
        let (quiet, _other) = UnixStream::pair().unwrap();
        link.completed();
        link.completed();
        assert!(link.wait(quiet.as_fd(), PollFlags::IN).unwrap());
        // Metrics that nobody else tells of are told a moment later.
        let counter = link.register_metric("rows", MetricKind::Counter, "{}");
        link.update_metric(counter, 1.0);
        assert!(link.wait(quiet.as_fd(), PollFlags::IN).unwrap());
    }
}
