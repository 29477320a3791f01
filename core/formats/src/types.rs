//! Column types as a pipeline file writes them: `string`, `decimal(10, 2)`, `list<int64>`, `struct<a: int64, b: string>`, `map<string, float64>`.
//!
//! [`parse_field`] gives the Arrow field (with its metadata, see [`crate::TEXT_KEY`]), [`type_text`] is its inverse for `explain` and messages.
//! Called by the pipeline crate for `schema:`; knows no pipeline file: an error has its place within the text.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, TimeUnit};

use crate::{TEXT_ISO, TEXT_KEY};

/// The deepest nesting of a type; a text must not overflow the stack.
const MAX_DEPTH: usize = 64;

/// Bytes of a word that may be a slip of the finger.
pub(crate) const LONGEST_WORD: usize = 400;

/// The types without parameters.
const SIMPLE: [(&str, DataType); 20] = [
    ("bool", DataType::Boolean),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("string", DataType::Utf8),
    ("binary", DataType::Binary),
    ("date", DataType::Date32),
    ("time", DataType::Time64(TimeUnit::Microsecond)),
    ("timestamp_s", DataType::Timestamp(TimeUnit::Second, None)),
    ("timestamp_ms", DataType::Timestamp(TimeUnit::Millisecond, None)),
    ("timestamp_us", DataType::Timestamp(TimeUnit::Microsecond, None)),
    ("timestamp_ns", DataType::Timestamp(TimeUnit::Nanosecond, None)),
    // The text form of a timestamp is the same Arrow type as timestamp_us, with metadata: the parser adds it.
    (TIMESTAMP, DataType::Timestamp(TimeUnit::Microsecond, None)),
];

const TIMESTAMP: &str = "timestamp";

/// The types with parameters.
const PARAMETERISED: [&str; 4] = ["decimal", "list", "struct", "map"];

/// What other systems call our types, where the spelling alone would not lead there.
const ALIASES: [(&str, &str); 36] = [
    ("boolean", "bool"),
    ("byte", "int8"),
    ("tinyint", "int8"),
    ("i8", "int8"),
    ("short", "int16"),
    ("smallint", "int16"),
    ("i16", "int16"),
    ("int", "int32"),
    ("integer", "int32"),
    ("i32", "int32"),
    ("long", "int64"),
    ("bigint", "int64"),
    ("i64", "int64"),
    ("u8", "uint8"),
    ("u16", "uint16"),
    ("u32", "uint32"),
    ("u64", "uint64"),
    ("real", "float32"),
    ("float", "float32"),
    ("f32", "float32"),
    ("double", "float64"),
    ("f64", "float64"),
    ("number", "float64"),
    ("numeric", "decimal(10, 2)"),
    ("str", "string"),
    ("text", "string"),
    ("utf8", "string"),
    ("varchar", "string"),
    ("char", "string"),
    ("bytes", "binary"),
    ("varbinary", "binary"),
    ("blob", "binary"),
    ("datetime", "timestamp"),
    ("array", "list<string>"),
    ("row", "struct<a: int64>"),
    ("object", "struct<a: int64>"),
];

/// A type that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TypeError {
    /// What is wrong and what was perhaps meant: `unknown type "strng", did you mean "string"?`.
    pub message: String,
    /// Where in the text, in bytes from 0.
    pub at: usize,
}

/// Reads the type of a column of this name. The field is nullable, and so are all fields in it.
///
/// # Errors
/// When the text is not a type.
pub fn parse_field(name: &str, text: &str) -> Result<Field, TypeError> {
    let mut parser = Parser { text, pos: 0, depth: 0 };
    let field = parser.field(name)?;
    match parser.peek() {
        None => Ok(field),
        Some(_) => Err(parser.expected("the end of the type")),
    }
}

struct Parser<'a> {
    text: &'a str,
    pos: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or_default()
    }

    /// The next character that is not white space.
    fn peek(&mut self) -> Option<char> {
        self.pos += self.rest().len() - self.rest().trim_start().len();
        self.rest().chars().next()
    }

    fn expect(&mut self, wanted: char) -> Result<(), TypeError> {
        if !self.eat(wanted) {
            return Err(self.expected(&format!("{:?}", wanted.to_string())));
        }
        Ok(())
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.pos += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn expected(&mut self, what: &str) -> TypeError {
        let found = self.peek().map_or_else(|| "the end".to_owned(), |found| format!("{:?}", found.to_string()));
        self.error(self.pos, format!("expected {what}, found {found}"))
    }

    fn error(&self, at: usize, message: String) -> TypeError {
        TypeError { message: format!("{message}, in {:?}", self.text), at }
    }

    /// A run of name characters, perhaps none.
    fn word(&mut self) -> &'a str {
        self.peek();
        let rest = self.rest();
        let end = rest.find(|c: char| !is_name_char(c)).unwrap_or(rest.len());
        self.pos += end;
        rest.get(..end).unwrap_or_default()
    }

    fn field(&mut self, name: &str) -> Result<Field, TypeError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(self.pos, format!("more than {MAX_DEPTH} levels of nesting")));
        }
        self.depth += 1;
        self.peek();
        let at = self.pos;
        let word = self.word();
        let data_type = match word {
            "" => return Err(self.expected("a type")),
            "decimal" => self.decimal()?,
            "list" => self.list()?,
            "struct" => self.structure()?,
            "map" => self.map()?,
            _ => SIMPLE
                .iter()
                .find(|(name, _)| *name == word)
                .map(|(_, data_type)| data_type.clone())
                .ok_or_else(|| self.unknown(word, at))?,
        };
        self.depth -= 1;
        let field = Field::new(name, data_type, true);
        Ok(if word == TIMESTAMP { field.with_metadata([(TEXT_KEY.to_owned(), TEXT_ISO.to_owned())].into()) } else { field })
    }

    fn unknown(&self, word: &str, at: usize) -> TypeError {
        let lower = word.to_lowercase();
        let alias = ALIASES.iter().find(|(alias, _)| *alias == lower).map(|(_, name)| *name);
        let names = SIMPLE.iter().map(|(name, _)| *name);
        // To count the differences takes time and memory of the word's length times that of each name.
        let near = names.clone().chain(PARAMETERISED).filter(|_| lower.len() <= LONGEST_WORD);
        let scored = near.map(|name| (strsim::damerau_levenshtein(&lower, name), name));
        let most = (lower.chars().count() / 3).max(1);
        let nearest = scored.min_by_key(|(distance, _)| *distance).filter(|(distance, _)| *distance <= most).map(|(_, name)| name);
        let message = match alias.or(nearest) {
            Some(meant) => format!("unknown type {word:?}, did you mean {meant:?}?"),
            None => {
                let names = names.chain(["decimal(p, s)", "list<T>", "struct<name: T, ...>", "map<string, T>"]);
                format!("unknown type {word:?}; the types are {}", names.collect::<Vec<_>>().join(", "))
            }
        };
        TypeError { message, at }
    }

    /// `(p, s)` or `(p)`. Up to 38 digits are 128 bits, up to 76 are 256.
    fn decimal(&mut self) -> Result<DataType, TypeError> {
        let at = self.pos;
        if !self.eat('(') {
            return Err(self.error(at, "decimal needs its precision and scale, such as decimal(10, 2)".to_owned()));
        }
        let precision = self.number()?;
        let scale = if self.eat(',') { self.number()? } else { 0 };
        self.expect(')')?;
        if !(1..=76).contains(&precision) {
            return Err(self.error(at, format!("a decimal's precision is 1 to 76 digits, not {precision}")));
        }
        if scale > precision {
            return Err(self.error(at, format!("a decimal's scale ({scale}) cannot be more than its precision ({precision})")));
        }
        Ok(if precision <= 38 { DataType::Decimal128(precision, scale as i8) } else { DataType::Decimal256(precision, scale as i8) })
    }

    fn number(&mut self) -> Result<u8, TypeError> {
        self.peek();
        let at = self.pos;
        let word = self.word();
        word.parse().map_err(|_| {
            if word.is_empty() {
                self.expected("a number")
            } else {
                self.error(at, format!("expected a number from 0 to 76, found {word:?}"))
            }
        })
    }

    fn list(&mut self) -> Result<DataType, TypeError> {
        self.expect('<')?;
        let item = self.field(Field::LIST_FIELD_DEFAULT_NAME)?;
        self.expect('>')?;
        Ok(DataType::List(Arc::new(item)))
    }

    fn structure(&mut self) -> Result<DataType, TypeError> {
        self.expect('<')?;
        let mut fields: Vec<Field> = Vec::new();
        loop {
            self.peek();
            let at = self.pos;
            let name = self.name()?;
            if fields.iter().any(|field| *field.name() == name) {
                return Err(self.error(at, format!("the field {name:?} is there twice")));
            }
            self.expect(':')?;
            fields.push(self.field(&name)?);
            if !self.eat(',') {
                break;
            }
        }
        self.expect('>')?;
        Ok(DataType::Struct(fields.into()))
    }

    /// A field's name: bare, or in double quotes with `\"` and `\\`.
    fn name(&mut self) -> Result<String, TypeError> {
        if !self.eat('"') {
            return match self.word() {
                "" => Err(self.expected("a field's name")),
                name => Ok(name.to_owned()),
            };
        }
        let start = self.pos;
        let mut name = String::new();
        let mut escaped = false;
        for (at, c) in self.rest().char_indices() {
            match c {
                '"' if !escaped => {
                    self.pos = start + at + 1;
                    return Ok(name);
                }
                '\\' if !escaped => escaped = true,
                c => {
                    name.push(c);
                    escaped = false;
                }
            }
        }
        Err(self.error(start - 1, "a quoted name without its closing quote".to_owned()))
    }

    fn map(&mut self) -> Result<DataType, TypeError> {
        self.expect('<')?;
        self.peek();
        let at = self.pos;
        let key = self.field("key")?;
        if *key.data_type() != DataType::Utf8 {
            return Err(self.error(at, format!("a map's keys are strings, not {}", type_text(&key))));
        }
        self.expect(',')?;
        let value = self.field("value")?;
        self.expect('>')?;
        let entries: Fields = [key.with_nullable(false), value].into_iter().map(Arc::new).collect();
        Ok(DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false))
    }
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$' | '@' | '/')
}

/// The type of a field as a pipeline file writes it; a type that it cannot write (one that only an expression gives) as Arrow calls it.
pub fn type_text(field: &Field) -> String {
    match field.data_type() {
        DataType::Timestamp(..) if field.metadata().get(TEXT_KEY).is_some_and(|text| text == TEXT_ISO) => TIMESTAMP.to_owned(),
        DataType::Timestamp(unit, _) => format!("timestamp_{}", unit_text(*unit)),
        DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        DataType::LargeBinary | DataType::BinaryView => "binary".to_owned(),
        DataType::Dictionary(_, value) => type_text(&Field::new("value", value.as_ref().clone(), true)),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("decimal({precision}, {scale})"),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => format!("list<{}>", type_text(item)),
        DataType::Struct(fields) => format!("struct<{}>", fields.iter().map(|field| field_text(field)).collect::<Vec<_>>().join(", ")),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => format!("map<{}>", fields.iter().map(|field| type_text(field)).collect::<Vec<_>>().join(", ")),
            other => other.to_string(),
        },
        other => SIMPLE.iter().find(|(_, data_type)| data_type == other).map_or_else(|| other.to_string(), |(name, _)| (*name).to_owned()),
    }
}

fn field_text(field: &Field) -> String {
    let name = field.name();
    let text = type_text(field);
    if !name.is_empty() && name.chars().all(is_name_char) {
        return format!("{name}: {text}");
    }
    format!("\"{}\": {text}", name.replace('\\', "\\\\").replace('"', "\\\""))
}

fn unit_text(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}
