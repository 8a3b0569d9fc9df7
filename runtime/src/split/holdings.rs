//! The splits that a reader has, and what it says of them to the enumerator. Pure.
//!
//! Invariant: a split at its end is remembered, in checkpoints too, until the enumerator has noted it.

use std::collections::BTreeSet;

use thalweg_common::failure::Failure;

use super::message::Word;

/// The splits of one reader.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    /// Those that are not at their end.
    open: BTreeSet<String>,
    /// Those at their end of which the enumerator may not know it, if it wants to know.
    finished: BTreeSet<String>,
    tells_finished: bool,
    /// The number of the newest assignment.
    received: u64,
    /// What was said last.
    said: Option<Word>,
}

impl Holdings {
    /// Goes on with these. `tells_finished` says whether the enumerator wants to know which splits are at their end.
    pub(crate) fn new(open: Vec<String>, finished: Vec<String>, tells_finished: bool) -> Self {
        let (open, finished) = (open.into_iter().collect(), finished.into_iter().collect());
        Self { open, finished, tells_finished, received: 0, said: None }
    }

    /// A split was assigned.
    ///
    /// # Errors
    /// When it is being read already.
    pub(crate) fn assigned(&mut self, number: u64, id: &str) -> Result<(), Failure> {
        self.received = number;
        if self.open.insert(id.to_string()) {
            return Ok(());
        }
        Err(Failure::user(format!(
            "the split `{id}` was found a second time while it is being read; an enumerator must find each split once, also behind a restore"
        ))
        .permanent())
    }

    /// These splits are at their end.
    pub(crate) fn ended(&mut self, splits: impl IntoIterator<Item = String>) {
        for id in splits {
            if self.open.remove(&id) && self.tells_finished {
                self.finished.insert(id);
            }
        }
    }

    /// All splits are at their end.
    pub(crate) fn all_ended(&mut self) {
        let open = std::mem::take(&mut self.open);
        if self.tells_finished {
            self.finished.extend(open);
        }
    }

    /// The enumerator knows that these are at their end.
    pub(crate) fn noted(&mut self, splits: &[String]) {
        for id in splits {
            self.finished.remove(id);
        }
    }

    /// What a checkpoint must remember beside the splits.
    pub(crate) fn finished(&self) -> impl Iterator<Item = &String> {
        self.finished.iter()
    }

    /// What is to be said, if it is something new.
    pub(crate) fn news(&mut self) -> Option<Word> {
        let (received, open) = (self.received, self.open.len() as u64);
        if let Some(said) = &self.said
            && (said.received, said.open) == (received, open)
            && said.finished.iter().eq(&self.finished)
        {
            return None;
        }
        let word = Word { received, open, finished: self.finished.iter().cloned().collect() };
        self.said = Some(word.clone());
        Some(word)
    }
}
