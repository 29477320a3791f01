//! Verbs, inputs, expressions, plugin transforms.

use super::check;

#[test]
fn transforms() {
    check(&[
        ("{input: readings, filter: value > 90}", "{filter: value > 90}", "pipeline.yaml:10:3: transforms.hot: missing key \"input\""),
        (
            "{input: readings, filter: value > 90}",
            "{input: readings}",
            "pipeline.yaml:10:3: transforms.hot: a transform has exactly one of filter, select, union, transform, aggregate; this one has none",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: readings, filter: value > 90, select: '*'}",
            "pipeline.yaml:10:46: transforms.hot: a transform has exactly one verb; this one has \"filter\" and \"select\"",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: readings, sql: select 1}",
            "pipeline.yaml:10:26: transforms.hot: SQL is not in this release; there are filter, select, union, transform, aggregate",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: reading, filter: value > 90}",
            "pipeline.yaml:10:16: transforms.hot.input: there is no node \"reading\", did you mean \"readings\"?",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: readings.late, filter: value > 90}",
            "pipeline.yaml:10:16: transforms.hot.input: \"readings\" has no output \"late\"; outputs: main, errors",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: readings.lat, filter: value > 90}",
            "pipeline.yaml:10:16: transforms.hot.input: \"readings\" has no output \"lat\"; outputs: main, errors",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: readings, filter: value > 90, parallelism: 0}",
            "pipeline.yaml:10:59: transforms.hot.parallelism: expected a whole number from 1 to 32768, found \"0\"",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: readings, filter: value > 90, parallelism: 129}",
            "pipeline.yaml:10:59: transforms.hot.parallelism: 129 is more than engine.max_parallelism, which is 128",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: out, filter: value > 90}",
            "pipeline.yaml:10:16: transforms.hot.input: \"out\" is a sink; only out.errors, the rows that it rejects, can be read",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: stats.late, filter: value > 90}",
            "pipeline.yaml:10:3: transforms.hot: the nodes are in a cycle: hot -> stats -> hot",
        ),
        (
            "{input: readings, filter: value > 90}",
            "{input: hot, filter: value > 90}",
            "pipeline.yaml:10:3: transforms.hot: \"hot\" reads itself",
        ),
        (
            "filter: value > 90",
            "filter: valu > 90",
            "pipeline.yaml:10:34: transforms.hot.filter: unknown column \"valu\", did you mean \"value\"?",
        ),
        (
            "filter: value > 90",
            "filter: value + 90",
            "pipeline.yaml:10:34: transforms.hot.filter: a filter is a condition (bool), this is float64",
        ),
        ("filter: value > 90", "filter: host > ts", ""),
        ("filter: value > 90", "filter: host + 1 > 2", "pipeline.yaml:10:34: transforms.hot.filter: cannot compute string + int64"),
        (
            "filter: value > 90",
            "filter: value >",
            "pipeline.yaml:10:34: transforms.hot.filter: expected an expression, the expression ends in \"value >\"",
        ),
        (
            "filter: value > 90",
            "filter: {a: 1}",
            "pipeline.yaml:10:34: transforms.hot.filter: expected an expression, found a map: put the expression in quotes",
        ),
        (
            "filter: value > 90",
            "filter: value > 90, key_by: [host]",
            "pipeline.yaml:10:46: transforms.hot: \"key_by\" means nothing to \"filter\": only aggregate and transform have keys",
        ),
        (
            "filter: value > 90",
            "filter: value > 90, with: {}",
            "pipeline.yaml:10:46: transforms.hot: \"with\" means nothing to \"filter\": it is the configuration of a plugin's transform",
        ),
        (
            "filter: value > 90",
            "select: {a: hst, b: valeu}",
            "pipeline.yaml:10:38: transforms.hot.select.a: unknown column \"hst\", did you mean \"host\"?\npipeline.yaml:10:46: transforms.hot.select.b: unknown column \"valeu\", did you mean \"value\"?",
        ),
        ("filter: value > 90", "select: {'*': yes}", "pipeline.yaml:10:40: transforms.hot.select.*: expected true, found \"yes\""),
        ("filter: value > 90", "select: {}", "pipeline.yaml:10:26: transforms.hot.select: at least one column is needed"),
        (
            "input: readings, filter: value > 90",
            "inputs: [readings], union: yes",
            "pipeline.yaml:10:36: transforms.hot.union: expected true, found \"yes\"",
        ),
        (
            "input: readings, filter: value > 90",
            "inputs: [readings, readings], filter: value > 90",
            "pipeline.yaml:10:3: transforms.hot: filter takes one input, not 2; join them by a transform with union: true",
        ),
        (
            "input: readings, filter: value > 90",
            "inputs: [readings, readings.errors], union: true",
            "pipeline.yaml:10:28: transforms.hot.inputs[1]: \"readings\" and \"readings.errors\" cannot be one stream: their columns are host, ts, value and record, reason, split; a select can make them equal",
        ),
        (
            "filter: value > 90",
            "transform: tagg",
            "pipeline.yaml:10:37: transforms.hot.transform: there is no transform \"tagg\", did you mean \"tag\"? Found: run-length, tag. Searched: nothing",
        ),
        (
            "filter: value > 90",
            "transform: run-length, with: {column: value}",
            "pipeline.yaml:10:3: transforms.hot: the transform \"run-length\" needs key_by",
        ),
        (
            "filter: value > 90",
            "transform: run-length, key_by: host, with: {column: valu}",
            "pipeline.yaml:10:78: transforms.hot.with.column: there is no column \"valu\", did you mean \"value\"?",
        ),
    ]);
}

#[test]
fn calls_that_end_later() {
    let filter = "filter: value > 90";
    check(&[
        (
            filter,
            "filter: value > 90, async: {}",
            "pipeline.yaml:10:46: transforms.hot: \"async\" means nothing to \"filter\": it is about the calls of a plugin's transform",
        ),
        (
            filter,
            "transform: tag, async: {capacity: 2}",
            "pipeline.yaml:10:42: transforms.hot: \"async\" means nothing to the transform \"tag\": its calls end when they return",
        ),
        (
            filter,
            "transform: tag, with: {later: true}, key_by: [host]",
            "pipeline.yaml:10:72: transforms.hot.key_by: the transform \"tag\" is asynchronous, and such a one cannot have keys; leave key_by out",
        ),
        (
            filter,
            "transform: tag, with: {later: true}, async: {capacty: 2}",
            "pipeline.yaml:10:71: transforms.hot.async: unknown key \"capacty\", did you mean \"capacity\"?",
        ),
        (
            filter,
            "transform: tag, with: {later: true}, async: {capacity: 0}",
            "pipeline.yaml:10:81: transforms.hot.async.capacity: expected a whole number from 1 to 65536, found \"0\"",
        ),
        (
            filter,
            "transform: tag, with: {later: true}, async: {order: random}",
            "pipeline.yaml:10:78: transforms.hot.async.order: unknown value \"random\"; possible values: input, any",
        ),
        (
            filter,
            "transform: tag, with: {later: true}, async: {timeout: 0s}",
            "pipeline.yaml:10:80: transforms.hot.async.timeout: a call needs longer than 0s",
        ),
        (
            filter,
            "transform: tag, with: {later: true}, async: {timeout: 5}",
            "pipeline.yaml:10:80: transforms.hot.async.timeout: \"5\" is no duration: the unit is missing; write a number and a unit (ns, us, ms, s, m, h, d), such as 10s or 1h30m",
        ),
        (filter, "transform: tag, with: {later: true}, async: 5", "pipeline.yaml:10:70: transforms.hot.async: expected a map, found \"5\""),
    ]);
    let changes = "  counts: {input: readings, key_by: [host], aggregate: {n: count(*)}, emit: changes}\n";
    let any = "{input: counts, transform: tag, with: {later: true, changes: true}, async: {order: any}}\n";
    let text = super::replaced("  hot: {input: readings, filter: value > 90}\n", &format!("{changes}  hot: {any}"));
    let text = text.replace(
        "    key_by: [host]\n    window: {tumbling: 10s}\n    aggregate: {n: count(*), mean: avg(value)}\n",
        "    filter: n > 1\n",
    );
    let found = super::errors(&text);
    assert!(
        found.contains("transforms.hot.async.order: results in any order would swap changes of a row: \"counts\" is an upsert stream"),
        "{found}"
    );
    assert_eq!(super::errors(&text.replace("order: any", "order: input")), "");
}
