//! Progress of a running job: on a terminal one line that renews itself (rows, bytes, rate, lag; why a node cannot go on for now), elsewhere nothing. To stderr.

use crate::secrets;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use standpipe_engine::Metrics;
use std::{
    io::{IsTerminal, stderr},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

const PERIOD: Duration = Duration::from_millis(250);

/// Shows progress until `finish`.
pub(crate) struct Progress {
    stop: mpsc::Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Progress {
    /// Starts showing, if stderr is a terminal.
    pub(crate) fn start(name: &str, metrics: Arc<Metrics>) -> Self {
        let (stop, stopped) = mpsc::channel();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed_precise} {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        let thread = stderr()
            .is_terminal()
            .then(|| thread::Builder::new().name("progress".to_owned()).spawn(move || show(&bar, &metrics, &stopped)));
        Self { stop, thread: thread.and_then(Result::ok) }
    }

    /// Clears the line.
    pub(crate) fn finish(mut self) {
        // The thread may have ended already: then nobody listens.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The cause first: a line that is too long is cut at its end.
fn degraded_line(cause: &str, rows: &str) -> String {
    format!("DEGRADED: {}; {rows}", secrets::hidden(cause).lines().next().unwrap_or_default())
}

fn show(bar: &ProgressBar, metrics: &Metrics, stopped: &mpsc::Receiver<()>) {
    let (mut last, mut before) = (Instant::now(), metrics.totals());
    while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(PERIOD) {
        let now = metrics.totals();
        let rate = (now.rows_in - before.rows_in) as f64 / last.elapsed().as_secs_f64();
        (last, before) = (Instant::now(), now.clone());
        let age = now.lag_time.map(|age| format!(" ({:.1} s)", age.as_secs_f64())).unwrap_or_default();
        let lag = now.lag.map(|records| format!(", lag {records}{age}")).unwrap_or_default();
        let rows =
            format!("{} rows in ({}, {rate:.0}/s), {} rows out{lag}", now.rows_in, indicatif::HumanBytes(now.bytes_in), now.rows_out);
        let degraded = metrics.nodes().iter().find_map(|node| node.degraded());
        bar.set_message(degraded.map_or_else(|| rows.clone(), |cause| degraded_line(&cause, &rows)));
        bar.tick();
    }
    bar.finish_and_clear();
}
