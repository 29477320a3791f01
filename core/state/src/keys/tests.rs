use super::*;
use arrow::array::*;
use proptest::prelude::*;
use std::sync::Arc;

/// Two columns of each kind of type, with nulls and repeats, from a seed of small numbers.
fn key_columns(seeds: &[Option<u8>]) -> Vec<ArrayRef> {
    let strings: ArrayRef = Arc::new(seeds.iter().map(|seed| seed.map(|seed| "k".repeat(usize::from(seed) * 40))).collect::<StringArray>());
    let integers: ArrayRef = Arc::new(seeds.iter().map(|seed| seed.map(i64::from)).collect::<Int64Array>());
    let floats: ArrayRef = Arc::new(seeds.iter().map(|seed| seed.map(|seed| f64::from(seed) / 3.0)).collect::<Float64Array>());
    let cast = |array: &ArrayRef, data_type: &DataType| arrow::compute::cast(array, data_type).unwrap();
    let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    let mut columns = vec![
        cast(&strings, &dictionary),
        cast(&strings, &DataType::Utf8View),
        cast(&strings, &DataType::LargeBinary),
        cast(&integers, &DataType::Timestamp(arrow_schema::TimeUnit::Millisecond, Some("+02:00".into()))),
        cast(&integers, &DataType::Decimal128(20, 2)),
        cast(&integers, &DataType::Decimal256(40, 2)),
        cast(&cast(&integers, &DataType::Int32), &DataType::Date32),
        cast(&floats, &DataType::Float32),
        cast(&floats, &DataType::Float16),
        Arc::new(seeds.iter().map(|seed| seed.map(|seed| seed % 2 == 0)).collect::<BooleanArray>()),
        Arc::new(NullArray::new(seeds.len())),
    ];
    for data_type in [DataType::Int8, DataType::Int16, DataType::UInt8, DataType::UInt64] {
        columns.push(cast(&integers, &data_type));
    }
    columns.extend([strings, integers, floats]);
    columns
}

fn types(columns: &[ArrayRef]) -> Vec<DataType> {
    columns.iter().map(|column| column.data_type().clone()).collect()
}

proptest! {
    #[test]
    fn ids_are_one_per_distinct_key_and_columns_come_back(batches in prop::collection::vec(prop::collection::vec(prop::option::of(0_u8..12), 0..40), 1..4)) {
        let mut index = KeyIndex::new(types(&key_columns(&[]))).unwrap();
        let mut keys = EncodedKeys::new();
        let mut ids = Vec::new();
        let mut seen: Vec<Option<u8>> = Vec::new();
        for seeds in &batches {
            let columns = key_columns(seeds);
            keys.encode(&columns, seeds.len()).unwrap();
            index.intern(&keys, &mut ids).unwrap();
            for seed in seeds {
                if !seen.contains(seed) {
                    seen.push(*seed);
                }
            }
            let expected: Vec<u32> = seeds.iter().map(|seed| seen.iter().position(|s| s == seed).unwrap() as u32).collect();
            prop_assert_eq!(&ids, &expected);
            for (decoded, column) in index.columns(&ids).unwrap().iter().zip(&columns) {
                prop_assert_eq!(decoded, column);
            }

            let mut ordinals = Ordinals::default();
            ordinals.assign(&ids, index.len());
            let back: Vec<u32> = ordinals.of_row().iter().map(|ordinal| ordinals.ids()[*ordinal as usize]).collect();
            prop_assert_eq!(&back, &ids);
        }
        let all = key_columns(&seen);
        for (decoded, column) in index.columns_of(0..index.len()).unwrap().iter().zip(&all) {
            prop_assert_eq!(decoded, column);
        }

        let moved = index.compact(|id| id % 3 != 0);
        prop_assert_eq!(index.len(), moved.iter().flatten().count());
        keys.encode(&all, seen.len()).unwrap();
        index.intern(&keys, &mut ids).unwrap();
        for (id, new) in moved.iter().enumerate() {
            match new {
                Some(new) => prop_assert_eq!(ids[id], *new),
                None => prop_assert!(ids[id] as usize >= moved.iter().flatten().count(), "forgotten, so new again"),
            }
        }
    }
}

#[test]
fn equal_floats_are_one_key() {
    let column: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::from_bits(0x7ff0_0000_0000_0001)]));
    let mut index = KeyIndex::new(vec![DataType::Float64]).unwrap();
    let mut keys = EncodedKeys::new();
    keys.encode(&[column], 5).unwrap();
    let mut ids = Vec::new();
    index.intern(&keys, &mut ids).unwrap();
    assert_eq!(ids, [0, 0, 1, 1, 1]);
}

#[test]
fn ordinals_of_a_batch_know_nothing_of_the_last_one() {
    let mut ordinals = Ordinals::default();
    ordinals.assign(&[5, 3, 5], 6);
    assert_eq!((ordinals.of_row(), ordinals.ids()), (&[0, 1, 0][..], &[5, 3][..]));
    ordinals.assign(&[3, 4], 5);
    assert_eq!((ordinals.of_row(), ordinals.ids()), (&[0, 1][..], &[3, 4][..]));
}

proptest! {
    #[test]
    fn short_and_long_keys_are_compared_byte_by_byte(key in prop::collection::vec(any::<u8>(), 0..40), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        prop_assert!(same(&key, &key.clone()));
        prop_assert!(!same(&key, &[&key[..], &[0]].concat()));
        if !key.is_empty() {
            let mut other = key.clone();
            other[at.index(key.len())] ^= flip;
            prop_assert!(!same(&key, &other));
        }
    }
}
