use super::*;
use crate::{dataflow::chunk::Origin, runtime::checkpoints::splits::ReadSplit};
use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
};

fn rows(split: &str, position: u8) -> ReaderEvent {
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![1]))]).unwrap();
    let origin = Arc::new(Origin { split: split.into(), after: None, upto: Arc::new([position]) });
    ReaderEvent::Rows { batch, origin, watermark: None }
}

/// An event in a word: `a1` is a batch of the split `a`.
fn word(event: &ReaderEvent) -> String {
    match event {
        ReaderEvent::Rows { origin, .. } => format!("{}{}", origin.split, origin.upto[0]),
        ReaderEvent::EndOfSplit(split) => format!("end of {split}"),
        ReaderEvent::Removed(splits) => format!("removed {}", splits.join(" ")),
        ReaderEvent::Assigned(splits) => splits.iter().map(|split| format!("assigned {}", split.split)).collect(),
        ReaderEvent::Idle => "idle".to_owned(),
        ReaderEvent::End { complete } => format!("end {complete}"),
    }
}

#[test]
fn what_is_held_keeps_its_order_and_the_end_comes_last() {
    let mut held = Held::default();
    held.keep("a".into(), rows("a", 1));
    held.keep("b".into(), rows("b", 1));
    let split = |name: &str| ReadSplit { split: name.into(), position: None, watermark: 0, ended: false };
    let passed: Vec<String> = [
        rows("c", 1),
        rows("a", 2),
        ReaderEvent::Idle,
        ReaderEvent::EndOfSplit("a".into()),
        ReaderEvent::EndOfSplit("c".into()),
        ReaderEvent::Removed(vec!["b".into(), "d".into()]),
        ReaderEvent::Assigned(vec![split("b"), split("e")]),
        ReaderEvent::End { complete: true },
    ]
    .into_iter()
    .filter_map(|event| held.pass(event))
    .map(|event| word(&event))
    .collect();
    assert_eq!(passed, ["c1", "idle", "end of c", "removed d", "assigned e"]);
    let time = |split: &str| if split == "a" { 70 } else { 50 };
    assert!(held.take(time, 49).is_none() && held.end().is_none());
    let taken = |held: &mut Held, limit| word(&held.take(time, limit).unwrap());
    assert_eq!([taken(&mut held, 60), taken(&mut held, 70), taken(&mut held, 60)], ["b1", "removed b", "assigned b"], "the last one first");
    assert!(held.take(time, 60).is_none() && !held.has("b") && held.end().is_none());
    assert_eq!([taken(&mut held, 70), taken(&mut held, 70), taken(&mut held, 70)], ["a1", "a2", "end of a"]);
    assert_eq!(held.end().map(|event| word(&event)).as_deref(), Some("end true"));
    assert!(held.end().is_none(), "it is said once");
}
