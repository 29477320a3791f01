//! `functions:`: names for functions of plugins, with their configurations. One that needs none is there by its own name.

use super::{
    nodes::{self, Name, With},
    reader::{Item, Section},
};
use crate::text::Text;
use std::collections::HashSet;

pub(crate) const FUNCTION_KEYS: [&str; 2] = ["function", "with"];

#[derive(Debug)]
pub(crate) struct FunctionBlock {
    pub(crate) name: Name,
    pub(crate) function: Text,
    pub(crate) with: With,
}

/// The functions that can be read, and the names of all.
pub(super) fn read(item: Item<'_>) -> Option<(Vec<FunctionBlock>, HashSet<String>)> {
    let section = Section::open_any(item)?;
    let names = section.items().map(|(name, _)| name.to_owned()).collect();
    Some((section.items().filter_map(|(name, item)| function(name, item)).collect(), names))
}

fn function(name: &str, item: Item<'_>) -> Option<FunctionBlock> {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let rest = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !first || !rest || name.len() > 100 {
        // Expressions are SQL, where a name without quotes is read as lower case, and - is a minus.
        let message = "the name of a function begins with a letter and has lower-case letters, digits and _, at most 100 of them";
        item.report.error(item.key_span, &item.path, message);
        return None;
    }
    let section = Section::open_but(item, &FUNCTION_KEYS, &["isolation"], "")?;
    if let Some(item) = section.get("isolation") {
        let message =
            "\"isolation\" means nothing to a function: it is called where its expression runs; a transform can have a process of its own";
        section.report.error(item.key_span, &section.path, message);
        return None;
    }
    let function = section.required("function").and_then(|item| item.text());
    let with = nodes::with(&section);
    Some(FunctionBlock { name: nodes::node_name(name, &section), function: function?, with: with? })
}
