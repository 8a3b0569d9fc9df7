//! The flags of everything that takes, uses or deletes savepoints of running jobs.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use thalweg_proto::client::Begin;

use crate::arguments::{JobArgument, span};
use crate::property_arguments::PropertyArguments;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct SavepointArguments {
    #[command(subcommand)]
    pub(crate) command: Option<SavepointCommand>,

    /// The job: its id, the first digits of it, or its name.
    #[arg(value_name = "JOB", required = true)]
    pub(crate) reference: Option<String>,

    #[command(flatten)]
    pub(crate) directory: DirectoryArgument,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SavepointCommand {
    /// Show the savepoints of a job that the cluster knows.
    #[command(after_help = "Example:\n  thalweg savepoint list word_count --json")]
    List(JobArgument),
    /// Delete a savepoint with all its files. What is no savepoint is not touched.
    #[command(after_help = "Example:\n  thalweg savepoint dispose file:///savepoints/savepoint-00c0ff-12")]
    Dispose {
        /// The savepoint's directory.
        #[arg(value_name = "PATH")]
        path: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DirectoryArgument {
    /// Where the savepoint's own directory is made; without it where execution.checkpointing.savepoint-dir says.
    #[arg(long = "dir", value_name = "URI")]
    pub(crate) dir: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArguments {
    #[command(flatten)]
    pub(crate) job: JobArgument,

    /// Take a savepoint as the job's last act. To end a job without one, cancel it.
    #[arg(long, required = true)]
    pub(crate) savepoint: bool,

    #[command(flatten)]
    pub(crate) directory: DirectoryArgument,

    /// End the input first, so that operators emit all they have. For jobs that are not meant to go on from the savepoint.
    #[arg(long)]
    pub(crate) drain: bool,
}

/// Who owns the savepoint or checkpoint that a job begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RestoreMode {
    /// Whoever made it: the cluster never deletes it.
    NoClaim,
    /// The cluster: it is deleted when newer checkpoints have replaced it.
    Claim,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// Begin with the state of this savepoint, or of this checkpoint that another job left (`.../JOB/chk-12`). What becomes of it is checked
    /// before anything starts. State of a savepoint is migrated; that of a checkpoint must be declared as it was.
    #[arg(long, value_name = "PATH")]
    pub(crate) from_savepoint: Option<String>,

    /// Drop state that the job does not declare, instead of refusing it.
    #[arg(long, requires = "from_savepoint")]
    pub(crate) allow_non_restored_state: bool,

    /// Who owns it from now on.
    #[arg(long, value_enum, default_value = "no-claim", requires = "from_savepoint")]
    pub(crate) restore_mode: RestoreMode,
}

impl RestoreArguments {
    /// What the job begins with.
    pub(crate) fn begin(&self) -> Begin {
        match self.from_savepoint.clone() {
            None => Begin::Fresh,
            Some(path) => Begin::Savepoint {
                path,
                allow_non_restored_state: self.allow_non_restored_state,
                claim: self.restore_mode == RestoreMode::Claim,
            },
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct UpgradeArguments {
    #[command(flatten)]
    pub(crate) job: JobArgument,

    /// The new version's executable.
    pub(crate) binary: PathBuf,

    #[command(flatten)]
    pub(crate) directory: DirectoryArgument,

    /// Drop state that the new version does not declare, instead of refusing it.
    #[arg(long)]
    pub(crate) allow_non_restored_state: bool,

    /// How long the new version may take to be RUNNING and complete a checkpoint, before the old one comes back.
    #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = span)]
    pub(crate) limit: Duration,

    /// A setting for the new version, beside those of the running job. May be given more than once.
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,

    /// All runtime properties of the new version, in place of those of the running job.
    #[command(flatten)]
    pub(crate) properties: PropertyArguments,

    /// What the new version is given; without it what the running job was given.
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub(crate) arguments: Option<Vec<String>>,
}
