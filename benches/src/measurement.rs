//! One measured figure: the median of several runs, for people or as a JSON object a line.

use serde::Serialize;

/// A figure as it is reported.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// The group of cases.
    pub bench: &'static str,
    /// What was measured.
    pub case: String,
    /// The median.
    pub value: f64,
    /// The unit of `value` and `baseline`.
    pub unit: &'static str,
    /// What it is compared with, measured in the same run.
    pub baseline: Option<f64>,
    /// `value / baseline`.
    pub ratio: Option<f64>,
    /// How many runs.
    pub runs: usize,
    /// Largest minus smallest, as a share of the median.
    pub spread: f64,
}

impl Measurement {
    /// The median of `samples`.
    pub fn median(bench: &'static str, case: impl Into<String>, unit: &'static str, samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let (low, high) = (at(sorted.len().saturating_sub(1) / 2), at(sorted.len() / 2));
        let value = f64::midpoint(low, high);
        let range = at(sorted.len().saturating_sub(1)) - at(0);
        let spread = if range == 0.0 { 0.0 } else { range / value };
        Self {
            bench,
            case: case.into(),
            value,
            unit,
            baseline: None,
            ratio: None,
            runs: samples.len(),
            spread,
        }
    }

    /// The same beside a baseline.
    #[must_use]
    pub fn against(mut self, baseline: f64) -> Self {
        self.baseline = Some(baseline);
        self.ratio = Some(self.value / baseline);
        self
    }

    /// Prints it: a JSON object, or a line for people.
    ///
    /// # Errors
    /// When a figure is no number.
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
        } else {
            let name = format!("{}/{}", self.bench, self.case);
            print!("{name:<48} {:>14.2} {:<10}", self.value, self.unit);
            if let (Some(baseline), Some(ratio)) = (self.baseline, self.ratio) {
                print!(" baseline {baseline:.2}, ratio {ratio:.2}");
            }
            println!(" ({} runs, spread {:.0} %)", self.runs, self.spread * 100.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_even_and_odd_counts() {
        assert_eq!(Measurement::median("b", "c", "ms", &[3.0, 1.0, 2.0]).value, 2.0);
        let even = Measurement::median("b", "c", "ms", &[4.0, 1.0, 2.0, 3.0]).against(5.0);
        assert_eq!((even.value, even.spread, even.ratio), (2.5, 1.2, Some(0.5)));
        assert_eq!(Measurement::median("b", "c", "ms", &[0.0, 0.0]).spread, 0.0);
    }
}
