//! A plugin in C: the same tables, the same path.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{catalogue, compile, context, input, numbers};
use serde_json::json;
use standpipe_loader::{
    CloseReason, Committable, ErrorCode, Flavour, Polled, Recovered, SplitPosition, Written,
    wire::{ChangeMode, TypeClass},
};
use standpipe_sdk::testing::TestHost;
use std::{sync::Arc, time::Duration};

#[test]
fn a_source_in_c_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let catalogue = catalogue(&[&compile(directory.path(), "plugin", "plugin.c", &[])]);
    assert_eq!(catalogue.failures(), []);
    let source = catalogue.source("c_numbers").unwrap();
    let plugin = source.plugin();
    assert_eq!((plugin.name.as_str(), plugin.version.as_str(), plugin.flavour), ("c-fixture", "1.2.3", Flavour::C));
    assert_eq!((plugin.hash().len(), plugin.description.kinds.len()), (64, 4));
    assert_eq!(source.config_schema(), &json!({ "type": "object" }));
    let config = json!({ "rows": 5 });
    assert_eq!(source.validate("node", &config).unwrap().schema.field(0).name(), "number");

    let host = Arc::new(TestHost::default());
    let mut enumerator = source.enumerator(&config, &context(), host.clone()).unwrap();
    enumerator.open().unwrap();
    let found = enumerator.discover(Duration::ZERO).unwrap();
    assert_eq!((found.added[0].split.as_str(), found.exhausted), ("0", true));
    assert_eq!(enumerator.snapshot().unwrap(), b"");

    let mut reader = source.reader(&config, &context(), host.clone()).unwrap();
    reader.open().unwrap();
    reader.assign(&[SplitPosition { split: "0".to_owned(), details: String::new(), position: Some(b"2".to_vec()) }]).unwrap();
    match reader.poll(2, 1 << 20, Duration::ZERO).unwrap() {
        Polled::Batch { split, batch, position, watermark } => {
            assert_eq!((split.as_str(), position.as_slice(), watermark), ("0", &b"4"[..], None));
            assert_eq!(batch.columns(), numbers(&[2, 3]).columns());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reader.lag()[0].records, Some(1));
    assert!(matches!(reader.poll(2, 1 << 20, Duration::ZERO).unwrap(), Polled::Batch { batch, .. } if batch.num_rows() == 1));
    assert!(matches!(reader.poll(2, 1 << 20, Duration::ZERO).unwrap(), Polled::EndOfSplit(split) if split == "0"));
    assert!(matches!(reader.poll(2, 1 << 20, Duration::ZERO).unwrap(), Polled::Idle));
    assert_eq!(reader.unassign(&["0".to_owned()]).unwrap_err().code, ErrorCode::UNSUPPORTED);
    reader.close(CloseReason::Finished).unwrap();
    assert_eq!(host.logs()[0].1, json!({ "message": "created", "subtask": 0 }));
    let error = source.reader(&json!({ "rows": -1 }), &context(), host).err().unwrap();
    assert_eq!(error.to_string(), "sources.node: c_numbers: rows is negative");
    assert_eq!(error.plugin, "c-fixture (plugin.so 1.2.3)");
}

#[test]
fn a_transform_in_c_changes_rows() {
    let directory = tempfile::tempdir().unwrap();
    let catalogue = catalogue(&[&compile(directory.path(), "plugin", "plugin.c", &[])]);
    let negate = catalogue.transform("c_negate").unwrap();
    let rows = numbers(&[1, -2, 3]);
    let two = [input(&rows, &[]), input(&rows, &[])];
    assert_eq!(negate.validate("n", &json!({}), &two, false).unwrap().details.problems[0].message, "takes one input");
    let host = Arc::new(TestHost::default());
    let mut instance = negate.instance(&json!({}), "n", &two[..1], false, &context(), host).unwrap();
    instance.open().unwrap();
    for batch in [rows.clone(), rows.slice(1, 2), rows.slice(3, 0)] {
        let emitted = instance.process(0, &batch, None).unwrap();
        let values: Vec<i64> =
            batch.column(0).to_data().buffers()[0].typed_data::<i64>()[batch.column(0).offset()..][..batch.num_rows()].to_vec();
        let negated: Vec<i64> = values.iter().map(|value| -value).collect();
        assert_eq!(emitted[0].batch.columns(), numbers(&negated).columns());
    }
    assert_eq!(instance.process(1, &rows, None).unwrap_err().message, "there is no input 1");
}

#[test]
fn a_sink_in_c_acknowledges_and_rejects() {
    let directory = tempfile::tempdir().unwrap();
    let catalogue = catalogue(&[&compile(directory.path(), "plugin", "plugin.c", &[])]);
    let sum = catalogue.sink("c_sum").unwrap();
    let rows = numbers(&[1, -2, 3]);
    let details = sum.validate(&json!({}), &input(&rows, &[]), "out").unwrap().details;
    assert_eq!((details.capabilities.idempotent, details.max_subtasks), (true, Some(1)));
    let host = Arc::new(TestHost::default());
    let mut instance = sum.instance(&json!({}), "out", &input(&rows, &[]), &context(), host.clone()).unwrap();
    instance.open().unwrap();
    assert_eq!(instance.write(1, &rows).unwrap(), Written::Taken);
    assert_eq!(host.acknowledged(), 1);
    let rejected = host.rejections();
    assert_eq!((rejected.len(), rejected[0].1.row, rejected[0].1.reason.as_str()), (1, 1, "negative"));
    assert_eq!(instance.prepare(1).unwrap(), b"4");
    let prepared = [Committable { checkpoint: 1, subtask: 0, bytes: b"4".to_vec() }];
    instance.commit(1, &prepared).unwrap();
    assert_eq!(instance.recover(&prepared).unwrap(), [Recovered::Commit]);
    let text = common::keyed(&["a"], &[1]);
    let mut wrong = sum.instance(&json!({}), "out", &input(&text, &[]), &context(), host).unwrap();
    assert_eq!(wrong.open().unwrap_err().to_string(), "sinks.out: c_sum: the first column must be int64");
}

/// What the transform of the fixture says with these details.
fn details(details: &str) -> Result<standpipe_loader::wire::ValidationDetails, String> {
    let directory = tempfile::tempdir().unwrap();
    let argument = format!("-DDETAILS={details:?}");
    let catalogue = catalogue(&[&compile(directory.path(), "later", "plugin.c", &[&argument])]);
    let negate = catalogue.transform("c_negate").unwrap();
    let validation = negate.validate("n", &json!({}), &[input(&numbers(&[]), &[])], false);
    validation.map(|validation| validation.details).map_err(|error| error.to_string())
}

#[test]
fn words_of_a_later_minor_version() {
    let known = details(r#"{"outputs": [{"name": "main"}], "types": ["tensor", "view"], "accepts": ["upsert", "partial"]}"#).unwrap();
    assert_eq!((known.types, known.accepts), (vec![TypeClass::View], vec![ChangeMode::Upsert]));
    let unknown = details(r#"{"outputs": [{"name": "main", "mode": "partial"}]}"#).unwrap_err();
    let expected = "transforms.n: c_negate: plugin c-fixture (later.so 1.2.3) needs a newer host: it gives the output \"main\" the change mode \"partial\", \
                    which plugin ABI 1.1 does not have";
    assert_eq!(unknown, expected);
}
