//! What cannot be gone on from: state that does not fit the pipeline, a damaged file, a job that was drained.

use super::*;

/// A plan whose second node has another name, or is something else.
fn with_node(name: &str, node: &str, is_window: bool) -> Plan {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 1, config(name, json!({"rate": 20_000})));
    let middle = match is_window {
        true => plan.window(node, 1, source, Duration::from_secs(1)),
        false => plan.tally(node, 1, source, json!({})),
    };
    plan.ledger("out", 1, middle, config(name, json!({})));
    plan.build()
}

#[test]
fn state_that_does_not_fit_the_pipeline_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let job = start(with_node("misfit", "stats", true), folder.path());
    until("a checkpoint", || completed(&job) > 0);
    job.control().stop(false);
    ended(&job).unwrap();
    let id = newest(folder.path()).id;

    let other = refused(with_node("misfit", "others", true), folder.path());
    let expected = "it has state of transforms.stats, which is not in the pipeline; --allow-non-restored-state leaves it behind";
    assert_eq!(other, format!("checkpoint {id}: {expected}"));
    let kind = refused(with_node("misfit", "stats", false), folder.path());
    let expected = "transforms.stats was a window, which it is not any more; give the new one another name";
    assert_eq!(kind, format!("checkpoint {id}: {expected}"));
    let mut groups = with_node("misfit", "stats", true);
    groups.settings.max_parallelism = 64;
    let expected = "its state is in 128 key groups, the pipeline's engine.max_parallelism is 64; that is fixed with a job's first start";
    assert_eq!(refused(groups, folder.path()), format!("checkpoint {id}: {expected}"));

    let mut allowing = options(folder.path(), Start::Latest, INTERVAL);
    allowing.checkpoints.as_mut().unwrap().allow_non_restored_state = true;
    let job = run(Arc::new(with_node("misfit", "others", true)), allowing).unwrap();
    until("it goes on", || completed(&job) > 0);
    job.control().stop(false);
    ended(&job).unwrap();
}

#[test]
fn a_damaged_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let job = start(simple("damaged", json!({"rate": 20_000})), folder.path());
    until("a checkpoint", || completed(&job) > 0);
    job.control().stop(false);
    ended(&job).unwrap();
    let manifest = newest(folder.path());
    let file = manifest.files().find(|file| file.path.contains("splits")).unwrap();
    let path = folder.path().join("job").join(&file.path);
    let mut content = fs::read(&path).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(&path, content).unwrap();
    let error = refused(simple("damaged", json!({"rate": 20_000})), folder.path());
    let expected = format!("checkpoint {}: sources.numbers: job/{}: its content is not what was written", manifest.id, file.path);
    assert_eq!(error, expected);
}

#[test]
fn a_job_that_was_drained_does_not_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let job = start(with_node("drained", "stats", true), folder.path());
    until("a checkpoint", || completed(&job) > 0);
    job.control().stop(true);
    ended(&job).unwrap();
    assert!(newest(folder.path()).drained);
    let error = refused(with_node("drained", "stats", true), folder.path());
    assert!(error.contains("the job had been drained: its windows have fired before their time"), "{error}");
}
