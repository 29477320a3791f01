//! The encoding byte by byte: a change here makes every checkpoint unreadable.

use super::*;
use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::Int32Type;
use proptest::prelude::*;
use std::sync::Arc;

fn encoded(columns: &[ArrayRef]) -> Vec<(Vec<u8>, u64)> {
    let mut keys = EncodedKeys::new();
    keys.encode(columns, columns[0].len()).unwrap();
    (0..keys.len()).map(|row| (keys.key(row).to_vec(), keys.hashes()[row])).collect()
}

fn bytes_of(columns: &[ArrayRef]) -> Vec<Vec<u8>> {
    encoded(columns).into_iter().map(|(bytes, _)| bytes).collect()
}

#[test]
fn golden_vectors_never_change() {
    let strings: ArrayRef = Arc::new(StringArray::from(vec![Some("host-1"), Some(""), None]));
    assert_eq!(
        encoded(&[strings]),
        [(b"\x07host-1".to_vec(), 0x4cb6_8539_03c8_db8b), (vec![1], 0xe12e_f9d2_eb86_ceeb), (vec![0], 0xc44b_dff4_074e_ecdb)]
    );
    let integers: ArrayRef = Arc::new(Int32Array::from(vec![Some(-2), None]));
    assert_eq!(bytes_of(std::slice::from_ref(&integers)), [vec![1, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], vec![0]]);
    let unsigned: ArrayRef = Arc::new(UInt16Array::from(vec![0x1234]));
    assert_eq!(bytes_of(&[unsigned]), [vec![1, 0x34, 0x12, 0, 0, 0, 0, 0, 0]]);
    let floats: ArrayRef = Arc::new(Float32Array::from(vec![-0.0, 1.5, -f32::NAN]));
    let golden = [vec![1, 0, 0, 0, 0, 0, 0, 0, 0], vec![1, 0, 0, 0, 0, 0, 0, 0xF8, 0x3F], vec![1, 0, 0, 0, 0, 0, 0, 0xF8, 0x7F]];
    assert_eq!(bytes_of(&[floats]), golden);
    let booleans: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]));
    assert_eq!(bytes_of(&[booleans]), [vec![1, 1], vec![1, 0], vec![0]]);
    let decimals: ArrayRef = Arc::new(Decimal128Array::from(vec![-1]));
    assert_eq!(bytes_of(&[decimals])[0], [&[1][..], &[0xFF; 16]].concat());
    let intervals: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3)]));
    assert_eq!(bytes_of(&[intervals])[0], [1, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);

    let both: [ArrayRef; 2] = [Arc::new(StringArray::from(vec![Some("é"), None])), integers];
    assert_eq!(
        encoded(&both),
        [
            (vec![3, 0xC3, 0xA9, 1, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], 0x0c4d_2503_b69f_8a3e),
            (vec![0, 0], 0x3325_230e_1f28_5505)
        ]
    );
    assert_eq!(bytes_of(&[Arc::new(NullArray::new(1)) as ArrayRef]), [[0]]);
}

#[test]
fn no_columns_are_one_key() {
    let mut keys = EncodedKeys::new();
    keys.encode(&[], 3).unwrap();
    assert_eq!((keys.len(), keys.key(2)), (3, &[][..]));
    assert_eq!(keys.hashes(), [0x2d06_8005_38d3_94c2; 3], "xxh3-64 of nothing");
}

#[test]
fn a_string_is_the_same_key_in_every_arrow_type() {
    let long = "x".repeat(20_000);
    let plain: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some(&long), Some("a"), Some("")]));
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    for data_type in [DataType::LargeUtf8, DataType::Utf8View, DataType::Binary, DataType::LargeBinary, DataType::BinaryView, dictionary] {
        let other = cast(&plain, &data_type).unwrap();
        assert_eq!(encoded(&[other]), encoded(std::slice::from_ref(&plain)), "{data_type}");
    }
    let fixed: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter([b"ab"].into_iter()).unwrap());
    assert_eq!(bytes_of(&[fixed]), [b"\x03ab"]);
}

#[test]
fn a_sliced_column_is_read_where_its_slice_is() {
    let strings: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("c")]));
    let integers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let whole = bytes_of(&[strings.clone(), integers.clone()]);
    assert_eq!(bytes_of(&[strings.slice(1, 2), integers.slice(1, 2)]), whole[1..]);
    assert_eq!(bytes_of(&[integers.slice(1, 2)]), [vec![0], vec![1, 3, 0, 0, 0, 0, 0, 0, 0]]);
}

#[test]
fn columns_do_not_run_into_each_other() {
    let left: [ArrayRef; 2] = [Arc::new(StringArray::from(vec!["a"])), Arc::new(StringArray::from(vec!["bc"]))];
    let right: [ArrayRef; 2] = [Arc::new(StringArray::from(vec!["ab"])), Arc::new(StringArray::from(vec!["c"]))];
    assert_ne!(bytes_of(&left), bytes_of(&right));
}

#[test]
fn lengths_of_any_size_survive() {
    for length in [0, 1, 125, 126, 127, 128, 16_382, 16_383, 16_384, 70_000_000] {
        let mut buffer = [0; MAX_LENGTH_WIDTH];
        let width = write_length(length, &mut buffer);
        assert_eq!(width, length_width(length));
        assert_eq!(read_length(&buffer[..width]).unwrap(), (Some(length), &[][..]));
    }
    assert!(read_length(&[0x80]).is_err());
    assert!(read_length(&[]).is_err());
}

#[test]
fn nested_columns_are_refused() {
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]));
    let error = EncodedKeys::new().encode(std::slice::from_ref(&list), 1).unwrap_err();
    assert!(error.to_string().starts_with("a column of type List("), "{error}");
    assert!(check_type(list.data_type()).is_err());
}

/// The text columns as the general way takes them: as large ones.
fn the_general_way(columns: &[ArrayRef]) -> Vec<ArrayRef> {
    let large = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8 => cast(column, &DataType::LargeUtf8).unwrap(),
        _ => cast(column, &DataType::LargeBinary).unwrap(),
    };
    columns.iter().map(large).collect()
}

proptest! {
    #[test]
    fn texts_alone_are_encoded_as_every_other_way(
        batches in prop::collection::vec(
            (1_usize..4, prop::collection::vec(prop::array::uniform3(prop::option::weighted(0.9, prop_oneof![9 => "[a-zé]{0,20}", 1 => "x{100,300}"])), 1..40), any::<prop::sample::Index>()),
            1..4,
        ),
    ) {
        let mut kept = EncodedKeys::new();
        for (columns, rows, first) in batches {
            let column = |at: usize| {
                let texts: ArrayRef = Arc::new(rows.iter().map(|row| row[at].as_deref()).collect::<StringArray>());
                if at == 1 { cast(&texts, &DataType::Binary).unwrap() } else { texts }
            };
            let first = first.index(rows.len());
            let columns: Vec<ArrayRef> = (0..columns).map(|at| column(at).slice(first, rows.len() - first)).collect();
            kept.encode(&columns, rows.len() - first).unwrap();
            let found: Vec<_> = (0..kept.len()).map(|row| (kept.key(row).to_vec(), kept.hashes()[row])).collect();
            prop_assert_eq!(found, encoded(&the_general_way(&columns)));
        }
    }
}
