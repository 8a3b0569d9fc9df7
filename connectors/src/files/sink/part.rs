//! What a checkpoint holds of the parts of a subtask.
//!
//! Each barrier tells of all parts that are not finished: those that are *pending* are committed when the checkpoint is complete; those that
//! are *in progress* are carried on, and committing them does nothing. Behind a restore they are finished as they were at the barrier, which
//! covers all that they have. So in what is restored a part may be told several times, by several
//! barriers, of which the newest counts. Pure.

use std::collections::BTreeMap;

use thalweg_common::Record;
use thalweg_common::id::CheckpointId;

use super::names::PartId;

/// What a barrier tells of one part, or of one bucket, of a [`FileSink`](super::FileSink).
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub struct FileCommittable {
    pub(crate) checkpoint: CheckpointId,
    pub(crate) bucket: String,
    pub(crate) told: Told,
}

/// What is told.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub(crate) enum Told {
    /// A part that is complete, and becomes visible.
    Pending(Part),
    /// A part that goes on.
    InProgress(Part),
    /// A bucket without success file, with the time at which it began.
    Unmarked(i64),
    /// A bucket that gets its success file.
    Success,
}

/// A part and its bytes so far.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub(crate) struct Part {
    pub(crate) id: PartId,
    /// Where it will be visible, below the directory of the sink.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// On S3: where its bytes are.
    pub(crate) object: Option<Object>,
}

/// A part on S3: an upload with its pieces, and what is behind them.
#[derive(Record, Debug, Clone, PartialEq, Eq, Default)]
#[record(crate = thalweg_common)]
pub(crate) struct Object {
    /// The id of the upload, if it was begun.
    pub(crate) upload: Option<String>,
    /// Numbers and tags.
    pub(crate) pieces: Vec<(u32, String)>,
    /// The path and length of the object that holds what is too short for a piece.
    pub(crate) tail: Option<(String, u64)>,
}

/// What a subtask has to see to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Restored {
    /// Parts that were in progress, with their checkpoints.
    pub(super) in_progress: Vec<(CheckpointId, Part)>,
    /// Parts that will be committed.
    pub(super) pending: Vec<Part>,
    /// Buckets without success file, and when they began.
    pub(super) unmarked: BTreeMap<String, i64>,
}

/// Finds in everything that a checkpoint tells what holds at its end.
pub(super) fn restored(prepared: &[FileCommittable]) -> Restored {
    let newest = prepared.iter().map(|told| told.checkpoint).max().unwrap_or_default();
    let mut parts: BTreeMap<PartId, &FileCommittable> = BTreeMap::new();
    let mut restored = Restored::default();
    for committable in prepared {
        match &committable.told {
            Told::Pending(part) | Told::InProgress(part) => {
                let known = parts.entry(part.id).or_insert(committable);
                if known.checkpoint < committable.checkpoint {
                    *known = committable;
                }
            }
            Told::Unmarked(since_ms) if committable.checkpoint == newest => {
                let since = restored.unmarked.entry(committable.bucket.clone()).or_insert(*since_ms);
                *since = (*since).min(*since_ms);
            }
            Told::Unmarked(_) | Told::Success => {}
        }
    }
    for committable in parts.into_values() {
        match &committable.told {
            Told::InProgress(part) => {
                restored.in_progress.push((committable.checkpoint, part.clone()));
            }
            Told::Pending(part) => restored.pending.push(part.clone()),
            Told::Unmarked(_) | Told::Success => {}
        }
    }
    restored
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u64, bytes: u64) -> Part {
        let id = PartId { subtask: 0, attempt: 1, number, job: 1 };
        Part { id, path: format!("part-{number}"), bytes, object: None }
    }

    #[test]
    fn of_each_part_the_newest_news_counts() {
        let told = |checkpoint, told| FileCommittable { checkpoint, bucket: "b".into(), told };
        let all = [
            told(4, Told::InProgress(part(1, 10))),
            told(4, Told::InProgress(part(2, 10))),
            told(4, Told::Unmarked(3)),
            told(5, Told::Pending(part(1, 15))),
            told(5, Told::InProgress(part(2, 20))),
            told(5, Told::InProgress(part(3, 1))),
            told(5, Told::Unmarked(9)),
            told(5, Told::Unmarked(7)),
            told(5, Told::Success),
        ];
        let found = restored(&all);
        assert_eq!(found.in_progress, [(5, part(2, 20)), (5, part(3, 1))]);
        assert_eq!(found.pending, [part(1, 15)]);
        assert_eq!(found.unmarked, BTreeMap::from([("b".to_owned(), 7)]));
        assert_eq!(restored(&[]), Restored::default());
    }
}
