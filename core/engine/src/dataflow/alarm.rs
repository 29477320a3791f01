//! Wakes an operator after some time, with one outstanding request: timely keeps every request until it is due, so asking at each activation would pile them up.

use std::time::{Duration, Instant};
use timely::scheduling::Activator;

/// See the module's documentation.
pub(crate) struct Alarm {
    activator: Activator,
    /// When the earliest request is due.
    set_for: Option<Instant>,
}

/// Timely's clock may be a little behind ours.
const SLACK: Duration = Duration::from_millis(1);

impl Alarm {
    pub(crate) fn new(activator: Activator) -> Self {
        Self { activator, set_for: None }
    }

    /// Runs the operator after `wait`, or soon after that.
    pub(crate) fn set(&mut self, wait: Duration) {
        let now = Instant::now();
        let Some(due) = now.checked_add(wait.saturating_add(SLACK)) else { return };
        if self.set_for.is_some_and(|set_for| set_for > now && set_for <= due) {
            return;
        }
        self.set_for = Some(due);
        self.activator.activate_after(wait.saturating_add(SLACK));
    }

    /// Runs the operator again as soon as the others have had their turn.
    pub(crate) fn again(&self) {
        self.activator.activate();
    }
}
