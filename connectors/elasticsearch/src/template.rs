//! The index template that `open` may put: a mapping derived from the columns, so that a time is a date and a name is not analysed. Composable templates
//! (`_index_template`), which Elasticsearch has since 7.8 and OpenSearch from its start.

use crate::{config::Template, index_name::IndexName};
use arrow_schema::{DataType, Field, Schema};
use serde_json::{Map, Value, json};

/// Above Elasticsearch's own templates (`logs-*-*`: 100). The prefix's length is added: of two templates that fit, the longer prefix wins, and no two are equal.
const PRIORITY: usize = 200;
/// UTF-16 units of a keyword at most; Lucene refuses terms above 32,766 bytes, and a unit has up to 4.
const IGNORE_ABOVE: u32 = 8191;

/// The name of the template: as configured, else the index's text before the first column.
pub(crate) fn name(template: &Template, index: &IndexName) -> Result<String, String> {
    let prefix = index.prefix();
    if prefix.is_empty() {
        return Err("the index starts with a column, so the template would fit every index; put a text before it".to_owned());
    }
    let name = template.name.clone().unwrap_or_else(|| prefix.trim_end_matches(['-', '.', '_']).to_owned());
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(format!("{name:?} is no template name; it has lower-case letters, digits, - _ . only"));
    }
    Ok(name)
}

/// The template as it is put.
pub(crate) fn body(template: &Template, index: &IndexName, schema: &Schema, row_kind: Option<usize>, data_stream: bool) -> Value {
    let prefix = index.prefix();
    let pattern = if index.is_constant() { prefix.to_owned() } else { format!("{prefix}*") };
    let columns = schema.fields().iter().enumerate().filter(|(place, _)| Some(*place) != row_kind).map(|(_, field)| field.as_ref());
    let mappings = json!({ "properties": properties(columns) });
    let mut body = json!({
        "index_patterns": [pattern],
        "priority": PRIORITY + prefix.len(),
        "template": { "settings": template.settings, "mappings": mappings },
        "_meta": { "created_by": "standpipe" },
    });
    if data_stream {
        body["data_stream"] = json!({});
    }
    body
}

fn properties<'a>(fields: impl Iterator<Item = &'a Field>) -> Map<String, Value> {
    fields.filter_map(|field| Some((field.name().clone(), mapping(field.data_type())?))).collect()
}

/// The field type of a column; `None` leaves it to the server.
fn mapping(data_type: &DataType) -> Option<Value> {
    let name = match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 => "byte",
        DataType::Int16 | DataType::UInt8 => "short",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Int64 | DataType::UInt32 => "long",
        DataType::UInt64 => "unsigned_long",
        DataType::Float16 => "half_float",
        DataType::Float32 => "float",
        DataType::Float64 | DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "double"
        }
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => "date",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "binary",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            return Some(json!({ "type": "keyword", "ignore_above": IGNORE_ABOVE }));
        }
        DataType::Time32(_) | DataType::Time64(_) => "keyword",
        DataType::Struct(fields) => return Some(json!({ "properties": properties(fields.iter().map(AsRef::as_ref)) })),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => return mapping(item.data_type()),
        DataType::Dictionary(_, values) => return mapping(values),
        _ => return None,
    };
    Some(json!({ "type": name }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::TimeUnit;

    fn schema() -> Schema {
        let item = Field::new("item", DataType::Int16, true);
        Schema::new(vec![
            Field::new("op", DataType::Utf8, false),
            Field::new("host", DataType::Utf8, true),
            Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
            Field::new("n", DataType::Int64, true),
            Field::new("i", DataType::Int32, true),
            Field::new("v", DataType::Float64, true),
            Field::new("f", DataType::Float32, true),
            Field::new("b", DataType::Boolean, true),
            Field::new("l", DataType::List(item.clone().into()), true),
            Field::new("s", DataType::Struct(vec![item].into()), true),
        ])
    }

    fn template(more: Value) -> Template {
        serde_json::from_value(more).unwrap()
    }

    #[test]
    fn the_mapping_follows_the_columns() {
        let index = IndexName::compile("stats-{ts:%Y.%m.%d}", &schema()).unwrap();
        let body = body(&template(json!({ "settings": { "number_of_replicas": 0 } })), &index, &schema(), Some(0), false);
        assert_eq!(body["index_patterns"], json!(["stats-*"]));
        assert_eq!((&body["priority"], body.get("data_stream")), (&json!(206), None));
        assert_eq!(body["template"]["settings"]["number_of_replicas"], 0);
        let expected = json!({
            "host": { "type": "keyword", "ignore_above": 8191 },
            "ts": { "type": "date" },
            "n": { "type": "long" },
            "i": { "type": "integer" },
            "v": { "type": "double" },
            "f": { "type": "float" },
            "b": { "type": "boolean" },
            "l": { "type": "short" },
            "s": { "properties": { "item": { "type": "short" } } },
        });
        assert_eq!(body["template"]["mappings"]["properties"], expected);
    }

    #[test]
    fn the_name_comes_from_the_prefix() {
        let named = |index: &str, more: Value| name(&template(more), &IndexName::compile(index, &schema()).unwrap());
        assert_eq!(named("stats-{host}", json!({})).unwrap(), "stats");
        assert_eq!(named("stats-{host}", json!({ "name": "mine" })).unwrap(), "mine");
        assert_eq!(named("stats", json!({})).unwrap(), "stats");
        assert!(named("{host}", json!({})).is_err() && named("a", json!({ "name": "A/b" })).is_err());
        let index = IndexName::compile("stats", &schema()).unwrap();
        assert_eq!(body(&template(json!({})), &index, &schema(), None, true)["data_stream"], json!({}));
        assert_eq!(body(&template(json!({})), &index, &schema(), None, false)["index_patterns"], json!(["stats"]));
    }
}
