//! Every type of record through its encoding and back, and damaged encodings.

use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, VecDeque};

fn round_trip<T: Record + PartialEq + std::fmt::Debug>(value: &T) {
    let mut bytes = vec![9];
    value.encode(&mut bytes);
    let mut rest = &bytes[1..];
    assert_eq!(&T::decode(&mut rest).expect("decodes"), value);
    assert!(rest.is_empty());
    for end in 1..bytes.len() {
        assert!(T::decode(&mut &bytes[1..end]).is_err(), "{value:?} cut to {} bytes", end - 1);
    }
}

#[derive(crate::Record, Debug, Clone, PartialEq)]
#[record(crate = thalweg_common)]
enum Shape {
    Dot,
    Circle(f64),
    Named { name: String, at: (i32, i32) },
}

#[derive(crate::Record, Debug, Clone, PartialEq)]
#[record(crate = thalweg_common)]
struct Everything<T: Record> {
    generic: Vec<T>,
    #[record(serde)]
    address: std::net::IpAddr,
    shapes: Vec<Shape>,
    map: HashMap<String, Option<u64>>,
}

proptest! {
    #[test]
    fn records_survive(number: i64, text: String, list: Vec<Option<u16>>, pair: (bool, char)) {
        round_trip(&number);
        round_trip(&(text.clone(), list));
        round_trip(&pair);
        round_trip(&bytes::Bytes::from(text.clone()));
        round_trip(&Serde(text));
    }

    #[test]
    fn encoding_is_bincodes(text: String, numbers: Vec<u32>, maybe: Option<f64>) {
        let value = (text, numbers, maybe);
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        prop_assert_eq!(bytes, codec::to_bytes(&value).expect("encodes"));
    }

    #[test]
    fn many_numbers_at_once_are_the_bytes_of_each(
        bytes: Vec<u8>, words: Vec<u16>, floats: Vec<u64>, wide: Vec<i128>, array: [i32; 7], three: [u8; 3],
    ) {
        let floats: Vec<f64> = floats.into_iter().map(|bits| bits as f64 / 3.0).collect();
        let value = (bytes, words, floats, wide, array, three);
        let mut together = Vec::new();
        value.encode(&mut together);
        let mut each = Vec::new();
        let mut list = |length: usize, encode: &dyn Fn(&mut Vec<u8>)| {
            put_length(length, &mut each);
            encode(&mut each);
        };
        list(value.0.len(), &|out| value.0.iter().for_each(|number| number.encode(out)));
        list(value.1.len(), &|out| value.1.iter().for_each(|number| number.encode(out)));
        list(value.2.len(), &|out| value.2.iter().for_each(|number| number.encode(out)));
        list(value.3.len(), &|out| value.3.iter().for_each(|number| number.encode(out)));
        value.4.iter().for_each(|number| number.encode(&mut each));
        value.5.iter().for_each(|number| number.encode(&mut each));
        prop_assert_eq!(&together, &each);
        round_trip(&value);
    }

    #[test]
    fn arrays_and_queues_survive(texts: [String; 3], queue: VecDeque<Option<i64>>) {
        round_trip(&texts);
        round_trip(&queue);
    }

    #[test]
    fn rubbish_is_an_error_and_never_a_huge_allocation(bytes: Vec<u8>) {
        let _ = Everything::<String>::decode(&mut bytes.as_slice());
        let _ = Vec::<Vec<String>>::decode(&mut bytes.as_slice());
        let _ = Vec::<Vec<u64>>::decode(&mut bytes.as_slice());
    }
}

#[test]
fn derived_records_survive() {
    round_trip(&Shape::Dot);
    round_trip(&Everything {
        generic: vec![1u8, 2],
        address: [10, 0, 0, 1].into(),
        shapes: vec![Shape::Circle(0.5), Shape::Named { name: "n".into(), at: (1, -1) }, Shape::Dot],
        map: HashMap::from([("a".into(), None), ("b".into(), Some(3))]),
    });
    assert!(Shape::decode(&mut [9, 0, 0, 0].as_slice()).is_err());
}

#[test]
fn numbers_that_are_announced_but_not_there_take_no_memory() {
    for announced in [u64::MAX, u64::MAX / 8, 3] {
        let bytes = [announced.to_le_bytes(), [0; 8], [0; 8]].concat();
        let error = Vec::<u64>::decode(&mut bytes.as_slice()).expect_err("too few bytes");
        assert!(error.to_string().contains(&announced.to_string()), "{error}");
    }
    assert!(<[String; 2]>::decode(&mut [0; 15].as_slice()).is_err());
}

#[test]
fn a_schema_names_fields_and_types() {
    let Schema::Enum { name, variants } = Shape::schema() else { panic!("an enum") };
    assert_eq!(name, "Shape");
    assert_eq!(
        variants.iter().map(|variant| variant.name.as_str()).collect::<Vec<_>>(),
        ["Dot", "Circle", "Named"]
    );
    assert_eq!(variants[2].fields[0].name, "name");
}
