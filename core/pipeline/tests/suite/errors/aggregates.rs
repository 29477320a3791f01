//! Aggregates: keys, windows, functions.

use super::check;

#[test]
fn aggregates() {
    check(&[
        (
            "key_by: [host]",
            "key_by: host, value",
            "pipeline.yaml:13:13: transforms.stats.key_by: unknown column \"host, value\"; columns: host, ts, value: several columns are a list: [host, metric]",
        ),
        ("{tumbling: 10s}", "10s", "pipeline.yaml:14:13: transforms.stats.window: expected a map, found \"10s\": write {tumbling: 10s}"),
        (
            "{n: count(*), mean: avg(value)}",
            "count(*)",
            "pipeline.yaml:15:16: transforms.stats.aggregate: expected a map, found \"count(*)\": write {name: \"count(*)\"}",
        ),
        (
            "mean: avg(value)",
            "mean: avg(host)",
            "pipeline.yaml:15:36: transforms.stats.aggregate.mean: avg() takes decimal, duration or float64, not string",
        ),
        ("key_by: [host]", "key_by: [hst]", "pipeline.yaml:13:14: transforms.stats.key_by: unknown column \"hst\", did you mean \"host\"?"),
        (
            "key_by: [host]",
            "key_by: []",
            "pipeline.yaml:13:13: transforms.stats.key_by: at least one column is needed; leave key_by out for one group of all rows",
        ),
        ("key_by: [host]", "key_by: [host, host]", "pipeline.yaml:13:20: transforms.stats.key_by[1]: \"host\" is there twice"),
        (
            "    key_by: [host]\n",
            "    parallelism: 2\n",
            "pipeline.yaml:13:18: transforms.stats.parallelism: an aggregate without key_by is one group of all rows and runs with parallelism 1",
        ),
        (
            "{tumbling: 10s}",
            "{tumbling: 10}",
            "pipeline.yaml:14:24: transforms.stats.window.tumbling: \"10\" is no duration: the unit is missing; write a number and a unit (ns, us, ms, s, m, h, d), such as 10s or 1h30m",
        ),
        ("{tumbling: 10s}", "{tumbling: 0s}", "pipeline.yaml:14:24: transforms.stats.window.tumbling: a window must be longer than 0s"),
        (
            "{tumbling: 10s}",
            "{tumbling: {size: 10s, offset: 10s}}",
            "pipeline.yaml:14:44: transforms.stats.window.tumbling.offset: the offset must be shorter than the window",
        ),
        (
            "{tumbling: 10s}",
            "{tumbling: 1500us}",
            "pipeline.yaml:14:24: transforms.stats.window: a window of 1ms500us is finer than the event time \"ts\", which counts in 1ms",
        ),
        (
            "{tumbling: 10s}",
            "{sliding: {size: 10s, slide: 5s}}",
            "pipeline.yaml:14:14: transforms.stats.window: sliding windows are not in this release; tumbling ones are",
        ),
        (
            "{tumbling: 10s}",
            "{session: {gap: 5s}}",
            "pipeline.yaml:14:14: transforms.stats.window: session windows are not in this release; tumbling ones are",
        ),
        (
            "{tumbling: 10s}",
            "{tumblin: 10s}",
            "pipeline.yaml:14:14: transforms.stats.window: unknown key \"tumblin\", did you mean \"tumbling\"?",
        ),
        (
            "    event_time: {column: ts, out_of_orderness: 2s}\n",
            "",
            "pipeline.yaml:13:5: transforms.stats.window: a window needs an event time, and \"hot\" has none: write event_time: at its source and keep that column as it is on the way",
        ),
        (
            "mean: avg(value)",
            "mean: avg(valu)",
            "pipeline.yaml:15:36: transforms.stats.aggregate.mean: unknown column \"valu\", did you mean \"value\"?",
        ),
        (
            "mean: avg(value)",
            "mean: avgg(value)",
            "pipeline.yaml:15:36: transforms.stats.aggregate.mean: unknown function \"avgg\", did you mean \"avg\"?",
        ),
        (
            "mean: avg(value)",
            "mean: avg(value) * 2",
            "pipeline.yaml:15:36: transforms.stats.aggregate.mean: expected one aggregate function such as avg(value), found \"avg(value) * 2\": compute with its result in a select behind",
        ),
        (
            "mean: avg(value)",
            "host: avg(value)",
            "pipeline.yaml:15:30: transforms.stats.aggregate: there are two output columns \"host\": beside the aggregates there are the keys and what the host adds",
        ),
        (
            "mean: avg(value)",
            "window_end: avg(value)",
            "pipeline.yaml:15:30: transforms.stats.aggregate: there are two output columns \"window_end\": beside the aggregates there are the keys and what the host adds",
        ),
        (
            "    window: {tumbling: 10s}\n",
            "    emit: now\n",
            "pipeline.yaml:14:11: transforms.stats.emit: unknown value \"now\"; possible values: final, changes, each",
        ),
        (
            "{tumbling: 10s}\n",
            "{tumbling: 10s}\n    emit: final\n",
            "pipeline.yaml:15:5: transforms.stats: \"emit\" means nothing to \"aggregate\": a window gives its rows once, when it ends",
        ),
        (
            "    window: {tumbling: 10s}\n    aggregate: {n: count(*), mean: avg(value)}",
            "    aggregate: {n: stddev(value)}",
            "pipeline.yaml:14:20: transforms.stats.aggregate.n: stddev() needs a window; without one there are count, sum, min, max, avg, first_value, last_value",
        ),
        (
            "    window: {tumbling: 10s}\n    aggregate: {n: count(*), mean: avg(value)}",
            "    aggregate: {op: count(*)}\n    emit: changes",
            "pipeline.yaml:14:17: transforms.stats.aggregate: there are two output columns \"op\": beside the aggregates there are the keys and what the host adds",
        ),
        (
            "    window: {tumbling: 10s}\n    aggregate: {n: count(*), mean: avg(value)}",
            "    aggregate: {n: count(distinct host)}",
            "pipeline.yaml:14:20: transforms.stats.aggregate.n: DISTINCT, IGNORE NULLS and several arguments need a window",
        ),
    ]);
}
