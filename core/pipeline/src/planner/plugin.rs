//! What the planner asks of plugins and how it shows their answers: a kind by name, its verdict on `with:`, the column types that it takes.

use super::{Planner, draft::Stream};
use crate::{
    config_check, config_settings,
    diagnostic::{At, Report},
    expression::type_name,
    file::{Name, With},
    text::Text,
};
use arrow_schema::DataType;
use serde_json::Value;
use standpipe_loader::{ErrorCode, NoKind, PluginError, UnknownKind};
use standpipe_sdk::wire::{Problem, TypeClass, ValidationDetails};

impl Planner<'_> {
    /// A kind of the catalogue, or a report of what there is.
    pub(super) fn kind<K>(&self, found: Result<K, NoKind>, wanted: &Text, path: &str) -> Option<K> {
        let shown = |problem: NoKind| match problem {
            problem if !wanted.secret => problem.to_string(),
            NoKind::Unknown(unknown) => UnknownKind { name: wanted.written.clone(), suggestion: None, ..unknown }.to_string(),
            _ if wanted.value.contains('#') => format!("{wanted:?}: a reference cannot be in the path of a plugin"),
            _ => format!("{wanted:?} stands for nothing that is found"),
        };
        found.map_err(|problem| self.report.error(wanted.span, path, shown(problem))).ok()
    }

    /// Checks `with:` against the kind's schema and gives it as JSON. References are resolved where the schema takes no text: there they are settings.
    pub(super) fn configuration(&self, with: &With, name: &Name, schema: &Value) -> Option<Value> {
        let found = Report::new(self.report.sources().to_vec());
        let with = &config_settings::resolved(with, schema);
        config_check::check(with, &with_path(name), schema, &found);
        if !found.is_clean() {
            self.report.append(&found);
            return None;
        }
        Some(with.node.to_json())
    }

    /// The answer of a plugin, its failure and its findings reported.
    pub(super) fn answer<V>(
        &self,
        answer: Result<V, PluginError>,
        details: impl Fn(&V) -> &ValidationDetails,
        with: &With,
        name: &Name,
    ) -> Option<V> {
        match answer {
            Ok(answer) => {
                let problems = &details(&answer).problems;
                problems.iter().for_each(|problem| self.problem(problem, with, name));
                problems.is_empty().then_some(answer)
            }
            Err(error) => {
                self.plugin_error(&error, with, name);
                None
            }
        }
    }

    fn problem(&self, problem: &Problem, with: &With, name: &Name) {
        let place = config_check::find(with, &with_path(name), &problem.path);
        self.report.error(place.span, &place.path, with_suggestion(&problem.message, problem.suggestion.as_deref()));
    }

    fn plugin_error(&self, error: &PluginError, with: &With, name: &Name) {
        let detail = |key: &str| error.details.get(key).and_then(Value::as_str);
        let message = with_suggestion(&error.message, detail("suggestion"));
        let kind = &error.origin.kind;
        let (place, path) = match detail("path") {
            Some(path) => {
                let place = config_check::find(with, &with_path(name), path);
                (place.span, place.path)
            }
            None => (name.span, name.path.clone()),
        };
        match error.code {
            ErrorCode::PANIC => self.report.error(place, &path, format!("plugin {kind:?} {message}")),
            ErrorCode::EXTERNAL => self.report.external(place, &path, format!("{kind}: {message}")),
            _ => self.report.error(place, &path, format!("{kind}: {message}")),
        }
    }

    /// Reports columns of types that the plugin does not take.
    pub(super) fn takes_types(&self, stream: &Stream, types: &[TypeClass], what: &str) -> Option<()> {
        let Some(field) = stream.schema().fields().iter().find(|field| !is_taken(field.data_type(), types)) else { return Some(()) };
        let (name, data_type) = (field.name(), type_name(field.data_type()));
        let message = format!("{what} does not take the column {name:?} of type {data_type}; leave it out or cast it in a select");
        self.report.error(stream.span, &stream.path, message);
        None
    }

    /// A parallelism within what the plugin can do: `None` if the file asks for more.
    pub(super) fn within(&self, own: Option<&At<u32>>, name: &Name, most: Option<u32>) -> Option<u32> {
        let parallelism = self.parallelism_of(own, name)?;
        let Some(most) = most.filter(|most| *most < parallelism) else { return Some(parallelism) };
        if let Some(own) = own {
            let path = format!("{}.parallelism", name.path);
            let subtasks = if most == 1 { "1 subtask".to_owned() } else { format!("{most} subtasks") };
            let message = format!("this plugin runs with at most {subtasks} with this configuration, not {}", own.value);
            self.report.error(own.span, &path, message);
            return None;
        }
        Some(most.max(1))
    }
}

fn with_path(name: &Name) -> String {
    format!("{}.with", name.path)
}

fn with_suggestion(message: &str, suggestion: Option<&str>) -> String {
    match suggestion {
        Some(suggestion) => format!("{message}, did you mean {suggestion:?}?"),
        None => message.to_owned(),
    }
}

fn is_taken(data_type: &DataType, types: &[TypeClass]) -> bool {
    let has = |class: TypeClass| types.contains(&class);
    match data_type {
        DataType::Dictionary(_, value) => has(TypeClass::Dictionary) && is_taken(value, types),
        DataType::LargeUtf8 | DataType::LargeBinary => has(TypeClass::Large),
        DataType::Utf8View | DataType::BinaryView => has(TypeClass::View),
        DataType::LargeList(item) => has(TypeClass::Large) && has(TypeClass::Nested) && is_taken(item.data_type(), types),
        DataType::ListView(item) | DataType::LargeListView(item) => has(TypeClass::ListView) && is_taken(item.data_type(), types),
        DataType::RunEndEncoded(_, values) => has(TypeClass::RunEnd) && is_taken(values.data_type(), types),
        DataType::List(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => {
            has(TypeClass::Nested) && is_taken(item.data_type(), types)
        }
        DataType::Struct(fields) => has(TypeClass::Nested) && fields.iter().all(|field| is_taken(field.data_type(), types)),
        _ => true,
    }
}
