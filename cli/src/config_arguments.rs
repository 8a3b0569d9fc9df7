//! The command line of `thalweg config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct ConfigArguments {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting that is made, its value and where it comes from; the last that makes it wins.
    ///
    /// Read are the file, or else config.yaml in $THALWEG_CONF_DIR, then the YAML in $THALWEG_PROPERTIES, then -D. What is wrong is told with
    /// its file and line, and the exit code is 1: good for a check before a cluster is restarted.
    #[command(after_help = "\
Examples:
  thalweg config show --config /etc/thalweg/config.yaml
  thalweg config show --all --json
  THALWEG_PROPERTIES='parallelism.default: 4' thalweg config show")]
    Show(ShowArguments),

    /// Tell what a setting does: its form, default and other names.
    #[command(after_help = "Example:\n  thalweg config explain state.backend.type")]
    Explain {
        /// The key, or one of its other names.
        #[arg(value_name = "KEY")]
        key: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// The file of settings.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// A single setting, which wins over the file. May be given more than once.
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,

    /// Also what is left at its default.
    #[arg(long)]
    pub(crate) all: bool,
}
