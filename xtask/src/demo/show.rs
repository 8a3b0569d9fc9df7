//! The demonstration itself, from an empty directory to a verdict.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use super::Options;
use super::corpus::Corpus;
use super::output::{Verdict, committed_bytes, verify};
use super::progress::Progress;
use super::report::{Kills, Report};
use super::words::WordCounts;
use crate::client::{Job, Submission};
use crate::clock::{Stopwatch, pause, seconds};
use crate::cluster::{Cluster, Size};
use crate::process::Lifetime;
use crate::program::Programs;
use crate::signal::Interrupt;
use crate::workspace::Workspace;

const JOB_MANAGERS: usize = 3;
const TASK_MANAGERS: usize = 2;
const SLOTS: usize = 2;
const PARALLELISM: usize = TASK_MANAGERS * SLOTS;

/// The pause between two looks at a running job.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// How long the cluster may not answer before that is a failure: an election takes a fraction of it.
const SILENT_FOR: Duration = Duration::from_secs(30);
/// Words that the first trial run counts, to learn how fast this machine is.
const TRIAL_WORDS: u64 = 1_000_000;
/// A trial that took at least this long says enough.
const TRIAL_LONG_ENOUGH: Duration = Duration::from_secs(2);

/// Shows it all.
///
/// # Errors
/// When anything fails. A wrong result is a report, not an error.
pub fn show(
    options: Options,
    workspace: &Workspace,
    programs: Programs,
    directory: &Path,
    interrupt: &Interrupt,
) -> Result<Report> {
    let corpus = Corpus::copy(&workspace.root, &directory.join("input"))?;
    eprintln!(
        "==> input: {} files of this repository, {} KiB, {} words, {} different ones",
        corpus.files,
        corpus.bytes / 1024,
        corpus.counts.total(),
        corpus.counts.distinct()
    );
    let lifetime = if options.keep { Lifetime::ItsOwn } else { Lifetime::Ours };
    let size = Size { job_managers: JOB_MANAGERS, task_managers: TASK_MANAGERS, slots: SLOTS, lifetime };
    let stopwatch = Stopwatch::start();
    eprintln!(
        "==> cluster: {JOB_MANAGERS} job managers, {TASK_MANAGERS} task managers with {SLOTS} slots each"
    );
    let cluster = Cluster::start(programs.clone(), size, directory, interrupt.clone())?;
    eprintln!("    ready in {}", seconds(stopwatch.elapsed()));

    let mut stage = Stage { cluster, programs: &programs, corpus: &corpus, directory, interrupt };
    let repeat = stage.repetitions_for(Duration::from_secs(options.seconds.into()))?;
    let (report, verdict) = stage.main_run(repeat, Duration::from_secs(options.seconds.into()))?;
    print_commonest(&verdict.result);
    if options.keep {
        print!("{}", how_to_use(&stage.cluster, &programs, workspace, directory));
        stage.cluster.leave_running();
    } else {
        stage.cluster.stop()?;
    }
    Ok(report)
}

/// Everything that the runs of the job have in common.
struct Stage<'a> {
    cluster: Cluster,
    programs: &'a Programs,
    corpus: &'a Corpus,
    directory: &'a Path,
    interrupt: &'a Interrupt,
}

/// A submitted job and what it is to write.
struct Running {
    job: String,
    output: PathBuf,
    expected: WordCounts,
    expected_bytes: u64,
    deadline: Duration,
    progress: Progress,
}

impl Stage<'_> {
    /// How often the input must be read for the job to run that long, by trial.
    fn repetitions_for(&mut self, wanted: Duration) -> Result<u64> {
        let words = self.corpus.counts.total();
        let mut repeat = TRIAL_WORDS.div_ceil(words);
        loop {
            eprintln!("==> trial: {} words, to see how fast this machine is", repeat * words);
            let mut running = self.submit("trial", repeat, Duration::from_secs(120))?;
            self.follow(&mut running, |_, _, _| Ok(()))?;
            let took = running.progress.elapsed();
            let verdict = verify(&running.output, &running.expected)?;
            verdict.print_examples();
            verdict.check()?;
            if took >= TRIAL_LONG_ENOUGH {
                return Ok(repetitions(repeat, took, wanted));
            }
            repeat = repetitions(repeat, took, TRIAL_LONG_ENOUGH.mul_f64(1.5)).max(repeat + 1);
        }
    }

    /// The run that matters: with kills, and every count checked.
    fn main_run(&mut self, repeat: u64, wanted: Duration) -> Result<(Report, Verdict)> {
        eprintln!("==> job: word_count at parallelism {PARALLELISM}, the input {repeat} times");
        let mut running = self.submit("word_count", repeat, wanted * 5 + Duration::from_secs(120))?;
        let mut kills = Kills::default();
        let job = self.follow(&mut running, |cluster, progress, fraction| {
            if fraction >= 1.0 / 3.0 && kills.task_managers == 0 {
                let (killed, started) = cluster.replace_task_manager()?;
                kills.task_managers += 1;
                progress.say(&format!("killed {killed} (SIGKILL); {started} takes its place"));
            }
            if fraction >= 2.0 / 3.0 && kills.job_managers == 0 {
                let killed = cluster.kill_leader()?;
                kills.job_managers += 1;
                progress.say(&format!("killed {killed} (SIGKILL), which led"));
            }
            Ok(())
        })?;
        let took = running.progress.elapsed();
        eprintln!("==> result: every line of the output against a single-threaded count");
        let verdict = verify(&running.output, &running.expected)?;
        verdict.print_examples();
        let report = Report::new(&verdict, took, job.checkpoints, kills);
        eprintln!("    {report}");
        Ok((report, verdict))
    }

    fn submit(&self, name: &str, repeat: u64, deadline: Duration) -> Result<Running> {
        let output = self.directory.join(format!("output-{name}-{repeat}"));
        let arguments: Vec<OsString> = vec![
            "--input".into(),
            self.corpus.directory.clone().into(),
            "--repeat".into(),
            repeat.to_string().into(),
            "--output".into(),
            output.clone().into(),
        ];
        let checkpoints = self.directory.join("checkpoints");
        let configuration = [
            ("execution.checkpointing.interval", "500 ms".to_owned()),
            ("execution.checkpointing.dir", checkpoints.display().to_string()),
            ("restart-strategy.type", "fixed-delay".to_owned()),
            ("restart-strategy.fixed-delay.attempts", "10".to_owned()),
            ("restart-strategy.fixed-delay.delay", "200 ms".to_owned()),
        ];
        let progress = Progress::start();
        let job = self.cluster.client().submit(&Submission {
            binary: &self.programs.word_count,
            name,
            parallelism: PARALLELISM,
            configuration: &configuration,
            arguments: &arguments,
        })?;
        let expected = self.corpus.counts.repeated(repeat);
        Ok(Running { job, output, expected_bytes: expected.output_bytes(), expected, deadline, progress })
    }

    /// Watches the job to its end. `at` is called with the part of the output that is committed.
    fn follow(
        &mut self,
        running: &mut Running,
        mut at: impl FnMut(&mut Cluster, &mut Progress, f64) -> Result<()>,
    ) -> Result<Job> {
        let client = self.cluster.client();
        let mut last_answer = Stopwatch::start();
        let mut job = Job { status: "CREATED".into(), reason: String::new(), checkpoints: 0, failure: None };
        while !job.has_ended() {
            self.interrupt.check()?;
            let fraction = committed_bytes(&running.output) as f64 / running.expected_bytes as f64;
            let records = (running.expected.total() as f64 * fraction) as u64;
            running.progress.show(&job, records, fraction);
            at(&mut self.cluster, &mut running.progress, fraction)?;
            match client.describe(&running.job) {
                Ok(now) => {
                    job = now;
                    last_answer = Stopwatch::start();
                }
                Err(error) if last_answer.elapsed() >= SILENT_FOR => {
                    return Err(error.context(format!("no answer about the job for {}", seconds(SILENT_FOR))));
                }
                // An election is under way; the job runs on meanwhile.
                Err(_) => {}
            }
            if running.progress.elapsed() >= running.deadline {
                bail!("the job is {} after {}, which is far too long", job.status, seconds(running.deadline));
            }
            pause(LOOK_EVERY);
        }
        running.progress.finish();
        if job.status != "FINISHED" {
            let failure = job.failure.as_deref().unwrap_or("the cluster names no failure");
            bail!("the job is {} instead of FINISHED: {failure}", job.status);
        }
        Ok(job)
    }
}

/// Scales a trial to the wanted duration.
fn repetitions(repeat: u64, took: Duration, wanted: Duration) -> u64 {
    let factor = wanted.as_secs_f64() / took.as_secs_f64().max(0.05);
    ((repeat as f64 * factor).round() as u64).max(1)
}

fn print_commonest(result: &WordCounts) {
    println!("\nThe ten commonest words:");
    for (word, count) in commonest(result, 10) {
        println!("{count:>12}  {word}");
    }
    println!();
}

/// The words with the highest counts; those with the same count in alphabetical order.
fn commonest(result: &WordCounts, how_many: usize) -> Vec<(&str, u64)> {
    let mut words: Vec<_> = result.iter().collect();
    words.sort_by(|(left_word, left), (right_word, right)| right.cmp(left).then(left_word.cmp(right_word)));
    words.truncate(how_many);
    words
}

fn how_to_use(cluster: &Cluster, programs: &Programs, workspace: &Workspace, directory: &Path) -> String {
    let processes = cluster.processes();
    let ids: Vec<_> = processes.iter().map(|(_, id)| id.to_string()).collect();
    let names: Vec<_> = processes.iter().map(|(name, id)| format!("  {name} (process {id})\n")).collect();
    format!(
        "The cluster is still running:\n{}\nUse it:\n  export THALWEG_JOBMANAGER={}\n  {thalweg} cluster\n  {thalweg} list\n  \
         {thalweg} submit {} --parallelism 2 -- --input {}\n\nStop it and delete its data:\n  kill {}\n  rm -r {}\n\n",
        names.concat(),
        cluster.addresses().join(","),
        programs.word_count.display(),
        workspace.root.join("README.md").display(),
        ids.join(" "),
        directory.display(),
        thalweg = programs.thalweg.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_scaled_to_the_wanted_time() {
        let second = Duration::from_secs(1);
        assert_eq!(repetitions(10, 2 * second, 20 * second), 100);
        assert_eq!(repetitions(1, 20 * second, second), 1, "at least once");
    }

    #[test]
    fn the_commonest_words_come_first() {
        let counts: WordCounts = [("b", 2), ("a", 2), ("c", 3), ("d", 1)]
            .map(|(word, count)| (word.to_owned(), count))
            .into_iter()
            .collect();
        assert_eq!(commonest(&counts, 3), [("c", 3), ("a", 2), ("b", 2)]);
    }
}
