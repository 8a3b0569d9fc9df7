//! Numbers that look random and follow from a seed alone: SplitMix64.

/// A row of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed(self.0)
    }

    /// A number from `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }
}

/// The number of which [`mixed`] makes this one.
pub(crate) fn unmixed(number: u64) -> u64 {
    let mut bits = number;
    bits = (bits ^ (bits >> 31) ^ (bits >> 62)).wrapping_mul(0x3196_42B2_D24D_8EC3);
    bits = (bits ^ (bits >> 27) ^ (bits >> 54)).wrapping_mul(0x96DE_1B17_3F11_9089);
    bits ^ (bits >> 30) ^ (bits >> 60)
}

/// A number of which every bit depends on every bit of `number`.
pub(crate) fn mixed(number: u64) -> u64 {
    let mut bits = number;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mixed_can_be_taken_apart() {
        let mut rng = Rng::new(3);
        for number in [0, 1, u64::MAX].into_iter().chain((0..1_000).map(|_| rng.next())) {
            assert_eq!(unmixed(mixed(number)), number);
        }
    }
}
