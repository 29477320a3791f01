//! Functions of plugins that expressions may call: those of `functions:`, and by its own name each that takes an empty configuration.

use super::Planner;
use crate::{
    file::FunctionBlock,
    plan::{FunctionKind, PluginFunction},
};
use serde_json::{Map, Value};
use standpipe_loader::NoKind;
use std::collections::BTreeMap;

impl Planner<'_> {
    /// All of them, and by name why one that is there cannot be called. One of `functions:` that is wrong is in the report.
    pub(super) fn functions(&self) -> (Vec<PluginFunction>, BTreeMap<String, String>) {
        let mut found: Vec<PluginFunction> = self.file.functions.iter().filter_map(|block| self.function(block)).collect();
        let mut refused = BTreeMap::new();
        let scalars = self.catalogue.names("scalar").map(|name| (name, self.catalogue.scalar(name).map(FunctionKind::Scalar)));
        let aggregates = self.catalogue.names("aggregate").map(|name| (name, self.catalogue.aggregate(name).map(FunctionKind::Aggregate)));
        for (name, kind) in scalars.chain(aggregates) {
            if self.file.functions.iter().any(|block| block.name.name == *name) {
                continue;
            }
            match kind {
                Ok(kind) => found.push(PluginFunction { name: name.clone(), kind, config: Value::Object(Map::new()) }),
                Err(why) => _ = refused.insert(name.clone(), why.to_string()),
            }
        }
        (found, refused)
    }

    /// The function that is named, scalar before aggregate.
    fn function_kind(&self, reference: &str) -> Result<FunctionKind, NoKind> {
        let scalar = self.catalogue.scalar(reference).map(FunctionKind::Scalar);
        let aggregate = || match self.catalogue.aggregate(reference).map(FunctionKind::Aggregate) {
            Err(problem) if problem.is_unknown() => Err(self.catalogue.no_function(reference)),
            found => found,
        };
        scalar.or_else(|problem| if problem.is_unknown() { aggregate() } else { Err(problem) })
    }

    fn function(&self, block: &FunctionBlock) -> Option<PluginFunction> {
        let (name, wanted) = (&block.name, &block.function);
        if self.expressions.is_built_in(&name.name) {
            self.report.error(name.span, &name.path, format!("there is a function {:?} already; give this one another name", name.name));
            return None;
        }
        let kind = self.kind(self.function_kind(&wanted.value), wanted, &format!("{}.function", name.path))?;
        let config = self.configuration(&block.with, name, kind.config_schema())?;
        if let Some(reference) = reference(&config) {
            let message = format!(
                "{reference:?}: the configuration of a function has no references in texts; it is pure, and asks the host for nothing"
            );
            self.report.error(block.with.span, &format!("{}.with", name.path), message);
            return None;
        }
        Some(PluginFunction { name: name.name.clone(), kind, config })
    }
}

/// A text that refers to something outside.
fn reference(config: &Value) -> Option<&str> {
    match config {
        Value::String(text) if standpipe_sdk::is_reference(text) => Some(text),
        Value::Array(items) => items.iter().find_map(reference),
        Value::Object(members) => members.values().find_map(reference),
        _ => None,
    }
}
