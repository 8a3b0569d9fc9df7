//! Streams, shards and records, and what may be asked of them. Pure: time comes with each question.
//!
//! Invariants: sequence numbers of a shard grow, also those of a child over its parents'; a closed shard can be read to its end, and says then who
//! its children are; a record is in the shard whose range has its hash key.

use std::collections::{BTreeMap, VecDeque};

use thalweg_common::Timestamp;

use super::fan_out::FanOut;

/// What an iterator may be old.
const ITERATOR_MS: i64 = 300_000;
/// Quotas of a shard and second.
const READS: usize = 5;
const READ_BYTES: usize = 2 * 1024 * 1024;
const WRITTEN_RECORDS: usize = 1_000;
const WRITTEN_BYTES: usize = 1024 * 1024;
/// Most bytes of one answer.
const ANSWER_BYTES: usize = 10 * 1024 * 1024;
/// Largest record.
const RECORD_BYTES: usize = 1024 * 1024;

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As `ResourceNotFoundException`.
    pub code: &'static str,
    /// What is shown.
    pub message: String,
}

pub(super) fn refuse<T>(code: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

/// What is made to fail, and how long things take.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whether the quotas of reading count.
    pub read_quotas: bool,
    /// Whether the quotas of writing count.
    pub write_quotas: bool,
    /// Of so many written records one is refused; 0 for none.
    pub refuses_one_in: u64,
    /// What the next requests for an operation are refused with.
    pub refusals: BTreeMap<String, VecDeque<&'static str>>,
    /// What all requests are refused with.
    pub denies: Option<&'static str>,
    /// Requests that are done, and whose connection is closed in place of an answer.
    pub lost_answers: u32,
    /// Whether nothing is answered at all, and subscriptions say nothing.
    pub is_silent: bool,
    /// How long a subscription lasts.
    pub subscription_ms: i64,
    /// For how long a second subscription of a consumer to a shard is refused; behind that it takes over.
    pub takeover_ms: i64,
    /// How often a subscription without records says that it is there.
    pub heartbeat_ms: i64,
    /// How long a new consumer cannot be used.
    pub consumer_creation_ms: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            read_quotas: false,
            write_quotas: false,
            refuses_one_in: 0,
            refusals: BTreeMap::new(),
            denies: None,
            lost_answers: 0,
            is_silent: false,
            subscription_ms: 300_000,
            takeover_ms: 5_000,
            heartbeat_ms: 5_000,
            consumer_creation_ms: 20,
        }
    }
}

/// A record in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its number in the shard.
    pub sequence_number: String,
    /// What its shard was chosen by.
    pub partition_key: String,
    /// When it arrived.
    pub arrival_ms: Timestamp,
    /// What was written.
    pub data: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(super) struct Shard {
    pub(super) id: String,
    pub(super) parents: Vec<String>,
    pub(super) range: (u128, u128),
    pub(super) first_number: String,
    pub(super) last_number: Option<String>,
    pub(super) records: Vec<StoredRecord>,
    reads: VecDeque<Timestamp>,
    /// Until when its bytes are used up.
    full_until: Timestamp,
    writes: VecDeque<(Timestamp, usize)>,
    next: u64,
}

/// One stream after the other.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) streams: BTreeMap<String, Vec<Shard>>,
    pub(super) rules: Rules,
    pub(super) fan_out: FanOut,
    /// What was put into the delivery streams of Firehose.
    pub(super) delivery_streams: BTreeMap<String, Vec<Vec<u8>>>,
    /// Iterators of an earlier epoch are too old.
    epoch: u64,
    /// Records that came, also those that were refused one by one.
    pub(super) written: u64,
}

/// Where to begin in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    TrimHorizon,
    Latest,
    AtTimestamp(Timestamp),
    At(String),
    After(String),
}

/// What a read answers.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) records: Vec<StoredRecord>,
    pub(super) next: Option<String>,
    pub(super) behind_ms: i64,
    pub(super) children: Vec<Shard>,
}

/// What became of a record: its shard and number there.
pub(super) type Written = Result<(String, String), Refusal>;

/// What to write.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) partition_key: String,
    pub(super) explicit_hash_key: Option<u128>,
    pub(super) data: Vec<u8>,
}

impl Shard {
    fn new(number: usize, parents: Vec<String>, range: (u128, u128)) -> Self {
        let first_number = sequence_number(number, 0);
        let id = format!("shardId-{number:012}");
        let (records, reads, writes) = Default::default();
        Self {
            id,
            parents,
            range,
            first_number,
            last_number: None,
            records,
            reads,
            full_until: i64::MIN,
            writes,
            next: 1,
        }
    }

    fn number(&self) -> usize {
        self.id.trim_start_matches("shardId-").parse().unwrap_or_default()
    }

    fn close(&mut self) {
        self.last_number = Some(sequence_number(self.number(), self.next));
        self.next += 1;
    }

    fn append(&mut self, entry: Entry, now_ms: Timestamp) -> String {
        let sequence_number = sequence_number(self.number(), self.next);
        self.next += 1;
        self.records.push(StoredRecord {
            sequence_number: sequence_number.clone(),
            partition_key: entry.partition_key,
            arrival_ms: now_ms,
            data: entry.data,
        });
        sequence_number
    }

    /// The first record to be read.
    pub(super) fn place(&self, from: &From, now_ms: Timestamp) -> Result<usize, Refusal> {
        let numbers = || self.records.iter().map(|record| record.sequence_number.as_str());
        Ok(match from {
            From::TrimHorizon => 0,
            From::Latest => self.records.len(),
            From::AtTimestamp(at_ms) if *at_ms > now_ms => {
                return refuse(
                    "InvalidArgumentException",
                    format!(
                        "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. timestampInMillis: {at_ms}, currentTimestampInMillis: {now_ms}"
                    ),
                );
            }
            From::AtTimestamp(at_ms) => self.records.partition_point(|record| record.arrival_ms < *at_ms),
            From::At(number) => numbers().take_while(|other| *other < number.as_str()).count(),
            From::After(number) => numbers().take_while(|other| *other <= number.as_str()).count(),
        })
    }

    /// Whether the shard's quotas of writing allow so many bytes more.
    fn may_write(&mut self, bytes: usize, now_ms: Timestamp) -> bool {
        self.writes.retain(|(at, _)| now_ms - at < 1_000);
        let used: usize = self.writes.iter().map(|(_, bytes)| bytes).sum();
        let is_allowed = self.writes.len() < WRITTEN_RECORDS && used + bytes <= WRITTEN_BYTES;
        if is_allowed {
            self.writes.push_back((now_ms, bytes));
        }
        is_allowed
    }
}

/// 56 digits, as Kinesis has them.
fn sequence_number(shard: usize, number: u64) -> String {
    format!("49{shard:018}{number:036}")
}

impl Model {
    pub(super) fn create(&mut self, stream: &str, shards: u32) {
        let width =
            (u128::MAX / u128::from(shards.max(1))) + u128::from(shards.is_power_of_two() && shards > 1);
        let shards = (0..shards.max(1)).map(|number| {
            let first = width * u128::from(number);
            let last = if number + 1 == shards { u128::MAX } else { first + (width - 1) };
            Shard::new(number as usize, Vec::new(), (first, last))
        });
        self.streams.insert(stream.to_owned(), shards.collect());
    }

    pub(super) fn shards(&self, stream: &str) -> Result<&Vec<Shard>, Refusal> {
        match self.streams.get(stream) {
            Some(shards) => Ok(shards),
            None => refuse(
                "ResourceNotFoundException",
                format!("Stream {stream} under account 000000000000 not found."),
            ),
        }
    }

    fn shards_mut(&mut self, stream: &str) -> Result<&mut Vec<Shard>, Refusal> {
        self.shards(stream)?;
        Ok(self.streams.entry(stream.to_owned()).or_default())
    }

    pub(super) fn shard_mut(&mut self, stream: &str, id: &str) -> Result<&mut Shard, Refusal> {
        match self.shards_mut(stream)?.iter_mut().find(|shard| shard.id == id) {
            Some(shard) => Ok(shard),
            None => refuse(
                "ResourceNotFoundException",
                format!("Shard {id} in stream {stream} under account 000000000000 does not exist"),
            ),
        }
    }

    pub(super) fn split(&mut self, stream: &str, id: &str, at: u128) -> Result<(), Refusal> {
        let number = self.shards(stream)?.len();
        let shard = self.open_shard(stream, id)?;
        let (first, last) = shard.range;
        if at <= first || at > last {
            return refuse("InvalidArgumentException", format!("{at} is no place to split {id}"));
        }
        shard.close();
        let parents = vec![id.to_owned()];
        let children = [
            Shard::new(number, parents.clone(), (first, at - 1)),
            Shard::new(number + 1, parents, (at, last)),
        ];
        self.shards_mut(stream)?.extend(children);
        Ok(())
    }

    pub(super) fn merge(&mut self, stream: &str, left: &str, right: &str) -> Result<(), Refusal> {
        let number = self.shards(stream)?.len();
        let (left_range, right_range) =
            (self.open_shard(stream, left)?.range, self.open_shard(stream, right)?.range);
        if left_range.1.checked_add(1) != Some(right_range.0) {
            return refuse("InvalidArgumentException", format!("{left} and {right} are no neighbours"));
        }
        self.open_shard(stream, left)?.close();
        self.open_shard(stream, right)?.close();
        let parents = vec![left.to_owned(), right.to_owned()];
        let child = Shard::new(number, parents, (left_range.0, right_range.1));
        self.shards_mut(stream)?.push(child);
        Ok(())
    }

    fn open_shard(&mut self, stream: &str, id: &str) -> Result<&mut Shard, Refusal> {
        let shard = self.shard_mut(stream, id)?;
        match shard.last_number {
            None => Ok(shard),
            Some(_) => refuse("ResourceInUseException", format!("Shard {id} is closed")),
        }
    }

    /// What a shard was split or merged into.
    pub(super) fn children(&self, stream: &str, id: &str) -> Vec<Shard> {
        let shards = self.streams.get(stream).into_iter().flatten();
        shards.filter(|child| child.parents.iter().any(|parent| parent == id)).cloned().collect()
    }

    /// All iterators are too old from now on.
    pub(super) fn expire_iterators(&mut self) {
        self.epoch += 1;
    }

    pub(super) fn iterator(
        &mut self,
        stream: &str,
        id: &str,
        from: &From,
        now_ms: Timestamp,
    ) -> Result<String, Refusal> {
        let epoch = self.epoch;
        let place = self.shard_mut(stream, id)?.place(from, now_ms)?;
        Ok(iterator(stream, id, place, now_ms, epoch))
    }

    pub(super) fn read(
        &mut self,
        iterator_text: &str,
        limit: usize,
        now_ms: Timestamp,
    ) -> Result<Read, Refusal> {
        let (epoch, has_quotas) = (self.epoch, self.rules.read_quotas);
        let invalid =
            || Refusal { code: "InvalidArgumentException", message: "Invalid ShardIterator.".to_owned() };
        let parts: Vec<&str> = iterator_text.rsplitn(5, '|').collect();
        let [of_epoch, since_ms, place, id, stream] = parts[..] else { return Err(invalid()) };
        let (Ok(of_epoch), Ok(since_ms), Ok(place)) =
            (of_epoch.parse::<u64>(), since_ms.parse::<i64>(), place.parse::<usize>())
        else {
            return Err(invalid());
        };
        let children = self.children(stream, id);
        let shard = self.shard_mut(stream, id)?;
        if of_epoch < epoch || now_ms - since_ms > ITERATOR_MS {
            return refuse(
                "ExpiredIteratorException",
                "Iterator expired. The iterator was created too long ago.",
            );
        }
        shard.reads.retain(|at| now_ms - at < 1_000);
        if has_quotas && (shard.reads.len() >= READS || now_ms < shard.full_until) {
            return refuse(
                "ProvisionedThroughputExceededException",
                format!("Rate exceeded for shard {id} in stream {stream}"),
            );
        }
        shard.reads.push_back(now_ms);
        let mut bytes = 0;
        let rest = shard.records.get(place..).unwrap_or_default();
        let fits = |record: &&StoredRecord| {
            bytes += record.data.len();
            bytes <= ANSWER_BYTES
        };
        let records: Vec<StoredRecord> = rest.iter().take(limit).take_while(fits).cloned().collect();
        let bytes: usize = records.iter().map(|record| record.data.len()).sum();
        shard.full_until = now_ms + (bytes * 1_000 / READ_BYTES) as i64;
        let next = place + records.len();
        let is_over = shard.last_number.is_some() && next >= shard.records.len();
        let behind_ms = shard.records.get(next).map_or(0, |record| now_ms - record.arrival_ms);
        Ok(Read {
            records,
            next: (!is_over).then(|| iterator(stream, id, next, now_ms, epoch)),
            behind_ms,
            children: if is_over { children } else { Vec::new() },
        })
    }

    /// Writes records; each has an answer of its own, its shard and number.
    pub(super) fn write(
        &mut self,
        stream: &str,
        entries: Vec<Entry>,
        now_ms: Timestamp,
    ) -> Result<Vec<Written>, Refusal> {
        if entries.iter().any(|entry| entry.data.len() + entry.partition_key.len() > RECORD_BYTES) {
            return refuse("InvalidArgumentException", "a record is larger than 1 MiB");
        }
        let (has_quotas, one_in) = (self.rules.write_quotas, self.rules.refuses_one_in);
        let mut answers = Vec::new();
        for entry in entries {
            self.written += 1;
            let is_chosen = one_in > 0 && self.written.is_multiple_of(one_in);
            let key = entry.explicit_hash_key.unwrap_or_else(|| md5_key(&entry.partition_key));
            let shards = self.shards_mut(stream)?;
            let open = shards
                .iter_mut()
                .find(|shard| shard.last_number.is_none() && (shard.range.0..=shard.range.1).contains(&key));
            let Some(shard) = open else { return refuse("InternalFailure", "no shard has this key") };
            if is_chosen || (has_quotas && !shard.may_write(entry.data.len(), now_ms)) {
                let message = format!("Rate exceeded for shard {} in stream {stream}", shard.id);
                answers.push(refuse("ProvisionedThroughputExceededException", message));
                continue;
            }
            let id = shard.id.clone();
            answers.push(Ok((id, shard.append(entry, now_ms))));
        }
        Ok(answers)
    }
}

fn iterator(stream: &str, id: &str, place: usize, now_ms: Timestamp, epoch: u64) -> String {
    format!("{stream}|{id}|{place}|{now_ms}|{epoch}")
}

/// The MD5 of a partition key, as a number.
pub(super) fn md5_key(partition_key: &str) -> u128 {
    use md5::{Digest, Md5};
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}
