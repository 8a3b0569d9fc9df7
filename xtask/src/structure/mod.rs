//! The rules of the house that neither the compiler nor clippy knows, checked over the whole checkout.
//!
//! Stands in `cargo xtask test` and `verify`. Every rule is a pure function from text to findings; only [`check`] and
//! `files` touch the disk. Invariant: a finding names file, line, what is wrong and what to do about it.

mod dependencies;
pub mod files;
mod links;
mod rust;
mod source;
mod text;

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;

use crate::steps::Outcome;
use crate::workspace::Workspace;

/// Something that breaks, or is about to break, a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Relative to the workspace's root.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    pub severity: Severity,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub cure: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Said, but does not fail the check.
    Warning,
    Error,
}

impl Finding {
    fn error(
        file: impl Into<PathBuf>,
        line: usize,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self { file: file.into(), line, severity: Severity::Error, what: what.into(), cure: cure.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning: ",
            Severity::Error => "",
        };
        write!(formatter, "{}:{}: {severity}{}; {}", self.file.display(), self.line, self.what, self.cure)
    }
}

/// Checks every rule and prints what it finds.
///
/// # Errors
/// When the checkout cannot be read. Broken rules are a failed outcome, not an error.
pub fn check(workspace: &Workspace) -> Result<Outcome> {
    let files = files::list(&workspace.root)?;
    let mut findings =
        dependencies::check(&workspace.packages, |manifest| files::read(&workspace.root, manifest));
    for file in &files {
        let Some(contents) = files::read(&workspace.root, file) else { continue };
        findings.extend(text::check(file, &contents));
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => findings.extend(rust::check(file, &contents)),
            Some("md") => {
                findings.extend(links::check(file, &contents, |target| workspace.root.join(target).exists()));
            }
            _ => {}
        }
    }
    for finding in &findings {
        eprintln!("    {finding}");
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    Ok(match errors {
        0 => Outcome::Passed,
        1 => Outcome::Failed("1 rule of the house is broken".into()),
        many => Outcome::Failed(format!("{many} rules of the house are broken")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_can_be_clicked_and_says_what_to_do() {
        let finding = Finding::error("common/src/id.rs", 7, "no header", "write one");
        assert_eq!(finding.to_string(), "common/src/id.rs:7: no header; write one");
        let warning = Finding { severity: Severity::Warning, ..finding };
        assert_eq!(warning.to_string(), "common/src/id.rs:7: warning: no header; write one");
    }
}
