//! `split-words`: a row per word of a text column.
//!
//! A word is a longest run of bytes that are no separators: of `whitespace` (the six characters of C's `isspace`: space, tab, newline, vertical tab, form feed,
//! carriage return) or of `non-letters` (everything but `A` to `Z` and `a` to `z`). With `separator: non-letters` and `lowercase: true` the words are the lines of
//! `tr -cs A-Za-z '\n' | tr A-Z a-z`, apart from empty ones. A null text has no words.

use crate::{ALL_TYPES, Problems};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array, cast::AsArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow_select::take::take;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use standpipe_sdk::{
    Call, Context, Error, Result, Transform, TransformDeclaration, TransformInput,
    transform::{Capabilities, OutputDeclaration, TypeClass},
};
use std::sync::Arc;

/// Gives a row per word of a text column.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct SplitWordsConfig {
    /// The column with the text.
    pub column: String,
    /// The name of the column with the words.
    #[serde(default = "default_output")]
    pub output: String,
    /// What stands between words.
    #[serde(default)]
    pub separator: Separator,
    /// Whether to turn `A` to `Z` into small letters.
    #[serde(default)]
    pub lowercase: bool,
    /// Columns to repeat beside each word.
    #[serde(default)]
    pub keep: Vec<String>,
}

fn default_output() -> String {
    "word".to_owned()
}

/// What stands between words.
#[derive(Deserialize, Serialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Separator {
    /// Space, tab, newline, vertical tab, form feed, carriage return.
    #[default]
    Whitespace,
    /// Everything but the letters `A` to `Z` and `a` to `z`.
    NonLetters,
}

impl Separator {
    const fn is(self, byte: u8) -> bool {
        match self {
            Self::Whitespace => matches!(byte, b'\t'..=b'\r' | b' '),
            Self::NonLetters => !byte.is_ascii_alphabetic(),
        }
    }
}

/// Splits texts into words.
pub struct SplitWords {
    /// Its place in the input.
    column: usize,
    keep: Vec<usize>,
    lowercase: bool,
    schema: SchemaRef,
    splitter: Splitter,
}

impl Transform for SplitWords {
    const NAME: &'static str = "split-words";
    type Config = SplitWordsConfig;

    fn declare(config: &SplitWordsConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let input = input.only()?;
        let mut problems = Problems::default();
        problems.append_only(input);
        if let Some(field) = problems.column("column", &input.schema, &config.column)
            && !is_text(field.data_type())
        {
            problems.add("column", format!("{:?} has the type {}, which is no string", config.column, field.data_type()));
        }
        for (index, name) in config.keep.iter().enumerate() {
            let path = format!("keep[{index}]");
            problems.column(&path, &input.schema, name);
            if *name == config.output || config.keep[..index].contains(name) {
                problems.add(path, format!("there would be two columns {name:?}"));
            }
        }
        Ok(TransformDeclaration {
            outputs: vec![OutputDeclaration::main(output_schema(config, &input.schema))],
            capabilities: Capabilities { deterministic: true, ..Capabilities::default() },
            // The host makes plain strings of dictionaries.
            types: ALL_TYPES.into_iter().filter(|class| !matches!(class, TypeClass::Dictionary | TypeClass::RunEnd)).collect(),
            problems: problems.0,
            ..TransformDeclaration::default()
        })
    }

    fn open(config: SplitWordsConfig, input: &TransformInput, _: Context) -> Result<Self> {
        let input = &input.only()?.schema;
        Ok(Self {
            column: input.index_of(&config.column)?,
            keep: config.keep.iter().map(|name| input.index_of(name)).collect::<Result<_, _>>()?,
            lowercase: config.lowercase,
            schema: output_schema(&config, input),
            splitter: Splitter::new(config.separator),
        })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        self.splitter.clear();
        let mut rows = Vec::new();
        let texts = batch.column(self.column);
        let wants_rows = (!self.keep.is_empty()).then_some(&mut rows);
        match texts.data_type() {
            DataType::Utf8 => self.splitter.add_all(texts.as_string::<i32>().iter(), wants_rows)?,
            DataType::LargeUtf8 => self.splitter.add_all(texts.as_string::<i64>().iter(), wants_rows)?,
            DataType::Utf8View => self.splitter.add_all(texts.as_string_view().iter(), wants_rows)?,
            other => return Err(Error::data(format!("the column of texts came as {other}"))),
        }
        let words = self.splitter.words(self.lowercase)?;
        if words.is_empty() {
            return Ok(());
        }
        let rows = UInt32Array::from(rows);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.keep.len() + 1);
        for column in &self.keep {
            columns.push(take(batch.column(*column), &rows, None)?);
        }
        columns.push(Arc::new(words));
        call.emit(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

const fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The columns kept, then the words.
fn output_schema(config: &SplitWordsConfig, input: &Schema) -> SchemaRef {
    let mut fields: Vec<FieldRef> =
        config.keep.iter().filter_map(|name| input.fields().find(name).map(|(_, field)| field.clone())).collect();
    fields.push(Arc::new(Field::new(&config.output, DataType::Utf8, false)));
    Arc::new(Schema::new(fields))
}

/// Collects words end to end, as Arrow wants them.
///
/// It looks at each byte once and takes no branch on it: a byte is always written, and so is the end of a word, but what is no part of a word, or no end, is
/// overwritten by what comes next. The memory is kept from batch to batch.
struct Splitter {
    is_separator: [bool; 256],
    /// The first `length` bytes are those of the words.
    bytes: Vec<u8>,
    length: usize,
    /// `ends[0]` is 0; the next `count` are where words end.
    ends: Vec<i32>,
    count: usize,
}

impl Splitter {
    fn new(separator: Separator) -> Self {
        Self { is_separator: std::array::from_fn(|byte| separator.is(byte as u8)), bytes: Vec::new(), length: 0, ends: vec![0], count: 0 }
    }

    fn clear(&mut self) {
        (self.length, self.count) = (0, 0);
    }

    fn add_all<'a>(&mut self, texts: impl Iterator<Item = Option<&'a str>>, mut rows: Option<&mut Vec<u32>>) -> Result<()> {
        for (row, text) in (0_u32..).zip(texts) {
            let before = self.count;
            self.add(text.unwrap_or_default().as_bytes())?;
            if let Some(rows) = &mut rows {
                rows.extend(std::iter::repeat_n(row, self.count - before));
            }
        }
        Ok(())
    }

    fn add(&mut self, text: &[u8]) -> Result<()> {
        let needed = self.length + text.len();
        if needed > i32::MAX as usize {
            return Err(Error::data("the texts of a batch have 2 GiB or more"));
        }
        grow(&mut self.bytes, needed);
        grow(&mut self.ends, self.count + text.len() / 2 + 3);
        let (bytes, ends) = (self.bytes.as_mut_slice(), &mut self.ends[1..]);
        let (mut length, mut count, mut in_word) = (self.length, self.count, false);
        for &byte in text {
            let is_separator = self.is_separator[usize::from(byte)];
            bytes[length] = byte;
            ends[count] = length as i32;
            length += usize::from(!is_separator);
            count += usize::from(in_word & is_separator);
            in_word = !is_separator;
        }
        ends[count] = length as i32;
        count += usize::from(in_word);
        (self.length, self.count) = (length, count);
        Ok(())
    }

    fn words(&self, lowercase: bool) -> Result<StringArray> {
        let mut bytes = self.bytes[..self.length].to_vec();
        if lowercase {
            bytes.make_ascii_lowercase();
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.ends[..=self.count].to_vec()));
        Ok(StringArray::try_new(offsets, Buffer::from_vec(bytes), None)?)
    }
}

fn grow<T: Default + Clone>(memory: &mut Vec<T>, length: usize) {
    if memory.len() < length {
        memory.resize(length.next_power_of_two(), T::default());
    }
}
