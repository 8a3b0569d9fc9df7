//! Shards that split and merge while they are read.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn shard(id: &str, parents: &[&str]) -> Shard {
    Shard {
        stream: "s".into(),
        id: id.into(),
        parents: parents.iter().map(|id| (*id).into()).collect(),
        first_hash_key: String::new(),
        last_hash_key: String::new(),
        first_sequence_number: String::new(),
    }
}

fn open(id: &str, parents: &[&str]) -> Listed {
    Listed { shard: shard(id, parents), is_closed: false }
}

fn closed(id: &str, parents: &[&str]) -> Listed {
    Listed { is_closed: true, ..open(id, parents) }
}

fn ready(graph: &mut ShardGraph) -> Vec<(String, String)> {
    let shown = |split: ShardSplit| (split.shard.id, split.position.to_string());
    graph.take_ready().into_iter().map(shown).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(id, position)| ((*id).into(), (*position).into())).collect()
}

const EARLIEST: &str = "EARLIEST_SEQUENCE_NUM";
const LATEST: &str = "LATEST_SEQUENCE_NUM";

#[test]
fn children_wait_for_all_of_their_parents_and_are_read_from_their_beginning() {
    let mut graph = ShardGraph::default();
    graph.listed("s", vec![open("1", &[]), open("2", &[])], InitialPosition::Latest, 5);
    assert_eq!(ready(&mut graph), pairs(&[("1", LATEST), ("2", LATEST)]));
    assert_eq!(ready(&mut graph), pairs(&[]), "once");
    // 1 splits into 3 and 4, then 2 and 3 merge into 5.
    let now = || {
        vec![
            closed("1", &[]),
            closed("2", &[]),
            closed("3", &["1"]),
            open("4", &["1"]),
            open("5", &["3", "2"]),
        ]
    };
    graph.listed("s", now(), InitialPosition::Latest, 6);
    assert_eq!(ready(&mut graph), pairs(&[]));
    graph.ended(&["s/2".into()]);
    assert_eq!(ready(&mut graph), pairs(&[]), "the other parent is not at its end");
    graph.ended(&["s/1".into()]);
    assert_eq!(ready(&mut graph), pairs(&[("3", EARLIEST), ("4", EARLIEST)]));
    graph.ended(&["s/3".into()]);
    assert_eq!(ready(&mut graph), pairs(&[("5", EARLIEST)]));
    // 1 to 3 are at their end: forgotten when the stream has forgotten them.
    graph.listed("s", vec![open("4", &["1"]), open("5", &["3", "2"])], InitialPosition::Latest, 7);
    assert_eq!((ready(&mut graph), graph.known.len()), (pairs(&[]), 2));
}

#[test]
fn what_is_closed_when_the_source_begins_is_read_first_or_not_at_all() {
    let listed = || vec![closed("1", &[]), open("2", &["1"]), open("3", &["0"])];
    for (initial, first, then) in [
        (InitialPosition::Latest, &[("2", LATEST), ("3", LATEST)][..], &[][..]),
        (InitialPosition::TrimHorizon, &[("1", EARLIEST), ("3", EARLIEST)], &[("2", EARLIEST)]),
        (
            InitialPosition::AtTimestamp(9),
            &[("1", "AT_TIMESTAMP_SEQUENCE_NUM"), ("3", "AT_TIMESTAMP_SEQUENCE_NUM")],
            // The time may be one of the child's.
            &[("2", "AT_TIMESTAMP_SEQUENCE_NUM")],
        ),
    ] {
        let mut graph = ShardGraph::default();
        graph.listed("s", listed(), initial, 5);
        assert_eq!(ready(&mut graph), pairs(first), "{initial:?}");
        graph.ended(&["s/1".into()]);
        assert_eq!(ready(&mut graph), pairs(then), "{initial:?}");
    }
}

#[test]
fn streams_do_not_mix() {
    let mut graph = ShardGraph::default();
    graph.listed("s", vec![open("1", &[])], InitialPosition::TrimHorizon, 0);
    assert!(graph.has_listed("s") && !graph.has_listed("t"));
    let other = Listed { shard: Shard { stream: "t".into(), ..shard("2", &["1"]) }, is_closed: false };
    graph.listed("t", vec![other], InitialPosition::TrimHorizon, 0);
    assert_eq!(ready(&mut graph), pairs(&[("1", EARLIEST), ("2", EARLIEST)]));
    assert!(graph.has_unknown_children(&["s/1".into()]), "2 is a child in another stream");
    graph.listed("s", vec![closed("1", &[]), open("3", &["1"])], InitialPosition::TrimHorizon, 0);
    assert!(!graph.has_unknown_children(&["s/1".into()]));
}

/// A stream that is resharded at random.
#[derive(Debug, Clone, Default)]
struct Stream {
    shards: Vec<Listed>,
}

impl Stream {
    fn reshard(&mut self, lot: usize) {
        let written: Vec<usize> =
            (0..self.shards.len()).filter(|index| !self.shards[*index].is_closed).collect();
        let parents: Vec<usize> = match lot % 2 {
            0 => vec![written[lot % written.len()]],
            _ if written.len() > 1 => vec![written[0], written[1 + lot % (written.len() - 1)]],
            _ => return,
        };
        let ids: Vec<String> = parents.iter().map(|index| self.shards[*index].shard.id.clone()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        parents.iter().for_each(|index| self.shards[*index].is_closed = true);
        for _ in 0..3 - parents.len() {
            let id = self.shards.len().to_string();
            self.shards.push(open(&id, &ids));
        }
    }
}

proptest! {
    /// Whatever happens between looks, restores included: each shard is given out once, behind its parents.
    #[test]
    fn every_shard_is_read_once_and_behind_its_parents(events in proptest::collection::vec((0..4_u8, 0..100_usize), 0..60)) {
        let mut stream = Stream { shards: vec![open("0", &[]), open("1", &[])] };
        let mut graph = ShardGraph::default();
        let (mut reading, mut read): (Vec<ShardSplit>, Vec<String>) = (Vec::new(), Vec::new());
        let end = (0..200).map(|lot| ((lot % 2) as u8, lot));
        for (event, lot) in events.into_iter().chain(end) {
            match event {
                0 => graph.listed("s", stream.shards.clone(), InitialPosition::TrimHorizon, 0),
                // A reader comes to the end of a closed shard.
                1 => {
                    let closed = reading.iter().position(|split| {
                        stream.shards.iter().any(|listed| listed.shard.id == split.shard.id && listed.is_closed)
                    });
                    if let Some(closed) = closed {
                        let split = reading.remove(closed);
                        graph.ended(&[split.shard.split_id()]);
                        read.push(split.shard.id);
                    }
                }
                2 => stream.reshard(lot),
                _ => graph = graph.clone(),
            }
            for split in graph.take_ready() {
                for parent in &split.shard.parents {
                    prop_assert!(read.contains(parent), "{} before {parent}", split.shard.id);
                }
                reading.push(split);
            }
        }
        let mut all: Vec<String> = reading.into_iter().map(|split| split.shard.id).chain(read).collect();
        all.sort_by_key(|id| id.parse::<usize>().unwrap());
        let expected: Vec<String> = (0..stream.shards.len()).map(|id| id.to_string()).collect();
        prop_assert_eq!(all, expected);
    }
}
