//! What is sent and what is read. The question is a JSON array with an object for each key of the batch, every one once; the answer a JSON array with as many objects in the
//! same order, null where nothing is known of a key. Both go through the formats' JSON, whole columns at a time.

use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, UInt32Array, cast::AsArray};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use arrow_select::take::take;
use standpipe_formats::{FormatKind, FormatSpec, decoder, encoder};
use standpipe_sdk::{Error, Result};
use std::{collections::HashMap, sync::Arc};

/// The member that the answer is put in, to be read as a list of one row.
const ANSWERS: &str = "answers";

/// See the module's documentation.
pub(crate) struct Columns {
    keys: Vec<usize>,
    key_schema: SchemaRef,
    answer_schema: SchemaRef,
    output: SchemaRef,
}

/// What is asked for a batch.
pub(crate) struct Question {
    /// JSON.
    pub(crate) body: Vec<u8>,
    /// For each row the place of its key.
    key_of_row: Vec<u32>,
    keys: usize,
}

impl Columns {
    /// # Errors
    /// When JSON cannot hold a column.
    pub(crate) fn new(input: &SchemaRef, keys: &[String], answered: &[Field]) -> Result<Self> {
        let keys = keys.iter().map(|name| input.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let key_schema = Arc::new(input.project(&keys)?);
        let answer = DataType::Struct(Fields::from(answered.to_vec()));
        let list = DataType::List(Arc::new(Field::new_list_field(answer, true)));
        let answer_schema = Arc::new(Schema::new(vec![Field::new(ANSWERS, list, false)]));
        let columns = Self { keys, key_schema, answer_schema, output: crate::output(input, answered) };
        encoder(&json(), Arc::clone(&columns.key_schema))?;
        decoder(&json(), Arc::clone(&columns.answer_schema))?;
        Ok(columns)
    }

    pub(crate) fn question(&self, batch: &RecordBatch) -> Result<Question> {
        let keys = batch.project(&self.keys)?;
        let records = encoder(&json(), Arc::clone(&self.key_schema))?.encode(&keys)?;
        let mut places: HashMap<&[u8], u32> = HashMap::with_capacity(records.len());
        let (mut body, mut key_of_row) = (vec![b'['], Vec::with_capacity(records.len()));
        for record in records.iter().flatten() {
            let next = places.len() as u32;
            let place = *places.entry(record).or_insert(next);
            if place == next {
                if next > 0 {
                    body.push(b',');
                }
                body.extend_from_slice(record);
            }
            key_of_row.push(place);
        }
        body.push(b']');
        let keys = places.len();
        Ok(Question { body, key_of_row, keys })
    }

    /// The batch with the columns that were answered.
    pub(crate) fn enriched(&self, batch: &RecordBatch, question: &Question, answer: &[u8]) -> Result<RecordBatch> {
        let record = [b"{\"answers\":", answer, b"}"].concat();
        let decoded = decoder(&json(), Arc::clone(&self.answer_schema))?.decode(&BinaryArray::from_vec(vec![&record]))?;
        if let Some(broken) = decoded.broken.first() {
            return Err(Error::data(format!("the service's answer cannot be read, inside of {{\"{ANSWERS}\": ...}}: {}", broken.reason)));
        }
        let answers = decoded.batch.column(0).as_list::<i32>().value(0);
        if answers.len() != question.keys {
            return Err(Error::data(format!("the service was asked for {} keys and answers {}", question.keys, answers.len())));
        }
        let answers = answers.as_struct();
        let rows: UInt32Array = question.key_of_row.iter().map(|key| answers.is_valid(*key as usize).then_some(*key)).collect();
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        for column in answers.columns() {
            columns.push(take(column, &rows, None)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.output), columns)?)
    }
}

fn json() -> FormatSpec {
    FormatKind::Json.into()
}
