//! Words counted plainly: one thread, one map. What the cluster's result is compared with.
//!
//! Invariant: a word is what it is for the job (`examples/word_count.rs`): a run of letters and digits, in lower case.

use std::collections::HashMap;

/// How often each word occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WordCounts(HashMap<String, u64>);

impl WordCounts {
    pub fn add_text(&mut self, text: &str) {
        let runs = text.split(|character: char| !character.is_alphanumeric());
        for run in runs.filter(|run| !run.is_empty()) {
            *self.0.entry(run.to_lowercase()).or_default() += 1;
        }
    }

    /// The same for a text that is read so many times.
    pub fn repeated(&self, times: u64) -> Self {
        Self(self.0.iter().map(|(word, count)| (word.clone(), count * times)).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(word, count)| (word.as_str(), *count))
    }

    /// All occurrences of all words.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Different words.
    pub fn distinct(&self) -> usize {
        self.0.len()
    }

    /// The size of a file with the lines `word 1`, `word 2`, ... of every word: what the job writes in all.
    pub fn output_bytes(&self) -> u64 {
        self.iter().map(|(word, count)| count * (word.len() as u64 + 2) + digits_up_to(count)).sum()
    }
}

impl FromIterator<(String, u64)> for WordCounts {
    fn from_iter<I: IntoIterator<Item = (String, u64)>>(counts: I) -> Self {
        Self(counts.into_iter().collect())
    }
}

/// The digits of all numbers from 1 to `last` together.
fn digits_up_to(last: u64) -> u64 {
    let mut digits = 0;
    let mut power: u64 = 1;
    // One digit for every number, one more from 10 on, one more from 100 on, ...
    while power <= last {
        digits += last - power + 1;
        match power.checked_mul(10) {
            Some(next) => power = next,
            None => break,
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        let mut counts = WordCounts::default();
        counts.add_text("Don't count\tÄpfel, äpfel; x86_64!\n--\n");
        let expected = [("don", 1), ("t", 1), ("count", 1), ("äpfel", 2), ("x86", 1), ("64", 1)];
        assert_eq!(counts, expected.into_iter().map(|(word, count)| (word.to_owned(), count)).collect());
        assert_eq!((counts.total(), counts.distinct()), (7, 6));
        assert_eq!(counts.repeated(3).total(), 21);
    }

    #[test]
    fn the_size_of_the_output_is_known_beforehand() {
        for last in [0, 1, 9, 10, 11, 99, 100, 12_345] {
            let counted: u64 = (1..=last).map(|number: u64| number.to_string().len() as u64).sum();
            assert_eq!(digits_up_to(last), counted, "up to {last}");
        }
        let mut counts = WordCounts::default();
        counts.add_text(&"ab ".repeat(10));
        let written: String = (1..=10).map(|count| format!("ab {count}\n")).collect();
        assert_eq!(counts.output_bytes(), written.len() as u64);
    }
}
