//! The flags that give a job its runtime properties.

use std::path::PathBuf;

use clap::Args;
use thalweg_common::properties::{PropertiesError, RuntimeProperties};

#[derive(Debug, Args)]
pub(crate) struct PropertyArguments {
    /// Runtime properties of the job: a file like the managed service's application_properties.json.
    #[arg(long, value_name = "FILE")]
    pub(crate) properties: Option<PathBuf>,

    /// One runtime property; wins over the file. May be given more than once.
    #[arg(long = "property", value_name = "GROUP:KEY=VALUE")]
    pub(crate) assignments: Vec<String>,
}

impl PropertyArguments {
    /// Those of the file and of all flags.
    ///
    /// # Errors
    /// When the file cannot be read, or one of them cannot be.
    pub(crate) fn read(&self) -> Result<RuntimeProperties, PropertiesError> {
        RuntimeProperties::from_flags(self.properties.as_deref(), &self.assignments)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.properties.is_none() && self.assignments.is_empty()
    }
}
