//! Records of every shape go through a file and come back.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use thalweg_common::Record;

use super::*;

#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = thalweg_common)]
struct Everything {
    flag: bool,
    small: i8,
    number: u64,
    ratio: f32,
    text: String,
    letter: char,
    bytes: Vec<u8>,
    perhaps: Option<i32>,
    kind: Kind,
    place: Place,
    perhaps_place: Option<Place>,
    list: Vec<Option<String>>,
    nested: Vec<Vec<u16>>,
    map: BTreeMap<String, Option<i64>>,
    pair: (u8, Option<bool>),
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = thalweg_common)]
enum Kind {
    Start,
    End,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = thalweg_common)]
struct Place {
    name: Option<String>,
    at: (f64, f64),
    tags: Vec<String>,
}

fn place(seed: u64) -> Place {
    Place {
        name: (!seed.is_multiple_of(3)).then(|| format!("place {seed}")),
        at: (seed as f64 / 7.0, -(seed as f64)),
        tags: (0..seed % 3).map(|tag| tag.to_string()).collect(),
    }
}

fn record(seed: u64) -> Everything {
    Everything {
        flag: seed.is_multiple_of(2),
        small: seed as i8,
        number: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        ratio: seed as f32 / 3.0,
        text: "안녕 ".repeat(seed as usize % 4),
        letter: char::from_u32(0x41 + seed as u32 % 26).unwrap(),
        bytes: vec![seed as u8; seed as usize % 5],
        perhaps: (!seed.is_multiple_of(4)).then_some(-(seed as i32)),
        kind: if seed.is_multiple_of(2) { Kind::Start } else { Kind::End },
        place: place(seed),
        perhaps_place: (seed % 3 == 1).then(|| place(seed + 1)),
        list: (0..seed % 4).map(|item| (item > 0).then(|| item.to_string())).collect(),
        nested: (0..seed % 3).map(|length| (0..length as u16).collect()).collect(),
        map: (0..seed % 3).map(|key| (key.to_string(), (key > 0).then_some(key as i64))).collect(),
        pair: (seed as u8, (!seed.is_multiple_of(5)).then_some(true)),
    }
}

fn written<T: Record>(format: &Parquet<T>, records: impl IntoIterator<Item = T>) -> Bytes {
    let (mut writer, mut file) = (format.begin().unwrap(), Vec::new());
    for record in records {
        writer.write(&record, &mut file).unwrap();
    }
    BulkWriter::<T>::finish(writer, &mut file).unwrap();
    file.into()
}

fn read<T: Record>(file: &Bytes, range: std::ops::Range<u64>, skip: u64) -> Result<Vec<T>, Malformed> {
    let groups = RowGroups::load::<T>(file)?;
    let mut all = Vec::new();
    for group in groups.within(&range)? {
        let mut rows = groups.read(file.clone(), group.number, skip)?;
        let before = all.len() as u64;
        while rows.next(|record| all.push(record))? {}
        assert_eq!(all.len() as u64 - before, group.rows.saturating_sub(skip));
    }
    Ok(all)
}

#[test]
fn records_of_every_shape_come_back() {
    for format in [Parquet::new(), Parquet::new().zstd(), Parquet::new().uncompressed()] {
        let file = written(&format, (0..3_000).map(record));
        let found: Vec<Everything> = read(&file, 0..u64::MAX, 0).unwrap();
        assert!(found.into_iter().eq((0..3_000).map(record)));
        let rest: Vec<Everything> = read(&file, 0..u64::MAX, 2_990).unwrap();
        assert!(rest.into_iter().eq((2_990..3_000).map(record)), "a restored reader goes on in a row group");
    }
}

#[test]
fn a_file_is_divided_between_readers_by_its_row_groups() {
    let format = Parquet::new().uncompressed().row_group_bytes(20_000);
    let file = written(&format, 0..50_000_u64);
    let pieces = 7;
    let piece = file.len() as u64 / pieces + 1;
    let parts: Vec<Vec<u64>> =
        (0..pieces).map(|part| read(&file, part * piece..(part + 1) * piece, 0).unwrap()).collect();
    assert!(
        parts.iter().filter(|part| !part.is_empty()).count() > 3,
        "{:?}",
        parts.iter().map(Vec::len).collect::<Vec<_>>()
    );
    assert!(parts.into_iter().flatten().eq(0..50_000), "each row once, in order");
}

#[test]
fn a_file_without_records_is_a_file() {
    let file = written(&Parquet::<Place>::new(), []);
    assert_eq!(read::<Place>(&file, 0..u64::MAX, 0).unwrap(), []);
    for damaged in [Bytes::new(), file.slice(..file.len() - 1), Bytes::from_static(b"PAR1")] {
        assert!(RowGroups::load::<Place>(&damaged).is_err());
        assert!(RowGroups::footer_bytes(&damaged).is_err());
    }
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = thalweg_common)]
struct Newer {
    at: (f64, f64),
    #[record(default)]
    visits: u32,
    note: Option<String>,
}

#[test]
fn columns_are_found_by_name_and_what_is_missing_has_its_default() {
    let file = written(&Parquet::new(), (0..10).map(place));
    let newer: Vec<Newer> = read(&file, 0..u64::MAX, 0).unwrap();
    assert_eq!(newer[7], Newer { at: place(7).at, visits: 0, note: None });

    #[derive(Record, Clone, Debug)]
    #[record(crate = thalweg_common)]
    struct Wrong {
        name: u64,
    }
    let error = read::<Wrong>(&file, 0..u64::MAX, 0).unwrap_err().to_string();
    assert!(
        error.starts_with("the column `name` is Utf8 in the file and UInt64 in the record type"),
        "{error}"
    );
    #[derive(Record, Clone, Debug)]
    #[record(crate = thalweg_common)]
    struct Stranger {
        missing: String,
    }
    let error = read::<Stranger>(&file, 0..u64::MAX, 0).unwrap_err().to_string();
    assert!(error.starts_with("the file has no column `missing`; make the field an Option"), "{error}");
    #[derive(Record, Clone, Debug)]
    #[record(crate = thalweg_common)]
    struct Strict {
        name: String,
    }
    let error = read::<Strict>(&file, 0..u64::MAX, 0).unwrap_err().to_string();
    assert_eq!(error, "the column `name` has null values; make the field an Option");
}

#[test]
fn what_has_no_column_type_is_refused_by_name() {
    #[derive(Record, Clone)]
    #[record(crate = thalweg_common)]
    struct Wide {
        id: u128,
    }
    let error = Parquet::<Wide>::new().begin().err().unwrap().to_string();
    assert_eq!(
        error,
        "the field `id` is u128, for which Parquet has no column; leave it out by a map(), or use another type"
    );
    assert!(Parquet::<Option<Option<u8>>>::new().begin().is_err());
    assert!(Parquet::<()>::new().begin().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_records_come_back(seeds in prop::collection::vec(0_u64..1_000_000, 0..50)) {
        let file = written(&Parquet::new(), seeds.iter().copied().map(record));
        let found: Vec<Everything> = read(&file, 0..u64::MAX, 0).unwrap();
        prop_assert!(found.into_iter().eq(seeds.into_iter().map(record)));
    }
}
