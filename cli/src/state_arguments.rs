//! The command line of `thalweg state`: savepoints and checkpoints, which are looked into and compared; savepoints, which are checked and
//! built.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use thalweg_common::key_group::KeyGroupRange;
use thalweg_common::limits::MAX_PARALLELISM;

#[derive(Debug, Args)]
pub(crate) struct StateArguments {
    #[command(subcommand)]
    pub(crate) command: StateCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Show operators, states, sizes, and how keys are spread over key groups.
    ///
    /// Reads and checks every file, unless told to be quick. State of a checkpoint is written as a savepoint below TMPDIR to be read; a
    /// checkpoint with state in RocksDB needs a `thalweg` that was built with the feature `rocksdb`.
    #[command(after_help = "\
Examples:
  thalweg state inspect /checkpoints/JOB/chk-12
  thalweg state inspect file:///savepoints/savepoint-00c0ff-12
  thalweg state inspect /savepoints/savepoint-00c0ff-12 --quick --output json")]
    Inspect(InspectArguments),

    /// Print entries of a savepoint or checkpoint as lines of JSON, which `thalweg state write` reads.
    ///
    /// An entry: {\"operator\":\"count\",\"state\":\"total\",\"group\":17,\"key\":\"a\",\"value\":3}, with map_key in a map state. An item of a
    /// source or sink: {\"operator\":\"lines\",\"item\":\"00ff\"}, in hexadecimal, because only its connector understands it.
    #[command(after_help = "\
Examples:
  thalweg state export /savepoints/savepoint-00c0ff-12 > entries.jsonl
  thalweg state export /savepoints/savepoint-00c0ff-12 --operator count --state total --groups 0-63")]
    Export(ExportArguments),

    /// Compare two savepoints or checkpoints: entries added, removed and changed, state by state.
    ///
    /// If a state's type has changed compatibly, the first one's entries are compared as the second one's job would read them.
    #[command(
        after_help = "Example:\n  thalweg state diff /savepoints/savepoint-00c0ff-12 /savepoints/savepoint-00c0ff-15"
    )]
    Diff(DiffArguments),

    /// Check whether a version of a job can begin with a savepoint or checkpoint.
    ///
    /// Exits with 1 if it cannot, and says what to change. State of a savepoint is migrated; that of a checkpoint is restored as it was
    /// written.
    #[command(after_help = "\
Examples:
  THALWEG_MODE=plan ./word_count > plan.txt
  thalweg state check /savepoints/savepoint-00c0ff-12 --job plan.txt
  thalweg state check /checkpoints/JOB/chk-12 --job plan.txt")]
    Check(CheckArguments),

    /// Build a savepoint from lines of JSON, by itself or on top of another one or of a checkpoint.
    ///
    /// Lines are those that `thalweg state export` prints; `group` may be missing, and \"delete\":true in place of the value takes an
    /// entry away. They are held in memory until the savepoint is written. On top of a savepoint, entries with the same keys are
    /// replaced, and with --job everything becomes that of a newer version of the job, with its max parallelism. Without lines the state
    /// stays as it is: so a checkpoint becomes a savepoint, which any version of the job can begin with.
    #[command(after_help = "\
Examples:
  THALWEG_MODE=plan ./word_count > plan.txt
  thalweg state write /savepoints/bootstrap --job plan.txt --entries entries.jsonl
  thalweg state write /savepoints/repaired --on /savepoints/savepoint-00c0ff-12 --entries - < fixes.jsonl
  thalweg state write /savepoints/of-a-checkpoint --on /checkpoints/JOB/chk-12")]
    Write(WriteArguments),
}

#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// The savepoint's or checkpoint's directory: a path, or an address such as file:///savepoints/savepoint-00c0ff-12.
    pub(crate) savepoint: String,

    /// Read the metadata only: sizes, but no counts.
    #[arg(long)]
    pub(crate) quick: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// The savepoint's or checkpoint's directory.
    pub(crate) savepoint: String,

    /// One operator only: its uid, id or name.
    #[arg(long)]
    pub(crate) operator: Option<String>,

    /// States of this name only.
    #[arg(long)]
    pub(crate) state: Option<String>,

    /// Entries of these key groups only, from the first to the last.
    #[arg(long, value_name = "FIRST-LAST", value_parser = groups)]
    pub(crate) groups: Option<KeyGroupRange>,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArguments {
    /// The directory of the first one.
    pub(crate) first: String,

    /// The directory of the second one.
    pub(crate) second: String,

    /// How many differences to print.
    #[arg(long, value_name = "N", default_value = "20")]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The savepoint's or checkpoint's directory.
    pub(crate) savepoint: String,

    /// The plan of the job, as its executable prints it with THALWEG_MODE=plan, or a state manifest.
    #[arg(long, value_name = "FILE")]
    pub(crate) job: PathBuf,

    /// Whether state that the job does not declare any more may be dropped.
    #[arg(long)]
    pub(crate) allow_non_restored_state: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WriteArguments {
    /// The directory to write, which holds no savepoint yet.
    pub(crate) directory: String,

    /// The lines; `-` stands for stdin.
    #[arg(long, value_name = "FILE", required_unless_present = "on")]
    pub(crate) entries: Option<PathBuf>,

    /// The savepoint or checkpoint to start from.
    #[arg(long, value_name = "DIRECTORY", required_unless_present = "job")]
    pub(crate) on: Option<String>,

    /// The plan of the job, as its executable prints it with THALWEG_MODE=plan, or a state manifest.
    #[arg(long, value_name = "FILE")]
    pub(crate) job: Option<PathBuf>,
}

fn groups(text: &str) -> Result<KeyGroupRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.trim().parse().ok().zip(last.trim().parse::<u32>().ok());
    range
        .filter(|(first, last)| first <= last && *last < MAX_PARALLELISM)
        .map(|(start, last)| KeyGroupRange { start, end: last + 1 })
        .ok_or_else(|| "write the first and the last key group, as in 0-63, or one, as in 17".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_groups_are_written_from_the_first_to_the_last() {
        assert_eq!(groups("0-63"), Ok(KeyGroupRange { start: 0, end: 64 }));
        assert_eq!(groups("17"), Ok(KeyGroupRange { start: 17, end: 18 }));
        for wrong in ["", "-", "5-4", "a", "0-32768"] {
            assert!(groups(wrong).is_err(), "{wrong}");
        }
    }
}
