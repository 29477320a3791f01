//! A partition as a split: its id `topic-3`, what the enumerator tells the reader about it, and its position, the offset of the next record as text.
//! Shared by `enumerator` and `source`.

use serde::{Deserialize, Serialize};
use standpipe_sdk::{Error, Result, Split};

/// What the enumerator says about a split; JSON in `SplitDescription::details` and in the enumerator's snapshot.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The offset to start from without a position; `None`: from the oldest record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<i64>,
    /// The offset to stop before, for a bounded source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<i64>,
}

impl Partition {
    /// The split's id.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }

    /// The partition that a split stands for.
    ///
    /// # Errors
    /// When neither its details nor its id name one.
    pub fn of(split: &Split) -> Result<Self> {
        if !split.details.is_empty() {
            return serde_json::from_str(&split.details)
                .map_err(|error| Error::data(format!("the details of split {:?}: {error}", split.id)));
        }
        let named = split.id.rsplit_once('-').and_then(|(topic, number)| Some((topic, number.parse().ok()?)));
        let (topic, partition) = named.ok_or_else(|| Error::data(format!("{:?} is no split like topic-3", split.id)))?;
        Ok(Self { topic: topic.to_owned(), partition, start: None, end: None })
    }
}

/// The offset that a position stands for; an empty one is none.
///
/// # Errors
/// When it is no offset.
pub fn offset(split: &str, position: &[u8]) -> Result<Option<i64>> {
    if position.is_empty() {
        return Ok(None);
    }
    let offset = std::str::from_utf8(position).ok().and_then(|text| text.parse().ok()).filter(|offset| *offset >= 0);
    offset
        .map(Some)
        .ok_or_else(|| Error::data(format!("the position {:?} of split {split:?} is no offset", String::from_utf8_lossy(position))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(id: &str, details: &str) -> Split {
        Split { id: id.to_owned(), details: details.to_owned(), position: None }
    }

    #[test]
    fn a_split_names_its_partition_by_details_or_by_id() {
        let found = Partition::of(&split("a-b-12", "")).unwrap();
        assert_eq!((found.topic.as_str(), found.partition, found.id().as_str()), ("a-b", 12, "a-b-12"));
        let told = Partition { topic: "t".to_owned(), partition: 1, start: Some(7), end: Some(9) };
        assert_eq!(Partition::of(&split("t-1", &serde_json::to_string(&told).unwrap())).unwrap(), told);
        assert!(Partition::of(&split("topic", "")).is_err() && Partition::of(&split("t-1", "{}")).is_err());
    }

    #[test]
    fn a_position_is_an_offset() {
        assert_eq!(offset("t-0", b"42").unwrap(), Some(42));
        assert_eq!(offset("t-0", b"").unwrap(), None);
        assert!(offset("t-0", b"-1").is_err() && offset("t-0", b"4x").is_err() && offset("t-0", b"\xff").is_err());
    }
}
