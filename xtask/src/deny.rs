//! cargo-deny: what may be in the dependency tree, and whether something in it is known to be broken.
//!
//! Invariants: a found advisory fails the check; a machine that cannot fetch the advisory database skips the advisories
//! and says so, because whether the code is right does not depend on the network.

use std::process::Output;

use anyhow::{Context, Result};

use crate::cargo::Cargo;
use crate::steps::Outcome;

/// Licences, bans and sources, as `deny.toml` has them.
pub const POLICY: [&str; 8] =
    ["deny", "--log-level", "error", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"];

/// Known vulnerabilities, unsound and unmaintained crates.
pub const ADVISORIES: [&str; 4] = ["deny", "check", "--hide-inclusion-graph", "advisories"];

/// Checks the advisories against a database as fresh as can be had.
///
/// # Errors
/// When cargo cannot be started.
pub fn check_advisories(cargo: &Cargo) -> Result<Outcome> {
    let fetched = cargo.command(["deny", "fetch", "db"]).output().context("cannot start cargo")?;
    let mut command = if fetched.status.success() {
        cargo.command(ADVISORIES)
    } else {
        // Perhaps an earlier run left a database.
        cargo.command(["deny", "--offline"].iter().chain(&ADVISORIES[1..]))
    };
    let checked = command.output().context("cannot start cargo")?;
    let (fetched, checked) = (Report::of(&fetched), Report::of(&checked));
    let outcome = judge(&fetched, &checked);
    if matches!(outcome, Outcome::Failed(_)) {
        eprint!("{}", checked.text);
    }
    Ok(outcome)
}

struct Report {
    success: bool,
    text: String,
}

impl Report {
    fn of(output: &Output) -> Self {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Self { success: output.status.success(), text }
    }

    /// Why it failed, in one line: git's own words when it was git that failed.
    fn reason(&self) -> &str {
        let lines = || self.text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines()
            .find(|line| line.starts_with("fatal:"))
            .or_else(|| lines().next())
            .unwrap_or("it did not say why")
    }
}

fn judge(fetched: &Report, checked: &Report) -> Outcome {
    if checked.text.contains("advisories FAILED") {
        Outcome::Failed(
            "a dependency has a known problem, see above; update it, or ignore it with a reason in deny.toml"
                .into(),
        )
    } else if checked.success && fetched.success {
        Outcome::Passed
    } else if checked.success {
        eprintln!(
            "    the advisory database is from an earlier run; it could not be refreshed: {}",
            fetched.reason()
        );
        Outcome::Passed
    } else if fetched.success {
        Outcome::Failed(format!("cargo-deny could not check the advisories: {}", checked.reason()))
    } else {
        Outcome::Skipped(format!(
            "advisories were not checked, the database cannot be fetched: {}",
            fetched.reason()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(success: bool, text: &str) -> Report {
        Report { success, text: text.into() }
    }

    #[test]
    fn advisories_fail_only_when_one_is_found_or_the_check_itself_breaks() {
        let fetched = report(true, "");
        let unreachable =
            report(false, "[ERROR] failed to fetch\nfatal: unable to access: Could not resolve host\n");
        let clean = report(true, "advisories ok\n");
        let found = report(false, "error[vulnerability]: ...\nadvisories FAILED\n");
        let broken = report(false, "[ERROR] no database\n");

        assert_eq!(judge(&fetched, &clean), Outcome::Passed);
        assert_eq!(judge(&unreachable, &clean), Outcome::Passed);
        assert!(matches!(judge(&fetched, &found), Outcome::Failed(_)));
        assert!(matches!(judge(&unreachable, &found), Outcome::Failed(_)));
        assert!(
            matches!(judge(&fetched, &broken), Outcome::Failed(reason) if reason.contains("no database"))
        );
        assert!(
            matches!(judge(&unreachable, &broken), Outcome::Skipped(reason) if reason.ends_with("Could not resolve host"))
        );
    }
}
