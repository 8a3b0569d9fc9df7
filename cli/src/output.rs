//! Stdout, in the form that was asked for: tables for people, JSON for programs.
//!
//! The only module that writes to stdout. Invariant: what is written arrives before the command goes on, so that a reader
//! of a pipe sees each event when it happens.

use std::io::{self, Write};

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;

use crate::exit::OutputError;

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// People: aligned columns, human times.
    Table,
    /// Programs: JSON with stable field names, ids in full, times in milliseconds since the epoch.
    Json,
}

/// Where a command's result goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    /// Stdout in this form.
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether a program reads it.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Writes one result: as one JSON document, or as the text that `table` makes of it.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub(crate) fn result<T: Serialize>(
        self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.text(&table(value)),
            Format::Json => {
                self.text(&format!("{}\n", serde_json::to_string_pretty(value).context(NO_JSON)?))
            }
        }
    }

    /// Writes one of several results: as one line of JSON, or as the text that `table` makes of it.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub(crate) fn line<T: Serialize>(
        self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.text(&table(value)),
            Format::Json => self.text(&format!("{}\n", serde_json::to_string(value).context(NO_JSON)?)),
        }
    }

    /// Writes a text as it is.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub(crate) fn text(self, text: &str) -> anyhow::Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub(crate) fn bytes(self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        Ok(stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(OutputError)?)
    }
}

const NO_JSON: &str = "the result has no form as JSON; please report it";
