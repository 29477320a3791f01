//! `isolation:` where it cannot be, and what it can be.

use super::{check, errors};

#[test]
fn isolation() {
    let hot = "{input: readings, filter: value > 90}";
    check(&[
        (
            "    format: json\n",
            "    format: json\n    isolation: proces\n",
            "pipeline.yaml:7:16: sources.readings.isolation: unknown value \"proces\", did you mean \"process\"?",
        ),
        (
            "    format: json\n",
            "    format: json\n    isolation: [process]\n",
            "pipeline.yaml:7:16: sources.readings.isolation: expected a map, found a list",
        ),
        (
            "    format: json\n",
            "    format: json\n    isolation: {memory: 64MiB}\n",
            "pipeline.yaml:7:5: sources.readings.isolation: missing key \"mode\"",
        ),
        (
            "    format: json\n",
            "    format: json\n    isolation: {mode: process, memory: 64}\n",
            "pipeline.yaml:7:40: sources.readings.isolation.memory: \"64\" is no size: the unit is missing; write a number and a unit (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB), such as 64MiB",
        ),
        (
            "    format: json\n",
            "    format: json\n    isolation: {mode: process, memory: 1MiB}\n",
            "pipeline.yaml:7:40: sources.readings.isolation.memory: is less than a process has before its plugin has begun; write 16MiB at least",
        ),
        (
            "    format: json\n",
            "    format: json\n    isolation: {mode: none, memory: 64MiB}\n",
            "pipeline.yaml:7:29: sources.readings.isolation.memory: means nothing to mode: none, which is the process of the job",
        ),
        (
            "    format: json\n",
            "    format: json\n    isolation: {mode: process, memry: 64MiB}\n",
            "pipeline.yaml:7:32: sources.readings.isolation: unknown key \"memry\", did you mean \"memory\"?",
        ),
        (
            "    format: json\n",
            "    format: json\n    isolation: {mode: process, sandbox: {red: [data]}}\n",
            "pipeline.yaml:7:42: sources.readings.isolation.sandbox: unknown key \"red\", did you mean \"read\"?",
        ),
        (
            "    format: json\n",
            "    format: json\n    isolation: {mode: process, sandbox: {read: {}}}\n",
            "pipeline.yaml:7:48: sources.readings.isolation.sandbox.read: expected a list, found a map",
        ),
        (
            hot,
            "{input: readings, filter: value > 90, isolation: process}",
            "pipeline.yaml:10:46: transforms.hot: \"isolation\" means nothing to \"filter\": it is about the process of a plugin, and this is no plugin's work",
        ),
        (
            hot,
            "{input: readings, key_by: [host], transform: run-length, isolation: process}",
            "pipeline.yaml:10:65: transforms.hot.isolation: a transform with key_by cannot run in a process of its own: its keyed state is in the job's; leave out isolation, or key_by",
        ),
        (
            "sources:\n",
            "functions: {f: {function: names, isolation: process}}\nsources:\n",
            "pipeline.yaml:2:34: functions.f: \"isolation\" means nothing to a function: it is called where its expression runs; a transform can have a process of its own",
        ),
    ]);
}

#[test]
fn isolation_of_what_can_have_it() {
    let text = super::replaced("    format: json\n", "    format: json\n    isolation: {mode: process, memory: 1GiB}\n");
    let text = text.replace("connector: records, ", "connector: records, isolation: process, ");
    assert_eq!(errors(&text), "");
    assert_eq!(errors(&text.replace("process", "none").replace(", memory: 1GiB", "")), "");
}
