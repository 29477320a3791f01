//! Rows per second on one core, ours beside arrow-json and arrow-csv, on the record of the metrics demo; and Parquet, for the scale:
//! `cargo bench -p standpipe-formats`.

#![allow(clippy::expect_used, reason = "known input: a failure ends the benchmark")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{BinaryArray, BinaryViewArray, RecordBatch};
use arrow_json::reader::ReaderBuilder;
use arrow_json::writer::{LineDelimited, WriterBuilder};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use standpipe_formats::{FormatKind, decoder, encoder, file_encoder, types};

const ROWS: usize = 8192;
const ROUNDS: usize = 100;
/// The best of several runs counts: the others are disturbed.
const RUNS: usize = 5;

fn schema() -> SchemaRef {
    let columns = [("host", "string"), ("metric", "string"), ("ts", "timestamp_ms"), ("value", "float64")];
    let fields = columns.map(|(name, text)| types::parse_field(name, text).expect("a type"));
    Arc::new(Schema::new(fields.to_vec()))
}

fn records(record: impl Fn(String, &str, i64, f64) -> String) -> Vec<String> {
    let of = |row: usize| {
        let (host, metric) = (format!("host-{:04}", row % 1000), ["cpu", "mem", "disk"][row % 3]);
        record(host, metric, 1_700_000_000_000_i64 + row as i64 * 2, (row * 7919 % 20_000) as f64 / 100.0)
    };
    (0..ROWS).map(of).collect()
}

fn measure(name: &str, mut round: impl FnMut()) {
    let run = |round: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| round());
        (ROWS * ROUNDS) as f64 / start.elapsed().as_secs_f64()
    };
    let best = (0..RUNS).map(|_| run(&mut round)).fold(0.0, f64::max);
    println!("{name:<36} {:>8.2} M rows/s", best / 1e6);
}

fn main() {
    json();
    csv();
}

fn json() {
    let records = records(|host, metric, ts, value| format!(r#"{{"host":"{host}","metric":"{metric}","ts":{ts},"value":{value:?}}}"#));
    let views = BinaryViewArray::from_iter_values(&records);
    let binary = BinaryArray::from_iter_values(&records);
    let lines = records.join("\n");
    println!("json: {} rows, {:.1} bytes per record", ROWS, lines.len() as f64 / ROWS as f64);

    let spec = FormatKind::Json.into();
    let mut ours = decoder(&spec, schema()).expect("a decoder");
    measure("decode, ours (BinaryView)", || {
        let decoded = ours.decode(black_box(&views)).expect("records");
        assert_eq!(decoded.batch.num_rows(), ROWS);
    });
    measure("decode, ours (Binary)", || {
        let decoded = ours.decode(black_box(&binary)).expect("records");
        assert_eq!(decoded.batch.num_rows(), ROWS);
    });
    let mut theirs = ReaderBuilder::new(schema()).with_batch_size(ROWS).build_decoder().expect("a decoder");
    measure("decode, arrow-json (lines)", || {
        theirs.decode(black_box(lines.as_bytes())).expect("records");
        assert_eq!(theirs.flush().expect("a batch").map(|batch| batch.num_rows()), Some(ROWS));
    });

    let batch: RecordBatch = ours.decode(&binary).expect("records").batch;
    let mut ours = encoder(&spec, schema()).expect("an encoder");
    measure("encode, ours", || {
        let encoded = ours.encode(black_box(&batch)).expect("a batch");
        assert_eq!(encoded.value_data().len(), binary.value_data().len());
    });
    measure("encode, arrow-json (time as text)", || {
        let mut writer = WriterBuilder::new().build::<_, LineDelimited>(Vec::with_capacity(1 << 20));
        writer.write(black_box(&batch)).expect("a batch");
        black_box(writer.into_inner());
    });
}

fn csv() {
    let records = records(|host, metric, ts, value| format!("{host},{metric},{ts},{value:?}"));
    let binary = BinaryArray::from_iter_values(&records);
    let lines = records.join("\n") + "\n";
    println!("csv: {} rows, {:.1} bytes per record", ROWS, lines.len() as f64 / ROWS as f64);
    let spec = FormatKind::Csv.into();
    let mut ours = decoder(&spec, schema()).expect("a decoder");
    measure("decode, ours (Binary)", || {
        let decoded = ours.decode(black_box(&binary)).expect("records");
        assert_eq!(decoded.batch.num_rows(), ROWS);
    });
    // An epoch number is no timestamp for arrow-csv.
    let number = |field: &Field| if field.name() == "ts" { field.clone().with_data_type(DataType::Int64) } else { field.clone() };
    let numbers = Schema::new(schema().fields().iter().map(|field| number(field.as_ref())).collect::<Vec<_>>());
    let mut theirs = arrow_csv::ReaderBuilder::new(Arc::new(numbers)).with_batch_size(ROWS).build_decoder();
    measure("decode, arrow-csv (lines)", || {
        theirs.decode(black_box(lines.as_bytes())).expect("records");
        assert_eq!(theirs.flush().expect("a batch").map(|batch| batch.num_rows()), Some(ROWS));
    });

    let batch: RecordBatch = ours.decode(&binary).expect("records").batch;
    let mut ours = encoder(&spec, schema()).expect("an encoder");
    measure("encode, ours", || {
        let encoded = ours.encode(black_box(&batch)).expect("a batch");
        assert_eq!(encoded.value_data().len(), binary.value_data().len());
    });
    measure("encode, arrow-csv (time as text)", || {
        let mut out = Vec::with_capacity(1 << 20);
        arrow_csv::WriterBuilder::new().with_header(false).build(&mut out).write(black_box(&batch)).expect("a batch");
        black_box(out);
    });
    let mut ours = file_encoder(&FormatKind::Parquet.into(), &schema()).expect("an encoder");
    let mut out = Vec::new();
    measure("encode, parquet (snappy)", || {
        ours.write(black_box(&batch), &mut out).expect("a batch");
        out.clear();
    });
}
