//! Which rows of the cache have changed, by epoch: what lies between two barriers.
//!
//! Two epochs at most have changes in the cache: the running one, and one that was frozen at a barrier and is being encoded.
//! Each has a bit in the mark of a row; freezing only swaps which bit is which. A row that changes while its old value still
//! belongs to the frozen epoch is encoded before it changes. Invariants: a row with the frozen bit has the value of the
//! barrier; `frozen_rows` and `dirty_rows` count the rows with either bit; every row with the bit of an epoch is found through
//! that epoch's list of hashes, or the list says that it is given up and all rows are to be visited.

use thalweg_common::graph::StateKind;
use thalweg_common::key_group::{KeyGroup, encoded_key_hash, key_group};
use thalweg_common::record::Record;

use super::batch::{EntryBatch, put_key};
use crate::key_table::KeyTable;

/// So many rows that have changed are fetched together: what they are encoded from lies all over the memory.
const ROWS_AHEAD: usize = 16;

/// The state of a row, or of an entry of a row: a bit for each of two epochs (changed in it), one for each of two epochs
/// that may not be behind the cache yet (encoded for it), and a count of uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark(u8);

const EVEN: u8 = 1;
const ODD: u8 = 2;
const CHANGED: u8 = EVEN | ODD;
/// How far the bit that says "encoded for this epoch" is from the one that says "changed in it".
const ENCODED_SHIFT: u8 = 2;
const USE: u8 = 0x40;
const USES: u8 = 0xc0;

impl Mark {
    /// Notes a use, for the clock.
    #[inline]
    pub(crate) fn used(&mut self) {
        if self.0 & USES != USES {
            self.0 += USE;
        }
    }

    /// The hand of the clock passes: whether there was a use that is now forgotten.
    pub(crate) fn forget_use(&mut self) -> bool {
        let was_used = self.0 & USES != 0;
        if was_used {
            self.0 -= USE;
        }
        was_used
    }

    /// Whether it has changed in the running epoch or a frozen one and was not encoded yet.
    pub(crate) fn is_changed(self) -> bool {
        self.0 & CHANGED != 0
    }
}

/// Places of the rows that have changed in an epoch.
#[derive(Debug, Default)]
struct Changed {
    hashes: Vec<u64>,
    /// There were too many: every row must be visited.
    is_given_up: bool,
    /// How many hashes, or positions, were visited.
    next: usize,
}

/// The epochs of one store.
pub(crate) struct Epochs {
    running: u8,
    changed: Changed,
    dirty_rows: usize,
    frozen: Changed,
    frozen_rows: usize,
    /// Bits of frozen epochs that are not known to be behind the cache.
    outstanding: u8,
    /// What is encoded of the frozen epoch.
    pub(crate) encoded: EntryBatch,
    kinds: Vec<StateKind>,
    max_parallelism: u32,
    key: EncodedKey,
    sizes: Sizes,
}

/// The key at hand, encoded.
#[derive(Debug, Default)]
pub(crate) struct EncodedKey {
    bytes: Vec<u8>,
    group: KeyGroup,
}

/// Encoded bytes of the entries that have come by.
#[derive(Debug, Default)]
struct Sizes {
    entries: u64,
    bytes: u64,
}

impl Epochs {
    pub(crate) fn new(kinds: Vec<StateKind>, max_parallelism: u32) -> Self {
        Self {
            running: EVEN,
            changed: Changed::default(),
            dirty_rows: 0,
            frozen: Changed::default(),
            frozen_rows: 0,
            outstanding: 0,
            encoded: EntryBatch::default(),
            kinds,
            max_parallelism,
            key: EncodedKey::default(),
            sizes: Sizes::default(),
        }
    }

    fn frozen_bit(&self) -> u8 {
        self.running ^ CHANGED
    }

    /// Begins a new epoch. The one before must have been encoded to its end.
    pub(crate) fn freeze(&mut self) {
        debug_assert_eq!(self.frozen_rows, 0, "an epoch is frozen when the one before is encoded");
        self.outstanding |= self.running << ENCODED_SHIFT;
        self.frozen = std::mem::take(&mut self.changed);
        (self.frozen_rows, self.dirty_rows) = (self.dirty_rows, 0);
        self.running = self.frozen_bit();
    }

    /// The oldest of this many frozen epochs is behind the cache.
    pub(crate) fn set_outstanding(&mut self, epochs: u64) {
        let newest = self.frozen_bit() << ENCODED_SHIFT;
        self.outstanding = match epochs {
            0 => 0,
            1 => newest,
            _ => CHANGED << ENCODED_SHIFT,
        };
    }

    /// Whether some frozen epoch is not known to be behind the cache.
    pub(crate) fn is_outstanding(&self) -> bool {
        self.outstanding != 0
    }

    pub(crate) fn frozen_rows(&self) -> usize {
        self.frozen_rows
    }

    /// Memory beside the rows.
    pub(crate) fn bytes(&self) -> usize {
        (self.changed.hashes.capacity() + self.frozen.hashes.capacity()) * size_of::<u64>()
            + self.encoded.size_bytes()
    }

    /// Whether a mark is as it will be after a change in the running epoch: the way of nearly all changes.
    #[inline]
    pub(crate) fn is_noted(&self, mark: Mark) -> bool {
        mark.0 & CHANGED == self.running
    }

    /// A row changes. `hash` is its key's; `capacity` that of the table, which bounds the list.
    #[inline]
    pub(crate) fn note_row(&mut self, mark: &mut Mark, hash: u64, capacity: usize) {
        if mark.0 & self.running != 0 {
            return;
        }
        mark.0 |= self.running;
        self.dirty_rows += 1;
        if self.changed.is_given_up {
            return;
        }
        // A row that was written out, read again and changed again is in the list twice.
        if self.changed.hashes.len() * size_of::<u64>() >= capacity.max(64) {
            self.changed = Changed { is_given_up: true, ..Changed::default() };
        } else {
            self.changed.hashes.push(hash);
        }
    }

    /// An entry of a row changes: whether its old value must be encoded first.
    #[inline]
    pub(crate) fn note_entry(&self, mark: &mut Mark) -> bool {
        let is_frozen = mark.0 & self.frozen_bit() != 0;
        mark.0 = (mark.0 & !self.frozen_bit()) | self.running;
        is_frozen
    }

    /// A row that is an entry by itself was encoded before its change.
    pub(crate) fn copied_row(&mut self) {
        self.frozen_rows -= 1;
    }

    /// Whether an entry belongs to the frozen epoch, and if so no longer: its value is encoded now.
    pub(crate) fn take_frozen(&self, mark: &mut Mark) -> bool {
        let is_frozen = mark.0 & self.frozen_bit() != 0;
        mark.0 &= !self.frozen_bit();
        is_frozen
    }

    /// The same for a row, which then stays in the cache until its epoch is behind it.
    fn take_frozen_row(&mut self, mark: &mut Mark) -> bool {
        let is_frozen = self.take_frozen(mark);
        if is_frozen {
            mark.0 |= self.frozen_bit() << ENCODED_SHIFT;
            self.frozen_rows -= 1;
        }
        is_frozen
    }

    /// Whether a row may leave the cache now.
    pub(crate) fn may_leave(&self, mark: Mark) -> bool {
        let is_changed = mark.is_changed();
        mark.0 & self.outstanding == 0 && !(is_changed && self.outstanding != 0)
    }

    /// A changed row leaves the cache: it is written out.
    pub(crate) fn left(&mut self) {
        self.dirty_rows -= 1;
    }

    /// Goes to a key: encodes it for the entries that follow.
    pub(crate) fn go_to<K: Record>(&mut self, key: &K) {
        self.key.bytes.clear();
        key.encode(&mut self.key.bytes);
        self.key.group = key_group(encoded_key_hash(&self.key.bytes), self.max_parallelism);
    }

    /// Encodes an entry of the key at hand for the frozen epoch.
    pub(crate) fn encode(
        &mut self,
        state: usize,
        map_key: impl FnOnce(&mut Vec<u8>),
        value: Option<impl FnOnce(&mut Vec<u8>)>,
    ) {
        let mut encoded = std::mem::take(&mut self.encoded);
        self.encode_into(&mut encoded, state, map_key, value);
        self.encoded = encoded;
    }

    /// Encodes an entry of the key at hand.
    pub(crate) fn encode_into(
        &mut self,
        batch: &mut EntryBatch,
        state: usize,
        map_key: impl FnOnce(&mut Vec<u8>),
        value: Option<impl FnOnce(&mut Vec<u8>)>,
    ) {
        let before = batch.size_bytes();
        let (kind, key) = (self.kinds[state], &self.key);
        let put = |out: &mut Vec<u8>| {
            put_key(out, kind, key.group, &key.bytes);
            map_key(out);
        };
        batch.put(state, put, value);
        self.came_by(batch.size_bytes() - before);
    }

    /// Learns how large encoded entries are.
    pub(crate) fn came_by(&mut self, bytes: usize) {
        self.sizes.entries += 1;
        self.sizes.bytes += bytes as u64;
        if self.sizes.entries >= 1 << 16 {
            self.sizes.entries /= 2;
            self.sizes.bytes /= 2;
        }
    }

    /// What an entry takes when it is encoded, going by the last ones.
    pub(crate) fn bytes_per_entry(&self) -> usize {
        self.sizes.bytes.checked_div(self.sizes.entries).unwrap_or(0) as usize
    }

    /// Encodes frozen rows until `encoded` has `limit_bytes`, or all are encoded.
    pub(crate) fn encode_frozen<K: Record + Eq + std::hash::Hash, R>(
        &mut self,
        table: &mut KeyTable<K, R>,
        rows: &mut impl Rows<K, R>,
        limit_bytes: usize,
    ) {
        while self.frozen_rows > 0 && self.encoded.size_bytes() < limit_bytes {
            let next = self.frozen.next;
            self.frozen.next += 1;
            if self.frozen.is_given_up {
                // Rows move up when others leave, and all move when the table grows: perhaps over the place that was reached.
                let position = next % table.capacity();
                if let Some((key, row)) = table.row_at(position) {
                    self.encode_row(key, row, rows);
                }
            } else if let Some(hash) = self.frozen.hashes.get(next).copied() {
                if next.is_multiple_of(ROWS_AHEAD) {
                    let ahead = self.frozen.hashes[next..].iter().take(ROWS_AHEAD);
                    ahead.clone().for_each(|hash| table.prefetch(*hash));
                    ahead.for_each(|hash| table.for_hash(*hash, |_, row| rows.prefetch(row)));
                }
                table.for_hash(hash, |key, row| self.encode_row(key, row, rows));
            } else {
                debug_assert!(false, "a frozen row is not in the list");
                self.frozen = Changed { is_given_up: true, ..Changed::default() };
            }
        }
        if self.frozen_rows == 0 {
            self.frozen = Changed::default();
        }
    }

    #[inline]
    fn encode_row<K: Record, R>(&mut self, key: &K, row: &mut R, rows: &mut impl Rows<K, R>) {
        if self.take_frozen_row(rows.mark(row)) {
            self.go_to(key);
            rows.encode_frozen(row, self);
        }
    }
}

/// What the rows of a key table are to the epochs.
pub(crate) trait Rows<K, R> {
    /// Starts to fetch what belongs to a row and lies elsewhere.
    fn prefetch(&self, row: &R) {
        let _ = row;
    }

    /// The mark of a row.
    fn mark<'a>(&'a mut self, row: &'a mut R) -> &'a mut Mark;

    /// Encodes what belongs to the frozen epoch of the row of the key at hand, and unmarks it.
    fn encode_frozen(&mut self, row: &mut R, epochs: &mut Epochs);

    /// Encodes everything of the row of the key at hand that has changed.
    fn encode_changed(&mut self, row: &mut R, epochs: &mut Epochs, batch: &mut EntryBatch);

    /// The row leaves: whether there was state in it.
    fn forget(&mut self, row: R) -> bool;
}

/// The hand of the clock: takes rows out of `table` until at most `keep_rows` are left, or it was three times around and
/// there is no more that may leave. Those that have changed are added to `batch`. Whether state has left.
pub(crate) fn sweep<K: Record + Eq + std::hash::Hash, R>(
    table: &mut KeyTable<K, R>,
    rows: &mut impl Rows<K, R>,
    hand: &mut usize,
    epochs: &mut Epochs,
    keep_rows: usize,
    batch: &mut EntryBatch,
) -> bool {
    let mut steps = (USES / USE + 1) as usize * table.capacity() + 1;
    let mut has_left = false;
    while table.len() > keep_rows && steps > 0 {
        steps -= 1;
        *hand %= table.capacity();
        let Some((key, row)) = table.row_at(*hand) else {
            *hand += 1;
            continue;
        };
        let mark = rows.mark(row);
        if mark.forget_use() || !epochs.may_leave(*mark) {
            *hand += 1;
            continue;
        }
        if mark.is_changed() {
            epochs.go_to(key);
            rows.encode_changed(row, epochs, batch);
            epochs.left();
        }
        // Another row may move to this place: the hand stays.
        let (_, row) = table.remove(*hand);
        has_left |= rows.forget(row);
    }
    has_left
}
