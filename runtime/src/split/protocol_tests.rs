//! An enumerator, its readers and the channels between them as a model: whatever happens in whatever order, each split is read exactly once.
//!
//! The model has what the cores of both sides rely on: channels that keep their order, barriers among the assignments, notes of which only the
//! newest counts, checkpoints that are aligned (a reader's part is taken when the barrier reaches it) or not (at once, with what is on its way).
//! A change of the leader is nothing that happens here: neither assignments nor notes pass it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::dealer::{Dealer, Undealt};
use super::holdings::Holdings;
use super::message::{Assignment, EncodedSplit, Found, Order, Word};
use crate::parts::{self, Part, Parts};

/// Records of each split.
const RECORDS: u8 = 3;

/// Splits are numbered; each third one may only be read when the two before it are at their end, like the child of two shards that merged.
const SPLITS: u8 = 12;

#[derive(Debug, Clone)]
enum Happens {
    /// The enumerator looks, and finds so many.
    Discover(u8),
    /// It is told which splits are at their end.
    Tell,
    /// It sends an assignment.
    Deal,
    /// A reader receives what is next in its channel.
    Receive(usize),
    /// A reader reads a record.
    Read(usize),
    /// The enumerator sees a reader's note.
    Note(usize),
    /// A checkpoint is triggered.
    Trigger { aligned: bool },
    /// All of it fails and begins again, from the newest complete checkpoint, with so many readers.
    Fail(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        2 => (1u8..4).prop_map(Happens::Discover),
        2 => Just(Happens::Tell),
        6 => Just(Happens::Deal),
        8 => (0usize..4).prop_map(Happens::Receive),
        8 => (0usize..4).prop_map(Happens::Read),
        6 => (0usize..4).prop_map(Happens::Note),
        1 => any::<bool>().prop_map(|aligned| Happens::Trigger { aligned }),
        1 => (1usize..5).prop_map(Happens::Fail),
    ]
}

/// What the enumerator's author would write.
#[derive(Debug, Clone, Default)]
struct Enumerator {
    /// Splits that were looked at.
    looked: u8,
    found: BTreeSet<u8>,
    finished: BTreeSet<u8>,
}

impl Enumerator {
    fn discover(&mut self, count: u8) -> Vec<EncodedSplit> {
        self.looked = (self.looked + count).min(SPLITS);
        self.ready()
    }

    fn finished(&mut self, splits: &[String]) -> Vec<EncodedSplit> {
        self.finished.extend(splits.iter().map(|id| id.parse::<u8>().expect("a number")));
        self.ready()
    }

    /// Those that may be read and were not given before.
    fn ready(&mut self) -> Vec<EncodedSplit> {
        let is_ready = |split: &u8| {
            split % 3 != 2 || (self.finished.contains(&(split - 1)) && self.finished.contains(&(split - 2)))
        };
        let new: Vec<u8> =
            (0..self.looked).filter(is_ready).filter(|split| !self.found.contains(split)).collect();
        self.found.extend(&new);
        new.into_iter().map(|split| EncodedSplit { id: split.to_string(), bytes: vec![0] }).collect()
    }
}

#[derive(Debug, Clone)]
enum Message {
    Assignment(Assignment),
    Barrier(usize),
}

/// A reader, with all records that it has read as its state: what is lost or doubled shows.
#[derive(Debug, Default)]
struct Reader {
    holdings: Holdings,
    /// By id, how many records of it were read.
    splits: Vec<(String, u8)>,
    read: Vec<(String, u8)>,
    note: Option<Word>,
}

#[derive(Debug, Clone)]
struct ReaderPart {
    parts: Vec<Part>,
    read: Vec<(String, u8)>,
    in_flight: Vec<Assignment>,
}

#[derive(Debug, Clone, Default)]
struct Checkpoint {
    enumerator: Enumerator,
    undealt: Undealt,
    readers: BTreeMap<usize, ReaderPart>,
}

struct Model {
    most: u64,
    enumerator: Enumerator,
    dealer: Dealer,
    channels: Vec<VecDeque<Message>>,
    readers: Vec<Reader>,
    checkpoints: Vec<Checkpoint>,
    /// The newest complete one.
    complete: Option<Checkpoint>,
}

impl Model {
    fn new(readers: usize, most: u64) -> Self {
        let mut model = Self {
            most,
            enumerator: Enumerator::default(),
            dealer: Dealer::new(0, most),
            channels: Vec::new(),
            readers: Vec::new(),
            checkpoints: Vec::new(),
            complete: None,
        };
        model.restart(readers);
        model
    }

    fn restart(&mut self, readers: usize) {
        let from = self.complete.clone().unwrap_or_default();
        self.enumerator = from.enumerator;
        self.dealer = Dealer::new(readers, self.most);
        self.dealer.found(from.undealt.waiting.into_iter().map(anybodys));
        if from.undealt.is_complete {
            self.dealer.complete();
        }
        self.checkpoints.clear();
        let before = from.readers.len() as u32;
        let all: Vec<Parts> = (0..)
            .zip(from.readers.values())
            .map(|(subtask, part)| Parts { subtask, parallelism: before, list: part.parts.clone() })
            .collect();
        self.channels = vec![VecDeque::new(); readers];
        self.readers = (0..readers).map(|_| Reader::default()).collect();
        for (index, reader) in self.readers.iter_mut().enumerate() {
            let (mut finished, mut open) = (Vec::new(), Vec::new());
            for part in parts::share(&all, index as u32, readers as u32).expect("all are there") {
                match part {
                    Part::Split { id, split } => {
                        open.push(id.clone());
                        reader.splits.push((id, split[0]));
                    }
                    Part::Finished { id } => finished.push(id),
                    other => panic!("{other:?}"),
                }
            }
            reader.holdings = Holdings::new(open, finished, true);
        }
        for (former, part) in from.readers {
            let to = former % readers;
            // What was on its way comes first, in any channel.
            self.channels[to].extend(part.in_flight.into_iter().map(Message::Assignment));
            self.readers[to].read.extend(part.read);
        }
        for reader in 0..readers {
            self.say(reader);
        }
    }

    fn step(&mut self, happens: Happens) {
        match happens {
            Happens::Discover(count) => {
                let found = self.enumerator.discover(count);
                self.dealer.found(found.into_iter().map(anybodys));
                self.dealer.looked();
            }
            Happens::Tell => {
                let told = self.dealer.take_untold();
                let found = self.enumerator.finished(&told);
                self.dealer.found(found.into_iter().map(anybodys));
                self.dealer.told(told);
                if self.enumerator.found.len() == usize::from(SPLITS) {
                    self.dealer.complete();
                }
            }
            Happens::Deal => {
                if let Some(assignment) = self.dealer.next() {
                    self.channels[assignment.reader as usize].push_back(Message::Assignment(assignment));
                }
            }
            Happens::Receive(reader) => self.receive(reader),
            Happens::Read(reader) => self.read(reader),
            Happens::Note(reader) => {
                if let Some(word) = self.readers.get_mut(reader).and_then(|reader| reader.note.take()) {
                    self.dealer.on_word(reader as u32, word);
                }
            }
            Happens::Trigger { aligned } => self.trigger(aligned),
            Happens::Fail(readers) => self.restart(readers),
        }
    }

    fn receive(&mut self, index: usize) {
        let Some(message) = self.channels.get_mut(index).and_then(VecDeque::pop_front) else { return };
        match message {
            Message::Assignment(Assignment { order, .. }) => match order {
                Order::Read { number, split } => {
                    let reader = &mut self.readers[index];
                    reader.holdings.assigned(number, &split.id).expect("nobody has it twice");
                    reader.splits.push((split.id, split.bytes[0]));
                }
                Order::Noted(splits) => self.readers[index].holdings.noted(&splits),
                Order::NoMoreSplits | Order::NothingAtPresent => {}
            },
            Message::Barrier(checkpoint) => self.take_part(checkpoint, index, Vec::new()),
        }
        self.say(index);
    }

    fn read(&mut self, index: usize) {
        let Some(reader) = self.readers.get_mut(index) else { return };
        let Some((id, next)) = reader.splits.first_mut() else { return };
        reader.read.push((id.clone(), *next));
        *next += 1;
        if *next == RECORDS {
            let (id, _) = reader.splits.remove(0);
            reader.holdings.ended([id]);
        }
        self.say(index);
    }

    fn say(&mut self, index: usize) {
        let reader = &mut self.readers[index];
        if let Some(word) = reader.holdings.news() {
            reader.note = Some(word);
        }
    }

    fn trigger(&mut self, aligned: bool) {
        let (enumerator, undealt) = (self.enumerator.clone(), self.dealer.undealt());
        self.checkpoints.push(Checkpoint { enumerator, undealt, readers: BTreeMap::new() });
        let id = self.checkpoints.len() - 1;
        for index in 0..self.readers.len() {
            if aligned {
                self.channels[index].push_back(Message::Barrier(id));
                continue;
            }
            let on_their_way = self.channels[index].iter().filter_map(|message| match message {
                Message::Assignment(assignment) => Some(assignment.clone()),
                Message::Barrier(_) => None,
            });
            let in_flight = on_their_way.collect();
            self.take_part(id, index, in_flight);
        }
    }

    fn take_part(&mut self, id: usize, index: usize, in_flight: Vec<Assignment>) {
        let reader = &self.readers[index];
        let splits =
            reader.splits.iter().map(|(id, next)| Part::Split { id: id.clone(), split: vec![*next] });
        let finished = reader.holdings.finished().map(|id| Part::Finished { id: id.clone() });
        let part =
            ReaderPart { parts: finished.chain(splits).collect(), read: reader.read.clone(), in_flight };
        let checkpoint = &mut self.checkpoints[id];
        checkpoint.readers.insert(index, part);
        if checkpoint.readers.len() == self.readers.len() {
            self.complete = Some(checkpoint.clone());
        }
    }

    /// Everything goes its way without anything that disturbs it.
    fn run_to_the_end(&mut self) {
        for _ in 0..1_000 {
            self.step(Happens::Discover(1));
            self.step(Happens::Tell);
            self.step(Happens::Deal);
            for index in 0..self.readers.len() {
                [Happens::Receive(index), Happens::Read(index), Happens::Note(index)]
                    .into_iter()
                    .for_each(|happens| self.step(happens));
                let holdings = &self.readers[index].holdings;
                assert!(holdings.finished().count() <= usize::from(SPLITS));
            }
        }
    }
}

proptest! {
    #[test]
    fn each_split_is_read_exactly_once(
        readers in 1usize..5,
        most in prop_oneof![Just(1), Just(2), Just(u64::MAX)],
        steps in proptest::collection::vec(happens(), 0..250),
    ) {
        let mut model = Model::new(readers, most);
        for happens in steps {
            model.step(happens);
        }
        model.run_to_the_end();
        let mut read: Vec<(u8, u8)> = model
            .readers
            .iter()
            .flat_map(|reader| &reader.read)
            .map(|(id, record)| (id.parse().expect("a number"), *record))
            .collect();
        read.sort_unstable();
        let expected: Vec<(u8, u8)> =
            (0..SPLITS).flat_map(|split| (0..RECORDS).map(move |record| (split, record))).collect();
        prop_assert_eq!(read, expected);
        prop_assert!(model.dealer.is_at_end(), "everything was dealt, and all readers know it");
        for reader in &model.readers {
            prop_assert_eq!(reader.holdings.finished().count(), 0, "the enumerator knows all that is at its end");
        }
    }
}

fn anybodys(split: EncodedSplit) -> Found {
    Found { split, pin: None }
}

fn split(id: &str) -> Found {
    anybodys(EncodedSplit { id: id.into(), bytes: vec![] })
}

/// Everything that is dealt now, as reader and id.
fn dealt(dealer: &mut Dealer) -> Vec<(u32, String)> {
    let next = || match dealer.next()? {
        Assignment { reader, order: Order::Read { split, .. } } => Some((reader, split.id)),
        Assignment { reader, order } => Some((reader, format!("{order:?}"))),
    };
    std::iter::from_fn(next).collect()
}

fn has(open: u64, received: u64) -> Word {
    Word { open, received, finished: Vec::new() }
}

fn pairs(expected: &[(u32, &str)]) -> Vec<(u32, String)> {
    expected.iter().map(|(reader, id)| (*reader, (*id).to_string())).collect()
}

#[test]
fn a_reader_that_is_done_gets_the_next_split_and_a_slow_one_does_not() {
    let mut dealer = Dealer::new(2, 2);
    dealer.found(["a", "b", "c", "d", "e", "f"].map(split));
    dealer.on_word(0, has(0, 0));
    assert_eq!(dealt(&mut dealer), pairs(&[]), "the other one may have restored some");
    dealer.on_word(1, has(1, 0));
    assert_eq!(dealt(&mut dealer), pairs(&[(0, "a"), (1, "b"), (0, "c")]));
    dealer.on_word(0, has(2, 2));
    assert_eq!(dealt(&mut dealer), pairs(&[]));
    dealer.on_word(0, has(1, 2));
    assert_eq!(dealt(&mut dealer), pairs(&[(0, "d")]));
    dealer.on_word(0, has(0, 3));
    assert_eq!(dealt(&mut dealer), pairs(&[(0, "e"), (0, "f")]));
    dealer.complete();
    assert_eq!(dealt(&mut dealer), pairs(&[(0, "NoMoreSplits"), (1, "NoMoreSplits")]));
    assert!(dealer.is_at_end());
}

#[test]
fn a_reader_without_splits_is_told_once_that_there_is_nothing_for_it() {
    let mut dealer = Dealer::new(3, 2);
    (0..2).for_each(|reader| dealer.on_word(reader, has(reader.into(), 0)));
    assert_eq!(dealt(&mut dealer), pairs(&[]), "the enumerator has not looked");
    dealer.looked();
    assert_eq!(
        dealt(&mut dealer),
        pairs(&[(0, "NothingAtPresent")]),
        "one has something, one has said nothing"
    );
    dealer.on_word(1, has(0, 0));
    dealer.on_word(2, has(0, 0));
    assert_eq!(dealt(&mut dealer), pairs(&[(1, "NothingAtPresent"), (2, "NothingAtPresent")]));
    dealer.found([split("a")]);
    assert_eq!(dealt(&mut dealer), pairs(&[(0, "a")]));
    dealer.on_word(0, has(0, 1));
    assert_eq!(dealt(&mut dealer), pairs(&[(0, "NothingAtPresent")]), "it has had some since");
    dealer.complete();
    let ends = [0, 1, 2].map(|reader| (reader, "NoMoreSplits"));
    assert_eq!(dealt(&mut dealer), pairs(&ends));
}

#[test]
fn without_a_limit_all_is_dealt_evenly_to_what_readers_have() {
    let mut dealer = Dealer::new(3, u64::MAX);
    (0..3).for_each(|reader| dealer.on_word(reader, has(u64::from(reader), 0)));
    dealer.found(["a", "b", "c", "d"].map(split));
    assert_eq!(dealt(&mut dealer), pairs(&[(0, "a"), (1, "b"), (0, "c"), (2, "d")]));
}

#[test]
fn a_pinned_split_waits_for_its_reader_and_holds_up_no_other() {
    let mut dealer = Dealer::new(2, 1);
    let pinned = |id: &str, pin| Found { pin: Some(pin), ..split(id) };
    dealer.found([pinned("a", 1), pinned("b", 3), split("c"), pinned("d", 4)]);
    assert_eq!(dealt(&mut dealer), pairs(&[]));
    (0..2).for_each(|reader| dealer.on_word(reader, has(0, 0)));
    assert_eq!(dealt(&mut dealer), pairs(&[(1, "a"), (0, "c")]), "both have one now");
    let waiting: Vec<String> = dealer.undealt().waiting.into_iter().map(|split| split.id).collect();
    assert_eq!(waiting, ["b", "d"]);
    dealer.on_word(0, has(0, 1));
    assert_eq!(dealt(&mut dealer), pairs(&[(0, "d")]), "the first one waits for the other reader");
    dealer.on_word(1, has(0, 1));
    dealer.complete();
    assert_eq!(dealt(&mut dealer), pairs(&[(1, "b"), (0, "NoMoreSplits"), (1, "NoMoreSplits")]));
}

#[test]
fn what_is_at_its_end_is_told_once_in_an_attempt_and_then_noted() {
    let mut dealer = Dealer::new(1, 1);
    let word = |finished: &[&str]| Word {
        finished: finished.iter().map(|id| (*id).to_string()).collect(),
        ..Word::default()
    };
    dealer.on_word(0, word(&["a"]));
    assert_eq!(dealer.take_untold(), ["a"]);
    // The reader does not know yet that it was told.
    dealer.on_word(0, word(&["a", "b"]));
    assert_eq!(dealer.take_untold(), ["b"]);
    dealer.told(vec!["a".into()]);
    assert_eq!(dealer.next(), Some(Assignment { reader: 0, order: Order::Noted(vec!["a".into()]) }));
    dealer.on_word(0, word(&["b"]));
    assert_eq!((dealer.take_untold(), dealer.next()), (vec![], None));
}

#[test]
fn a_split_that_is_found_while_it_is_read_is_a_fault_of_the_enumerator() {
    let mut holdings = Holdings::new(vec!["a".into()], vec![], false);
    let failure = holdings.assigned(1, "a").expect_err("it is there");
    assert!(failure.message.contains("`a` was found a second time") && !failure.retryable, "{failure}");
}

#[test]
fn readers_say_only_what_is_new() {
    let mut holdings = Holdings::new(vec!["a".into(), "b".into()], vec![], true);
    assert_eq!(holdings.news(), Some(has(2, 0)));
    assert_eq!(holdings.news(), None);
    holdings.ended(["a".into(), "unknown".into()]);
    assert_eq!(holdings.news(), Some(Word { open: 1, received: 0, finished: vec!["a".into()] }));
    holdings.noted(&["a".into()]);
    holdings.all_ended();
    let word = Word { open: 0, received: 0, finished: vec!["b".into()] };
    assert_eq!(holdings.news(), Some(word.clone()));
    assert_eq!(Word::from_note(&word.to_note()), Ok(word));
}
