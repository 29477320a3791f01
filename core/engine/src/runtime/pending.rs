//! The inputs of a task that are not answered because calls of an asynchronous transform are pending, in their order: which results may go on now, how many calls
//! there are, and which has been pending for the longest time. No threads, no clock of its own: `runtime::task` drives it.

use arrow::array::RecordBatch;
use standpipe_pipeline::plan::{AsyncCalls, ResultOrder};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What a call gave, by output.
pub(crate) type Given = Vec<(u32, RecordBatch)>;

/// An input that is not answered.
enum Input {
    /// Rows, of a call that is pending under that token since then.
    Pending { token: u64, since: Instant },
    /// Rows, of a call that has ended; its results have not gone on.
    Ended(Given),
    /// Rows whose results have gone on before those of an input before them.
    Gone,
    /// Anything else, and what it gave: no results of what is behind it go on before it.
    Barrier(Given),
}

/// What may go on.
#[derive(Debug, PartialEq)]
pub(crate) enum Release {
    /// The results of the first input, which is answered by this.
    First(Given),
    /// The results of an input behind, counted from the first: it is answered when it is the first.
    Early(usize, Given),
}

/// See the module's documentation.
pub(crate) struct Unanswered {
    calls: AsyncCalls,
    inputs: VecDeque<Input>,
    /// Calls that are pending, or whose results have not gone on.
    held: u32,
}

impl Unanswered {
    pub(crate) fn new(calls: AsyncCalls) -> Self {
        Self { calls, inputs: VecDeque::new(), held: 0 }
    }

    /// A call has begun and is pending.
    pub(crate) fn pending(&mut self, token: u64, since: Instant) {
        self.held += 1;
        self.inputs.push_back(Input::Pending { token, since });
    }

    /// A call has ended before anything else.
    pub(crate) fn ended_at_once(&mut self, given: Given) {
        self.held += 1;
        self.inputs.push_back(Input::Ended(given));
    }

    /// A watermark, or another input without rows, and what it gave.
    pub(crate) fn barrier(&mut self, given: Given) {
        self.inputs.push_back(Input::Barrier(given));
    }

    /// The call of that token has ended. False: there is none.
    pub(crate) fn ended(&mut self, token: u64, given: Given) -> bool {
        let found = self.inputs.iter_mut().find(|input| matches!(input, Input::Pending { token: of, .. } if *of == token));
        found.map(|input| *input = Input::Ended(given)).is_some()
    }

    /// Whether another call may begin.
    pub(crate) fn has_room(&self) -> bool {
        self.held < self.calls.capacity
    }

    /// Whether everything is answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Calls that are pending, or whose results wait for others.
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// How long the call that began first of those that are pending has been so.
    pub(crate) fn oldest(&self, now: Instant) -> Option<Duration> {
        self.inputs.iter().find_map(|input| match input {
            Input::Pending { since, .. } => Some(now.saturating_duration_since(*since)),
            _ => None,
        })
    }

    /// The next thing that may go on.
    pub(crate) fn release(&mut self) -> Option<Release> {
        match self.inputs.pop_front()? {
            Input::Ended(given) => {
                self.held -= 1;
                return Some(Release::First(given));
            }
            Input::Barrier(given) => return Some(Release::First(given)),
            Input::Gone => return Some(Release::First(Vec::new())),
            pending @ Input::Pending { .. } => self.inputs.push_front(pending),
        }
        if self.calls.order == ResultOrder::Input {
            return None;
        }
        let before_barrier = self.inputs.iter_mut().enumerate().take_while(|(_, input)| !matches!(input, Input::Barrier(_)));
        for (at, input) in before_barrier {
            if let Input::Ended(given) = input {
                let given = std::mem::take(given);
                *input = Input::Gone;
                self.held -= 1;
                return Some(Release::Early(at, given));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn given(n: i64) -> Given {
        let column = Arc::new(Int64Array::from(vec![n])) as arrow::array::ArrayRef;
        vec![(0, RecordBatch::try_from_iter([("n", column)]).unwrap())]
    }

    fn numbers(given: &Given) -> Vec<i64> {
        given.iter().map(|(_, batch)| batch.column(0).as_primitive::<Int64Type>().value(0)).collect()
    }

    fn calls(capacity: u32, order: ResultOrder) -> Unanswered {
        Unanswered::new(AsyncCalls { capacity, order, timeout: Duration::from_secs(1) })
    }

    /// What is released, and how many inputs that answers.
    fn released(calls: &mut Unanswered) -> (Vec<i64>, usize) {
        let (mut all, mut answered) = (Vec::new(), 0);
        while let Some(release) = calls.release() {
            match release {
                Release::First(given) => {
                    answered += 1;
                    all.extend(numbers(&given));
                }
                Release::Early(at, given) => {
                    assert!(at > 0, "the first is answered");
                    all.extend(numbers(&given));
                }
            }
        }
        (all, answered)
    }

    #[test]
    fn results_leave_in_the_order_of_the_input() {
        let mut calls = calls(3, ResultOrder::Input);
        (1..=3).for_each(|token| calls.pending(token, Instant::now()));
        calls.barrier(given(100));
        assert!(!calls.has_room());
        assert!(calls.ended(2, given(2)) && calls.ended(3, given(3)));
        assert!(released(&mut calls).0.is_empty());
        assert!(!calls.has_room(), "what waits for others counts");
        assert!(calls.ended(1, given(1)) && !calls.ended(1, given(1)) && !calls.ended(9, given(9)));
        assert_eq!(released(&mut calls), (vec![1, 2, 3, 100], 4));
        assert!(calls.is_empty() && calls.has_room());
    }

    #[test]
    fn results_in_any_order_stay_between_their_watermarks() {
        let mut calls = calls(4, ResultOrder::Any);
        (1..=2).for_each(|token| calls.pending(token, Instant::now()));
        calls.barrier(given(100));
        (3..=4).for_each(|token| calls.pending(token, Instant::now()));
        calls.ended(4, given(4));
        calls.ended(2, given(2));
        assert_eq!(released(&mut calls), (vec![2], 0));
        assert_eq!((calls.held(), calls.has_room()), (3, true), "what has gone on makes room");
        calls.ended(1, given(1));
        assert_eq!(released(&mut calls), (vec![1, 100, 4], 3));
        assert!(!calls.is_empty());
        calls.ended(3, given(3));
        assert_eq!(released(&mut calls), (vec![3], 2));
        assert!(calls.is_empty());
    }

    #[test]
    fn the_oldest_is_the_first_that_is_pending() {
        let mut calls = calls(4, ResultOrder::Input);
        let begin = Instant::now();
        calls.pending(1, begin);
        calls.pending(2, begin + Duration::from_millis(5));
        calls.ended(1, given(1));
        assert_eq!(calls.oldest(begin + Duration::from_millis(7)), Some(Duration::from_millis(2)));
        calls.ended(2, given(2));
        assert_eq!(calls.oldest(begin), None);
    }

    proptest! {
        /// Whatever ends when: everything is answered once, and no result is on the wrong side of a watermark.
        #[test]
        fn nothing_is_lost_or_passes_a_watermark(
            inputs in prop::collection::vec(0..4_u8, 1..40),
            ends in prop::collection::vec(any::<prop::sample::Index>(), 40),
            any_order in any::<bool>(),
        ) {
            let mut calls = calls(1000, if any_order { ResultOrder::Any } else { ResultOrder::Input });
            let (mut pending, mut section, mut expected) = (Vec::new(), 0, Vec::new());
            for (n, input) in (0..).zip(&inputs) {
                // The thousands are the section between two watermarks.
                let number = section * 1000 + n;
                match input {
                    0 => { calls.barrier(given(section * 1000 + 999)); expected.push(section * 1000 + 999); section += 1; }
                    1 => { calls.ended_at_once(given(number)); expected.push(number); }
                    _ => { calls.pending(n as u64 + 1, Instant::now()); pending.push((n as u64 + 1, number)); expected.push(number); }
                }
            }
            let (mut all, mut answered) = released(&mut calls);
            for end in ends {
                if pending.is_empty() { break }
                let (token, number) = pending.remove(end.index(pending.len()));
                prop_assert!(calls.ended(token, given(number)));
                let (more, answers) = released(&mut calls);
                all.extend(more);
                answered += answers;
            }
            prop_assert!(calls.is_empty() && calls.held() == 0);
            prop_assert_eq!(answered, inputs.len());
            let sections: Vec<i64> = all.iter().map(|number| number / 1000).collect();
            prop_assert!(sections.is_sorted(), "{:?}", all);
            if any_order {
                let at = |number: &i64| all.iter().position(|other| other == number);
                for watermark in expected.iter().filter(|number| **number % 1000 == 999) {
                    prop_assert!(all.iter().filter(|number| **number / 1000 == watermark / 1000).all(|number| at(number) <= at(watermark)));
                }
                all.sort_unstable();
                expected.sort_unstable();
            }
            prop_assert_eq!(all, expected);
        }
    }
}
