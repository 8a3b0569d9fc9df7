//! Every record on its way finds exactly one subtask, whatever the parallelism was and is.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use thalweg_common::record::Record;

use super::*;
use crate::batch::Batch;
use crate::fixtures::{Pair, SOURCES, SUMS, sums};
use crate::operators::{Collected, CollectionSource};
use crate::program::EdgeCode;

const MAX_PARALLELISM: u32 = 128;

const PARTITIONINGS: [Partitioning; 6] = [
    Partitioning::Forward,
    Partitioning::Hash,
    Partitioning::Rebalance,
    Partitioning::Rescale,
    Partitioning::Broadcast,
    Partitioning::Splits,
];

/// A job of two vertices with one edge.
fn job(partitioning: Partitioning, sources: u32, targets: u32) -> Program {
    let mut program = sums(CollectionSource::new(std::iter::empty::<Pair>()), 1, &Collected::default());
    program.graph.vertices[SOURCES as usize].parallelism = sources;
    program.graph.vertices[SUMS as usize].parallelism = targets;
    program.graph.edges[0].partitioning = partitioning;
    program.edges[0] = match partitioning {
        Partitioning::Forward => EdgeCode::forward::<Pair>(),
        Partitioning::Hash => EdgeCode::hash(|pair: &Pair| pair.0),
        Partitioning::Rebalance => EdgeCode::rebalance::<Pair>(),
        Partitioning::Rescale => EdgeCode::rescale::<Pair>(),
        Partitioning::Broadcast => EdgeCode::broadcast::<Pair>(),
        // Divided like those, and its records are no pairs.
        Partitioning::Splits => {
            let mut code = EdgeCode::rebalance::<Pair>();
            code.partitioning = partitioning;
            code
        }
    };
    program
}

fn owner(key: u64, parallelism: u32) -> u32 {
    let hash = thalweg_common::key_group::key_hash(&key, &mut Vec::new());
    subtask_of(thalweg_common::key_group::key_group(hash, MAX_PARALLELISM), parallelism, MAX_PARALLELISM)
}

/// For each subtask and channel two batches of records that name the channel: a key that belongs there, and a number.
fn records(program: &Program, channel: ChannelId, targets: u32) -> Vec<Pair> {
    let is_hash = program.graph.edges[0].partitioning == Partitioning::Hash;
    let keys = (0..200).filter(|key| !is_hash || owner(*key, targets) == channel.to);
    keys.map(|key| (key, u64::from(channel.from) << 32 | u64::from(channel.to) << 8)).collect()
}

fn stored(records: &[Pair]) -> Vec<StoredBatch> {
    records.chunks(7).map(|chunk| StoredBatch::of(&Batch::from(chunk.to_vec()))).collect()
}

fn decoded<'a>(batches: impl Iterator<Item = &'a StoredBatch>) -> Vec<Pair> {
    batches.flat_map(|batch| batch.decode::<Pair>().unwrap().into_parts().0).collect()
}

/// The snapshots of a vertex that one of its new subtasks is given.
fn given(all: &[InFlight], index: u32, parallelism: u32) -> Vec<InFlight> {
    let (groups, former) = (groups_of(index, parallelism, MAX_PARALLELISM), all.len() as u32);
    let overlaps = |(other, _): &(usize, &InFlight)| {
        let there = groups_of(*other as u32, former, MAX_PARALLELISM);
        there.start.max(groups.start) < there.end.min(groups.end)
    };
    all.iter().enumerate().filter(overlaps).map(|(_, in_flight)| in_flight.clone()).collect()
}

/// The parallelism before and after; on a forward edge both vertices have the same one.
fn parallelisms() -> impl Strategy<Value = (Partitioning, u32, u32, u32, u32)> {
    (prop::sample::select(PARTITIONINGS.to_vec()), 1u32..9, 1u32..9, 1u32..9, 1u32..9).prop_map(
        |(partitioning, from, to, new_from, new_to)| match partitioning {
            Partitioning::Forward => (partitioning, to, to, new_to, new_to),
            _ => (partitioning, from, to, new_from, new_to),
        },
    )
}

proptest! {
    #[test]
    fn inputs_find_one_subtask((partitioning, from, to, new_from, new_to) in parallelisms()) {
        let (before, after) = (job(partitioning, from, to), job(partitioning, new_from, new_to));
        let of = |index| {
            let channels = before.graph.channels_to(0, index).into_iter();
            let inputs = channels.map(|channel| (channel, stored(&records(&before, channel, to)))).collect();
            InFlight { parallelism: to, inputs, ..InFlight::default() }
        };
        let all: Vec<InFlight> = (0..to).map(of).collect();
        let mut found = Vec::new();
        for index in 0..new_to {
            let subtask = SubtaskId { vertex: SUMS, index };
            let restored = divide(&after, subtask, given(&all, index, new_to).into_iter()).unwrap();
            prop_assert!(restored.inputs.iter().all(|(channel, _)| channel.to == index));
            let taken = decoded(restored.inputs.iter().map(|(_, batch)| batch));
            if partitioning == Partitioning::Hash {
                prop_assert!(taken.iter().all(|(key, _)| owner(*key, new_to) == index));
            }
            if partitioning == Partitioning::Broadcast {
                let former = all[((u64::from(groups_of(index, new_to, MAX_PARALLELISM).start) * u64::from(to)) / u64::from(MAX_PARALLELISM)) as usize].clone();
                prop_assert_eq!(&taken, &decoded(former.inputs.values().flatten()));
            }
            found.extend(taken);
        }
        if partitioning != Partitioning::Broadcast {
            let mut expected = decoded(all.iter().flat_map(|in_flight| in_flight.inputs.values().flatten()));
            expected.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn outputs_find_one_subtask((partitioning, from, to, new_from, new_to) in parallelisms()) {
        let (before, after) = (job(partitioning, from, to), job(partitioning, new_from, new_to));
        let of = |index| {
            let channels = before.graph.channels_from(0, index);
            let receivers = [(0, channels.len() as u32)].into();
            let records = |channel| (channel, stored(&records(&before, channel, to)));
            let outputs = channels.into_iter().map(records).collect();
            InFlight { parallelism: from, outputs, receivers, ..InFlight::default() }
        };
        let all: Vec<InFlight> = (0..from).map(of).collect();
        let mut found: Vec<(Option<u32>, Pair)> = Vec::new();
        for index in 0..new_from {
            let subtask = SubtaskId { vertex: SOURCES, index };
            let restored = divide(&after, subtask, given(&all, index, new_from).into_iter()).unwrap();
            let channels = after.graph.channels_from(0, index);
            for (route, batch) in restored.outputs.values().flatten() {
                let to = match route {
                    Route::Channel(channel) => {
                        prop_assert!(channels.contains(channel), "{channel}");
                        Some(channel.to)
                    }
                    Route::Anew => {
                        prop_assert!(partitioning != Partitioning::Broadcast);
                        None
                    }
                };
                found.extend(decoded([batch].into_iter()).into_iter().map(|pair| (to, pair)));
            }
        }
        let receivers = if partitioning == Partitioning::Broadcast { new_to } else { 1 };
        for receiver in 0..receivers {
            let mine = found.iter().filter(|(to, _)| receivers == 1 || *to == Some(receiver));
            let mut mine: Vec<Pair> = mine.map(|(_, pair)| *pair).collect();
            let former = subtask_of(groups_of(receiver, new_to, MAX_PARALLELISM).start, to, MAX_PARALLELISM);
            let meant = |channel: &ChannelId| partitioning != Partitioning::Broadcast || channel.to == former;
            let sent = all.iter().flat_map(|in_flight| &in_flight.outputs);
            let mut expected = decoded(sent.filter(|(channel, _)| meant(channel)).flat_map(|(_, batches)| batches));
            expected.sort_unstable();
            mine.sort_unstable();
            prop_assert_eq!(mine, expected);
        }
    }
}

#[test]
fn with_the_same_parallelism_everything_keeps_its_channel() {
    for partitioning in PARTITIONINGS {
        let job = job(partitioning, 3, 3);
        let channel = job.graph.channels(0).next().unwrap();
        let batches = stored(&records(&job, channel, 3));
        let in_flight = InFlight {
            parallelism: 3,
            inputs: [(channel, batches.clone())].into(),
            outputs: [(channel, batches.clone())].into(),
            receivers: [(0, job.graph.channels_from(0, 0).len() as u32)].into(),
        };
        let restored = divide(&job, SubtaskId { vertex: SUMS, index: 0 }, [in_flight].into_iter()).unwrap();
        assert_eq!(restored.inputs, batches.iter().map(|batch| (channel, batch.clone())).collect::<Vec<_>>());
        let route = Route::Channel(channel);
        assert_eq!(restored.outputs[&0], batches.into_iter().map(|batch| (route, batch)).collect::<Vec<_>>());
    }
}

#[test]
fn edges_that_the_job_does_not_have_are_named() {
    let job = job(Partitioning::Hash, 1, 1);
    let channel = ChannelId { edge: 7, from: 0, to: 0 };
    let inputs = [(channel, stored(&[(1, 1)]))].into();
    let in_flight = InFlight { parallelism: 1, inputs, ..InFlight::default() };
    let found = divide(&job, SubtaskId { vertex: SUMS, index: 0 }, [in_flight].into_iter());
    assert!(found.unwrap_err().message.contains("edge 7"), "its schema is {}", u64::schema().fingerprint());
}
