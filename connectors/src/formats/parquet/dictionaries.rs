//! Which columns of a file get a dictionary: those that one makes smaller, by the records that come first. parquet-java's rule.
//!
//! A dictionary costs a look-up for each value, and is given up by itself only when it has grown to a megabyte; values that hardly ever
//! come back are better written as they are.

use std::collections::HashSet;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;

/// For each leaf of these records, in the order of the columns in the file, whether a dictionary pays.
pub(super) fn pay(records: &RecordBatch) -> Vec<bool> {
    let mut leaves = Vec::new();
    for column in records.columns() {
        look(column.as_ref(), &mut leaves);
    }
    leaves
}

fn look(array: &dyn Array, leaves: &mut Vec<bool>) {
    match array.data_type() {
        DataType::Struct(_) => {
            array.as_struct().columns().iter().for_each(|column| look(column.as_ref(), leaves));
        }
        DataType::List(_) => look(array.as_list::<i32>().values().as_ref(), leaves),
        DataType::Map(..) => {
            array.as_map().entries().columns().iter().for_each(|column| look(column.as_ref(), leaves));
        }
        DataType::Utf8 => {
            let text = array.as_string::<i32>();
            leaves.push(pays(text.iter().flatten().map(str::as_bytes), Width::Own));
        }
        DataType::Binary => leaves.push(pays(array.as_binary::<i32>().iter().flatten(), Width::Own)),
        numbers => leaves.push(numbers.primitive_width().is_none_or(|width| {
            let data = array.to_data();
            let values = data.buffers().iter().flat_map(|values| values.chunks_exact(width));
            let is_there = |place: usize| array.is_valid(place);
            let values = values.take(array.len()).enumerate().filter(|(place, _)| is_there(*place));
            pays(values.map(|(_, value)| value), Width::Of(width.max(4)))
        })),
    }
}

/// Bytes of a value that is written as it is.
#[derive(Clone, Copy)]
enum Width {
    /// Its own, behind its length.
    Own,
    /// The same for each.
    Of(usize),
}

fn pays<'a>(values: impl Iterator<Item = &'a [u8]>, width: Width) -> bool {
    let mut distinct = HashSet::new();
    let (mut count, mut plain, mut dictionary) = (0, 0, 0);
    for value in values {
        let bytes = match width {
            Width::Own => 4 + value.len(),
            Width::Of(bytes) => bytes,
        };
        count += 1;
        plain += bytes;
        if distinct.insert(value) {
            dictionary += bytes;
        }
    }
    let bits = (usize::BITS - distinct.len().saturating_sub(1).leading_zeros()) as usize;
    count == 0 || dictionary + (count * bits).div_ceil(8) < plain
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int16Array, ListArray, StringArray, StructArray, UInt64Array};
    use arrow_buffer::OffsetBuffer;
    use arrow_schema::{Field, Fields};

    use super::*;

    fn pay_alone(array: ArrayRef) -> Vec<bool> {
        pay(&RecordBatch::try_from_iter_with_nullable([("column", array, true)]).expect("a batch"))
    }

    #[test]
    fn a_dictionary_pays_when_values_come_back() {
        let text = |distinct: usize| {
            let values = (0..1_000).map(|number| Some(format!("value {}", number % distinct)));
            pay_alone(Arc::new(values.collect::<StringArray>()))
        };
        assert_eq!([1, 4, 500, 1_000].map(|distinct| text(distinct)[0]), [true, true, true, false]);
        let numbers = |distinct: u64| {
            pay_alone(Arc::new(UInt64Array::from_iter_values((0..1_000).map(|n| n % distinct))))
        };
        assert_eq!([1, 4, 700, 1_000].map(|distinct| numbers(distinct)[0]), [true, true, true, false]);
        // A 16-bit number is written as one of 32 bits.
        let small = Int16Array::from_iter_values((0..1_000).map(|number| number % 700));
        assert_eq!(
            pay_alone(Arc::new(small)),
            [false],
            "2,800 bytes and 1,250 of places in them beside 4,000"
        );
    }

    #[test]
    fn what_is_not_there_does_not_count() {
        let nulls = UInt64Array::from_iter((0..1_000).map(|number| (number % 10 == 0).then_some(number)));
        assert_eq!(pay_alone(Arc::new(nulls)), [false], "those that are there are all different");
        assert_eq!(pay_alone(Arc::new(StringArray::new_null(10))), [true], "nothing is known");
    }

    #[test]
    fn each_leaf_is_looked_at_in_order() {
        let few: ArrayRef = Arc::new(UInt64Array::from_iter_values((0..100).map(|number| number % 2)));
        let many: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..100));
        let field = |name: &str| Field::new(name, DataType::UInt64, false);
        let fields = Fields::from(vec![field("many"), field("few")]);
        let group = StructArray::new(fields, vec![Arc::clone(&many), few], None);
        let offsets = OffsetBuffer::from_lengths([50, 50]);
        let list = ListArray::new(Arc::new(field("element")), offsets, many, None);
        assert_eq!(pay_alone(Arc::new(group)), [false, true]);
        assert_eq!(pay_alone(Arc::new(list)), [false]);
    }
}
