//! The path of a folder, and the folder of each row in it: `out/day={ts:%Y-%m-%d}/`. What comes before the first placeholder is the root, which all parts are in.

use super::name::KEPT;
use arrow_array::ArrayRef;
use arrow_schema::Schema;
use percent_encoding::utf8_percent_encode;
use standpipe_formats::template::{Template, TemplateError};
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
        if let Some(segment) = below.split('/').find(|segment| matches!(*segment, "." | "..")) {
            return Err(TemplateError { message: format!("{segment:?} cannot follow a placeholder"), suggestion: None });
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

/// A value as a part of a path: nothing in it leads elsewhere.
fn value(value: Option<&str>, out: &mut String) {
    match value {
        None | Some("") => out.push_str(NULL),
        // They would be this folder and the one above it.
        Some(".") => out.push_str("%2E"),
        Some("..") => out.push_str("%2E%2E"),
        Some(value) => out.extend(utf8_percent_encode(value, KEPT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{RecordBatch, StringArray};
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
    fn the_root_ends_before_the_first_placeholder() {
        assert_eq!(split("out/"), ("out/", ""));
        assert_eq!(split("a/b/day={ts:%F/%H}/x/"), ("a/b/", "day={ts:%F/%H}/x/"));
        assert_eq!(split("{h}/"), ("", "{h}/"));
        assert_eq!(split("s3://bucket/{h}/"), ("s3://bucket/", "{h}/"));
    }
}
