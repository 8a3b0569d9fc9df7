//! CSV: a record is a line of fields.
//!
//! As in Flink the fields are divided by `,` and quoted by `"`, and text with a blank is quoted, which timestamps in SQL form have. Fields
//! are those of the type, in their order; there is no header line unless it is skipped, and a record has no line break within it, so that
//! large files can be read in pieces.

use std::marker::PhantomData;

use csv_core::ReadRecordResult;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thalweg_common::record::Record;
use thalweg_runtime::batch::Batch;

use super::{Decoder, Encoder, Malformed};

/// CSV of records of `T`.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use thalweg_common::Record;
/// use thalweg_connectors::formats::timestamp::DateTime;
/// use thalweg_connectors::formats::{Csv, Decoder, Encoder};
/// use thalweg_runtime::batch::Batch;
///
/// #[derive(Record, Serialize, Deserialize, Clone)]
/// # #[record(crate = thalweg_common)]
/// struct Ride {
///     id: u64,
///     kind: String,
///     begin: DateTime,
///     passengers: Option<u16>,
/// }
///
/// let (mut csv, mut rides, mut line) = (Csv::<Ride>::new(), Batch::default(), Vec::new());
/// csv.decode(br#"7377,"START",2013-01-01 00:20:00,"#, &mut rides)?;
/// csv.encode(&rides.records()[0], &mut line)?;
/// assert_eq!(line, br#"7377,START,"2013-01-01 00:20:00","#);
/// # Ok::<(), thalweg_connectors::formats::Malformed>(())
/// ```
pub struct Csv<T> {
    options: Options,
    reader: csv_core::Reader,
    /// The fields of a line, one behind the other, and their ends.
    fields: Vec<u8>,
    ends: Vec<usize>,
    record: ::csv::StringRecord,
    records: PhantomData<fn() -> T>,
}

#[derive(Debug, Clone, Copy)]
struct Options {
    delimiter: u8,
    quote: u8,
    trims: bool,
    comment: Option<u8>,
}

impl<T> Csv<T> {
    /// The format, with `,` and `"`.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Options { delimiter: b',', quote: b'"', trims: false, comment: None })
    }

    /// Divides fields by this character in place of `,`: Flink's `csv.field-delimiter`.
    #[must_use]
    pub fn delimiter(self, delimiter: u8) -> Self {
        Self::with(Options { delimiter, ..self.options })
    }

    /// Quotes fields by this character in place of `"`: Flink's `csv.quote-character`.
    #[must_use]
    pub fn quote(self, quote: u8) -> Self {
        Self::with(Options { quote, ..self.options })
    }

    /// Leaves blanks around fields out.
    #[must_use]
    pub fn trimmed(self) -> Self {
        Self::with(Options { trims: true, ..self.options })
    }

    /// Leaves out lines that begin with this character: Flink's `csv.allow-comments`, there with `#`.
    #[must_use]
    pub fn comments(self, begin: u8) -> Self {
        Self::with(Options { comment: Some(begin), ..self.options })
    }

    fn with(options: Options) -> Self {
        let Options { delimiter, quote, .. } = options;
        let reader = csv_core::ReaderBuilder::new().delimiter(delimiter).quote(quote).build();
        Self {
            options,
            reader,
            fields: vec![0; 256],
            ends: vec![0; 16],
            record: ::csv::StringRecord::new(),
            records: PhantomData,
        }
    }

    /// Divides a line into fields, which are in `self.fields` then, and answers how many there are; none in an empty line.
    fn split(&mut self, line: &[u8]) -> Result<usize, Malformed> {
        self.reader.reset();
        let (mut input, mut filled, mut ended) = (line, 0, 0);
        loop {
            let (fields, ends) = (self.fields.get_mut(filled..), self.ends.get_mut(ended..));
            let (result, read, written, ends) =
                self.reader.read_record(input, fields.unwrap_or_default(), ends.unwrap_or_default());
            input = input.get(read..).unwrap_or_default();
            (filled, ended) = (filled + written, ended + ends);
            match result {
                // The end of the line is the end of the input, which is said by giving nothing more.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.fields.resize(self.fields.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record if !input.is_empty() => {
                    return Err(Malformed::new("there is a line break in the record"));
                }
                ReadRecordResult::Record | ReadRecordResult::End => return Ok(ended),
            }
        }
    }

    /// The field at this place of what was divided.
    fn field(&self, place: usize) -> &[u8] {
        let end = |place: usize| self.ends.get(place).copied().unwrap_or_default();
        let begin = place.checked_sub(1).map_or(0, end);
        self.fields.get(begin..end(place)).unwrap_or_default()
    }

    /// Quotes each field that has a blank, as Flink does.
    fn quote_blanks(&mut self, begin: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let line = out.split_off(begin);
        let Options { delimiter, quote, .. } = self.options;
        for place in 0..self.split(&line)? {
            if place > 0 {
                out.push(delimiter);
            }
            let field = self.field(place);
            let is_special = |byte: &u8| [b' ', b'\r', b'\n', delimiter, quote].contains(byte);
            if !field.iter().any(is_special) {
                out.extend_from_slice(field);
                continue;
            }
            out.push(quote);
            for byte in field {
                if *byte == quote {
                    out.push(quote);
                }
                out.push(*byte);
            }
            out.push(quote);
        }
        Ok(())
    }
}

impl<T> Default for Csv<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Csv<T> {
    fn clone(&self) -> Self {
        Self::with(self.options)
    }
}

impl<T> std::fmt::Debug for Csv<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Csv").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<T: Record + DeserializeOwned> Decoder for Csv<T> {
    type Out = T;

    fn decode(&mut self, message: &[u8], out: &mut Batch<T>) -> Result<(), Malformed> {
        if self.options.comment.is_some_and(|begin| message.first() == Some(&begin)) {
            return Ok(());
        }
        let fields = self.split(message)?;
        self.record.clear();
        for place in 0..fields {
            let mut field = std::str::from_utf8(self.field(place))
                .map_err(|error| Malformed::new(format_args!("field {} is not UTF-8: {error}", place + 1)))?
                .to_owned();
            if self.options.trims {
                field = field.trim().to_owned();
            }
            self.record.push_field(&field);
        }
        if fields > 0 {
            out.push(self.record.deserialize(None).map_err(|error| reason_of(&error))?);
        }
        Ok(())
    }
}

impl<T: 'static, R: Serialize> Encoder<R> for Csv<T> {
    fn encode(&mut self, record: &R, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let begin = out.len();
        let Options { delimiter, quote, .. } = self.options;
        let written = {
            let builder = &mut ::csv::WriterBuilder::new();
            builder.delimiter(delimiter).quote(quote).has_headers(false).buffer_capacity(256);
            let mut writer = builder.from_writer(&mut *out);
            writer.serialize(record).and_then(|()| Ok(writer.flush()?))
        };
        if let Err(error) = written {
            out.truncate(begin);
            return Err(reason_of(&error));
        }
        if out.last() == Some(&b'\n') {
            out.pop();
        }
        let line = out.get(begin..).unwrap_or_default();
        if line.contains(&b'\n') {
            out.truncate(begin);
            return Err(Malformed::new("a field has a line break, and a record is one line"));
        }
        if line.contains(&b' ') { self.quote_blanks(begin, out) } else { Ok(()) }
    }
}

/// What is wrong, and with which field. (The library's own words tell of a line of its input, which is always the first.)
fn reason_of(error: &::csv::Error) -> Malformed {
    match error.kind() {
        ::csv::ErrorKind::Deserialize { err, .. } => match err.field() {
            Some(field) => Malformed::new(format_args!("field {}: {}", field + 1, err.kind())),
            None => Malformed::new(err.kind()),
        },
        _ => Malformed::new(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use serde::Deserialize;
    use thalweg_common::Record;

    use super::*;

    #[derive(Record, Serialize, Deserialize, Clone, Debug, PartialEq)]
    #[record(crate = thalweg_common)]
    struct Row {
        name: String,
        count: Option<i32>,
    }

    fn read(csv: &mut Csv<Row>, line: &str) -> Result<Vec<Row>, String> {
        let mut batch = Batch::default();
        csv.decode(line.as_bytes(), &mut batch).map_err(|error| error.to_string())?;
        Ok(batch.into_parts().0)
    }

    fn row(name: &str, count: impl Into<Option<i32>>) -> Row {
        Row { name: name.into(), count: count.into() }
    }

    fn written(csv: &mut Csv<Row>, row: &Row) -> String {
        let mut out = b"before|".to_vec();
        csv.encode(row, &mut out).unwrap();
        String::from_utf8(out).unwrap().strip_prefix("before|").unwrap().to_owned()
    }

    #[test]
    fn fields_are_quoted_where_they_must_be_and_where_flink_does() {
        let mut csv = Csv::<Row>::new();
        for (line, row) in [
            ("a,1", row("a", 1)),
            ("a,", row("a", None)),
            ("\"\",-5", row("", -5)),
            ("\"a,b\",2", row("a,b", 2)),
            ("\"say \"\"so\"\"\",3", row("say \"so\"", 3)),
            ("\"2024-01-05 10:11:12\",4", row("2024-01-05 10:11:12", 4)),
        ] {
            assert_eq!(read(&mut csv, line).unwrap(), std::slice::from_ref(&row), "{line}");
            let again = written(&mut csv.clone(), &row);
            assert_eq!(read(&mut csv, &again).unwrap(), std::slice::from_ref(&row));
            if !row.name.is_empty() {
                assert_eq!(written(&mut csv, &row), line);
            }
        }
        let long = row(&"x".repeat(10_000), 1);
        let line = written(&mut csv, &long);
        assert_eq!(read(&mut csv, &line).unwrap(), [long]);
    }

    #[test]
    fn options_say_what_divides_quotes_and_is_left_out() {
        let mut csv = Csv::<Row>::new().delimiter(b';').quote(b'\'').trimmed().comments(b'#');
        assert_eq!(
            read(&mut csv, " 'a;b' ; 7 ").unwrap_or_default().len(),
            0,
            "a quote begins a field, or is none"
        );
        assert_eq!(read(&mut csv, "'a;b'; 7 ").unwrap(), [row("a;b", 7)]);
        assert_eq!(read(&mut csv, "# a;b").unwrap(), []);
        assert_eq!(read(&mut csv, "").unwrap(), []);
        assert_eq!(written(&mut csv, &row("a;b", 7)), "'a;b';7");
    }

    #[test]
    fn a_bad_line_says_which_field_is_wrong() {
        let mut csv = Csv::<Row>::new();
        for (line, reason) in [
            ("a,x", "field 2: invalid digit found in string"),
            ("a", "invalid length 1, expected struct Row with 2 elements"),
            ("a,1\nb,2", "there is a line break in the record"),
        ] {
            let error = read(&mut csv, line).unwrap_err();
            assert!(error.contains(reason), "{line:?}: {error}");
            assert_eq!(read(&mut csv, "a,1").unwrap(), [row("a", 1)], "the next line is read");
        }
        let mut out = Vec::new();
        assert!(csv.encode(&row("a\nb", 1), &mut out).is_err() && out.is_empty());
    }
}
