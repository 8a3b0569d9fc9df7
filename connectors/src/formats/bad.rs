//! What becomes of records that cannot be read. One policy for all formats and sources.

use thalweg_common::Record;
use thalweg_common::failure::Failure;
use thalweg_runtime::operator::OperatorMetrics;
use thalweg_runtime::side_output::OutputTag;

use super::Malformed;

/// Bytes of a bad record that its failure shows.
const SHOWN_BYTES: usize = 120;

/// What becomes of records that cannot be read.
///
/// ```
/// use thalweg_connectors::formats::{BadRecord, BadRecords};
/// use thalweg_runtime::side_output::OutputTag;
///
/// const UNREADABLE: OutputTag<BadRecord> = OutputTag::new("unreadable");
///
/// let policy = BadRecords::DeadLetter(UNREADABLE);
/// # let _ = policy;
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub enum BadRecords {
    /// The job fails, with an error that says where the record is and what is wrong. It does not restart: the record would still be there.
    #[default]
    Fail,
    /// They are left out and counted: `numRecordsInErrors`. Flink's `ignore-parse-errors`.
    Skip,
    /// They are counted, and go to this side output of the source, or of the operator that decodes.
    DeadLetter(OutputTag<BadRecord>),
}

/// A record that cannot be read.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub struct BadRecord {
    /// What was to be read.
    pub bytes: Vec<u8>,
    /// Where it is from: the path of a file, the name of a stream.
    pub origin: String,
    /// Where in there: the byte at which it begins, or its number; empty where there is no such thing.
    pub position: String,
    /// What is wrong with it.
    pub reason: String,
}

impl BadRecords {
    /// Does what the policy says, and gives the record back if it goes to a side output.
    ///
    /// # Errors
    /// If the policy is to fail.
    pub(crate) fn meet(
        &self,
        metrics: &OperatorMetrics,
        malformed: &Malformed,
        describe: impl FnOnce(String) -> BadRecord,
    ) -> Result<Option<BadRecord>, Failure> {
        let reason = malformed.to_string();
        match self {
            Self::Fail => Err(describe(reason).failure()),
            Self::Skip => {
                metrics.count_bad_record();
                Ok(None)
            }
            Self::DeadLetter(_) => {
                metrics.count_bad_record();
                Ok(Some(describe(reason)))
            }
        }
    }
}

impl BadRecord {
    fn failure(&self) -> Failure {
        let Self { bytes, origin, position, reason } = self;
        let place = if position.is_empty() { origin.clone() } else { format!("{origin} at {position}") };
        let shown = bytes.get(..SHOWN_BYTES).unwrap_or(bytes);
        let more = if shown.len() < bytes.len() { "..." } else { "" };
        Failure::user(format!(
            "a record in {place} cannot be read: {reason}; mend the record, or set another policy for bad records. The record: {}{more}",
            String::from_utf8_lossy(shown).escape_debug()
        ))
        .permanent()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn bad(reason: String) -> BadRecord {
        let bytes = [b"{\"a\"\n".as_slice(), &[b'x'; 200]].concat();
        BadRecord { bytes, origin: "s3://b/in.json".into(), position: "byte 17".into(), reason }
    }

    #[test]
    fn each_policy_does_what_it_says() {
        let metrics = OperatorMetrics::default();
        let malformed = Malformed::new("EOF while parsing\n\n\tthe input");
        let failure = BadRecords::Fail.meet(&metrics, &malformed, bad).unwrap_err();
        assert!(!failure.retryable);
        assert!(
            failure.message.starts_with(
                "a record in s3://b/in.json at byte 17 cannot be read: EOF while parsing; mend the record"
            ),
            "{failure}"
        );
        assert!(
            failure.message.ends_with("xxx...") && failure.message.contains("{\\\"a\\\"\\nxx"),
            "{failure}"
        );
        assert_eq!(BadRecords::Skip.meet(&metrics, &malformed, bad).unwrap(), None);
        let tag = OutputTag::new("bad");
        let met = BadRecords::DeadLetter(tag).meet(&metrics, &malformed, bad).unwrap();
        assert_eq!(met, Some(bad("EOF while parsing".into())));
        assert_eq!(metrics.bad_records(), 2);
    }
}
