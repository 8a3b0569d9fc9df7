//! Values of keyed state that no compression makes smaller, so that a measured size is what was asked for.

use crate::nexmark::text::splitmix;

/// What the text consists of: 64 letters, six random bits each.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A text of so many bytes, the same for the same seed.
pub fn payload(seed: u64, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 10);
    let mut state = splitmix(seed);
    while text.len() < bytes {
        state = splitmix(state);
        // Ten letters of sixty bits.
        text.extend((0..10).map(|at| char::from(LETTERS[(state >> (6 * at)) as usize % LETTERS.len()])));
    }
    text.truncate(bytes);
    text
}

#[cfg(test)]
mod tests {
    use super::payload;

    #[test]
    fn it_has_its_size_and_depends_on_its_seed() {
        for bytes in [0, 1, 10, 999] {
            assert_eq!(payload(7, bytes).len(), bytes);
        }
        assert_eq!(payload(7, 100), payload(7, 100));
        assert_ne!(payload(7, 100), payload(8, 100));
        let mut letters: Vec<char> = payload(1, 10_000).chars().collect();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), 64);
    }
}
