//! Prints measured figures as Markdown tables, or puts them into a document that has marks for them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use thalweg_benches::table;

/// Makes Markdown tables of what measurements printed with --json.
#[derive(Parser)]
struct Options {
    /// Files of JSON lines; of a case that is in several of them the last one counts.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Put the figures between the marks of this document, such as BENCHMARKS.md, instead of printing them.
    #[arg(long, value_name = "DOCUMENT")]
    into: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut rows = Vec::new();
    for file in &options.files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        rows.extend(table::read(&text).with_context(|| format!("in {}", file.display()))?);
    }
    match options.into {
        None => print!("{}", table::tables(&rows)),
        Some(document) => {
            let text = fs::read_to_string(&document)
                .with_context(|| format!("cannot read {}", document.display()))?;
            let filled = table::fill(&text, &rows).with_context(|| format!("in {}", document.display()))?;
            fs::write(&document, filled).with_context(|| format!("cannot write {}", document.display()))?;
        }
    }
    Ok(())
}
