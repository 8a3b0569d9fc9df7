//! When what is killed, to which parallelism the job goes when, and what else a run combines: pure functions of a seed.
//!
//! Invariants: the same seed, pauses and duration give the same kills and rescalings, and a longer duration only adds some; of every three
//! kills in a row from the first one each hits another kind of process.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::events::PARALLELISM;
use super::rng::{Rng, mixed};

/// Shortest and longest time from one kill to the next, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pauses {
    /// The shortest.
    pub least_ms: u64,
    /// The longest.
    pub most_ms: u64,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { least_ms: 5_000, most_ms: 15_000 }
    }
}

impl FromStr for Pauses {
    type Err = String;

    /// Two numbers of seconds, as in `5-15`.
    fn from_str(text: &str) -> Result<Self, String> {
        let ms = |seconds: &str| seconds.parse().ok().map(|seconds: f64| (seconds * 1e3) as u64);
        let pauses = text.split_once('-').and_then(|(least, most)| Some((ms(least)?, ms(most)?)));
        match pauses {
            Some((least_ms, most_ms)) if 0 < least_ms && least_ms <= most_ms => {
                Ok(Self { least_ms, most_ms })
            }
            _ => Err(format!("write two numbers of seconds, as in `5-15`, not `{text}`")),
        }
    }
}

/// Longest time until a manager that was killed is started again, in milliseconds.
const LONGEST_DOWN_MS: u64 = 3_000;

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A worker; its task manager starts another one.
    Worker,
    /// A task manager with its workers.
    TaskManager,
    /// The leading job manager.
    LeadingJobManager,
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Worker => "worker",
            Self::TaskManager => "task manager",
            Self::LeadingJobManager => "leading job manager",
        })
    }
}

/// One kill (SIGKILL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Kill {
    /// When, in milliseconds since the first output.
    pub at_ms: u64,
    /// What kind of process.
    pub target: Target,
    /// Which one of them: the number of candidates divides it, and the remainder is the place of the victim.
    pub choice: u64,
    /// When a manager is started again, in milliseconds since the kill.
    pub down_ms: u64,
}

/// All kills of a run that takes so long.
#[must_use]
pub fn kills(seed: u64, pauses: Pauses, duration_ms: u64) -> Vec<Kill> {
    let mut rng = Rng::new(seed);
    let mut kills = Vec::new();
    let mut bag = Vec::new();
    let mut at_ms = 0;
    loop {
        at_ms += rng.between(pauses.least_ms, pauses.most_ms);
        if bag.is_empty() {
            bag = vec![Target::Worker, Target::TaskManager, Target::LeadingJobManager];
        }
        let place = rng.next() % bag.len() as u64;
        let target = bag.remove(place as usize);
        let (choice, down_ms) = (rng.next(), rng.between(0, LONGEST_DOWN_MS));
        if at_ms > duration_ms {
            return kills;
        }
        kills.push(Kill { at_ms, target, choice, down_ms });
    }
}

/// What a run combines beside kills and faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Variation {
    /// Barriers overtake records.
    pub unaligned: bool,
    /// The job is rescaled.
    pub rescales: bool,
    /// An enumerator finds what the source reads.
    pub enumerated: bool,
}

impl Variation {
    /// That of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let lot = mixed(seed) >> 5;
        Self { unaligned: lot & 1 != 0, rescales: lot & 2 != 0, enumerated: lot & 4 != 0 }
    }

    /// Whether the events of a key come in their order: from the same subtask all the time.
    #[must_use]
    pub fn is_ordered(self) -> bool {
        !self.rescales && !self.enumerated
    }
}

impl fmt::Display for Variation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let barriers = if self.unaligned { "unaligned" } else { "aligned" };
        let source = if self.enumerated { "with an enumerator" } else { "that knows its splits" };
        let rescaled = if self.rescales { ", rescaled" } else { "" };
        write!(formatter, "{barriers} checkpoints, a source {source}{rescaled}")
    }
}

/// The job is to run at another parallelism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rescale {
    /// When it is asked for the first time, in milliseconds since the first output.
    pub at_ms: u64,
    /// The parallelism, another one than before.
    pub parallelism: u32,
}

/// Parallelisms that fit into the cluster while nobody is missing.
const PARALLELISMS: [u32; 5] = [2, 3, 4, 5, 6];

/// Shortest and longest time from one rescaling to the next, in milliseconds.
const RESCALE_PAUSES_MS: (u64, u64) = (6_000, 14_000);

/// All rescalings of a run that takes so long.
#[must_use]
pub fn rescales(seed: u64, duration_ms: u64) -> Vec<Rescale> {
    // Not the numbers that kills are made of.
    let mut rng = Rng::new(mixed(seed.wrapping_add(1)));
    let (mut rescales, mut at_ms, mut present) = (Vec::new(), 0, PARALLELISM as u32);
    loop {
        at_ms += rng.between(RESCALE_PAUSES_MS.0, RESCALE_PAUSES_MS.1);
        let others: Vec<_> = PARALLELISMS.into_iter().filter(|other| *other != present).collect();
        let place = rng.next() % others.len() as u64;
        present = others.get(place as usize).copied().unwrap_or(present);
        if at_ms > duration_ms {
            return rescales;
        }
        rescales.push(Rescale { at_ms, parallelism: present });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kills(seed: u64, duration_ms: u64) -> Vec<Kill> {
        super::kills(seed, Pauses::default(), duration_ms)
    }

    #[test]
    fn a_seed_repeats_its_schedule() {
        assert_eq!(kills(7, 600_000), kills(7, 600_000));
        assert_ne!(kills(7, 600_000), kills(8, 600_000));
        assert_eq!(kills(7, 60_000), kills(7, 600_000)[..kills(7, 60_000).len()]);
        // Seeds in old reports must mean the same in later versions.
        let (target, choice) = (Target::TaskManager, 17_911_839_290_282_890_590);
        assert_eq!(kills(1, 60_000)[0], Kill { at_ms: 11_004, target, choice, down_ms: 239 });
    }

    #[test]
    fn kills_are_as_far_apart_as_they_should_be_and_of_every_kind() {
        for seed in 0..200 {
            let kills = kills(seed, 120_000);
            let times = std::iter::once(0).chain(kills.iter().map(|kill| kill.at_ms)).collect::<Vec<_>>();
            let mut pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(pauses.all(|pause| (5_000..=15_000).contains(&pause)), "seed {seed}");
            assert!(times.last().is_some_and(|last| (105_000..=120_000).contains(last)), "seed {seed}");
            for three in kills.chunks_exact(3) {
                let mut targets: Vec<_> = three.iter().map(|kill| kill.target).collect();
                targets.sort();
                assert_eq!(targets, [Target::Worker, Target::TaskManager, Target::LeadingJobManager]);
            }
            assert!(kills.iter().all(|kill| kill.down_ms <= LONGEST_DOWN_MS));
        }
        assert!(kills(1, 4_999).is_empty());
    }

    #[test]
    fn seeds_combine_everything_and_repeat_it() {
        let all = Variation { unaligned: true, rescales: true, enumerated: true };
        let none = Variation { unaligned: false, rescales: false, enumerated: false };
        // Seeds in old reports must mean the same in later versions.
        assert_eq!((Variation::of(1), Variation::of(4)), (all, none));
        for seed in 0..200 {
            let rescales = rescales(seed, 120_000);
            assert_eq!(rescales[..], super::rescales(seed, 600_000)[..rescales.len()]);
            let parallelisms = std::iter::once(4).chain(rescales.iter().map(|one| one.parallelism));
            let parallelisms: Vec<_> = parallelisms.collect();
            assert!(parallelisms.windows(2).all(|pair| pair[0] != pair[1]), "seed {seed}");
            assert!(parallelisms.iter().all(|one| PARALLELISMS.contains(one)), "seed {seed}");
        }
    }

    #[test]
    fn pauses_are_two_numbers_of_seconds() {
        assert_eq!("5-15".parse(), Ok(Pauses::default()));
        assert_eq!("0.5-2".parse(), Ok(Pauses { least_ms: 500, most_ms: 2_000 }));
        for text in ["5", "15-5", "0-5", "a-b", "-5"] {
            assert!(text.parse::<Pauses>().is_err(), "{text}");
        }
    }
}
