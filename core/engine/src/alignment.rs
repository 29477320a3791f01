//! How far the aligned sources of a group have come in event time, as a decision without clock, thread or message: [`Group`] merges what its members say. A member is a
//! source subtask of this process, or in the first process another process. `runtime::alignment` holds it and carries what it decides to the others,
//! [`crate::watermark::SplitWatermarks`] says for a subtask how far it is and which of its splits are ahead of what was reached.
//!
//! Why it cannot come to a standstill: a split is held back only while its event time is ahead of what the group has reached, and a split that is held back is waited for
//! as any other is. So of all that are waited for the last one is never held back, and what the group has reached is at least that split's time as soon as everybody
//! has been heard.

use crate::operator::{END, Micros, NO_WATERMARK};

/// What a member says that is not to be waited for: its splits are idle or have ended, or it has none.
pub(crate) const NOT_WAITED_FOR: Micros = END;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Group {
    members: Vec<Micros>,
    minimum: Micros,
    reached: Micros,
}

impl Group {
    /// Of members that have said nothing: they are waited for.
    pub(crate) fn new(members: usize) -> Self {
        let minimum = if members == 0 { NOT_WAITED_FOR } else { NO_WATERMARK };
        Self { members: vec![NO_WATERMARK; members], minimum, reached: NO_WATERMARK }
    }

    /// A member has come that far. Whether that changes the minimum.
    pub(crate) fn says(&mut self, member: usize, time: Micros) -> bool {
        let Some(said) = self.members.get_mut(member).filter(|said| **said != time) else { return false };
        *said = time;
        let before = self.minimum;
        self.minimum = self.members.iter().copied().min().unwrap_or(NOT_WAITED_FOR);
        if self.minimum != NOT_WAITED_FOR {
            self.reached = self.reached.max(self.minimum);
        }
        self.minimum != before
    }

    /// The least of what the members say.
    pub(crate) const fn minimum(&self) -> Micros {
        self.minimum
    }

    /// What all have reached that are waited for. It never goes back, as a watermark does not: a split that comes late has rows that are late, and the others wait where they
    /// are. So whoever has not heard the newest is too careful, never too bold.
    pub(crate) const fn reached(&self) -> Micros {
        self.reached
    }
}

#[cfg(test)]
mod tests;
