//! The command line: every command, its flags, its help with an example.
//!
//! Stands at the very beginning. Invariant: what clap accepts is well-formed (addresses, sizes, spans); what only the
//! configuration's table of keys knows is checked by [`SubmitArguments::configuration`], still before the cluster is asked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use thalweg_common::config::{ConfigError, Configuration, keys, parse_duration, parse_memory_size};
use thalweg_proto::transport::check_address;

use crate::config_arguments::ConfigArguments;
use crate::output::Format;
use crate::pki_arguments::PkiArguments;
use crate::property_arguments::PropertyArguments;
use crate::savepoint_arguments::{RestoreArguments, SavepointArguments, StopArguments, UpgradeArguments};
use crate::state_arguments::StateArguments;

const AFTER_HELP: &str = "\
JOB is a job's id, the first digits of one (at least 4), or a job's name, as long as only one job fits.

Exit codes:
  0  done; a job that was followed is FINISHED (or goes on, after Ctrl-C)
  1  refused by the cluster, a savepoint that cannot be read or does not fit, or the job that was followed is FAILED
  2  wrong usage: unknown flags or settings, an unreadable binary, a JOB that fits several jobs
  3  the job that was followed is CANCELED
  4  no leading job manager answered

Example:
  thalweg --jobmanager 10.0.0.1:6123,10.0.0.2:6123 submit target/release/word_count -- --input /data/text";

/// Submit, list, describe, watch and cancel the jobs of a Thalweg cluster, and work with their savepoints.
#[derive(Debug, Parser)]
#[command(name = "thalweg", version, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Addresses of job managers; one that is up is enough, the leader is found.
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        env = "THALWEG_JOBMANAGER",
        default_value = "127.0.0.1:6123",
        value_parser = address
    )]
    pub(crate) jobmanager: Vec<String>,

    /// Tables for people or JSON for programs.
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Format,

    /// Short for --output json.
    #[arg(long, global = true, conflicts_with = "output")]
    pub(crate) json: bool,

    /// How long to look for a leading job manager.
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = span)]
    pub(crate) timeout: Duration,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit a job and follow it until it has ended.
    ///
    /// Prints every change of the job's state. Ctrl-C ends the following, not the job: the exit code is then 0.
    /// With --output json: the accepted job in one line, and its last state in another when it has ended.
    #[command(after_help = "\
Examples:
  thalweg submit target/release/word_count --parallelism 4 -- --input /data/text
  thalweg submit ./word_count --detach -D execution.checkpointing.interval=10s
  thalweg submit ./word_count --from-savepoint s3://bucket/savepoints/savepoint-00c0ff-12
  thalweg submit ./word_count --from-savepoint /checkpoints/JOB/chk-12 --restore-mode claim")]
    Submit(SubmitArguments),

    /// List all jobs that the cluster remembers, the newest first.
    #[command(after_help = "Example:\n  thalweg list --output json")]
    List,

    /// Show everything about a job: tasks, checkpoints, failures, history.
    #[command(after_help = "Example:\n  thalweg describe word_count")]
    Describe(JobArgument),

    /// Show the plan of a job: of one that runs, or of an executable before it is submitted.
    ///
    /// Each vertex with the operators that are chained in it, how records come to it, its watermark strategies and windows, its state, and
    /// where the author declared them. With --json: the job graph. An executable is run in plan mode, which builds its topology only.
    #[command(after_help = "\
Examples:
  thalweg explain word_count
  thalweg explain ./target/release/word_count -D parallelism.default=4 -- --input /data/text")]
    Explain(ExplainArguments),

    /// Say why windows and timers of a running job have not fired.
    ///
    /// Asks all tasks how they keep time at this moment: for each operator with timers its watermark, the earliest timer and how much event
    /// time is missing until it fires; and who holds that back, upstream to the split of a source. A window that ends at T fires when the
    /// watermark is at T - 1 ms. With --json: the watermark of each input channel and of each split, too.
    #[command(after_help = "Examples:\n  thalweg why word_count\n  thalweg why word_count --json")]
    Why(JobArgument),

    /// Take a checkpoint of a running job now, and wait until it is complete.
    ///
    /// It is one like those that are taken by `execution.checkpointing.interval`: sinks commit with it, and a failure restores it.
    #[command(after_help = "Example:\n  thalweg checkpoint word_count")]
    Checkpoint(JobArgument),

    /// Show a job's checkpoints: what can be restored, and what the last ones took.
    ///
    /// With --details: the phases of every subtask (start delay, alignment, sync, async) of one of the last checkpoints.
    #[command(after_help = "\
Examples:
  thalweg checkpoints word_count
  thalweg checkpoints word_count --details 17 --json")]
    Checkpoints(CheckpointsArguments),

    /// Print every change of a job's state until it has ended.
    ///
    /// Ctrl-C ends the watching with exit code 0. With --output json: one object per line.
    #[command(after_help = "Example:\n  thalweg watch 01c0ffee")]
    Watch(JobArgument),

    /// Cancel a job and wait until its tasks have stopped.
    #[command(after_help = "Example:\n  thalweg cancel word_count --no-wait")]
    Cancel(CancelArguments),

    /// Take a savepoint of a running job; or list and delete savepoints.
    ///
    /// A savepoint holds all state of a job in a form that any version, parallelism and store reads. The job goes on, and nothing is
    /// committed to the outside by it. Prints the savepoint's path when it is complete.
    #[command(after_help = "\
Examples:
  thalweg savepoint word_count --dir s3://bucket/savepoints
  thalweg savepoint list word_count
  thalweg savepoint dispose s3://bucket/savepoints/savepoint-00c0ff-12")]
    Savepoint(SavepointArguments),

    /// Stop a job with a savepoint, from which it or another version of it can go on.
    ///
    /// Sources read nothing behind the savepoint, what sinks have written before it is committed, and the job is FINISHED.
    #[command(after_help = "\
Examples:
  thalweg stop word_count --savepoint
  thalweg stop word_count --savepoint --dir file:///savepoints --drain")]
    Stop(StopArguments),

    /// Let a running job go on at another parallelism, with all of its state.
    ///
    /// Nothing happens to the job if it cannot: too few slots, or a source or sink that would change its parallelism. Otherwise a checkpoint
    /// is taken and the job restarts from it; if it does not run at the new parallelism, it goes back to the old one and the exit code
    /// is 1. Operators that set their parallelism in the program keep it.
    #[command(after_help = "Example:\n  thalweg rescale word_count --parallelism 8")]
    Rescale(RescaleArguments),

    /// Replace a running job by a new version of it, which goes on with its state.
    ///
    /// The state of the new version is compared with that of the running job first: if it does not fit, the running job is not touched.
    /// Then the job is stopped with a savepoint and the new version started from it. If that is not RUNNING with a completed checkpoint
    /// within the limit, the old version is started again from the same savepoint; the exit code is 1 then.
    #[command(after_help = "\
Examples:
  thalweg upgrade word_count target/release/word_count
  thalweg upgrade word_count ./word_count --dir s3://bucket/savepoints --limit 2min -D parallelism.default=8")]
    Upgrade(UpgradeArguments),

    /// Print what a job's workers wrote to stdout and stderr.
    #[command(after_help = "Example:\n  thalweg logs word_count --tail '1 MiB'")]
    Logs(LogsArguments),

    /// Show the cluster's job managers and task managers, or change its members.
    #[command(after_help = "Examples:\n  thalweg cluster\n  thalweg cluster add 4 10.0.0.4:6123")]
    Cluster(ClusterArguments),

    /// Show settings as a job manager or task manager reads them, and what a setting does. Asks no cluster.
    #[command(after_help = "\
Examples:
  thalweg config show --config /etc/thalweg/config.yaml
  thalweg config explain execution.checkpointing.interval")]
    Config(ConfigArguments),

    /// Make certificates for a cluster and the token of its clients, and show them. Asks no cluster.
    #[command(after_help = "\
Examples:
  thalweg pki init --hosts jm-1,jm-2,jm-3,worker-1
  thalweg pki issue worker-2 10.0.0.8
  thalweg pki show")]
    Pki(PkiArguments),

    /// Look into savepoints, compare, check and build them. Asks no cluster.
    #[command(after_help = "Examples:
  thalweg state inspect file:///savepoints/savepoint-00c0ff-12
  thalweg state export s3://bucket/savepoint-00c0ff-12 --operator count | head")]
    State(StateArguments),
}

#[derive(Debug, Args)]
pub(crate) struct SubmitArguments {
    /// The job's executable.
    pub(crate) binary: PathBuf,

    /// How many subtasks operators have that set no parallelism; short for -D parallelism.default=N.
    #[arg(long, value_name = "N")]
    pub(crate) parallelism: Option<String>,

    /// The job's name; short for -D pipeline.name=NAME.
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// Return as soon as the cluster has accepted the job.
    #[arg(long)]
    pub(crate) detach: bool,

    #[command(flatten)]
    pub(crate) restore: RestoreArguments,

    #[command(flatten)]
    pub(crate) properties: PropertyArguments,

    /// A setting that wins over the one in the program. May be given more than once; --parallelism and --name win over it.
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,

    /// What the job itself is given.
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub(crate) arguments: Vec<String>,
}

impl SubmitArguments {
    /// The settings of all flags, checked.
    ///
    /// # Errors
    /// When a key is unknown or a value does not have the key's form.
    pub(crate) fn configuration(&self) -> Result<Configuration, ConfigError> {
        let mut configuration = Configuration::new();
        for setting in &self.settings {
            configuration.set_assignment(setting)?;
        }
        if let Some(parallelism) = &self.parallelism {
            configuration.set(keys::PARALLELISM_DEFAULT.name, parallelism)?;
        }
        if let Some(name) = &self.name {
            configuration.set(keys::PIPELINE_NAME.name, name)?;
        }
        Ok(configuration)
    }
}

#[derive(Debug, Args)]
pub(crate) struct JobArgument {
    /// The job: its id, the first digits of it, or its name.
    #[arg(value_name = "JOB")]
    pub(crate) reference: String,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// The job (its id, the first digits of it, or its name), or the path of a job's executable.
    #[arg(value_name = "JOB|BINARY")]
    pub(crate) target: String,

    /// A setting that wins over the one in the program of an executable. May be given more than once.
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,

    #[command(flatten)]
    pub(crate) properties: PropertyArguments,

    /// What the executable is given.
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub(crate) arguments: Vec<String>,
}

impl ExplainArguments {
    /// The settings, checked.
    ///
    /// # Errors
    /// When a key is unknown or a value does not have the key's form.
    pub(crate) fn configuration(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut configuration = Configuration::new();
        for setting in &self.settings {
            configuration.set_assignment(setting)?;
        }
        Ok(configuration.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointsArguments {
    #[command(flatten)]
    pub(crate) job: JobArgument,

    /// The checkpoint whose subtasks are shown.
    #[arg(long, value_name = "ID")]
    pub(crate) details: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct RescaleArguments {
    #[command(flatten)]
    pub(crate) job: JobArgument,

    /// The parallelism of all operators that set none in the program.
    #[arg(long, value_name = "N")]
    pub(crate) parallelism: u32,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArguments {
    #[command(flatten)]
    pub(crate) job: JobArgument,

    /// Return as soon as the cluster has taken the request.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    #[command(flatten)]
    pub(crate) job: JobArgument,

    /// How much of the end of each log to print, as in 1000 or '1 MiB'; without it the cluster decides.
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub(crate) tail: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterArguments {
    #[command(subcommand)]
    pub(crate) change: Option<ClusterChange>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterChange {
    /// Make a job manager that runs already a member; returns when it has caught up and votes.
    #[command(after_help = "Example:\n  thalweg cluster add 4 10.0.0.4:6123")]
    Add {
        /// Its number, as in its --id.
        id: u64,
        /// Where it serves.
        #[arg(value_name = "HOST:PORT", value_parser = address)]
        address: String,
    },
    /// Take a job manager out of the cluster.
    #[command(after_help = "Example:\n  thalweg cluster remove 4")]
    Remove {
        /// Its number.
        id: u64,
    },
}

fn address(text: &str) -> Result<String, String> {
    let text = text.trim();
    check_address(text).map(|()| text.to_string()).map_err(|error| error.to_string())
}

pub(crate) fn span(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|span| !span.is_zero())
        .ok_or_else(|| "write a duration of at least 1 ms, for example 10s or 500ms".into())
}

fn size(text: &str) -> Result<u64, String> {
    parse_memory_size(text)
        .filter(|size| *size > 0)
        .ok_or_else(|| "write a size of at least 1 byte, for example 1000 or '1 MiB'".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("thalweg").chain(line.split_whitespace()))
    }

    fn submit(line: &str) -> SubmitArguments {
        match parse(line).map(|arguments| arguments.command) {
            Ok(Command::Submit(submit)) => submit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent_and_every_command_has_an_example() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("thalweg "), "`{}` has no example", command.get_name());
            command.get_subcommands().for_each(check);
        }
        Arguments::command().debug_assert();
        check(&Arguments::command());
    }

    #[test]
    fn what_follows_two_dashes_is_the_jobs() {
        let submit = submit("submit ./job --detach -- --name x -D y");
        assert_eq!(submit.arguments, ["--name", "x", "-D", "y"]);
        assert!(submit.detach && submit.name.is_none() && submit.settings.is_empty());
    }

    #[test]
    fn flags_become_settings_and_win() {
        let configuration = submit(
            "submit ./job -D parallelism.default=2 --parallelism 8 --name wc -D restart-strategy=none",
        )
        .configuration()
        .expect("all are right");
        let settings: Vec<_> = configuration.iter().collect();
        assert_eq!(
            settings,
            [("parallelism.default", "8"), ("pipeline.name", "wc"), ("restart-strategy.type", "none")]
        );
    }

    #[test]
    fn runtime_properties_are_those_of_all_flags() {
        let given = submit("submit ./job --property A:k=v --property consumer.config.0:aws.region=eu-west-1");
        let properties = given.properties.read().expect("all are right");
        assert_eq!(properties.group("consumer.config.0")["aws.region"], "eu-west-1");
        assert_eq!(properties.groups().count(), 2);
        let missing = submit("submit ./job --properties /no/such/file").properties.read();
        let error = missing.expect_err("there is no such file").to_string();
        assert!(
            error.contains("the runtime properties in /no/such/file: ") && error.contains("check the path"),
            "{error}"
        );
    }

    #[test]
    fn wrong_settings_are_refused_with_a_cure() {
        for (line, cure) in [
            ("submit ./job -D paralelism.default=2", "did you mean `parallelism.default`?"),
            ("submit ./job -D parallelism.default", "write `key=value`"),
            ("submit ./job --parallelism 0", "whole number from 1"),
            ("submit ./job --parallelism many", "whole number from 1"),
        ] {
            let error = submit(line).configuration().expect_err(line).to_string();
            assert!(error.contains(cure), "{error}");
        }
    }

    #[test]
    fn global_flags_may_stand_anywhere() {
        for line in ["--jobmanager a:1,b:2 --output json list", "list --output json --jobmanager a:1,b:2"] {
            let arguments = parse(line).expect(line);
            assert_eq!(arguments.jobmanager, ["a:1", "b:2"]);
            assert_eq!(arguments.output, Format::Json);
        }
    }

    #[test]
    fn ill_formed_values_are_refused_before_the_cluster_is_asked() {
        for line in [
            "list --jobmanager nonsense",
            "list --timeout 0",
            "logs job --tail -5",
            "logs job --tail 0",
            "cluster add 4 nowhere",
            "cluster add x a:1",
        ] {
            let kind = parse(line).expect_err(line).kind();
            assert!(
                matches!(kind, ErrorKind::ValueValidation | ErrorKind::UnknownArgument),
                "{line}: {kind:?}"
            );
        }
    }
}
