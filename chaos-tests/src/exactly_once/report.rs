//! What is told about a run, to people and to programs.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use super::oracle::Verdict;
use super::output::Silence;
use super::schedule::{Kill, Target, Variation};

/// A kill that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Killed {
    /// As the schedule has it.
    #[serde(flatten)]
    pub kill: Kill,
    /// When it really was, in milliseconds since the first output.
    pub done_ms: u64,
    /// Whom it hit.
    pub victim: String,
}

/// What became of the wish for other parallelisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Rescalings {
    /// The job ran with them.
    pub done: u64,
    /// Refused, or taken back, because something was missing; asked for again.
    pub refused: u64,
    /// The leader died meanwhile.
    pub interrupted: u64,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Repeats the schedule.
    pub seed: u64,
    /// How long there were kills and faults, in seconds.
    pub seconds: u64,
    /// How long it took until the job had finished, from its first output on.
    pub total_seconds: f64,
    /// Lines that are committed.
    pub records: u64,
    /// How they differ from what they must be.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How often which kind of process was killed.
    pub kills: BTreeMap<Target, u64>,
    /// What was combined beside kills and faults.
    #[serde(flatten)]
    pub variation: Variation,
    /// What became of the rescalings.
    pub rescalings: Rescalings,
    /// Requests to S3.
    pub s3_requests: u64,
    /// How many of them failed in which way.
    pub s3_faults: BTreeMap<&'static str, u64>,
    /// Checkpoints that completed.
    pub checkpoints: u64,
    /// Checkpoints that failed.
    pub failed_checkpoints: u64,
    /// How often the job was started.
    pub attempts: u64,
    /// The most state that a checkpoint had.
    pub state_bytes: u64,
    /// Managed memory of all task managers.
    pub memory_bytes: u64,
    /// The longest time without output.
    #[serde(flatten)]
    pub longest: Silence,
    /// Objects that the job left behind on S3 when it had finished.
    pub objects_left: u64,
    /// Uploads that it had begun there and not ended.
    pub uploads_left: u64,
}

impl Report {
    /// Whether each update is in the output exactly once.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.verdict.is_exact()
    }
}

/// Megabytes for people.
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kills: Vec<_> = self.kills.iter().map(|(target, count)| format!("{target} {count}")).collect();
        let faults: Vec<_> = self.s3_faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
        let (verdict, longest) = (&self.verdict, self.longest);
        writeln!(formatter, "seed                {}", self.seed)?;
        writeln!(formatter, "chaos, total        {} s, {:.0} s", self.seconds, self.total_seconds)?;
        writeln!(formatter, "kills               {}", kills.join(", "))?;
        let Rescalings { done, refused, interrupted } = self.rescalings;
        writeln!(formatter, "combined with       {}", self.variation)?;
        writeln!(
            formatter,
            "rescalings          {done}; refused {refused} times, interrupted {interrupted} times"
        )?;
        writeln!(formatter, "requests to S3      {}; failed: {}", self.s3_requests, faults.join(", "))?;
        writeln!(formatter, "attempts            {}", self.attempts)?;
        writeln!(
            formatter,
            "checkpoints         {} completed, {} failed",
            self.checkpoints, self.failed_checkpoints
        )?;
        writeln!(
            formatter,
            "state, memory       {:.1} MB, {:.1} MB",
            megabytes(self.state_bytes),
            megabytes(self.memory_bytes)
        )?;
        writeln!(
            formatter,
            "longest silence     {:.1} s, until {:.1} s",
            longest.silence_ms as f64 / 1e3,
            longest.until_ms as f64 / 1e3
        )?;
        writeln!(
            formatter,
            "left on S3          {} objects, {} uploads",
            self.objects_left, self.uploads_left
        )?;
        writeln!(formatter, "records             {}", self.records)?;
        writeln!(formatter, "lost                {}", verdict.lost)?;
        writeln!(formatter, "duplicated          {}", verdict.duplicated)?;
        writeln!(formatter, "wrong               {}", verdict.wrong)?;
        for example in &verdict.examples {
            writeln!(formatter, "  {example}")?;
        }
        Ok(())
    }
}

/// A line for programs.
#[derive(Debug, Serialize)]
struct Line<'a, T> {
    bench: &'static str,
    case: &'static str,
    event: &'static str,
    #[serde(flatten)]
    content: &'a T,
}

/// Tells how a run goes: people on standard error, and programs, if they asked, with one JSON object a line on standard output.
#[derive(Debug, Clone, Copy)]
pub struct Teller {
    /// Whether programs read it.
    pub json: bool,
}

impl Teller {
    /// A line of progress for people.
    pub fn progress(self, text: &str) {
        eprintln!("{text}");
    }

    /// Something was killed.
    ///
    /// # Errors
    /// When standard output is gone.
    pub fn killed(self, killed: &Killed) -> io::Result<()> {
        let seconds = killed.done_ms as f64 / 1e3;
        self.progress(&format!("{seconds:7.1} s  killed a {}: {}", killed.kill.target, killed.victim));
        self.line("kill", killed)
    }

    /// The run is over.
    ///
    /// # Errors
    /// When standard output is gone.
    pub fn result(self, report: &Report) -> io::Result<()> {
        if self.json { self.line("result", report) } else { write!(io::stdout(), "{report}") }
    }

    fn line(self, event: &'static str, content: &impl Serialize) -> io::Result<()> {
        if self.json {
            let line = Line { bench: "chaos", case: "exactly_once", event, content };
            writeln!(io::stdout(), "{}", serde_json::to_string(&line)?)?;
        }
        Ok(())
    }
}
