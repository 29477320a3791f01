//! The index of each row: a name, or a template with `{column}` and `{timestamp_column:strftime}`. Compiled and checked against the schema without I/O; per batch the
//! columns are looked at once, and a time is formatted once per second, minute, hour or day, as the format needs. Called by `plan` and `bulk`.

use crate::document::{self, Cell, Instants};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};
use standpipe_formats::{
    template::{Piece, pieces, split},
    time_format::{Clock, TimeFormat},
};
use standpipe_sdk::{config::closest, wire::Problem};

/// Bytes of a name at most.
const MAX_BYTES: usize = 255;
/// A time whose texts are no special case: noon of 8 January 2026.
const EXAMPLE: (i64, u32) = (1_767_873_600, 0);

/// A compiled template.
#[derive(Debug)]
pub(crate) struct IndexName {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Literal(String),
    Value { column: usize },
    Time { column: usize, format: TimeFormat },
}

impl IndexName {
    /// Compiles a template.
    pub(crate) fn compile(template: &str, schema: &Schema) -> Result<Self, Problem> {
        let wrong = |message: String| Problem { path: "index".to_owned(), message, suggestion: None };
        let part = |piece| match piece {
            Piece::Literal(text) => Ok(Part::Literal(text.to_owned())),
            Piece::Placeholder(text) => placeholder(text, schema),
        };
        let pieces = pieces(template).map_err(|error| wrong(error.message))?;
        let parts = pieces.into_iter().map(part).collect::<Result<_, _>>()?;
        let name = Self { parts };
        name.check().map_err(|message| wrong(if name.is_constant() { message } else { format!("{template:?}: {message}") }))?;
        Ok(name)
    }

    /// Checks what is known before any row: the literals, and each format by an example.
    fn check(&self) -> Result<(), String> {
        let mut example = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => example.push_str(text),
                Part::Value { .. } => example.push('x'),
                Part::Time { format, .. } => example.push_str(format.clock().text(EXAMPLE).unwrap_or_default()),
            }
        }
        problem_of(&example).map_or(Ok(()), |problem| Err(format!("{example:?} {problem}")))
    }

    /// The text before the first placeholder.
    pub(crate) fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(text)) => text,
            _ => "",
        }
    }

    /// Whether every row has the same index.
    pub(crate) fn is_constant(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Literal(_)))
    }

    /// The columns that it uses.
    pub(crate) fn columns(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Value { column } | Part::Time { column, .. } => Some(*column),
        })
    }

    /// The names of a batch.
    pub(crate) fn names<'a>(&'a self, batch: &'a RecordBatch) -> Result<Names<'a>, String> {
        let bind = |part: &'a Part| {
            Ok(match part {
                Part::Literal(text) => Bound::Literal(text),
                Part::Value { column } => {
                    let array: &dyn Array = batch.column(*column);
                    Bound::Value(array, document::plain(array)?)
                }
                Part::Time { column, format } => {
                    let array: &dyn Array = batch.column(*column);
                    let instants = document::instants(array).ok_or_else(|| format!("{} is no time", array.data_type()))?;
                    Bound::Time(array, instants, format.clock())
                }
            })
        };
        let parts = self.parts.iter().map(bind).collect::<Result<_, String>>()?;
        Ok(Names { parts, name: Vec::new(), candidate: Vec::new(), fault: problem_of(""), is_constant: self.is_constant() })
    }
}

fn placeholder(text: &str, schema: &Schema) -> Result<Part, Problem> {
    let (name, format) = split(text);
    let wrong = |message: String, suggestion: Option<String>| Problem { path: "index".to_owned(), message, suggestion };
    let Some((column, field)) = schema.column_with_name(name) else {
        let names = || schema.fields().iter().map(|field| field.name().as_str());
        let suggestion = closest(name, names()).map(str::to_owned);
        let message = match suggestion {
            Some(_) => format!("{{{text}}} names no column"),
            None => format!("{{{text}}} names no column; there are {}", names().collect::<Vec<_>>().join(", ")),
        };
        return Err(wrong(message, suggestion.map(|name| format!("{{{name}}}"))));
    };
    let is_time = document::instants(&arrow_array::new_empty_array(field.data_type())).is_some();
    match format {
        Some(_) if !is_time => Err(wrong(
            format!("{{{text}}}: a format is for timestamps and dates; {name} is {}", field.data_type()),
            Some(format!("{{{name}}}")),
        )),
        Some(format) => {
            let format = TimeFormat::parse(format).map_err(|why| wrong(format!("{{{text}}}: {why}"), None))?;
            Ok(Part::Time { column, format })
        }
        None if is_time => Err(wrong(format!("{{{text}}} is a time and needs a format"), Some(format!("{{{name}:%Y.%m.%d}}")))),
        None => match field.data_type() {
            DataType::Time32(_) | DataType::Time64(_) => {
                Err(wrong(format!("{{{text}}}: a time of day has colons, which a name may not have"), None))
            }
            other => match document::plain(&arrow_array::new_empty_array(other)) {
                Ok(_) => Ok(Part::Value { column }),
                Err(why) => Err(wrong(format!("{{{text}}}: {why}"), None)),
            },
        },
    }
}

/// The names of a batch's rows.
pub(crate) struct Names<'a> {
    parts: Vec<Bound<'a>>,
    name: Vec<u8>,
    candidate: Vec<u8>,
    fault: Option<String>,
    is_constant: bool,
}

enum Bound<'a> {
    Literal(&'a str),
    Value(&'a dyn Array, Cell<'a>),
    Time(&'a dyn Array, Instants<'a>, Clock<'a>),
}

impl Names<'_> {
    /// The name of a row, or why there is none.
    pub(crate) fn of(&mut self, row: usize) -> Result<&[u8], &str> {
        let is_known = self.is_constant && !self.name.is_empty();
        if !is_known {
            self.candidate.clear();
            for part in &mut self.parts {
                part.write(row, &mut self.candidate)?;
            }
            // Neighbours mostly have the same name: it is checked once.
            if self.candidate != self.name {
                let name = String::from_utf8_lossy(&self.candidate);
                self.fault = problem_of(&name).map(|problem| format!("{name:?} {problem}"));
                std::mem::swap(&mut self.name, &mut self.candidate);
            }
        }
        match &self.fault {
            None => Ok(&self.name),
            Some(fault) => Err(fault),
        }
    }
}

impl Bound<'_> {
    fn write(&mut self, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
        const MISSING: &str = "a value that the index's name needs is null";
        const OUT_OF_RANGE: &str = "a time that the index's name needs is out of range";
        match self {
            Self::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Self::Value(array, _) if array.is_null(row) => return Err(MISSING),
            Self::Value(_, cell) => cell(row, out),
            Self::Time(array, ..) if array.is_null(row) => return Err(MISSING),
            Self::Time(_, instants, clock) => out.extend_from_slice(clock.text(instants(row)).ok_or(OUT_OF_RANGE)?.as_bytes()),
        }
        Ok(())
    }
}

/// What is wrong with an index name, by Elasticsearch's rules ("Create index API", path parameters).
pub(crate) fn problem_of(name: &str) -> Option<String> {
    let illegal = |c: char| matches!(c, '\\' | '/' | '*' | '?' | '"' | '<' | '>' | '|' | ' ' | ',' | '#' | ':') || c.is_control();
    if name.is_empty() {
        return Some("is no index name: it is empty".to_owned());
    }
    if let Some(c) = name.chars().find(|c| illegal(*c)) {
        return Some(format!("is no index name: it has {c:?}"));
    }
    if name.chars().any(char::is_uppercase) {
        return Some("is no index name: it has upper-case letters".to_owned());
    }
    if name.starts_with(['-', '_', '+']) || name == "." || name == ".." {
        return Some("is no index name: it starts with -, _ or +, or is . or ..".to_owned());
    }
    (name.len() > MAX_BYTES).then(|| format!("is no index name: it has more than {MAX_BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Date32Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use std::sync::Arc;

    fn batch() -> RecordBatch {
        let day = 86_400_000_000;
        let columns: [(&str, Arc<dyn Array>); 5] = [
            ("host", Arc::new(StringArray::from(vec![Some("a"), Some("a"), None, Some("Web"), Some("b")]))),
            (
                "ts",
                Arc::new(TimestampMicrosecondArray::from(vec![
                    Some(20_454 * day),
                    Some(20_454 * day + 3_599_999_999),
                    Some(1),
                    Some(0),
                    Some(i64::MAX),
                ])),
            ),
            ("n", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]))),
            ("day", Arc::new(Date32Array::from(vec![Some(0), None, Some(2), Some(3), Some(4)]))),
            ("f", Arc::new(Float64Array::from(vec![0.5; 5]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    fn names(template: &str) -> Vec<Result<String, String>> {
        let batch = batch();
        let compiled = IndexName::compile(template, &batch.schema()).unwrap();
        let mut names = compiled.names(&batch).unwrap();
        (0..batch.num_rows())
            .map(|row| names.of(row).map(|name| String::from_utf8(name.to_vec()).unwrap()).map_err(str::to_owned))
            .collect()
    }

    #[test]
    fn each_row_has_its_own_name() {
        let missing = || Err("a value that the index's name needs is null".to_owned());
        assert_eq!(names("plain"), vec![Ok("plain".to_owned()); 5]);
        let upper = Err("\"x-Web\" is no index name: it has upper-case letters".to_owned());
        assert_eq!(names("x-{host}"), [Ok("x-a".to_owned()), Ok("x-a".to_owned()), missing(), upper, Ok("x-b".to_owned())]);
        assert_eq!(
            names("{n}-{day:%j}"),
            [Ok("1-001".to_owned()), missing(), Ok("3-003".to_owned()), Ok("4-004".to_owned()), Ok("5-005".to_owned())]
        );
        let out_of_range = Err("a time that the index's name needs is out of range".to_owned());
        let expected = ["s-2026.01.01.00", "s-2026.01.01.00", "s-1970.01.01.00", "s-1970.01.01.00"].map(|name| Ok(name.to_owned()));
        let seen = names("s-{ts:%Y.%m.%d.%H}");
        assert_eq!(seen[..4], expected);
        // Microseconds reach the year 294247, chrono 262142.
        assert_eq!(seen[4], out_of_range);
        assert_eq!(names("{ts:%Y%S%6f}")[..3], ["202600000000", "202659999999", "197000000001"].map(|name| Ok(name.to_owned())));
    }

    #[test]
    fn mistakes_are_found_before_any_row() {
        let wrong = |template: &str| {
            let problem = IndexName::compile(template, &batch().schema()).unwrap_err();
            assert_eq!(problem.path, "index");
            (problem.message, problem.suggestion)
        };
        assert_eq!(wrong("x-{hots}"), ("{hots} names no column".to_owned(), Some("{host}".to_owned())));
        assert!(wrong("x-{something_else}").0.ends_with("there are host, ts, n, day, f"));
        assert_eq!(wrong("x-{ts}"), ("{ts} is a time and needs a format".to_owned(), Some("{ts:%Y.%m.%d}".to_owned())));
        assert!(wrong("x-{host:%Y}").0.contains("a format is for timestamps"));
        assert!(wrong("x-{f}").0.contains("cannot be part of a name"));
        assert!(wrong("x-{ts:%Q}").0.contains("the format is wrong"));
        assert!(wrong("x-{ts:%H:%M}").0.contains("it has ':'"));
        assert!(wrong("x-{ts:%b}").0.contains("upper-case"));
        assert!(
            wrong("X").0.contains("upper-case")
                && wrong("_x").0.contains("starts with")
                && wrong("a b").0.contains("' '")
                && wrong("").0.contains("empty")
        );
        assert!(wrong("x-{host").0.contains("brace") && wrong("x}").0.contains("brace") && wrong("x-{}").0.contains("names no column"));
        assert!(wrong(&"x".repeat(256)).0.contains("255 bytes"));
    }
}
