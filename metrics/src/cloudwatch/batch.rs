//! Divides a report into requests that CloudWatch takes. Pure.
//!
//! Invariants: a request has at most 1,000 data and less than 1 MB, a datum at most 150 values and 30 dimensions, a dimension at most
//! 255 characters of name and 1,024 of value; the order stays, and no value is lost.

use crate::report::Datum;

/// What `PutMetricData` takes in one request.
pub const MAX_DATA: usize = 1_000;
/// The same in bytes. A quarter less than what it takes, because sizes are estimated.
pub const MAX_BYTES: usize = 750_000;
/// Of one datum.
pub const MAX_VALUES: usize = 150;
/// Of one datum.
pub const MAX_DIMENSIONS: usize = 30;
/// Of the value of a dimension.
const MAX_DIMENSION_CHARACTERS: usize = 1_024;

/// What a datum takes beside its texts and values: field names, numbers of lists, unit and time, in the wordiest protocol.
const DATUM_BYTES: usize = 400;
/// What a dimension or value takes beside its text.
const FIELD_BYTES: usize = 120;

/// The requests, none of them empty.
#[must_use]
pub fn batches(data: Vec<Datum>) -> Vec<Vec<Datum>> {
    let mut batches: Vec<Vec<Datum>> = Vec::new();
    let mut bytes = 0;
    for datum in data.into_iter().flat_map(split) {
        let more = size(&datum);
        match batches.last_mut().filter(|last| last.len() < MAX_DATA && bytes + more <= MAX_BYTES) {
            Some(last) => last.push(datum),
            None => {
                batches.push(vec![datum]);
                bytes = 0;
            }
        }
        bytes += more;
    }
    batches
}

/// The same values in data that are taken.
fn split(mut datum: Datum) -> Vec<Datum> {
    datum.dimensions.retain(|(_, value)| !value.trim().is_empty());
    datum.dimensions.truncate(MAX_DIMENSIONS);
    for (_, value) in &mut datum.dimensions {
        *value = printable(value);
    }
    let chunks = datum.values.chunks(MAX_VALUES);
    chunks.map(|values| Datum { values: values.to_vec(), ..datum.clone() }).collect()
}

/// CloudWatch takes dimensions of ASCII without control characters.
fn printable(value: &str) -> String {
    let printable = value.chars().map(|one| if one.is_ascii_graphic() || one == ' ' { one } else { '?' });
    printable.take(MAX_DIMENSION_CHARACTERS).collect()
}

/// About how large a datum is at most. Texts may be encoded with three bytes for one.
fn size(datum: &Datum) -> usize {
    let dimensions =
        datum.dimensions.iter().map(|(name, value)| 2 * FIELD_BYTES + 3 * (name.len() + value.len()));
    DATUM_BYTES + 3 * datum.name.len() + dimensions.sum::<usize>() + FIELD_BYTES * datum.values.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Unit;

    fn datum(name: &str, values: usize, dimension: &str) -> Datum {
        Datum {
            name: name.into(),
            unit: Unit::Count,
            dimensions: vec![("Application".into(), dimension.into())],
            values: (0..values).map(|value| value as f64).collect(),
            timestamp_ms: 1,
        }
    }

    #[test]
    fn requests_are_as_large_as_may_be() {
        assert_eq!(batches(Vec::new()), Vec::<Vec<Datum>>::new());
        let lengths = |data| batches(data).iter().map(Vec::len).collect::<Vec<_>>();
        // 1,000 data would be more than the bytes that are taken.
        let many = (0..2_500).map(|_| datum("n", 1, "words")).collect();
        let found: Vec<usize> = lengths(many);
        assert_eq!(found.iter().sum::<usize>(), 2_500);
        assert!(found.iter().all(|length| *length <= MAX_DATA), "{found:?}");
        let bare = Datum { dimensions: Vec::new(), ..datum("n", 1, "") };
        assert_eq!(lengths(vec![bare; 2_500]), [1_000, 1_000, 500]);
        let wide = vec![datum("n", 150, &"w".repeat(1_000)); 100];
        let each = size(&wide[0]);
        let found = lengths(wide);
        assert!(found.iter().all(|length| length * each <= MAX_BYTES), "{found:?}");
        assert!(found.len() > 1 && found[0] * each > MAX_BYTES / 2, "{found:?}");
    }

    #[test]
    fn no_value_is_lost() {
        let data = batches(vec![datum("n", 451, "words")]).concat();
        assert_eq!(data.iter().map(|datum| datum.values.len()).collect::<Vec<_>>(), [150, 150, 150, 1]);
        let values: Vec<f64> = data.into_iter().flat_map(|datum| datum.values).collect();
        assert_eq!(values, (0..451).map(f64::from).collect::<Vec<_>>());
    }

    #[test]
    fn dimensions_are_what_cloudwatch_takes() {
        let mut odd = datum("n", 1, &"ü".repeat(2_000));
        odd.dimensions.push(("Empty".into(), " ".into()));
        odd.dimensions.extend((0..40).map(|number| (format!("Own{number}"), "a\nb".into())));
        let data = batches(vec![odd]).concat();
        let dimensions = &data[0].dimensions;
        assert_eq!(dimensions.len(), MAX_DIMENSIONS);
        assert_eq!(dimensions[0].1, "?".repeat(1_024));
        assert_eq!(dimensions[1], ("Own0".into(), "a?b".into()));
    }
}
