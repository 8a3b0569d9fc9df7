//! A data file of a savepoint: the state of one operator, or a part of it, as one subtask wrote it.
//!
//! Form: the magic `THWGSAVE` and a version (u32); blocks, each perhaps compressed with LZ4; the index of all blocks with their
//! checksums; the index's length (u64) and its xxh3 (u64); integers little-endian. A block holds entries of one state and some key
//! groups, or items of a source or sink, so that whoever wants few groups reads only blocks that have them. Pure.
//! Invariants: entries are never torn between two blocks; whatever is announced is checked before memory is taken for it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thalweg_common::codec;
use thalweg_common::id::OperatorId;
use thalweg_common::key_group::{KeyGroup, KeyGroupRange};
use thalweg_common::limits::{MAX_SAVEPOINT_BLOCK_BYTES, SAVEPOINT_BLOCK_BYTES, SAVEPOINT_FILE_BYTES};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::SavepointError;

const MAGIC: &[u8; 8] = b"THWGSAVE";
/// What is written, and the newest that is read. All older ones are read too.
const VERSION: u32 = 1;
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u32>();
const TRAILER_BYTES: usize = 2 * size_of::<u64>();

/// A byte of an LZ4 block stands for 255 bytes at most.
const LZ4_MAX_RATIO: u64 = 255;

/// Smaller blocks are not worth compressing.
const MIN_COMPRESSED_BYTES: usize = 128;

/// What a file holds and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Index {
    operator: OperatorId,
    /// Names of the keyed states; blocks give their positions.
    states: Vec<String>,
    blocks: Vec<Block>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Block {
    offset: u64,
    /// As it stands in the file.
    stored_bytes: u64,
    /// Without compression.
    raw_bytes: u64,
    is_compressed: bool,
    /// xxh3 of the stored bytes.
    checksum: u64,
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Content {
    /// Entries of a state; groups with their bytes, one behind the other.
    Keyed { state: u32, groups: Vec<(KeyGroup, u64)> },
    /// The lengths of items, one behind the other.
    Items(Vec<u64>),
}

/// A data file that is being filled.
#[derive(Debug)]
pub(crate) struct FileBuilder {
    operator: OperatorId,
    bytes: Vec<u8>,
    states: Vec<String>,
    blocks: Vec<Block>,
    /// The block that is being filled.
    open: Option<Content>,
    raw: Vec<u8>,
}

impl FileBuilder {
    pub(crate) fn new(operator: OperatorId) -> Self {
        let bytes = [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat();
        Self { operator, bytes, states: Vec::new(), blocks: Vec::new(), open: None, raw: Vec::new() }
    }

    /// Appends whole entries of a key group. They stay together in one block.
    pub(crate) fn entries(
        &mut self,
        state: &str,
        group: KeyGroup,
        entries: &[u8],
    ) -> Result<(), SavepointError> {
        self.check(state, entries)?;
        let number = self.number_of(state);
        if !matches!(&self.open, Some(Content::Keyed { state, .. }) if *state == number) {
            self.close_block();
        }
        let open = self.open.get_or_insert(Content::Keyed { state: number, groups: Vec::new() });
        if let Content::Keyed { groups, .. } = open {
            match groups.last_mut() {
                Some((last, bytes)) if *last == group => *bytes += entries.len() as u64,
                _ => groups.push((group, entries.len() as u64)),
            }
        }
        self.append(entries);
        Ok(())
    }

    /// Appends an item of a source or sink.
    pub(crate) fn item(&mut self, item: &[u8]) -> Result<(), SavepointError> {
        self.check("item", item)?;
        if !matches!(&self.open, Some(Content::Items(_))) {
            self.close_block();
        }
        if let Content::Items(lengths) = self.open.get_or_insert(Content::Items(Vec::new())) {
            lengths.push(item.len() as u64);
        }
        self.append(item);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.open.is_none()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() + self.raw.len() >= SAVEPOINT_FILE_BYTES
    }

    /// The file.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, SavepointError> {
        self.close_block();
        let Self { operator, mut bytes, states, blocks, .. } = self;
        let start = bytes.len();
        codec::append(&Index { operator, states, blocks }, &mut bytes)
            .map_err(|error| SavepointError::damaged("a data file", error.to_string()))?;
        let index_bytes = (bytes.len() - start) as u64;
        let checksum = xxh3_64(&bytes[start..]);
        bytes.extend_from_slice(&index_bytes.to_le_bytes());
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }

    fn check(&self, state: &str, bytes: &[u8]) -> Result<(), SavepointError> {
        if bytes.len() <= MAX_SAVEPOINT_BLOCK_BYTES {
            return Ok(());
        }
        let (operator, state) = (self.operator.to_string(), state.to_string());
        Err(SavepointError::TooLarge { operator, state, bytes: bytes.len() })
    }

    fn number_of(&mut self, state: &str) -> u32 {
        let known = self.states.iter().position(|name| name == state);
        let number = known.unwrap_or_else(|| {
            self.states.push(state.to_string());
            self.states.len() - 1
        });
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// Adds to the open block, which is closed behind it when it is full.
    fn append(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        if self.raw.len() >= SAVEPOINT_BLOCK_BYTES {
            self.close_block();
        }
    }

    fn close_block(&mut self) {
        let Some(content) = self.open.take() else { return };
        let raw = std::mem::take(&mut self.raw);
        let offset = self.bytes.len();
        let is_compressed = raw.len() >= MIN_COMPRESSED_BYTES && self.compress(&raw);
        if !is_compressed {
            self.bytes.extend_from_slice(&raw);
        }
        let stored = &self.bytes[offset..];
        self.blocks.push(Block {
            offset: offset as u64,
            stored_bytes: stored.len() as u64,
            raw_bytes: raw.len() as u64,
            is_compressed,
            checksum: xxh3_64(stored),
            content,
        });
        self.raw = raw;
        self.raw.clear();
    }

    /// Appends the block compressed, if that makes it smaller.
    fn compress(&mut self, raw: &[u8]) -> bool {
        let offset = self.bytes.len();
        self.bytes.resize(offset + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
        let smaller = lz4_flex::block::compress_into(raw, &mut self.bytes[offset..])
            .ok()
            .filter(|bytes| *bytes < raw.len());
        self.bytes.truncate(offset + smaller.unwrap_or(0));
        smaller.is_some()
    }
}

/// A piece of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Entries of a state and key group.
    Entries(&'a str, KeyGroup, &'a [u8]),
    /// An item of a source or sink.
    Item(&'a [u8]),
}

/// A data file that was read.
#[derive(Debug)]
pub(crate) struct FileContents {
    /// For messages.
    name: String,
    bytes: Bytes,
    index: Index,
}

impl FileContents {
    /// Reads the index. `name` is for messages.
    pub(crate) fn parse(name: &str, operator: OperatorId, bytes: Bytes) -> Result<Self, SavepointError> {
        let damaged = |reason: &str| Err(SavepointError::damaged(name, reason));
        let Some((content, trailer)) = bytes.split_last_chunk::<TRAILER_BYTES>() else {
            return damaged("it is too short");
        };
        let Some((magic, version)) = content.split_first_chunk::<{ MAGIC.len() }>() else {
            return damaged("it is too short");
        };
        if magic != MAGIC {
            return damaged("it is no data file of a savepoint");
        }
        let Some((version, _)) = version.split_first_chunk::<4>() else { return damaged("it is too short") };
        let version = u32::from_le_bytes(*version);
        if version == 0 || version > VERSION {
            return Err(SavepointError::Newer { file: name.to_string(), version, supported: VERSION });
        }
        let (index_bytes, checksum) = trailer.split_at(size_of::<u64>());
        let start = index_bytes
            .try_into()
            .ok()
            .and_then(|bytes| usize::try_from(u64::from_le_bytes(bytes)).ok())
            .and_then(|length| content.len().checked_sub(length))
            .filter(|start| *start >= HEADER_BYTES);
        let Some(index) = start.and_then(|start| content.get(start..)) else {
            return damaged("its index does not fit into it");
        };
        if xxh3_64(index).to_le_bytes() != checksum {
            return damaged("the checksum of its index is wrong");
        }
        let index: Index = match codec::from_bytes(index) {
            Ok(index) => index,
            Err(error) => return damaged(&error.to_string()),
        };
        if index.operator != operator {
            return damaged(&format!("it is of operator {} and should be of {operator}", index.operator));
        }
        Ok(Self { name: name.to_string(), bytes, index })
    }

    /// Reads the blocks that have entries of these key groups, and items if they are wanted, and hands over each piece.
    pub(crate) fn visit<E: From<SavepointError>>(
        &self,
        groups: KeyGroupRange,
        wants_items: bool,
        mut visitor: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut scratch = Vec::new();
        for block in &self.index.blocks {
            match &block.content {
                Content::Keyed { state, groups: held } => {
                    if !held.iter().any(|(group, _)| groups.contains(*group)) {
                        continue;
                    }
                    let state = self.index.states.get(*state as usize);
                    let state = state.ok_or_else(|| self.damaged("a block is of no state"))?;
                    let mut rest = self.raw(block, &mut scratch)?;
                    for (group, bytes) in held {
                        let entries = self.take(&mut rest, *bytes)?;
                        if groups.contains(*group) {
                            visitor(Piece::Entries(state, *group, entries))?;
                        }
                    }
                }
                Content::Items(lengths) if wants_items => {
                    let mut rest = self.raw(block, &mut scratch)?;
                    for length in lengths {
                        visitor(Piece::Item(self.take(&mut rest, *length)?))?;
                    }
                }
                Content::Items(_) => {}
            }
        }
        Ok(())
    }

    fn take<'a>(&self, rest: &mut &'a [u8], bytes: u64) -> Result<&'a [u8], SavepointError> {
        let split = usize::try_from(bytes).ok().and_then(|bytes| rest.split_at_checked(bytes));
        let (taken, behind) = split.ok_or_else(|| self.damaged("a block is shorter than its index says"))?;
        *rest = behind;
        Ok(taken)
    }

    /// The content of a block, checked and decompressed.
    fn raw<'a>(&'a self, block: &Block, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], SavepointError> {
        let start = usize::try_from(block.offset).ok();
        let end = block.offset.checked_add(block.stored_bytes).and_then(|end| usize::try_from(end).ok());
        let stored = start.zip(end).and_then(|(start, end)| self.bytes.get(start..end));
        let stored = stored.ok_or_else(|| self.damaged("a block lies outside of it"))?;
        if xxh3_64(stored) != block.checksum {
            return Err(self.damaged("the checksum of a block is wrong"));
        }
        if !block.is_compressed {
            return Ok(stored);
        }
        let most = (MAX_SAVEPOINT_BLOCK_BYTES + SAVEPOINT_BLOCK_BYTES) as u64;
        if block.raw_bytes > block.stored_bytes.saturating_mul(LZ4_MAX_RATIO).min(most) {
            return Err(self.damaged("a block claims to be larger than it can be"));
        }
        scratch.clear();
        scratch.resize(usize::try_from(block.raw_bytes).unwrap_or(0), 0);
        match lz4_flex::block::decompress_into(stored, scratch) {
            Ok(bytes) if bytes == scratch.len() => Ok(scratch),
            _ => Err(self.damaged("a block cannot be decompressed")),
        }
    }

    fn damaged(&self, reason: &str) -> SavepointError {
        SavepointError::damaged(&self.name, reason)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    const OPERATOR: OperatorId = OperatorId(7);
    const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: 128 };

    type Read = (Vec<(String, KeyGroup, Vec<u8>)>, Vec<Vec<u8>>);

    fn read(bytes: Vec<u8>, groups: KeyGroupRange) -> Result<Read, SavepointError> {
        let (mut entries, mut items) = (Vec::new(), Vec::new());
        FileContents::parse("file", OPERATOR, bytes.into())?.visit(groups, true, |piece| {
            match piece {
                Piece::Entries(state, group, bytes) => {
                    entries.push((state.to_string(), group, bytes.to_vec()))
                }
                Piece::Item(item) => items.push(item.to_vec()),
            }
            Ok::<_, SavepointError>(())
        })?;
        Ok((entries, items))
    }

    fn small_file() -> Vec<u8> {
        let mut file = FileBuilder::new(OPERATOR);
        file.entries("total", 3, &[1; 500]).unwrap();
        file.entries("total", 9, &[2, 3]).unwrap();
        file.entries("names", 3, &[4]).unwrap();
        file.item(&[5, 6]).unwrap();
        file.item(&[]).unwrap();
        file.finish().unwrap()
    }

    #[test]
    fn only_the_groups_that_are_wanted_are_handed_over() {
        let (entries, items) = read(small_file(), KeyGroupRange { start: 3, end: 9 }).unwrap();
        assert_eq!(entries, [("total".into(), 3, vec![1; 500]), ("names".into(), 3, vec![4])]);
        assert_eq!(items, [vec![5, 6], vec![]]);
        assert!(small_file().len() < 400, "the block of ones is compressed");
        assert_eq!(read(small_file(), ALL).unwrap().0.len(), 3);
        assert_eq!(read(FileBuilder::new(OPERATOR).finish().unwrap(), ALL).unwrap(), Default::default());
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let file = small_file();
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            assert!(read(damaged, ALL).is_err(), "byte {at}");
            assert!(read(file[..at].to_vec(), ALL).is_err(), "cut to {at}");
        }
        let newer = FileContents::parse(
            "f",
            OPERATOR,
            [b"THWGSAVE".as_slice(), &[2, 0, 0, 0], &[0; 16]].concat().into(),
        );
        assert!(
            newer
                .unwrap_err()
                .to_string()
                .contains("version 2 of the savepoint format, this program reads up to 1")
        );
        let other = FileContents::parse("f", OperatorId(8), file.into()).unwrap_err().to_string();
        assert!(
            other.contains("is of operator 0000000000000007 and should be of 0000000000000008"),
            "{other}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_written_is_read(pieces in proptest::collection::vec((0u8..3, 0u32..128, 0usize..60_000), 0..20)) {
            let mut file = FileBuilder::new(OPERATOR);
            let mut expected: Read = Default::default();
            for (state, group, length) in pieces {
                let bytes: Vec<u8> = (0..length).map(|at| (at * at) as u8).collect();
                if state == 0 {
                    file.item(&bytes).unwrap();
                    expected.1.push(bytes);
                } else {
                    let name = format!("state-{state}");
                    file.entries(&name, group, &bytes).unwrap();
                    expected.0.push((name, group, bytes));
                }
            }
            let (entries, items) = read(file.finish().unwrap(), ALL).unwrap();
            prop_assert_eq!(items, expected.1);
            let of = |pieces: &[(String, KeyGroup, Vec<u8>)], wanted: (&str, KeyGroup)| {
                let mine = pieces.iter().filter(|(state, group, _)| (state.as_str(), *group) == wanted);
                mine.flat_map(|(_, _, bytes)| bytes.clone()).collect::<Vec<u8>>()
            };
            for (state, group, _) in &expected.0 {
                prop_assert_eq!(of(&entries, (state, *group)), of(&expected.0, (state, *group)));
            }
        }

    }

    proptest! {
        #[test]
        fn rubbish_is_an_error(bytes: Vec<u8>) {
            prop_assert!(read([b"THWGSAVE\x01\0\0\0".as_slice(), &bytes].concat(), ALL).is_err());
        }
    }
}
