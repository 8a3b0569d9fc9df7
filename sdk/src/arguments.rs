//! The command line of a job: what belongs to Thalweg and what to the job. Pure.
//!
//! Flags that Thalweg knows are taken out, everything else goes to the job in its order; after `--` everything is the
//! job's. So `word_count --parallelism 4 --input README.md` works, and so does `word_count -- --name x`.

use std::path::PathBuf;

use thalweg_common::config::{Configuration, keys};
use thalweg_common::properties::{PropertiesError, RuntimeProperties};

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Arguments {
    /// Submit to these job managers instead of running here.
    pub(crate) job_managers: Option<Vec<String>>,
    /// Return when the job was accepted.
    pub(crate) detach: bool,
    /// `-D`, `--parallelism` and `--name`.
    pub(crate) configuration: Configuration,
    /// `--properties`.
    pub(crate) properties_file: Option<PathBuf>,
    /// `--property`, each as it was given.
    pub(crate) properties: Vec<String>,
    /// The job's own arguments.
    pub(crate) job: Vec<String>,
    /// Show the help and do nothing.
    pub(crate) help: bool,
}

/// A command line that cannot be understood; the message says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(String);

impl Arguments {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        let mut parsed = Self::default();
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            if argument == "--" {
                parsed.job.extend(rest);
                break;
            }
            let (flag, mut inline) = split_flag(&argument);
            let mut value = |example: &str| {
                inline
                    .take()
                    .map(str::to_string)
                    .or_else(|| rest.next())
                    .filter(|value| !value.is_empty())
                    .ok_or_else(|| UsageError(format!("{flag} needs a value, as in `{flag} {example}`")))
            };
            match flag {
                "--jobmanager" => parsed.job_managers = Some(addresses(&value("127.0.0.1:6123")?)?),
                "--parallelism" => parsed.set(keys::PARALLELISM_DEFAULT.name, &value("4")?)?,
                "--name" => parsed.set(keys::PIPELINE_NAME.name, &value("\"my job\"")?)?,
                "--properties" => {
                    parsed.properties_file = Some(value("application_properties.json")?.into());
                }
                "--property" => parsed.properties.push(value("Group:key=value")?),
                "-D" => parsed.assign(&value("execution.checkpointing.interval=10s")?)?,
                "--detach" if inline.is_none() => parsed.detach = true,
                "--help" | "-h" if inline.is_none() => parsed.help = true,
                _ => parsed.job.push(argument),
            }
        }
        if parsed.detach && parsed.job_managers.is_none() && !parsed.help {
            return Err(UsageError(
                "--detach needs --jobmanager: without a cluster the job runs in this process".to_string(),
            ));
        }
        Ok(parsed)
    }

    /// The runtime properties that the flags give.
    ///
    /// # Errors
    /// When the file cannot be read, or one of them cannot be.
    pub(crate) fn runtime_properties(&self) -> Result<RuntimeProperties, PropertiesError> {
        RuntimeProperties::from_flags(self.properties_file.as_deref(), &self.properties)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), UsageError> {
        self.configuration.set(key, value).map_err(|error| UsageError(error.to_string()))
    }

    fn assign(&mut self, assignment: &str) -> Result<(), UsageError> {
        self.configuration.set_assignment(assignment).map_err(|error| UsageError(error.to_string()))
    }
}

/// `--flag=value` and `-Dkey=value` carry their value with them.
fn split_flag(argument: &str) -> (&str, Option<&str>) {
    if let Some(assignment) = argument.strip_prefix("-D") {
        return ("-D", Some(assignment).filter(|text| !text.is_empty()));
    }
    match argument.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => (flag, Some(value)),
        _ => (argument, None),
    }
}

fn addresses(text: &str) -> Result<Vec<String>, UsageError> {
    let addresses: Vec<String> =
        text.split(',').map(str::trim).filter(|address| !address.is_empty()).map(str::to_string).collect();
    if addresses.is_empty() {
        return Err(UsageError(
            "--jobmanager needs an address, as in `--jobmanager 127.0.0.1:6123`".to_string(),
        ));
    }
    Ok(addresses)
}

/// What `--help` prints.
pub(crate) fn help(program: &str) -> String {
    format!(
        "A Thalweg job. Without --jobmanager it runs in this process; with it, it is submitted to a cluster.

Usage: {program} [OPTIONS] [JOB ARGUMENTS]
       {program} [OPTIONS] -- [JOB ARGUMENTS]

Options:
  --jobmanager HOST:PORT[,HOST:PORT...]  Submit the job to this cluster
  --parallelism N                        Parallelism of operators that set none
  --name NAME                            Name of the job
  --detach                               Return as soon as the cluster has accepted the job
  -D KEY=VALUE                           A setting, with Flink's name; wins over the one in the program
  --properties FILE                      Runtime properties: a file like application_properties.json
  --property GROUP:KEY=VALUE             A runtime property; wins over the one in the file
  -h, --help                             Show this help; `{program} -- --help` asks the job itself

Arguments that are not listed here are the job's own; after `--` all are.

Examples:
  {program} --parallelism 4
  {program} --jobmanager 127.0.0.1:6123 -D execution.checkpointing.interval=10s
  {program} --jobmanager jm-1:6123,jm-2:6123,jm-3:6123 --name nightly --detach -- --input /data

Exit codes after a submission: 0 finished (or accepted, with --detach), 1 failed, 2 refused, 3 canceled, 4 no
cluster reached.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, UsageError> {
        Arguments::parse(line.split_whitespace().map(str::to_string))
    }

    fn job(line: &str) -> Vec<String> {
        parse(line).expect("a right command line").job
    }

    #[test]
    fn known_flags_are_taken_and_the_rest_is_the_jobs_in_its_order() {
        assert_eq!(job("--input README.md"), ["--input", "README.md"]);
        assert_eq!(job("a --parallelism 4 b --name=x c -Dparallelism.default=2 d"), ["a", "b", "c", "d"]);
        assert_eq!(
            job("--parallelism 4 -- --parallelism 8 -- --help"),
            ["--parallelism", "8", "--", "--help"]
        );
        assert_eq!(job("--output=x --detached -d"), ["--output=x", "--detached", "-d"]);
        assert_eq!(job(""), Vec::<String>::new());
    }

    #[test]
    fn runtime_properties_are_taken_from_the_flags() {
        let arguments = parse("--property A:k=v --input x --property=A:l=w").expect("right");
        assert_eq!(arguments.job, ["--input", "x"]);
        let properties = arguments.runtime_properties().expect("right").group("A");
        assert_eq!(
            properties.into_iter().collect::<Vec<_>>(),
            [("k", "v"), ("l", "w")].map(|(key, value)| (key.into(), value.into()))
        );
        let missing = parse("--properties /no/such.json").expect("read later").runtime_properties();
        assert!(missing.expect_err("there is no such file").to_string().contains("/no/such.json"));
    }

    #[test]
    fn flags_become_settings() {
        let arguments =
            parse("--parallelism 4 --name wc -D execution.checkpointing.interval=1s").expect("right");
        assert_eq!(
            arguments.configuration.iter().collect::<Vec<_>>(),
            [
                ("execution.checkpointing.interval", "1s"),
                ("parallelism.default", "4"),
                ("pipeline.name", "wc")
            ]
        );
        assert_eq!(arguments.job_managers, None);
    }

    #[test]
    fn several_job_managers_may_be_named() {
        let arguments = parse("--jobmanager a:1,b:2 --detach").expect("right");
        assert_eq!(arguments.job_managers, Some(vec!["a:1".to_string(), "b:2".to_string()]));
        assert!(arguments.detach);
    }

    #[test]
    fn mistakes_are_named_with_their_cure() {
        let table = [
            ("--parallelism", "--parallelism needs a value, as in `--parallelism 4`"),
            ("--name=", "--name needs a value, as in `--name \"my job\"`"),
            ("--parallelism many", "`parallelism.default` cannot be `many`; write a whole number"),
            ("--jobmanager ,", "--jobmanager needs an address"),
            ("-D", "-D needs a value"),
            ("-Dparalelism.default=1", "did you mean `parallelism.default`?"),
            ("-D x", "`x` is not a setting; write `key=value`"),
            ("--detach", "--detach needs --jobmanager"),
        ];
        for (line, expected) in table {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn help_is_asked_for_before_the_dashes_only() {
        assert!(parse("--input x -h").expect("right").help);
        assert!(!parse("-- -h").expect("right").help);
        assert!(help("word_count").contains("word_count --parallelism 4"));
    }
}
