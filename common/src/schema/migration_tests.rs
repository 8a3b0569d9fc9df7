//! Values of older types, rewritten and read as newer ones; what stands in the way; damaged bytes; JSON and back.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::json::{JsonError, from_json, to_json};
use super::{Change, Compatibility, Field, Migration, Problem, Schema, compare};
use crate::record::{Record, Serde};

/// Types as an older version of a job had them.
mod old {
    #[derive(crate::Record, Debug, Clone, PartialEq)]
    #[record(crate = thalweg_common)]
    pub struct Leg {
        pub price: f32,
        pub volume: u16,
    }

    #[derive(crate::Record, Debug, Clone, PartialEq)]
    #[record(crate = thalweg_common)]
    pub enum Side {
        Buy,
        Sell { limit: i32 },
        Swap(u8, String),
    }

    #[derive(crate::Record, Debug, Clone, PartialEq)]
    #[record(crate = thalweg_common)]
    pub struct Order {
        pub id: u32,
        pub ticker: String,
        pub side: Side,
        pub legs: Vec<Leg>,
        pub note: Option<String>,
        pub tags: std::collections::BTreeMap<String, (bool, u8)>,
        pub gone: Vec<Option<Leg>>,
        pub flags: [u8; 3],
    }
}

mod new {
    use std::collections::BTreeMap;

    fn venue() -> String {
        "XNAS".into()
    }

    #[derive(crate::Record, Debug, Clone, PartialEq)]
    #[record(crate = thalweg_common)]
    pub struct Leg {
        #[record(rename_from = "size", rename_from = "volume")]
        pub amount: i64,
        pub price: f64,
        #[record(default)]
        pub fees: Vec<u64>,
    }

    #[derive(crate::Record, Debug, Clone, PartialEq)]
    #[record(crate = thalweg_common)]
    pub enum Side {
        Short,
        #[record(rename_from = "Swap")]
        Exchange(u32, String),
        Sell {
            limit: Option<i64>,
            #[record(default)]
            post_only: bool,
        },
        Buy,
    }

    #[derive(crate::Record, Debug, Clone, PartialEq)]
    #[record(crate = thalweg_common)]
    pub struct Order {
        #[record(default = "venue")]
        pub venue: String,
        pub legs: Vec<Leg>,
        pub id: i64,
        pub ticker: Option<String>,
        pub side: Side,
        pub note: Option<String>,
        pub tags: BTreeMap<String, (bool, u16)>,
        pub flags: [u8; 3],
        #[record(default, serde)]
        pub address: Option<std::net::IpAddr>,
    }
}

fn expected_leg(leg: &old::Leg) -> new::Leg {
    new::Leg { amount: leg.volume.into(), price: leg.price.into(), fees: Vec::new() }
}

fn expected(order: &old::Order) -> new::Order {
    new::Order {
        venue: "XNAS".into(),
        legs: order.legs.iter().map(expected_leg).collect(),
        id: order.id.into(),
        ticker: Some(order.ticker.clone()),
        side: match &order.side {
            old::Side::Buy => new::Side::Buy,
            old::Side::Sell { limit } => new::Side::Sell { limit: Some((*limit).into()), post_only: false },
            old::Side::Swap(number, text) => new::Side::Exchange((*number).into(), text.clone()),
        },
        note: order.note.clone(),
        tags: order
            .tags
            .iter()
            .map(|(key, (flag, number))| (key.clone(), (*flag, (*number).into())))
            .collect(),
        flags: order.flags,
        address: None,
    }
}

fn leg() -> impl Strategy<Value = old::Leg> {
    (-1e6f32..1e6, any::<u16>()).prop_map(|(price, volume)| old::Leg { price, volume })
}

fn order() -> impl Strategy<Value = old::Order> {
    let side = prop_oneof![
        Just(old::Side::Buy),
        any::<i32>().prop_map(|limit| old::Side::Sell { limit }),
        (any::<u8>(), TEXT).prop_map(|(number, text)| old::Side::Swap(number, text)),
    ];
    let legs = proptest::collection::vec(leg(), 0..4);
    let gone = proptest::collection::vec(proptest::option::of(leg()), 0..4);
    let tags = proptest::collection::btree_map(TEXT, any::<(bool, u8)>(), 0..4);
    let note = proptest::option::of(TEXT);
    (any::<u32>(), TEXT, side, legs, note, tags, gone, any::<[u8; 3]>()).prop_map(
        |(id, ticker, side, legs, note, tags, gone, flags)| old::Order {
            id,
            ticker,
            side,
            legs,
            note,
            tags,
            gone,
            flags,
        },
    )
}

/// Few characters, of one to four bytes each.
const TEXT: &str = ".{0,5}";

fn encoded<T: Record>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}

fn migration<Old: Record, New: Record>() -> Migration {
    Migration::new(&Old::schema(), &New::schema()).unwrap()
}

/// The value as a newer type reads it.
fn migrated<Old: Record, New: Record>(value: &Old) -> New {
    let bytes = [encoded(value), vec![7]].concat();
    let (mut rest, mut out) = (bytes.as_slice(), vec![9]);
    migration::<Old, New>().migrate(&mut rest, &mut out).unwrap();
    assert_eq!(rest, [7]);
    let mut read = &out[1..];
    let new = New::decode(&mut read).unwrap();
    assert!(read.is_empty());
    new
}

proptest! {
    #[test]
    fn every_value_becomes_what_it_should(order in order()) {
        prop_assert_eq!(migrated::<_, new::Order>(&order), expected(&order));
        prop_assert_eq!(&migrated::<_, old::Order>(&order), &order);
        let many = vec![(1u8, order.clone()), (2, order.clone())];
        prop_assert_eq!(migrated::<_, Vec<(u64, new::Order)>>(&many)[1].1.clone(), expected(&order));
    }

    #[test]
    fn a_value_is_measured_and_truncated_ones_are_errors(order in order(), cut: prop::sample::Index) {
        let bytes = [encoded(&order), vec![1, 2, 3]].concat();
        let same = migration::<old::Order, old::Order>();
        prop_assert!(same.is_identity());
        let mut rest = bytes.as_slice();
        prop_assert_eq!(same.take(&mut rest).unwrap(), encoded(&order));
        prop_assert_eq!(rest, [1, 2, 3]);
        let other = migration::<old::Order, new::Order>();
        let end = cut.index(bytes.len() - 3);
        prop_assert!(other.migrate(&mut &bytes[..end], &mut Vec::new()).is_err());
    }

    #[test]
    fn rubbish_is_an_error_or_some_value_and_never_a_panic(bytes: Vec<u8>, lengths: Vec<u8>) {
        // Small numbers make it further than random ones.
        let sparse: Vec<u8> = lengths.iter().flat_map(|length| (u64::from(*length) % 5).to_le_bytes()).collect();
        for bytes in [bytes, sparse] {
            let mut out = Vec::new();
            if migration::<old::Order, new::Order>().migrate(&mut bytes.as_slice(), &mut out).is_ok() {
                prop_assert!(new::Order::decode(&mut out.as_slice()).is_ok());
            }
            let _ = migration::<Vec<Vec<u16>>, Vec<Vec<f32>>>().migrate(&mut bytes.as_slice(), &mut Vec::new());
            let _ = to_json(&new::Order::schema(), &mut bytes.as_slice());
            let _ = to_json(&<Vec<Vec<()>>>::schema(), &mut bytes.as_slice());
        }
    }

    #[test]
    fn numbers_keep_their_value(unsigned: u32, signed: i32, small: i8, byte: u8, float: f32) {
        prop_assert_eq!(migrated::<_, u64>(&unsigned), u64::from(unsigned));
        prop_assert_eq!(migrated::<_, i64>(&unsigned), i64::from(unsigned));
        prop_assert_eq!(migrated::<_, u128>(&unsigned), u128::from(unsigned));
        prop_assert_eq!(migrated::<_, f64>(&unsigned), f64::from(unsigned));
        prop_assert_eq!(migrated::<_, i128>(&signed), i128::from(signed));
        prop_assert_eq!(migrated::<_, f64>(&signed), f64::from(signed));
        prop_assert_eq!(migrated::<_, i16>(&small), i16::from(small));
        prop_assert_eq!(migrated::<_, f32>(&small), f32::from(small));
        prop_assert_eq!(migrated::<_, i16>(&byte), i16::from(byte));
        let wide: f64 = migrated(&float);
        prop_assert!(wide.to_bits() == f64::from(float).to_bits() || float.is_nan() && wide.is_nan());
    }

    #[test]
    fn what_is_shown_reads_back(
        order in order(), wide: (u128, i128), floats: (u32, u64), nested: Option<Option<Option<u8>>>,
        map in proptest::collection::hash_map(any::<(u8, char)>(), any::<[i16; 2]>().prop_map(Vec::from), 0..4),
        empty in proptest::collection::vec(Just(()), 0..4),
        maps in proptest::collection::vec(proptest::collection::btree_map(TEXT, any::<Option<bool>>(), 0..4), 0..4),
    ) {
        let floats = (f32::from_bits(floats.0), f64::from_bits(floats.1));
        let value = (order, wide, floats, nested, map, empty, maps, Serde("x".to_string()));
        let bytes = encoded(&value);
        fn schema_of<T: Record>(_: &T) -> Schema {
            T::schema()
        }
        let schema = schema_of(&value);
        let shown = to_json(&schema, &mut bytes.as_slice()).unwrap();
        let text = serde_json::to_string(&shown).unwrap();
        let mut again = Vec::new();
        from_json(&schema, &serde_json::from_str(&text).unwrap(), &mut again).unwrap();
        prop_assert_eq!(again, bytes);
    }
}

#[test]
fn all_changes_are_told() {
    let Compatibility::Migratable(changes) = compare(&old::Order::schema(), &new::Order::schema()) else {
        panic!("it can be migrated");
    };
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [
            "field `venue` is added with its default",
            "field `legs[].amount` was called `volume`",
            "`legs[].amount` is widened from u16 to i64",
            "`legs[].price` is widened from f32 to f64",
            "field `legs[].fees` is added with its default",
            "the fields of `legs[]` are reordered",
            "`id` is widened from u32 to i64",
            "`ticker` may be absent now",
            "variant `side.Exchange` was called `Swap`",
            "`side.Sell.limit` may be absent now",
            "`side.Sell.limit` is widened from i32 to i64",
            "field `side.Sell.post_only` is added with its default",
            "`side.Exchange.0` is widened from u8 to u32",
            "the variants of `side` are reordered",
            "variant `side.Short` is added",
            "`tags[value].1` is widened from u8 to u16",
            "field `address` is added with its default",
            "field `gone` is removed",
            "the fields of the value are reordered",
        ]
    );
}

fn primitive(name: &str) -> Schema {
    Schema::primitive(name)
}

fn structure(fields: &[(&str, Schema)]) -> Schema {
    let fields = fields.iter().map(|(name, schema)| Field::new(*name, schema.clone())).collect();
    Schema::Struct { name: "S".into(), fields }
}

fn enumeration(variants: &[&str]) -> Schema {
    let variants = variants.iter().map(|name| super::Variant::new(*name, Vec::new())).collect();
    Schema::Enum { name: "E".into(), variants }
}

fn boxed(schema: Schema) -> Box<Schema> {
    Box::new(schema)
}

#[test]
fn what_cannot_be_bridged_says_where_why_and_what_to_do() {
    let own = || primitive("nexmark text");
    let pair = || structure(&[("a", primitive("u8")), ("b", primitive("u8"))]);
    let one = || structure(&[("a", primitive("u8"))]);
    let table = [
        (one(), pair(), "field `b` is new and has no default; put #[record(default)]"),
        (
            primitive("u64"),
            primitive("u32"),
            "the value was u64 and is u32 now, which cannot hold every value",
        ),
        (primitive("i8"), primitive("u64"), "which cannot hold every value; keep i8"),
        (primitive("u32"), primitive("f32"), "cannot hold every value"),
        (primitive("u64"), primitive("f64"), "cannot hold every value"),
        (
            primitive("u64"),
            primitive("string"),
            "was u64 and is string now, which cannot be converted; keep its type",
        ),
        (
            Schema::Option(boxed(primitive("u8"))),
            primitive("u8"),
            "could be absent and may not be any more; keep it an Option",
        ),
        (enumeration(&["A", "B"]), enumeration(&["A"]), "variant `B` is gone, but stored values may have it"),
        (
            Schema::Map(boxed(pair()), boxed(primitive("u8"))),
            Schema::Map(boxed(one()), boxed(primitive("u8"))),
            "field `[key].b` of a map's keys is gone, so that two keys could become one",
        ),
        (
            structure(&[("x", primitive("u8")), ("text", own())]),
            structure(&[("x", primitive("u16")), ("text", own())]),
            "`text` has the type `nexmark text`, which only its own code can read",
        ),
        (Schema::Tuple(vec![one(); 2]), Schema::Tuple(vec![one(); 3]), "was (S, S) and is (S, S, S) now"),
        (Schema::Opaque("a::T".into()), Schema::Opaque("b::T".into()), "was a::T and is b::T now"),
        (Schema::List(boxed(pair())), Schema::List(boxed(primitive("u8"))), "`[]` was S and is u8 now"),
    ];
    for (old, new, expected) in table {
        let Compatibility::Incompatible(problems) = compare(&old, &new) else { panic!("{old} -> {new}") };
        assert!(problems[0].to_string().contains(expected), "{} should contain {expected}", problems[0]);
        assert_eq!(Migration::new(&old, &new).unwrap_err(), problems);
    }
    // What writes itself stays readable as long as nothing around it changes.
    let same = structure(&[("text", own())]);
    assert_eq!(compare(&same, &same), Compatibility::Same);
    assert!(matches!(&Migration::new(&same, &same).unwrap_err()[..], [Problem::UnknownEncoding { .. }]));
}

#[test]
fn names_go_before_former_names_and_one_field_is_taken_once() {
    let (x, y) = (Field::new("x", primitive("u8")), Field::new("y", primitive("u8")));
    let of = |fields: Vec<Field>| Schema::Struct { name: "S".into(), fields };
    let old = of(vec![x.clone(), y.clone()]);
    // `y` is there by its name, so `z` cannot be what `y` was.
    let z = Field::new("z", primitive("u8")).with_former_names(&["y"]).with_default(vec![5]);
    let new = of(vec![y, z]);
    let Compatibility::Migratable(changes) = compare(&old, &new) else { panic!() };
    assert_eq!(changes, [Change::FieldAdded { path: "z".into() }, Change::FieldRemoved { path: "x".into() }]);
    let mut out = Vec::new();
    Migration::new(&old, &new).unwrap().migrate(&mut [1, 2].as_slice(), &mut out).unwrap();
    assert_eq!(out, [2, 5]);
    // A new name alone changes no byte.
    let renamed = of(vec![x, Field::new("why", primitive("u8")).with_former_names(&["y"])]);
    assert!(matches!(compare(&old, &renamed), Compatibility::Migratable(_)));
    assert!(Migration::new(&old, &renamed).unwrap().is_identity());
}

#[test]
fn elements_without_content_are_bounded() {
    let filled = Field::new("x", primitive("u64")).with_default(vec![0; 8]);
    let new = Schema::List(boxed(Schema::Struct { name: "S".into(), fields: vec![filled] }));
    let migration = Migration::new(&Schema::List(boxed(structure(&[]))), &new).unwrap();
    let mut out = Vec::new();
    migration.migrate(&mut 3u64.to_le_bytes().as_slice(), &mut out).unwrap();
    assert_eq!(out.len(), 8 + 3 * 8);
    let error = migration.migrate(&mut u64::MAX.to_le_bytes().as_slice(), &mut out).unwrap_err();
    assert!(error.to_string().contains("without content"), "{error}");
    assert!(to_json(&<Vec<()>>::schema(), &mut u64::MAX.to_le_bytes().as_slice()).is_err());
}

#[test]
fn json_that_does_not_fit_says_where() {
    let schema = <Vec<new::Leg>>::schema();
    let table = [
        (r#"7"#, "the value should be list of Leg, and is 7"),
        (r#"[{"amount":1,"price":"x"}]"#, "[0].price should be f64, and is \"x\""),
        (r#"[{"amount":1.5,"price":1}]"#, "[0].amount should be i64, and is 1.5"),
        (r#"[{"amount":1}]"#, "[0].price should be f64, and is \"missing\""),
        (r#"[{"amont":1}]"#, "[0] should be Leg with the fields amount, price, fees, and is \"amont\""),
    ];
    for (text, expected) in table {
        let error = from_json(&schema, &serde_json::from_str(text).unwrap(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    // A field with a default may be missing.
    let mut out = Vec::new();
    let value = serde_json::json!([{"amount": 1, "price": 2.5}]);
    from_json(&schema, &value, &mut out).unwrap();
    let leg = new::Leg { amount: 1, price: 2.5, fees: Vec::new() };
    assert_eq!(Vec::<new::Leg>::decode(&mut out.as_slice()).unwrap(), [leg]);

    let side =
        |text: &str| from_json(&new::Side::schema(), &serde_json::from_str(text).unwrap(), &mut Vec::new());
    side(r#""Buy""#).unwrap();
    side(r#"{"Exchange":{"0":1,"1":"x"}}"#).unwrap();
    let error = side(r#""Bye""#).unwrap_err().to_string();
    assert_eq!(error, "the value should be Side, one of Short, Exchange, Sell, Buy, and is \"Bye\"");
    assert!(matches!(
        to_json(&primitive("nexmark text"), &mut [].as_slice()),
        Err(JsonError::UnknownEncoding { .. })
    ));
}
