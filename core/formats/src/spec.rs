//! `format:` of a source or sink: which format, and its options. Read from a pipeline file by the pipeline crate, handed to a sink that encodes by itself as JSON.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The `format:` of a source or sink in its long form: `{type: json, on_error: skip}`. An option that does not belong to the format has no meaning.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FormatSpec {
    /// The format's name.
    #[serde(rename = "type")]
    pub kind: FormatKind,
    /// What happens to a record that cannot be decoded.
    #[serde(default)]
    pub on_error: OnError,
    /// What a null record, a tombstone, is.
    #[serde(default, skip_serializing_if = "OnNull::is_default")]
    pub on_null: OnNull,
    /// csv: what stands between two fields. Default `,`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// csv: what stands around a field that holds a delimiter, a quote or a newline; twice within it for itself. Default `"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<char>,
    /// csv: the text of a null, without quotes around it. Default empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null_text: Option<String>,
    /// csv: whether each file begins with the names of its columns. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// parquet: how its pages are compressed. Default snappy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

/// Only what was asked for: a plan's hash is made of it, and a later release may have more options.
impl fmt::Debug for FormatSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut spec = f.debug_struct("FormatSpec");
        spec.field("kind", &self.kind).field("on_error", &self.on_error);
        let options: [(&str, Option<&dyn fmt::Debug>); 6] = [
            ("on_null", (!self.on_null.is_default()).then_some(&self.on_null as &dyn fmt::Debug)),
            ("delimiter", self.delimiter.as_ref().map(|it| it as &dyn fmt::Debug)),
            ("quote", self.quote.as_ref().map(|it| it as &dyn fmt::Debug)),
            ("null_text", self.null_text.as_ref().map(|it| it as &dyn fmt::Debug)),
            ("header", self.header.as_ref().map(|it| it as &dyn fmt::Debug)),
            ("compression", self.compression.as_ref().map(|it| it as &dyn fmt::Debug)),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                spec.field(name, value);
            }
        }
        spec.finish()
    }
}

impl From<FormatKind> for FormatSpec {
    fn from(kind: FormatKind) -> Self {
        Self {
            kind,
            on_error: OnError::default(),
            on_null: OnNull::default(),
            delimiter: None,
            quote: None,
            null_text: None,
            header: None,
            compression: None,
        }
    }
}

impl FormatSpec {
    /// Why a row alone has no encoded form: what is encoded is a file as a whole. A sink of this format takes rows and encodes them with [`crate::file_encoder`].
    #[must_use]
    pub fn of_files(&self) -> Option<&'static str> {
        match self.kind {
            FormatKind::Parquet => Some("a parquet file has no records that could be written one by one"),
            FormatKind::Csv if self.header == Some(true) => Some("a header stands at the beginning of a file"),
            FormatKind::Raw | FormatKind::Json | FormatKind::Csv => None,
        }
    }
}

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FormatKind {
    /// The record as it is, in one column of type string or binary.
    Raw,
    /// One JSON object per record.
    Json,
    /// Fields of text with a delimiter between them, RFC 4180.
    Csv,
    /// Whole files of Apache Parquet; for sinks that write files.
    Parquet,
}

impl FormatKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Json, Self::Csv, Self::Parquet];

    /// Its name in a pipeline file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    /// What the names of its files end with.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Raw => "txt",
            Self::Json => "jsonl",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    /// Its options in the long form, `type`, `on_error` and `on_null` left out.
    #[must_use]
    pub const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Raw | Self::Json => &[],
            Self::Csv => &["delimiter", "quote", "null_text", "header"],
            Self::Parquet => &["compression"],
        }
    }
}

/// What the engine does with a record that cannot be decoded. Every such record is counted, whatever the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// The job fails, with the record's position and the reason.
    #[default]
    Fail,
    /// The record is dropped.
    Skip,
    /// The record goes to the source's `NAME.errors` stream.
    DeadLetter,
}

/// What becomes of a record that is null, a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnNull {
    /// It cannot be decoded: [`OnError`] says what happens.
    #[default]
    Broken,
    /// It is dropped and not counted as broken.
    Skip,
    /// It is a row without values, which is broken if a column is not nullable. What goes with it besides, such as its key, is there.
    Row,
}

impl OnNull {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How the pages of a parquet file are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all.
    None,
    /// Fast.
    #[default]
    Snappy,
    /// Small.
    Zstd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_form_is_read_strictly() {
        let read = |text: &str| serde_json::from_str::<FormatSpec>(text).map_err(|error| error.to_string());
        assert_eq!(read(r#"{"type": "json"}"#), Ok(FormatKind::Json.into()));
        assert_eq!(
            read(r#"{"type": "raw", "on_error": "dead-letter"}"#),
            Ok(FormatSpec { on_error: OnError::DeadLetter, ..FormatKind::Raw.into() })
        );
        assert_eq!(read(r#"{"type": "json", "on_null": "row"}"#).map(|spec| spec.on_null), Ok(OnNull::Row));
        assert_eq!(
            read(r#"{"type": "csv", "delimiter": ";", "header": true}"#),
            Ok(FormatSpec { delimiter: Some(';'), header: Some(true), ..FormatKind::Csv.into() })
        );
        assert!(
            read(r#"{"type": "jsn"}"#)
                .is_err_and(|error| error.contains("unknown variant `jsn`, expected one of `raw`, `json`, `csv`, `parquet`"))
        );
        assert!(read(r#"{"type": "json", "onerror": "skip"}"#).is_err_and(|error| error.contains("unknown field `onerror`")));
        assert!(read(r#"{"on_error": "skip"}"#).is_err_and(|error| error.contains("missing field `type`")));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let all = [
            FormatKind::Raw.into(),
            FormatSpec { on_error: OnError::Skip, ..FormatKind::Json.into() },
            FormatSpec { quote: Some('\''), null_text: Some("NA".to_owned()), ..FormatKind::Csv.into() },
            FormatSpec { compression: Some(Compression::Zstd), ..FormatKind::Parquet.into() },
        ];
        for spec in all {
            let text = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<FormatSpec>(&text).unwrap(), spec, "{text}");
        }
    }

    #[test]
    fn what_was_not_asked_for_is_not_shown() {
        assert_eq!(format!("{:?}", FormatSpec::from(FormatKind::Json)), "FormatSpec { kind: Json, on_error: Fail }");
        let spec = FormatSpec { header: Some(true), ..FormatKind::Csv.into() };
        assert_eq!(format!("{spec:?}"), "FormatSpec { kind: Csv, on_error: Fail, header: true }");
    }

    #[test]
    fn the_json_schema_names_formats_policies_and_options() {
        let schema = serde_json::to_value(schemars::schema_for!(FormatSpec)).unwrap();
        let text = schema.to_string();
        for name in ["\"fail\"", "\"skip\"", "\"dead-letter\"", "\"on_error\"", "\"type\"", "\"zstd\""] {
            assert!(text.contains(name), "{name} in {text}");
        }
        for kind in FormatKind::ALL {
            assert!(text.contains(&format!("\"{}\"", kind.name())), "{kind:?} in {text}");
            assert!(kind.options().iter().all(|option| schema["properties"].get(option).is_some()), "{kind:?} in {text}");
        }
    }
}
