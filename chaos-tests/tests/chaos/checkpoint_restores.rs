//! What becomes of the checkpoints that a cancelled job has left: another job begins with one, at another parallelism, owns it or not; and
//! what it cannot begin with is refused, with a way around. Every update is in the output exactly once.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use thalweg_chaos_tests::process::binary;
use thalweg_chaos_tests::trial::files_below;
use thalweg_chaos_tests::versions::{AT_2, Bench, NUMBERS, ROCKSDB, Setting, from};
use thalweg_chaos_tests::wait;
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_common::storage;
use thalweg_proto::checkpoint::CheckpointMetadata;
use thalweg_proto::client::Begin;

const RETAINED: Setting<'static> =
    ("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION");

/// Where all jobs of a cluster have their checkpoints.
fn directory(bench: &Bench) -> PathBuf {
    bench.cluster.folder().join("checkpoints")
}

/// A job that was cancelled when its first third was done, and the checkpoint that it has left.
async fn left_behind(bench: &Bench, settings: &[Setting<'_>]) -> Result<(JobId, PathBuf)> {
    let checkpoints = directory(bench).display().to_string();
    let own = [AT_2, RETAINED, ("execution.checkpointing.dir", &checkpoints)];
    let job = bench.begun(&[&own[..], settings].concat()).await?;
    bench.cluster.client().await?.cancel(job).await?;
    bench.cluster.reaches(job, JobStatus::Canceled).await?;
    let shown = bench.cluster.describe(job).await?.checkpoints.latest.context("no checkpoint")?;
    let metadata = shown.path.trim_start_matches("file://").to_string();
    let checkpoint = Path::new(&metadata).parent().context("no directory")?.to_path_buf();
    assert!(checkpoint.starts_with(directory(bench).join(job.to_string())), "{}", checkpoint.display());
    Ok((job, checkpoint))
}

/// The files that a checkpoint consists of: its own, and those that it may share with others.
async fn files_of(checkpoint: &Path) -> Result<Vec<PathBuf>> {
    let found = CheckpointMetadata::find(&checkpoint.display().to_string(), storage::open).await?;
    let (_, metadata) = found.context("no checkpoint")?;
    let job = checkpoint.parent().context("no directory")?;
    let own = files_below(checkpoint)?.into_iter().map(|file| checkpoint.join(file));
    Ok(own.chain(metadata.shared_files().into_iter().map(|file| job.join(file))).collect())
}

/// Lets a job begin with a checkpoint, see all numbers, and write each update once.
async fn goes_on(bench: &Bench, checkpoint: &Path, settings: &[Setting<'_>], claim: bool) -> Result<JobId> {
    let checkpoints = directory(bench).display().to_string();
    let path = checkpoint.display().to_string();
    let begin = Begin::Savepoint { path: path.clone(), allow_non_restored_state: false, claim };
    let settings = [settings, &[("execution.checkpointing.dir", &checkpoints)]].concat();
    let job = bench.submit(&settings, &["--count", &NUMBERS.to_string()], begin).await?;
    bench.cluster.reaches(job, JobStatus::Finished).await?;
    let history = bench.cluster.describe(job).await?.history;
    let restored =
        |reason: &str| reason.starts_with("restored from checkpoint file://") && reason.ends_with(&path);
    assert!(history.iter().any(|change| restored(&change.reason)), "{history:#?}");
    bench.assert_exact()?;
    Ok(job)
}

#[tokio::test]
async fn a_checkpoint_of_rocksdb_goes_on_at_other_parallelisms_and_its_files_stay_untouched() -> Result<()> {
    let bench = Bench::start().await?;
    let (_, checkpoint) = left_behind(&bench, &[ROCKSDB]).await?;
    let files = files_of(&checkpoint).await?;
    assert!(files.len() > 1, "{files:?}");
    let written: Vec<_> =
        bench.files()?.into_iter().map(|file| Ok((std::fs::read(&file)?, file))).collect::<Result<_>>()?;
    for parallelism in ["2", "3", "1"] {
        goes_on(&bench, &checkpoint, &[ROCKSDB, ("parallelism.default", parallelism)], false).await?;
        assert!(files.iter().all(|file| file.is_file()), "at {parallelism}: {files:?}");
        // The checkpoint may have had output that was not visible yet: all is as it was then.
        bench.files()?.iter().try_for_each(std::fs::remove_file)?;
        written.iter().try_for_each(|(bytes, file)| std::fs::write(file, bytes))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_claimed_checkpoint_goes_when_newer_ones_replace_it() -> Result<()> {
    let bench = Bench::start().await?;
    let memory = ("state.backend.type", "hashmap");
    for (store, parallelism) in [(ROCKSDB, "4"), (memory, "3")] {
        let (_, checkpoint) = left_behind(&bench, &[store]).await?;
        let files = files_of(&checkpoint).await?;
        goes_on(&bench, &checkpoint, &[store, ("parallelism.default", parallelism)], true).await?;
        wait::until_true("the checkpoint to be deleted", || !files.iter().any(|file| file.exists())).await?;
        for file in bench.files()? {
            std::fs::remove_file(file)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_a_checkpoint_cannot_do_is_refused_and_a_savepoint_made_of_it_can() -> Result<()> {
    let bench = Bench::start().await?;
    let (job, checkpoint) = left_behind(&bench, &[ROCKSDB]).await?;
    let (path, output) = (checkpoint.display().to_string(), bench.output.display().to_string());
    let program = binary("savepoint_job")?.display().to_string();
    let count = NUMBERS.to_string();
    let submit = |path: &str, version: &str, flags: &[&str]| {
        let begin = ["submit", &program, "--from-savepoint", path, "-D", "state.backend.type=rocksdb"];
        let given = ["--", "--output", &output, "--count", &count, "--version-of-it", version];
        bench.command(&[&begin[..], flags, &given].concat())
    };
    let says = |text: &str, words: &[&str]| {
        words.iter().for_each(|word| assert!(text.contains(word), "`{word}` is missing in: {text}"));
    };
    let refused = submit(&path, "added", &[])?;
    assert!(!refused.succeeded, "{refused:?}");
    says(
        &refused.stderr,
        &["state `tally` of", "count", "sum", "only savepoints are migrated", "state write"],
    );
    let removed = submit(&path, "removed", &[])?;
    assert!(!removed.succeeded, "{removed:?}");
    says(&removed.stderr, &["count", "--allow-non-restored-state"]);

    let savepoint = bench.savepoints.join("made").display().to_string();
    let made = bench.command(&["state", "write", &savepoint, "--on", &path])?;
    assert!(made.succeeded, "{made:?}");
    let added = submit(&savepoint, "added", &[])?;
    assert!(added.succeeded, "{added:?}");
    bench.assert_exact()?;

    let allowed = submit(&path, "removed", &["--detach", "--allow-non-restored-state"])?;
    assert!(allowed.succeeded, "{allowed:?}");
    says(&allowed.stdout, &["removed, its state is dropped"]);
    std::fs::remove_dir_all(checkpoint.join("..").join("shared"))?;
    let begin = from(&path);
    let gone = bench.submit(&[ROCKSDB], &["--count", "1"], begin).await.expect_err("its files are gone");
    says(&gone.to_string(), &["cannot be restored", "is not in", &job.to_string()]);
    Ok(())
}

#[tokio::test]
async fn a_running_job_keeps_its_checkpoints() -> Result<()> {
    let bench = Bench::start().await?;
    let checkpoints = directory(&bench).display().to_string();
    let settings = [AT_2, RETAINED, ("execution.checkpointing.dir", checkpoints.as_str())];
    let rarely = [&settings[..], &[("execution.checkpointing.interval", "1 h")]].concat();
    let (_, left) = left_behind(&bench, &[]).await?;
    let path = left.display().to_string();
    let endless: &[&str] = &[];
    let begin = |claim| Begin::Savepoint { path: path.clone(), allow_non_restored_state: false, claim };
    let first = bench.submit(&rarely, endless, begin(true)).await?;
    bench.cluster.reaches(first, JobStatus::Running).await?;
    for claim in [true, false] {
        let refused = bench.submit(&settings, endless, begin(claim)).await.expect_err("it is claimed");
        assert!(refused.to_string().contains("began with"), "{refused}");
    }
    Ok(())
}
