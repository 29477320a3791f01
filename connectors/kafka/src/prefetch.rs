//! How a reader fetches: how long a fetch waits for data, and how much is fetched ahead, room in memory that `source` shares out among its partitions before it makes its consumer. librdkafka's limit counts for each
//! partition where each has a queue of its own, so it must be smaller the more partitions there are. What a user sets stands.

use crate::values::PropertyValue;
use rdkafka::ClientConfig;
use std::{collections::BTreeMap, time::Duration};

/// What waits in the queues of a subtask, about: kibibytes.
const BUDGET: usize = 32 << 10;
/// For one partition, kibibytes. Less than one fetch would stop the fetching after every answer, more does not make it faster.
const SMALLEST: usize = 1 << 10;
const LARGEST: usize = 16 << 10;
/// Bytes that are asked for at once, of one partition. A queue may hold as much again beyond its limit: what was asked for while there was room.
const LARGEST_FETCH: usize = 1 << 20;
const SMALLEST_FETCH: usize = 256 << 10;

/// librdkafka's `fetch.wait.max.ms` where the user sets none.
const FETCH_WAIT: Duration = Duration::from_millis(500);

/// How long a broker holds a fetch where there is nothing to fetch.
pub fn fetch_wait(settings: &ClientConfig) -> Duration {
    settings.get("fetch.wait.max.ms").and_then(|value| value.parse().ok()).map_or(FETCH_WAIT, Duration::from_millis)
}

/// The properties that bound the queues of a reader of so many partitions, without those that the user has set.
pub fn limits(partitions: usize, properties: &BTreeMap<String, PropertyValue>) -> Vec<(&'static str, String)> {
    let share = BUDGET / partitions.max(1);
    let queue = share.clamp(SMALLEST, LARGEST);
    let fetch = (share << 10).clamp(SMALLEST_FETCH, LARGEST_FETCH);
    let ours = [("queued.max.messages.kbytes", None, queue), ("fetch.message.max.bytes", Some("max.partition.fetch.bytes"), fetch)];
    let is_set = |name: &str| properties.contains_key(name);
    let free = ours.into_iter().filter(|(name, alias, _)| !is_set(name) && !alias.is_some_and(is_set));
    free.map(|(name, _, value)| (name, value.to_string())).collect()
}

/// Sets them.
pub(crate) fn bound(settings: &mut ClientConfig, partitions: usize, properties: &BTreeMap<String, PropertyValue>) {
    settings.extend(limits(partitions, properties).into_iter().map(|(name, value)| (name.to_owned(), value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_waits_as_long_as_the_user_says() {
        let mut settings = ClientConfig::new();
        assert_eq!(fetch_wait(&settings), Duration::from_millis(500));
        settings.set("fetch.wait.max.ms", "30000");
        assert_eq!(fetch_wait(&settings), Duration::from_secs(30));
    }

    fn of(partitions: usize, set: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        limits(partitions, &set.iter().map(|(name, value)| ((*name).to_owned(), PropertyValue((*value).to_owned()))).collect())
    }

    fn numbers(partitions: usize) -> (usize, usize) {
        let found = of(partitions, &[]);
        let [(_, queue), (_, fetch)] = found.as_slice() else { panic!("{found:?}") };
        (queue.parse().unwrap(), fetch.parse().unwrap())
    }

    #[test]
    fn partitions_share_the_room_of_a_reader() {
        assert_eq!(
            [0, 1, 2, 4, 32, 60, 5_000].map(|partitions| numbers(partitions).0),
            [16_384, 16_384, 16_384, 8_192, 1_024, 1_024, 1_024]
        );
        assert_eq!([1, 32, 64, 5_000].map(|partitions| numbers(partitions).1), [1 << 20, 1 << 20, 512 << 10, 256 << 10]);
        for partitions in 1..200 {
            let (queue, fetch) = numbers(partitions);
            assert!(fetch <= queue << 10 && (partitions > 32 || partitions * queue <= BUDGET), "{partitions}: {queue} KiB, {fetch} bytes");
        }
    }

    #[test]
    fn what_a_user_sets_stands() {
        assert_eq!(of(60, &[("queued.max.messages.kbytes", "5")])[0].0, "fetch.message.max.bytes");
        for name in ["fetch.message.max.bytes", "max.partition.fetch.bytes"] {
            assert_eq!(of(60, &[(name, "2000000")]), [("queued.max.messages.kbytes", "1024".to_owned())]);
        }
    }

    #[test]
    fn librdkafka_takes_them() {
        for partitions in [1, 5_000] {
            let mut settings = ClientConfig::new();
            bound(&mut settings, partitions, &BTreeMap::new());
            let made = settings.create_native_config().unwrap();
            assert_eq!(made.get("queued.max.messages.kbytes").unwrap(), numbers(partitions).0.to_string());
            assert_eq!(made.get("max.partition.fetch.bytes").unwrap(), numbers(partitions).1.to_string());
        }
    }
}
