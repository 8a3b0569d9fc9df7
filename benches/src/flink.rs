//! The other side of a comparison: Apache Flink, measured by the scripts of a directory of peers.
//!
//! `<peers>/flink/run.sh GROUP` runs the cases of a group in `cases.txt` and prints a line for each:
//! `case system parallelism events seconds events_per_s name=value ...`. A folder with links to everything in
//! `<peers>/flink` and a `cases.txt` of its own makes it run exactly the cases that are compared.
//!
//! Invariant: what is read is what Flink measured itself; a case without a figure is an error, never a zero.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// What Flink's side needs besides its scripts.
const PROGRAMS: [&str; 5] = ["bash", "java", "javac", "jar", "python3"];

/// Why this machine cannot run Flink; says what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Lacking(String);

/// A case of `cases.txt`: what it is called, and what the benchmark is told besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// A group of its own.
    pub group: String,
    /// As in `case=q0 par=1`.
    pub arguments: String,
}

/// One figure of Flink's.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// As the script calls it.
    pub case: String,
    /// How many events were read.
    pub events: u64,
    /// Events by CPU seconds of Flink's processes.
    pub events_per_cpu_second: f64,
    /// Records that reached the sink, where Flink tells.
    pub results: Option<u64>,
}

/// Flink's scripts with a selection of cases.
#[derive(Debug)]
pub struct Flink {
    folder: TempDir,
}

impl Flink {
    /// Prepares the scripts in `peers/flink` for these cases.
    ///
    /// # Errors
    /// [`Lacking`] when the scripts or a program are not there; or a folder that cannot be written.
    pub fn prepare(peers: &Path, cases: &[Case]) -> Result<Self> {
        let scripts = scripts_in(peers)?;
        let folder = TempDir::new()?;
        for entry in fs::read_dir(fs::canonicalize(&scripts)?)? {
            let entry = entry?;
            symlink(entry.path(), folder.path().join(entry.file_name()))?;
        }
        let own = folder.path().join("cases.txt");
        if own.symlink_metadata().is_ok() {
            fs::remove_file(&own)?;
        }
        let mut lines = String::new();
        for case in cases {
            writeln!(lines, "{} .compared {}", case.group, case.arguments)?;
        }
        fs::write(own, lines)?;
        Ok(Self { folder })
    }

    /// Measures a case once, after the time that its virtual machine needs to warm up.
    ///
    /// # Errors
    /// When the script fails or gives no figure.
    pub fn measure(&self, group: &str) -> Result<Figure> {
        let figures = self.run(group, &[("REPS", "1")])?;
        let figure = figures.into_iter().next();
        figure.with_context(|| format!("Flink gave no figure for `{group}`; its job failed or took too long"))
    }

    /// Measures the shuffles between two of Flink's task managers: the median of three, by the script's name of the case.
    ///
    /// # Errors
    /// When the script fails.
    pub fn measure_shuffles(&self) -> Result<BTreeMap<String, Figure>> {
        let figures = self.run("shuffle", &[])?;
        Ok(figures.into_iter().map(|figure| (figure.case.clone(), figure)).collect())
    }

    fn run(&self, what: &str, environment: &[(&str, &str)]) -> Result<Vec<Figure>> {
        let mut command = Command::new("bash");
        command.arg(self.folder.path().join("run.sh")).arg(what).envs(environment.iter().copied());
        figures(&mut command)
    }
}

/// Measures how Flink makes Parquet of the JSON lines in the files of `input`: bytes in place of events, after a run that warms its virtual
/// machine up. `how` is `rows` or `objects`; `benches/flink` says what that means.
///
/// # Errors
/// [`Lacking`] when the scripts or a program are not there; or when the script fails.
pub fn json_to_parquet(peers: &Path, input: &Path, output: &Path, how: &str) -> Result<Figure> {
    scripts_in(peers)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("flink/json_to_parquet.sh");
    let mut command = Command::new("bash");
    command.args([&script, peers, input, output]).args(["2", how]);
    figures(&mut command)?.into_iter().next().with_context(|| format!("Flink gave no figure for `{how}`"))
}

/// The directory of Flink's scripts, if all that they need is there.
fn scripts_in(peers: &Path) -> Result<PathBuf, Lacking> {
    let scripts = peers.join("flink");
    if !scripts.join("run.sh").is_file() {
        return Err(Lacking(format!(
            "{} is not there; name the directory of the peers with --peers or THALWEG_PEERS",
            scripts.join("run.sh").display()
        )));
    }
    match PROGRAMS.into_iter().find(|program| !is_on_path(program)) {
        Some(program) => Err(Lacking(format!(
            "there is no `{program}` on the path; Flink needs a JDK (17), python3 and bash"
        ))),
        None => Ok(scripts),
    }
}

/// What a script prints.
fn figures(script: &mut Command) -> Result<Vec<Figure>> {
    let output = script.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start {script:?}"))?;
    ensure!(output.status.success(), "{script:?} failed ({})", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(figure).collect())
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder: PathBuf| folder.join(program)).any(|path| path.is_file())
}

/// Reads a line of figures; others (remarks, failures) have none.
fn figure(line: &str) -> Option<Figure> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let named = |name: &str| {
        fields.iter().find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).map(str::to_string)
    };
    Some(Figure {
        case: (*fields.first()?).to_string(),
        events: fields.get(3)?.parse().ok()?,
        events_per_cpu_second: named("ev_per_cpu_s")?.parse().ok().filter(|rate| *rate > 0.0)?,
        results: named("sunk").and_then(|text| text.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LINE: &str = "q0.compared flink-2.3.0 1 7039104 3.01 2342014 min=1239039 max=2420797 cpu_s=2.74 \
                        ev_per_cpu_s=2569016 gc_ms=0 sunk=6476000";

    #[test]
    fn a_line_of_figures_is_read_and_others_are_not() {
        let read = figure(LINE).expect("a figure");
        assert_eq!((read.case.as_str(), read.events), ("q0.compared", 7_039_104));
        assert_eq!((read.events_per_cpu_second, read.results), (2_569_016.0, Some(6_476_000)));
        let shuffle =
            "shuffle.all.bytes100 flink-2.3.0 2tm 9 4.0 2 min=1 max=3 MB_per_s=9 ev_per_cpu_s=890000 load=1";
        assert_eq!(figure(shuffle).expect("a figure").results, None);
        for line in
            ["", "# shuffle failed: x", "q0 flink 1 many 3 4 ev_per_cpu_s=1", "q0 f 1 2 3 4 ev_per_cpu_s=0"]
        {
            assert_eq!(figure(line), None, "{line}");
        }
    }

    #[test]
    fn what_is_missing_is_said_with_its_cure() {
        let error = Flink::prepare(Path::new("/nowhere"), &[]).expect_err("nothing is there");
        assert!(error.is::<Lacking>());
        assert!(error.to_string().contains("--peers"), "{error}");
    }

    #[test]
    fn a_script_runs_beside_its_own_files_with_the_cases_that_are_compared() {
        if !PROGRAMS.into_iter().all(is_on_path) {
            eprintln!("skipped: this machine has no JDK");
            return;
        }
        let peers = tempfile::tempdir().expect("a folder");
        let scripts = peers.path().join("flink");
        fs::create_dir(&scripts).expect("writable");
        fs::write(scripts.join("cases.txt"), "all .other case=other").expect("writable");
        fs::write(scripts.join("line"), LINE).expect("writable");
        let script = scripts.join("run.sh");
        let text = "#!/bin/bash\nhere=$(cd \"$(dirname \"$0\")\" && pwd)\n\
                    grep -q \"^$1 .compared case=q0 par=1$\" \"$here/cases.txt\" && cat \"$here/line\"\n";
        fs::write(&script, text).expect("writable");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("writable");
        let case = Case { group: "compare-q0".into(), arguments: "case=q0 par=1".into() };
        let flink = Flink::prepare(peers.path(), &[case]).expect("all is there");
        assert_eq!(flink.measure("compare-q0").expect("a figure").events, 7_039_104);
        assert!(flink.measure("compare-q1").is_err(), "no such case");
        let theirs = fs::read_to_string(scripts.join("cases.txt")).expect("still there");
        assert_eq!(theirs, "all .other case=other", "the peers' own cases are not touched");
    }
}
