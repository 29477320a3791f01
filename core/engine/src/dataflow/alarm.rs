//! Wakes an operator at a time of the clock, with one outstanding request: timely keeps every request until it is due, so asking at each activation would pile them up.

use crate::operator::Micros;
use std::time::Duration;
use timely::scheduling::Activator;

/// See the module's documentation.
pub(crate) struct Alarm {
    activator: Activator,
    /// When the earliest request is due.
    set_for: Option<Micros>,
}

/// Timely's clock may be a little behind ours.
const SLACK: Micros = 1_000;

impl Alarm {
    pub(crate) fn new(activator: Activator) -> Self {
        Self { activator, set_for: None }
    }

    /// Runs the operator at `due`, or soon after.
    pub(crate) fn set(&mut self, due: Micros, now: Micros) {
        if self.set_for.is_some_and(|set_for| set_for > now && set_for <= due) {
            return;
        }
        self.set_for = Some(due.max(now));
        let wait = due.saturating_sub(now).max(0).saturating_add(SLACK);
        self.activator.activate_after(Duration::from_micros(wait.unsigned_abs()));
    }

    /// Runs the operator again as soon as the others have had their turn.
    pub(crate) fn again(&self) {
        self.activator.activate();
    }
}
