//! The path of a folder, and the folder of each row in it: `out/day={ts:%Y-%m-%d}/`. What comes before the first placeholder is the root, which all parts are in.

use super::name::KEPT;
use arrow_array::ArrayRef;
use arrow_schema::Schema;
use percent_encoding::utf8_percent_encode;
use standpipe_formats::template::{Template, TemplateError, Value};
use standpipe_sdk::{Error, Result};
use std::collections::HashMap;

/// Where rows go that have no value for a column of the path; known to Hive and all that read its folders.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The folders of rows.
pub(crate) struct Folders {
    template: Template,
}

/// The rows of a batch that go to one folder.
pub(crate) struct Group {
    /// Below the root, with a `/` at its end unless it is the root.
    pub(super) folder: String,
    /// `None`: all.
    pub(super) rows: Option<Vec<u32>>,
}

/// The root of a path, and what is below it.
pub(super) fn split(path: &str) -> (&str, &str) {
    let open = path.find('{').unwrap_or(path.len());
    path.split_at(path[..open].rfind('/').map_or(0, |slash| slash + 1))
}

impl Folders {
    pub(super) fn compile(below: &str, schema: &Schema) -> Result<Self, TemplateError> {
        // A format has its own way with slashes: what it gives is looked at row by row.
        let literal = without(below, "{", "x");
        let segments = literal.strip_suffix('/').unwrap_or(&literal);
        if !segments.is_empty()
            && let Some(segment) = segments.split('/').find(|segment| matches!(*segment, "" | "." | ".."))
        {
            return Err(TemplateError { message: format!("{segment:?} cannot be a folder behind a column"), suggestion: None });
        }
        Ok(Self { template: Template::compile(below, schema)? })
    }

    /// Tells the rows of a batch apart, each folder once, in the order of their first rows.
    pub(super) fn groups(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Group>> {
        if self.template.is_constant() {
            return Ok(vec![Group { folder: self.template.prefix().to_owned(), rows: None }]);
        }
        let mut texts = self.template.texts(columns)?;
        let mut groups: Vec<(String, Vec<u32>)> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let (mut last, mut folder) = (0, String::new());
        for row in 0..rows {
            folder.clear();
            texts.write(row, &mut folder, value);
            // Neighbours mostly go to the same one.
            if groups.get(last).is_none_or(|(name, _)| *name != folder) {
                last = match known.get(&folder) {
                    Some(at) => *at,
                    None => {
                        known.insert(folder.clone(), groups.len());
                        groups.push((folder.clone(), Vec::new()));
                        groups.len() - 1
                    }
                };
            }
            let (_, members) = groups.get_mut(last).ok_or_else(|| Error::data("a row has no folder"))?;
            members.push(row as u32);
        }
        let is_one = groups.len() == 1;
        Ok(groups.into_iter().map(|(folder, members)| Group { folder, rows: (!is_one).then_some(members) }).collect())
    }
}

/// A text with another in the place of each pair of braces that begins so.
pub(super) fn without(text: &str, open: &str, instead: &str) -> String {
    let mut pieces = text.split(open);
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain.push_str(instead);
        plain.push_str(piece.split_once('}').map_or("", |(_, rest)| rest));
    }
    plain
}

/// A value as a part of a path: nothing in it leads elsewhere. The format of a time may have folders in it.
fn value(value: Value<'_>, out: &mut String) {
    match value {
        Value::Null => out.push_str(NULL),
        Value::Text(text) => segment(text, out),
        Value::Time(text) => {
            for (at, text) in text.split('/').enumerate() {
                if at > 0 {
                    out.push('/');
                }
                segment(text, out);
            }
        }
    }
}

fn segment(text: &str, out: &mut String) {
    match text {
        "" => out.push_str(NULL),
        // They would be this folder and the one above it.
        "." => out.push_str("%2E"),
        ".." => out.push_str("%2E%2E"),
        text => out.extend(utf8_percent_encode(text, KEPT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{RecordBatch, StringArray, TimestampSecondArray};
    use std::sync::Arc;

    fn folders(below: &str, values: &[Option<&str>]) -> Vec<(String, Option<Vec<u32>>)> {
        let column: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        let batch = RecordBatch::try_from_iter_with_nullable([("h", column, true)]).unwrap();
        let folders = Folders::compile(below, &batch.schema()).unwrap();
        folders.groups(batch.columns(), values.len()).unwrap().into_iter().map(|group| (group.folder, group.rows)).collect()
    }

    #[test]
    fn rows_are_told_apart_in_their_order() {
        assert_eq!(folders("", &[Some("a"), None]), [(String::new(), None)]);
        assert_eq!(folders("h={h}/", &[Some("a"), Some("a")]), [("h=a/".to_owned(), None)]);
        let found = folders("h={h}/", &[Some("b"), Some("a"), Some("b"), None, Some("")]);
        let null = format!("h={NULL}/");
        assert_eq!(found, [("h=b/".to_owned(), Some(vec![0, 2])), ("h=a/".to_owned(), Some(vec![1])), (null, Some(vec![3, 4]))]);
    }

    #[test]
    fn no_value_leads_out_of_the_root() {
        for (value, folder) in
            [("..", "%2E%2E/"), (".", "%2E/"), ("../../etc", "..%2F..%2Fetc/"), ("a\nb\\{}", "a%0Ab%5C%7B%7D/"), ("é", "%C3%A9/")]
        {
            assert_eq!(folders("{h}/", &[Some(value)]), [(folder.to_owned(), None)], "{value}");
        }
    }

    #[test]
    fn a_time_may_be_several_folders() {
        let column: ArrayRef = Arc::new(TimestampSecondArray::from(vec![Some(86_400), None]));
        let batch = RecordBatch::try_from_iter_with_nullable([("t", column, true)]).unwrap();
        let folders = Folders::compile("{t:%Y/%m/../%H:%M}/", &batch.schema()).unwrap();
        let found: Vec<_> = folders.groups(batch.columns(), 2).unwrap().into_iter().map(|group| group.folder).collect();
        assert_eq!(found, ["1970/01/%2E%2E/00%3A00/".to_owned(), format!("{NULL}/")]);
        for below in ["{t:%F}//", "{t:%F}/../", "x/./{t:%F}/"] {
            assert!(Folders::compile(below, &batch.schema()).is_err(), "{below}");
        }
    }

    #[test]
    fn the_root_ends_before_the_first_placeholder() {
        assert_eq!(split("out/"), ("out/", ""));
        assert_eq!(split("a/b/day={ts:%F/%H}/x/"), ("a/b/", "day={ts:%F/%H}/x/"));
        assert_eq!(split("{h}/"), ("", "{h}/"));
        assert_eq!(split("s3://bucket/{h}/"), ("s3://bucket/", "{h}/"));
    }
}
