//! Which reader gets which split, and when. Pure.
//!
//! Stands in the task of the enumerator, between what it has found and the edge to the readers. Invariants: each split that was found is dealt
//! exactly once, in the order in which it was found; one that is pinned goes to its reader and holds up no other; a reader never has more splits than it may, but for those that were on their way when the
//! attempt began; nothing is dealt before all readers have said what they have; a split at its end is told to the enumerator at least once, and
//! noted to its reader only behind that; a reader that has none is told so once, when the enumerator has looked and
//! found nothing for it.

use std::collections::{BTreeMap, VecDeque};

use thalweg_common::Record;

use super::message::{Assignment, EncodedSplit, Found, Order, Word};

/// Deals splits to readers.
#[derive(Debug)]
pub(crate) struct Dealer {
    /// Splits that nobody has.
    waiting: VecDeque<Found>,
    /// How many of them are pinned.
    pinned: usize,
    /// Whether no more will be found.
    is_complete: bool,
    /// How many splits a reader may have.
    most: u64,
    readers: Vec<Reader>,
    /// Splits at their end, by the reader that says so, until it says so no more.
    ended: BTreeMap<String, u32>,
    /// Those that the enumerator has not been told.
    untold: Vec<String>,
    /// What is to be noted to readers.
    notes: VecDeque<(u32, Vec<String>)>,
    /// How many readers know that no split will come any more.
    informed: u32,
    /// Whether the enumerator has looked at all that there is at present.
    has_looked: bool,
}

/// What is known of a reader.
#[derive(Debug, Clone, Default)]
struct Reader {
    /// The number of the last split that it was sent in this attempt.
    sent: u64,
    /// What it said last.
    word: Option<Word>,
    /// Whether it was told that there is nothing for it, and got nothing since.
    is_told_nothing: bool,
}

impl Reader {
    /// How many splits it has, or will have when it has received all; nothing while it has said nothing.
    fn load(&self) -> Option<u64> {
        // What was on its way when the attempt began has other numbers, and comes before what is counted here.
        let load = |word: &Word| word.open.saturating_add(self.sent.saturating_sub(word.received));
        self.word.as_ref().map(load)
    }
}

/// What of this is part of checkpoints. The rest the readers say again.
#[derive(Record, Debug, Clone, PartialEq, Eq, Default)]
#[record(crate = thalweg_common)]
pub(crate) struct Undealt {
    pub(crate) waiting: Vec<EncodedSplit>,
    pub(crate) is_complete: bool,
}

impl Dealer {
    /// Deals to so many readers, each of which may have `most` splits at a time.
    pub(crate) fn new(readers: usize, most: u64) -> Self {
        Self {
            waiting: VecDeque::new(),
            pinned: 0,
            is_complete: false,
            most: most.max(1),
            readers: vec![Reader::default(); readers],
            ended: BTreeMap::new(),
            untold: Vec::new(),
            notes: VecDeque::new(),
            informed: 0,
            has_looked: false,
        }
    }

    /// What a checkpoint needs.
    pub(crate) fn undealt(&self) -> Undealt {
        let waiting = self.waiting.iter().map(|found| found.split.clone()).collect();
        Undealt { waiting, is_complete: self.is_complete }
    }

    /// Whether no more will be found.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// How many splits nobody has.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The enumerator has found these.
    pub(crate) fn found(&mut self, splits: impl IntoIterator<Item = Found>) {
        for found in splits {
            self.pinned += usize::from(found.pin.is_some());
            self.waiting.push_back(found);
        }
    }

    /// The enumerator has found all that there is at present.
    pub(crate) fn looked(&mut self) {
        self.has_looked = true;
    }

    /// The enumerator will find no more.
    pub(crate) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// A reader says how it is.
    pub(crate) fn on_word(&mut self, reader: u32, word: Word) {
        let Some(known) = self.readers.get_mut(reader as usize) else { return };
        self.ended.retain(|id, by| *by != reader || word.finished.contains(id));
        for id in &word.finished {
            if self.ended.insert(id.clone(), reader).is_none() {
                self.untold.push(id.clone());
            }
        }
        known.word = Some(word);
    }

    /// Takes out the splits at their end that the enumerator is to be told.
    pub(crate) fn take_untold(&mut self) -> Vec<String> {
        std::mem::take(&mut self.untold)
    }

    /// The enumerator was told these, and what it says of itself in checkpoints knows it.
    pub(crate) fn told(&mut self, splits: Vec<String>) {
        let mut by_reader: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for id in splits {
            if let Some(reader) = self.ended.get(&id) {
                by_reader.entry(*reader).or_default().push(id);
            }
        }
        self.notes.extend(by_reader);
    }

    /// What is to be sent next, if anything is.
    pub(crate) fn next(&mut self) -> Option<Assignment> {
        if let Some((reader, splits)) = self.notes.pop_front() {
            return Some(Assignment { reader, order: Order::Noted(splits) });
        }
        if self.waiting.is_empty() {
            if !self.is_complete {
                return self.without_any();
            }
            if self.informed as usize >= self.readers.len() {
                return None;
            }
            self.informed += 1;
            return Some(Assignment { reader: self.informed - 1, order: Order::NoMoreSplits });
        }
        let Some((place, reader)) = self.deal() else {
            // What waits is for readers that have enough; it keeps nobody else from knowing that there is nothing.
            return if self.pinned == self.waiting.len() { self.without_any() } else { None };
        };
        let Found { split, pin } = self.waiting.remove(place)?;
        self.pinned -= usize::from(pin.is_some());
        let known = self.readers.get_mut(reader as usize)?;
        known.sent += 1;
        known.is_told_nothing = false;
        Some(Assignment { reader, order: Order::Read { number: known.sent, split } })
    }

    /// Tells the next reader without splits that there are none for it.
    fn without_any(&mut self) -> Option<Assignment> {
        if !self.has_looked {
            return None;
        }
        let has_none = |reader: &Reader| !reader.is_told_nothing && reader.load() == Some(0);
        let reader = self.readers.iter().position(has_none)?;
        self.readers[reader].is_told_nothing = true;
        Some(Assignment { reader: reader as u32, order: Order::NothingAtPresent })
    }

    /// Whether everything was dealt, nothing more will be found, and all readers know it.
    pub(crate) fn is_at_end(&self) -> bool {
        self.is_complete && self.waiting.is_empty() && self.informed as usize >= self.readers.len()
    }

    /// The first split that can be dealt, by its place among those that wait, and the reader that gets it.
    fn deal(&self) -> Option<(usize, u32)> {
        let loads: Option<Vec<u64>> = self.readers.iter().map(Reader::load).collect();
        // All readers are known.
        let loads = loads?;
        let ranks = loads
            .iter()
            .zip(&self.readers)
            .zip(0..)
            .map(|((load, reader), number)| (*load, reader.sent, number));
        let idlest = ranks.min().filter(|(load, ..)| *load < self.most).map(|(.., number)| number);
        if self.pinned == 0 {
            return idlest.map(|reader| (0, reader));
        }
        let readers = u32::try_from(loads.len()).unwrap_or(u32::MAX).max(1);
        let has_room = |reader: &u32| loads.get(*reader as usize).is_some_and(|load| *load < self.most);
        let to = |found: &Found| match found.pin {
            Some(pin) => Some(pin % readers).filter(has_room),
            None => idlest,
        };
        self.waiting.iter().enumerate().find_map(|(place, found)| Some((place, to(found)?)))
    }
}
