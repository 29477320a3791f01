//! The keys of the job as a whole, and what the command line says instead.

use super::{GOOD, check};
use crate::fixture::plan_with;
use standpipe_pipeline::{Defaults, LoadOptions};
use std::num::NonZeroU32;

#[test]
fn keys_and_values() {
    check(&[
        ("name: metrics\n", "", "pipeline.yaml:1:1: missing key \"name\""),
        ("name: metrics", "nam: metrics", "pipeline.yaml:1:1: unknown key \"nam\", did you mean \"name\"?"),
        ("name: metrics", "name: [metrics]", "pipeline.yaml:1:7: name: expected text, found a list"),
        ("name: metrics", "name:", "pipeline.yaml:1:1: name: expected text, found nothing"),
        ("name: metrics", "name: \"a\\nb\"", "pipeline.yaml:1:7: name: a job's name has up to 200 bytes and no control characters"),
        (
            "name: metrics",
            "name: metrics\ncheckpoint: {interval: 1s, dir: 'foo://x'}",
            "pipeline.yaml:2:33: checkpoint.dir: \"foo://x\" is no place for checkpoints: use a folder, file://, s3://, gs:// or az://",
        ),
        (
            "name: metrics",
            "name: metrics\nparallelism: two",
            "pipeline.yaml:2:14: parallelism: expected a whole number from 1 to 32768, found \"two\"",
        ),
        (
            "name: metrics",
            "name: metrics\nparallelism: 0",
            "pipeline.yaml:2:14: parallelism: expected a whole number from 1 to 32768, found \"0\"",
        ),
        (
            "name: metrics",
            "name: metrics\nparallelism: 200",
            "pipeline.yaml:2:14: parallelism: 200 is more than engine.max_parallelism, which is 128",
        ),
        (
            "name: metrics",
            "name: metrics\nengine: {batchrows: 5}",
            "pipeline.yaml:2:10: engine: unknown key \"batchrows\", did you mean \"batch_rows\"?",
        ),
        (
            "name: metrics",
            "name: metrics\nengine: {in_flight_bytes: 64}",
            "pipeline.yaml:2:27: engine.in_flight_bytes: \"64\" is no size: the unit is missing; write a number and a unit (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB), such as 64MiB",
        ),
        (
            "name: metrics",
            "name: metrics\nengine: {flush_interval: 0s}",
            "pipeline.yaml:2:26: engine.flush_interval: must be from 1ms to 1m",
        ),
        (
            "name: metrics",
            "name: metrics\nengine: {metrics: localhost}",
            "pipeline.yaml:2:19: engine.metrics: expected an address and a port, such as 127.0.0.1:9249",
        ),
        (
            "name: metrics",
            "name: metrics\nengine: {state: {backend: rocksdb}}",
            "pipeline.yaml:2:27: engine.state.backend: unknown value \"rocksdb\"; possible values: memory, disk",
        ),
        (
            "name: metrics",
            "name: metrics\nengine: {state: {backend: disk, cache: 5kB, dir: ''}}",
            "pipeline.yaml:2:40: engine.state.cache: must be at least 1MiB\npipeline.yaml:2:50: engine.state.dir: expected text, found \"\"",
        ),
        (
            "name: metrics",
            "name: metrics\nengine: {state: {backend: memory, dir: x}}",
            "pipeline.yaml:2:35: engine.state: \"dir\" means nothing to the backend memory",
        ),
        ("name: metrics", "name: metrics\nengine: {state: {dir: x}}", "pipeline.yaml:2:10: engine.state: missing key \"backend\""),
        ("name: metrics", "name: metrics\ndeployment: []", "pipeline.yaml:2:13: deployment: expected a map, found a list"),
        (
            "name: metrics",
            "name: metrics\ndeployment_mode: cli",
            "pipeline.yaml:2:1: \"deployment_mode\" is a key of deployment: write deployment: {deployment_mode: ...}",
        ),
        (
            "name: metrics",
            "name: metrics\nrestart: {strategy: never}",
            "pipeline.yaml:2:21: restart.strategy: unknown value \"never\"; possible values: none, fixed-delay, exponential-delay, failure-rate",
        ),
        (
            "name: metrics",
            "name: metrics\nrestart: {strategy: fixed-delay, attempts: 3, failures: 1}",
            "pipeline.yaml:2:1: restart: missing key \"delay\"\npipeline.yaml:2:47: restart: \"failures\" means nothing to the strategy fixed-delay, which has strategy, attempts, delay",
        ),
        ("name: metrics", "name: metrics\ncheckpoint: {interval: 0s}", "pipeline.yaml:2:24: checkpoint.interval: must be more than 0s"),
        ("name: metrics", "name: ${STANDPIPE_NO_SUCH}", "pipeline.yaml:1:7: name: the environment variable STANDPIPE_NO_SUCH is not set"),
        (
            "path: in.jsonl",
            "path: '${file:/no/such}'",
            "pipeline.yaml:5:18: sources.readings.with.path: ${file:/no/such}: cannot read the file: there is none",
        ),
        (
            "  stats:\n",
            "  2stats:\n",
            "pipeline.yaml:11:3: transforms.2stats: a name begins with a letter and has letters, digits, _ and -, at most 100 of them\n\
             pipeline.yaml:17:16: sinks.out.input: there is no node \"stats\", did you mean \"2stats\"?",
        ),
        (
            "  hot: {",
            "  readings: {",
            "pipeline.yaml:10:3: transforms.readings: the name \"readings\" is taken by sources.readings\n\
             pipeline.yaml:12:12: transforms.stats.input: there is no node \"hot\"; nodes: readings",
        ),
    ]);
}

#[test]
fn what_the_command_line_says_is_named() {
    let set = |key: &str, value: &str| LoadOptions { set: vec![(key.to_owned(), value.to_owned())], ..Default::default() };
    let found = |options: &LoadOptions| plan_with(GOOD, options, &Defaults::default()).map(|_| ()).unwrap_err();
    assert_eq!(
        found(&set("sinks.out.with.pth", "x")),
        "--set sinks.out.with.pth=x: sinks.out.with: unknown key \"pth\"; keys: key, single"
    );
    assert_eq!(
        found(&set("transforms.hot.filter", "valu > 1")),
        "--set transforms.hot.filter=valu > 1: transforms.hot.filter: unknown column \"valu\", did you mean \"value\"?"
    );
    let parallelism = LoadOptions { parallelism: Some(129), ..Default::default() };
    assert_eq!(found(&parallelism), "--parallelism: parallelism: 129 is more than engine.max_parallelism, which is 128");
    let none = LoadOptions { parallelism: Some(0), ..Default::default() };
    assert_eq!(found(&none), "--parallelism: parallelism: expected a whole number from 1 to 32768, found \"0\"");
    let configured = Defaults { parallelism: NonZeroU32::new(500) };
    let found = plan_with(GOOD, &LoadOptions::default(), &configured).map(|_| ()).unwrap_err();
    assert_eq!(found, "pipeline.yaml: parallelism: 500 is more than engine.max_parallelism, which is 128");
}
