use super::*;
use arrow::array::{Int64Array, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray};
use arrow::datatypes::{Field, Schema};
use proptest::prelude::*;
use std::sync::LazyLock;

const SECOND: Micros = 1_000_000;

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// So many seconds after the test began.
fn at(seconds: u64) -> Instant {
    *BEGIN + Duration::from_secs(seconds)
}

fn watermarks() -> SplitWatermarks {
    let event_time =
        EventTime { column: 0, out_of_orderness: Duration::from_secs(2), idle_timeout: Duration::from_secs(10), alignment: None };
    SplitWatermarks::new(Some(&event_time))
}

fn batch_of(column: ArrayRef) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("ts", column.data_type().clone(), true)]);
    RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap()
}

fn seconds(times: &[i64]) -> RecordBatch {
    batch_of(Arc::new(TimestampSecondArray::from(times.to_vec())))
}

fn mark(time: Micros, holder: &str) -> Mark {
    Mark { time, idle: false, holder: Some(holder.into()) }
}

fn idle(time: Micros) -> Mark {
    Mark { time, idle: true, holder: None }
}

#[test]
fn the_slowest_split_holds_the_watermark() {
    let mut splits = watermarks();
    splits.assigned([("a".into(), NO_WATERMARK), ("b".into(), NO_WATERMARK)]);
    splits.rows("a", &seconds(&[10, 7]), at(0)).unwrap();
    assert_eq!(splits.current(at(0)), mark(NO_WATERMARK, "b"), "b has not been read");
    splits.rows("b", &seconds(&[5]), at(0)).unwrap();
    assert_eq!(splits.current(at(0)), mark(3 * SECOND, "b"));
    splits.rows("b", &seconds(&[4, 30]), at(0)).unwrap();
    assert_eq!(splits.current(at(0)), mark(8 * SECOND, "a"));
    splits.ended("a");
    assert_eq!(splits.current(at(0)), mark(28 * SECOND, "b"));
    splits.ended("b");
    assert_eq!(splits.current(at(0)), idle(28 * SECOND), "END is the reader's to say");
}

#[test]
fn a_split_read_later_holds_it_at_the_minimum_however_long() {
    let mut splits = watermarks();
    splits.assigned([("1.jsonl".into(), NO_WATERMARK), ("2.jsonl".into(), NO_WATERMARK)]);
    splits.rows("1.jsonl", &seconds(&[100]), at(0)).unwrap();
    splits.ended("1.jsonl");
    assert_eq!(splits.current(at(3600)), mark(NO_WATERMARK, "2.jsonl"));
}

#[test]
fn an_empty_split_is_idle_once_the_reader_has_found_it_so() {
    let mut splits = watermarks();
    splits.assigned([("a".into(), NO_WATERMARK), ("empty".into(), NO_WATERMARK)]);
    splits.rows("a", &seconds(&[10]), at(0)).unwrap();
    splits.nothing_to_read(at(1));
    assert_eq!(splits.current(at(2)), mark(NO_WATERMARK, "empty"));
    assert_eq!(splits.next_change(at(2)), Some(at(10)), "a would be idle first");
    splits.rows("a", &seconds(&[11]), at(9)).unwrap();
    assert_eq!(splits.next_change(at(9)), Some(at(11)));
    assert_eq!(splits.current(at(11)), mark(9 * SECOND, "a"));
    assert_eq!(splits.current(at(19)), idle(9 * SECOND));
    assert_eq!(splits.next_change(at(19)), None);
    splits.rows("empty", &seconds(&[3]), at(20)).unwrap();
    assert_eq!(splits.current(at(20)), mark(9 * SECOND, "empty"), "back, and it never goes back");
}

#[test]
fn silence_everywhere_leaves_what_has_come_no_matter_who_was_silent_first() {
    let mut splits = watermarks();
    splits.assigned([("a".into(), NO_WATERMARK), ("b".into(), NO_WATERMARK), ("empty".into(), NO_WATERMARK)]);
    splits.rows("a", &seconds(&[10]), at(0)).unwrap();
    splits.rows("b", &seconds(&[20]), at(0)).unwrap();
    splits.nothing_to_read(at(1));
    assert_eq!(splits.current(at(10)), mark(NO_WATERMARK, "empty"), "a and b are idle, the empty one is not yet");
    assert_eq!(splits.current(at(11)), idle(18 * SECOND));

    let mut edge = EdgeWatermarks::new(2);
    assert_eq!(edge.update(0, idle(18 * SECOND)), None, "the other one has said nothing");
    assert_eq!(edge.update(1, idle(NO_WATERMARK)), Some(idle(18 * SECOND)));
}

#[test]
fn a_split_goes_on_with_the_time_that_was_told_of_it() {
    let mut splits = watermarks();
    splits.assigned([("a".into(), NO_WATERMARK), ("quiet".into(), NO_WATERMARK)]);
    splits.rows("a", &seconds(&[100]), at(0)).unwrap();
    assert_eq!((splits.time_of("a"), splits.time_of("quiet")), (98 * SECOND, NO_WATERMARK));
    splits.nothing_to_read(at(1));
    splits.rows("a", &seconds(&[101]), at(10)).unwrap();
    assert_eq!(splits.current(at(11)), mark(99 * SECOND, "a"));
    assert_eq!(splits.time_of("quiet"), 99 * SECOND, "rows of it before that would be late");
    let mut next = watermarks();
    next.assigned([("a".into(), splits.time_of("a")), ("quiet".into(), splits.time_of("quiet"))]);
    assert_eq!(next.current(at(20)).time, 99 * SECOND);
}

#[test]
fn backpressure_is_no_silence() {
    let mut splits = watermarks();
    splits.assigned([("a".into(), NO_WATERMARK)]);
    splits.rows("a", &seconds(&[10]), at(0)).unwrap();
    splits.not_taken_for(Duration::from_secs(60));
    assert_eq!(splits.current(at(69)), mark(8 * SECOND, "a"));
    assert_eq!(splits.current(at(70)), idle(8 * SECOND));
}

#[test]
fn a_subtask_without_splits_is_idle_as_soon_as_it_knows() {
    let mut splits = watermarks();
    assert_eq!(splits.current(at(0)), NOTHING_YET);
    splits.assigned([]);
    assert_eq!(splits.current(at(0)), idle(NO_WATERMARK));
}

#[test]
fn without_event_time_nothing_is_known_until_the_end() {
    let mut splits = SplitWatermarks::new(None);
    splits.assigned([("a".into(), NO_WATERMARK)]);
    splits.rows("a", &seconds(&[10]), at(0)).unwrap();
    splits.hint("a", 5, at(0));
    splits.nothing_to_read(at(0));
    assert_eq!(splits.current(at(1 << 32)), mark(NO_WATERMARK, "a"));
    assert_eq!(splits.next_change(at(0)), None);
}

#[test]
fn any_unit_counts_and_nulls_do_not() {
    let time = |column: ArrayRef| {
        let mut splits = watermarks();
        splits.assigned([("a".into(), NO_WATERMARK)]);
        splits.rows("a", &batch_of(column), at(0)).unwrap();
        splits.current(at(0)).time
    };
    assert_eq!(time(Arc::new(TimestampMillisecondArray::from(vec![Some(3_500), None, Some(-9)]).with_timezone("+02:00"))), SECOND * 3 / 2);
    assert_eq!(time(Arc::new(TimestampNanosecondArray::from(vec![-1]))), -2 * SECOND - 1);
    assert_eq!(time(Arc::new(TimestampSecondArray::from(vec![i64::MAX]))), END - 2 * SECOND);
    assert_eq!(time(Arc::new(TimestampSecondArray::from(vec![None, None]))), NO_WATERMARK);
    let error = watermarks_error(batch_of(Arc::new(Int64Array::from(vec![1]))));
    assert_eq!(error, "the event time column is Int64, not a timestamp");
}

fn watermarks_error(batch: RecordBatch) -> String {
    let mut splits = watermarks();
    splits.assigned([("a".into(), NO_WATERMARK)]);
    splits.rows("a", &batch, at(0)).unwrap_err()
}

#[test]
fn a_hint_counts_where_it_says_more() {
    let mut splits = watermarks();
    splits.assigned([("a".into(), NO_WATERMARK)]);
    splits.hint("a", 5 * SECOND, at(0));
    assert_eq!(splits.current(at(0)), mark(5 * SECOND, "a"));
    splits.rows("a", &seconds(&[6]), at(0)).unwrap();
    assert_eq!(splits.current(at(0)), mark(5 * SECOND, "a"));
    splits.hint("a", END, at(0));
    assert_eq!(splits.current(at(0)), mark(END - 1, "a"), "only the end is END");
}

#[test]
fn a_split_read_up_to_its_end_is_idle_while_others_are_supplied() {
    let mut splits = watermarks();
    splits.assigned([("busy".into(), NO_WATERMARK), ("quiet".into(), NO_WATERMARK)]);
    splits.read_up_to_its_end("quiet", at(1));
    for second in 0..=10 {
        splits.rows("busy", &seconds(&[100]), at(second)).unwrap();
        splits.read_up_to_its_end("quiet", at(second + 1));
        assert_eq!(splits.current(at(second)), mark(NO_WATERMARK, "quiet"));
    }
    splits.rows("busy", &seconds(&[100]), at(11)).unwrap();
    assert_eq!(splits.current(at(11)), mark(98 * SECOND, "busy"), "it has been quiet for ten seconds");
    splits.assigned([("new".into(), NO_WATERMARK)]);
    splits.read_up_to_its_end("quiet", at(12));
    assert_eq!(splits.current(at(60)).holder.as_deref(), Some("new"), "one split says nothing of another");
}

#[test]
fn a_paused_split_is_waited_for_however_long_and_its_silence_counts_when_it_is_read_again() {
    let mut splits = watermarks();
    splits.assigned([("ahead".into(), NO_WATERMARK), ("slow".into(), NO_WATERMARK)]);
    splits.rows("ahead", &seconds(&[100]), at(0)).unwrap();
    splits.rows("slow", &seconds(&[10]), at(0)).unwrap();
    assert_eq!(splits.ahead(97 * SECOND, at(0)), ["ahead".into()]);
    assert!(splits.ahead(98 * SECOND, at(0)).is_empty(), "it may be as far as that");
    assert!(splits.ahead(0, at(10)).is_empty(), "they are idle: there is nothing to hold back");
    splits.pause("ahead");
    assert!(splits.ahead(97 * SECOND, at(0)).is_empty() && splits.paused().count() == 1);
    splits.nothing_to_read(at(1));
    assert_eq!(splits.current(at(9)), mark(8 * SECOND, "slow"));
    assert_eq!(splits.next_change(at(9)), Some(at(10)), "of the slow one alone");
    assert_eq!(splits.current(at(3600)), mark(98 * SECOND, "ahead"), "the slow one is idle, the paused one is not");
    splits.resume("ahead", at(3600));
    assert_eq!((splits.current(at(3609)), splits.current(at(3610))), (mark(98 * SECOND, "ahead"), idle(98 * SECOND)));
    splits.pause("ahead");
    assert_eq!(splits.current(at(3611)), mark(98 * SECOND, "ahead"), "it has something after all");
    splits.ended("ahead");
    splits.pause("ahead");
    assert_eq!((splits.current(at(3611)), splits.paused().count()), (idle(98 * SECOND), 0));
}

const ENDED: Mark = Mark { time: END, idle: false, holder: None };

#[test]
fn the_end_is_reached_when_all_have_ended() {
    let mut edge = EdgeWatermarks::new(2);
    assert_eq!(edge.update(0, ENDED), None, "the other one has said nothing");
    assert_eq!(edge.update(1, idle(5)), Some(idle(5)), "it is idle, not ended");
    assert_eq!(edge.update(1, mark(7, "b")), Some(mark(7, "b")));
    assert_eq!(edge.update(1, idle(7)), Some(idle(7)));
    assert_eq!(edge.update(1, ENDED), Some(ENDED));
}

/// What a subtask says: how far, idle, or ended.
fn said() -> impl Strategy<Value = (Micros, bool)> {
    prop_oneof![4 => (-20_i64..20, any::<bool>()), 1 => Just((END, false))]
}

proptest! {
    #[test]
    fn an_edge_is_as_far_as_its_slowest_subtask(updates in prop::collection::vec((0_usize..3, said()), 0..40)) {
        let mut edge = EdgeWatermarks::new(3);
        let mut truth = [(NO_WATERMARK, false); 3];
        let mut told = (NO_WATERMARK, false);
        for (subtask, said) in updates {
            truth[subtask] = said;
            let waited_for: Vec<Micros> = truth.iter().filter(|(time, idle)| *time != END && !idle).map(|(time, _)| *time).collect();
            let silent: Vec<Micros> = truth.iter().filter(|(_, idle)| *idle).map(|(time, _)| *time).collect();
            let expected = match (waited_for.iter().min(), silent.iter().max()) {
                (Some(slowest), _) => (told.0.max(*slowest), false),
                (None, Some(furthest)) => (told.0.max(*furthest), true),
                (None, None) => (END, false),
            };
            let update = edge.update(subtask, Mark { time: said.0, idle: said.1, holder: None });
            prop_assert_eq!(update.map(|mark| (mark.time, mark.idle)), (expected != told).then_some(expected));
            told = expected;
        }
    }
}
