//! Texts made of a row's values: `day={ts:%Y-%m-%d}/{host}`. A placeholder is a column, for a time with a format of strftime. Compiled and checked against the
//! schema without I/O; per batch the columns are looked at once, and a time is formatted once per second, minute, hour or day, as its format needs.
//!
//! What a value must look like to be part of a name is the caller's business: [`Texts::write`] hands each of them over.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_buffer::NullBuffer;
use arrow_cast::cast;
use arrow_schema::{DataType, Schema, TimeUnit};

use crate::json::ValueEncoder;
use crate::time_format::{Clock, SECONDS_PER_DAY, TimeFormat};
use crate::{FormatError, types};

/// A template that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
    /// What was probably meant: a placeholder.
    pub suggestion: Option<String>,
}

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Literal(String),
    Value { column: usize, encoder: ValueEncoder },
    Time { column: usize, format: TimeFormat },
}

impl Template {
    /// Compiles a template. `{` and `}` stand around placeholders only.
    ///
    /// # Errors
    /// When a placeholder names no column, or one whose values have no text, or its format is wrong.
    pub fn compile(template: &str, schema: &Schema) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        for piece in pieces(template)? {
            parts.push(match piece {
                Piece::Literal(text) => Part::Literal(text.to_owned()),
                Piece::Placeholder(text) => placeholder(text, schema)?,
            });
        }
        Ok(Self { parts })
    }

    /// The columns that a template names, without a look at what they are.
    ///
    /// # Errors
    /// When a brace is alone.
    pub fn names(template: &str) -> Result<Vec<&str>, TemplateError> {
        let mut names = Vec::new();
        for piece in pieces(template)? {
            if let Piece::Placeholder(text) = piece {
                let name = split(text).0;
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }

    /// The text before the first placeholder.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(text)) => text,
            _ => "",
        }
    }

    /// Whether it has no placeholder.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Literal(_)))
    }

    /// The texts of the rows of these columns, which are those of the schema.
    ///
    /// # Errors
    /// When a column is not the schema's.
    pub fn texts<'a>(&'a self, columns: &[ArrayRef]) -> Result<Texts<'a>, FormatError> {
        let column = |at: usize| columns.get(at).ok_or(FormatError::Columns { expected: at + 1, found: columns.len() });
        let bind = |part: &'a Part| {
            Ok(match part {
                Part::Literal(text) => Bound::Literal(text),
                Part::Value { column: at, encoder } => {
                    let texts = cast(&encoder.plain(column(*at)?)?, &DataType::Utf8)?.as_string::<i32>().clone();
                    Bound::Value { nulls: texts.nulls().cloned(), texts }
                }
                Part::Time { column: at, format } => {
                    let array = column(*at)?;
                    Bound::Time { nulls: array.logical_nulls(), array: array.clone(), clock: format.clock() }
                }
            })
        };
        Ok(Texts { parts: self.parts.iter().map(bind).collect::<Result<_, FormatError>>()? })
    }
}

/// A part of a template as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it is.
    Literal(&'a str),
    /// What stands between the braces.
    Placeholder(&'a str),
}

/// The parts of a template.
///
/// # Errors
/// When a brace is alone.
pub fn pieces(template: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        let (literal, braced) = rest.split_at(open);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        let Some(close) = braced.find('}').filter(|close| *close > 0) else {
            return Err(TemplateError { message: format!("{template:?} has a brace without its other half"), suggestion: None });
        };
        pieces.push(Piece::Placeholder(&braced[1..close]));
        rest = &braced[close + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    Ok(pieces)
}

/// The column and the format of a placeholder.
#[must_use]
pub fn split(placeholder: &str) -> (&str, Option<&str>) {
    placeholder.split_once(':').map_or((placeholder.trim(), None), |(name, format)| (name.trim(), Some(format)))
}

fn placeholder(text: &str, schema: &Schema) -> Result<Part, TemplateError> {
    let (name, format) = split(text);
    let wrong = |message: String, suggestion: Option<String>| TemplateError { message, suggestion };
    let Some((column, field)) = schema.column_with_name(name) else {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        // To count the differences takes time and memory of one length times the other.
        let is_word = |word: &str| word.len() <= types::LONGEST_WORD;
        let near = names.iter().filter(|known| is_word(name) && is_word(known));
        let close = near.map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
        let close = close.filter(|(distance, _)| *distance <= name.chars().count().max(3) / 3 + 1);
        return Err(match close {
            Some((_, close)) => wrong(format!("{{{text}}} names no column"), Some(format!("{{{close}}}"))),
            None => wrong(format!("{{{text}}} names no column; there are {}", names.join(", ")), None),
        });
    };
    let is_time = matches!(field.data_type(), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
    let of_type = types::type_text(field);
    match (format, is_time) {
        (Some(_), false) => {
            let message = format!("{{{text}}}: a format is for timestamps and dates, {name} is {of_type}");
            Err(wrong(message, Some(format!("{{{name}}}"))))
        }
        (None, true) => Err(wrong(format!("{{{text}}} is a time and needs a format"), Some(format!("{{{name}:%Y-%m-%d}}")))),
        (Some(format), true) => {
            let format = TimeFormat::parse(format).map_err(|why| wrong(format!("{{{text}}}: {why}"), None))?;
            Ok(Part::Time { column, format })
        }
        (None, false) => match ValueEncoder::new("template", field) {
            Ok(encoder) if has_text(encoder.data_type()) => Ok(Part::Value { column, encoder }),
            _ => Err(wrong(format!("{{{text}}}: a {of_type} cannot be part of a name"), None)),
        },
    }
}

fn has_text(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Utf8 | DataType::Boolean)
}

/// A row's value in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// There is none, or it is a time out of range.
    Null,
    /// As it is in the row.
    Text(&'a str),
    /// As the template's own format makes it.
    Time(&'a str),
}

/// The texts of a batch's rows.
pub struct Texts<'a> {
    parts: Vec<Bound<'a>>,
}

enum Bound<'a> {
    Literal(&'a str),
    Value { texts: StringArray, nulls: Option<NullBuffer> },
    Time { array: ArrayRef, nulls: Option<NullBuffer>, clock: Clock<'a> },
}

impl Texts<'_> {
    /// Appends the text of a row; `value` appends the values in it.
    pub fn write(&mut self, row: usize, out: &mut String, value: impl Fn(Value<'_>, &mut String)) {
        let is_null = |nulls: &Option<NullBuffer>| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        for part in &mut self.parts {
            match part {
                Bound::Literal(text) => out.push_str(text),
                Bound::Value { nulls, .. } | Bound::Time { nulls, .. } if is_null(nulls) => value(Value::Null, out),
                Bound::Value { texts, .. } => value(Value::Text(texts.value(row)), out),
                Bound::Time { array, clock, .. } => {
                    let text = instant(array, row).and_then(|instant| clock.text(instant));
                    value(text.map_or(Value::Null, Value::Time), out);
                }
            }
        }
    }
}

/// Seconds since 1970 and nanoseconds of a time that is not null.
fn instant(array: &ArrayRef, row: usize) -> Option<(i64, u32)> {
    let split = |value: i64, per_second: i64| {
        let nanos = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
        (value.div_euclid(per_second), nanos as u32)
    };
    Some(match array.data_type() {
        DataType::Date32 => (i64::from(array.as_primitive::<Date32Type>().value(row)) * SECONDS_PER_DAY, 0),
        DataType::Date64 => split(array.as_primitive::<Date64Type>().value(row), 1_000),
        DataType::Timestamp(TimeUnit::Second, _) => (array.as_primitive::<TimestampSecondType>().value(row), 0),
        DataType::Timestamp(TimeUnit::Millisecond, _) => split(array.as_primitive::<TimestampMillisecondType>().value(row), 1_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => split(array.as_primitive::<TimestampMicrosecondType>().value(row), 1_000_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => split(array.as_primitive::<TimestampNanosecondType>().value(row), 1_000_000_000),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Date32Array, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
    use std::sync::Arc;

    fn batch() -> RecordBatch {
        let day = 86_400_000_000;
        let times = [Some(20_454 * day), Some(20_454 * day + 3_599_999_999), None, Some(-1), Some(i64::MAX)];
        let columns: [(&str, ArrayRef); 5] = [
            ("host", Arc::new(StringArray::from(vec![Some("a"), Some("a/b"), None, Some(""), Some("b")]))),
            ("ts", Arc::new(TimestampMicrosecondArray::from(times.to_vec()))),
            ("n", Arc::new(Int64Array::from(vec![1, -2, 3, 4, 5]))),
            ("day", Arc::new(Date32Array::from(vec![Some(0), None, Some(2), Some(3), Some(4)]))),
            ("f", Arc::new(Float64Array::from(vec![0.5; 5]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    fn texts(template: &str) -> Vec<String> {
        let batch = batch();
        let compiled = Template::compile(template, &batch.schema()).unwrap();
        let mut texts = compiled.texts(batch.columns()).unwrap();
        let text = |row| {
            let mut text = String::new();
            texts.write(row, &mut text, |value, out| {
                out.push_str(match value {
                    Value::Null => "?",
                    Value::Text(text) | Value::Time(text) => text,
                });
            });
            text
        };
        (0..batch.num_rows()).map(text).collect()
    }

    #[test]
    fn each_row_has_its_own_text() {
        assert_eq!(texts("plain"), ["plain"; 5]);
        assert_eq!(texts("x={host}/{n}"), ["x=a/1", "x=a/b/-2", "x=?/3", "x=/4", "x=b/5"]);
        assert_eq!(texts("{day:%j}"), ["001", "?", "003", "004", "005"]);
        // Microseconds reach the year 294247, chrono 262142.
        assert_eq!(texts("{ts:%Y-%m-%d/%H}"), ["2026-01-01/00", "2026-01-01/00", "?", "1969-12-31/23", "?"]);
        assert_eq!(texts("{ts:%M%S%6f}")[..4], ["0000000000", "5959999999", "?", "5959999999"]);
    }

    #[test]
    fn mistakes_are_found_before_any_row() {
        let wrong = |template: &str| {
            let error = Template::compile(template, &batch().schema()).unwrap_err();
            (error.message, error.suggestion)
        };
        assert_eq!(wrong("x-{hots}"), ("{hots} names no column".to_owned(), Some("{host}".to_owned())));
        assert!(wrong("x-{something_else}").0.ends_with("there are host, ts, n, day, f"));
        assert_eq!(wrong("x-{ts}"), ("{ts} is a time and needs a format".to_owned(), Some("{ts:%Y-%m-%d}".to_owned())));
        assert_eq!(wrong("x-{n:%Y}").0, "{n:%Y}: a format is for timestamps and dates, n is int64");
        assert_eq!(wrong("x-{f}").0, "{f}: a float64 cannot be part of a name");
        assert!(wrong("x-{ts:%Q}").0.contains("the format is wrong"));
        assert!(wrong("x-{host").0.contains("brace") && wrong("x}").0.contains("brace") && wrong("x-{}").0.contains("names no column"));
        assert_eq!(Template::names("{a}/{ts:%Y}/{ts:%m}/{ a }").unwrap(), ["a", "ts"]);
    }
}
