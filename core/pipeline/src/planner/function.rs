//! Functions of plugins that expressions may call: those of `functions:`, and by its own name each that takes an empty configuration.

use super::Planner;
use crate::{
    file::FunctionBlock,
    plan::{FunctionKind, PluginFunction},
};
use serde_json::{Map, Value};

impl Planner<'_> {
    /// All of them. One that is wrong is in the report.
    pub(super) fn functions(&self) -> Vec<PluginFunction> {
        let mut found: Vec<PluginFunction> = self.file.functions.iter().filter_map(|block| self.function(block)).collect();
        let scalars = self.catalogue.scalars().values().cloned().map(FunctionKind::Scalar);
        let aggregates = self.catalogue.aggregates().values().cloned().map(FunctionKind::Aggregate);
        for kind in scalars.chain(aggregates) {
            if self.file.functions.iter().all(|block| block.name.name != kind.name()) {
                found.push(PluginFunction { name: kind.name().to_owned(), kind, config: Value::Object(Map::new()) });
            }
        }
        found
    }

    fn function(&self, block: &FunctionBlock) -> Option<PluginFunction> {
        let (name, wanted) = (&block.name, &block.function);
        if self.expressions.is_built_in(&name.name) {
            self.report.error(name.span, &name.path, format!("there is a function {:?} already; give this one another name", name.name));
            return None;
        }
        let scalar = self.catalogue.scalars().get(&wanted.value).cloned().map(FunctionKind::Scalar);
        let kind = scalar.or_else(|| self.catalogue.aggregates().get(&wanted.value).cloned().map(FunctionKind::Aggregate));
        let kind = self.kind(kind.ok_or_else(|| self.catalogue.no_function(&wanted.value)), wanted, &format!("{}.function", name.path))?;
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
