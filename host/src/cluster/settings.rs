//! What the engine runs a pipeline with, and who has said so: what was submitted with it, the pipeline file, or nobody.

use crate::cli::PipelineArguments;
use standpipe_cluster::manager::Setting;
use standpipe_pipeline::{Plan, RestartStrategy, plan::StateBackend};
use std::time::Duration;

/// In the order of a pipeline file.
pub(super) fn of(plan: &Plan, arguments: &PipelineArguments) -> Vec<Setting> {
    let engine = &plan.settings;
    let mut all = vec![
        ("parallelism", engine.parallelism.to_string(), "1"),
        ("engine.max_parallelism", engine.max_parallelism.to_string(), "128"),
        ("engine.batch_rows", engine.batch_rows.to_string(), "8192"),
        ("engine.in_flight_bytes", bytes(engine.in_flight_bytes), "64MiB"),
        ("engine.flush_interval", time(engine.flush_interval), "10ms"),
    ];
    match &plan.state {
        StateBackend::Memory => all.push(("engine.state.backend", "memory".to_owned(), "memory")),
        StateBackend::Disk(disk) => {
            all.push(("engine.state.backend", "disk".to_owned(), "memory"));
            all.push(("engine.state.dir", disk.written().to_owned(), "state"));
            all.push(("engine.state.cache", bytes(disk.cache), "64MiB"));
        }
    }
    match &plan.checkpoint {
        None => all.push(("checkpoint", "none".to_owned(), "none")),
        Some(checkpoint) => {
            all.push(("checkpoint.interval", time(checkpoint.interval), ""));
            all.push(("checkpoint.dir", checkpoint.written().to_owned(), "checkpoints"));
            all.push(("checkpoint.timeout", time(checkpoint.timeout), "10m"));
            all.push(("checkpoint.min_pause", time(checkpoint.min_pause), "0s"));
            all.push(("checkpoint.keep", checkpoint.keep.to_string(), "3"));
            let tolerated = checkpoint.tolerated_failures.map_or_else(|| "any".to_owned(), |most| most.to_string());
            all.push(("checkpoint.tolerated_failures", tolerated, "any"));
        }
    }
    all.push(("restart", restart(&plan.restart), "none"));
    let setting = |(key, value, default): (&str, String, &str)| {
        let origin = if is_submitted(key, arguments) {
            "deployment"
        } else if value == default {
            "default"
        } else {
            "pipeline"
        };
        Setting { key: key.to_owned(), value, origin: origin.to_owned() }
    };
    all.into_iter().map(setting).collect()
}

/// Whether it came beside the pipeline file.
fn is_submitted(key: &str, arguments: &PipelineArguments) -> bool {
    let is_set = |set: &str| set == key || set.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
    // Keys of deployments: `checkpoint.interval` as it is, `batch_rows` without its prefix.
    let of_engine = |set: &str| match set.split('.').next() {
        Some("parallelism" | "checkpoint" | "restart") => set.to_owned(),
        _ => format!("engine.{set}"),
    };
    (key == "parallelism" && arguments.parallelism.is_some())
        || arguments.set.iter().any(|(set, _)| is_set(set))
        || arguments.engine.iter().any(|(set, _)| is_set(&of_engine(set)))
}

fn restart(strategy: &RestartStrategy) -> String {
    match strategy {
        RestartStrategy::None => "none".to_owned(),
        RestartStrategy::FixedDelay { attempts, delay } => format!("fixed-delay, {attempts} attempts, {} apart", time(*delay)),
        RestartStrategy::ExponentialDelay { initial_delay, max_delay, multiplier } => {
            format!("exponential-delay, {} to {}, times {multiplier}", time(*initial_delay), time(*max_delay))
        }
        RestartStrategy::FailureRate { failures, interval, delay } => {
            format!("failure-rate, {failures} in {}, {} apart", time(*interval), time(*delay))
        }
    }
}

/// In the largest unit that leaves nothing over, as pipeline files have it.
fn bytes(size: u64) -> String {
    let units = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, unit)| size > 0 && size.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{size}B"), |(name, unit)| format!("{}{name}", size / unit))
}

/// As [`bytes`].
fn time(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let unit = units.into_iter().find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit));
    let small = || if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") };
    unit.map_or_else(small, |(name, unit)| format!("{}{name}", millis / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_in_a_pipeline_file() {
        assert_eq!([bytes(64 << 20), bytes(1000), bytes(0), bytes(3 << 10)], ["64MiB", "1000B", "0B", "3KiB"]);
        let millis = Duration::from_millis;
        assert_eq!([time(millis(10)), time(millis(600_000)), time(millis(90_000)), time(millis(0))], ["10ms", "10m", "90s", "0s"]);
    }
}
