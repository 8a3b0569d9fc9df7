//! The live line of a running job: on a terminal rewritten in place, otherwise a line every few seconds.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::client::Job;
use crate::clock::Stopwatch;

/// How often a log, which nobody watches, gets a line.
const LOG_EVERY: Duration = Duration::from_secs(2);
/// The rate shown is that of about the last seconds.
const RATE_OVER: Duration = Duration::from_secs(2);

/// Shows how far a job is.
#[derive(Debug)]
pub struct Progress {
    stopwatch: Stopwatch,
    on_terminal: bool,
    shown_at: Option<Duration>,
    rate: Rate,
}

impl Progress {
    pub fn start() -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self { stopwatch: Stopwatch::start(), on_terminal, shown_at: None, rate: Rate::default() }
    }

    pub fn elapsed(&self) -> Duration {
        self.stopwatch.elapsed()
    }

    /// Shows the state, if it is time to.
    pub fn show(&mut self, job: &Job, records: u64, fraction: f64) {
        let Job { status, reason, checkpoints, .. } = job;
        let reason = reason.lines().next().unwrap_or_default();
        let now = self.elapsed();
        let rate = self.rate.observe(now, records);
        let line = format!(
            "{:6.1} s  {status:<10}  {:3.0} %  {records:>11} records  {:>10} records/s  {checkpoints:>3} checkpoints  {reason}",
            now.as_secs_f64(),
            fraction * 100.0,
            short(rate)
        );
        if self.on_terminal {
            eprint!("\r    {line}\x1b[K");
            // Only the looks of it depend on this.
            let _ = std::io::stderr().flush();
        } else if self.shown_at.is_none_or(|shown_at| now >= shown_at + LOG_EVERY) {
            self.shown_at = Some(now);
            eprintln!("    {line}");
        }
    }

    /// Says something that stays, between two lines of progress.
    pub fn say(&mut self, text: &str) {
        let clear = if self.on_terminal { "\r\x1b[K" } else { "" };
        eprintln!("{clear}    {:6.1} s  {text}", self.elapsed().as_secs_f64());
    }

    /// Ends the line.
    pub fn finish(&mut self) {
        if self.on_terminal {
            eprintln!();
        }
    }
}

/// The rate over about the last seconds, as output appears in lumps, one for each checkpoint.
#[derive(Debug, Default)]
struct Rate {
    observations: Vec<(Duration, u64)>,
}

impl Rate {
    fn observe(&mut self, now: Duration, records: u64) -> f64 {
        self.observations.push((now, records));
        // The last one that is old enough stays as the beginning.
        while self.observations.len() > 2 && self.observations[1].0 + RATE_OVER <= now {
            self.observations.remove(0);
        }
        let (then, before) = self.observations[0];
        let passed = (now - then).as_secs_f64();
        if passed > 0.0 { records.saturating_sub(before) as f64 / passed } else { 0.0 }
    }
}

/// `812 k`, `1.23 M`.
fn short(number: f64) -> String {
    match number {
        ..1e3 => format!("{number:.0}"),
        ..1e6 => format!("{:.0} k", number / 1e3),
        _ => format!("{:.2} M", number / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut rate = Rate::default();
        let at = Duration::from_secs;
        assert!(rate.observe(at(0), 0).abs() < 1e-9);
        assert!((rate.observe(at(1), 100) - 100.0).abs() < 1e-9);
        assert!((rate.observe(at(2), 100) - 50.0).abs() < 1e-9);
        assert!((rate.observe(at(3), 100) - 0.0).abs() < 1e-9, "two seconds without output");
        assert!((rate.observe(at(4), 500) - 200.0).abs() < 1e-9);
    }

    #[test]
    fn rates_are_short() {
        assert_eq!([short(12.0), short(812_345.0), short(1_234_567.0)], ["12", "812 k", "1.23 M"]);
    }
}
