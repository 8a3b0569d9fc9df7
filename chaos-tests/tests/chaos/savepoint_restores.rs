//! What becomes of savepoints of real jobs: restored at another parallelism, in another store and in another version, owned or not,
//! with the key groups of their state; and the last savepoint of a job that is drained. Every update is in the output exactly once.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use thalweg_chaos_tests::process::binary;
use thalweg_chaos_tests::versions::{AT_2, Bench, NUMBERS, ROCKSDB, from};
use thalweg_chaos_tests::wait;
use thalweg_common::status::JobStatus;
use thalweg_proto::client::Begin;

fn is_savepoint(path: &str) -> bool {
    Path::new(path.trim_start_matches("file://")).join("_metadata").is_file()
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
}

/// Takes a savepoint at parallelism 2 in one store, and lets each of `ways` (parallelism, store, version) go on from it.
async fn goes_on(store: &str, ways: &[(&str, &str, &str)]) -> Result<()> {
    let bench = Bench::start().await?;
    let job = bench.begun(&[("state.backend.type", store), AT_2]).await?;
    let path = bench.stop(job, &[])?;
    let before = bench.files()?;
    for (parallelism, store, version) in ways {
        let settings = [("state.backend.type", *store), ("parallelism.default", *parallelism)];
        let arguments = ["--count", &NUMBERS.to_string(), "--version-of-it", version];
        let job = bench.submit(&settings, &arguments, from(&path)).await?;
        bench.cluster.reaches(job, JobStatus::Finished).await?;
        bench.assert_exact().with_context(|| format!("at {parallelism}, in {store}, {version} version"))?;
        let ran = bench.cluster.describe(job).await?.vertices;
        let counts =
            ran.iter().find(|vertex| vertex.name.contains("count") || vertex.name.contains("process"));
        ensure!(counts.is_none_or(|vertex| vertex.parallelism.to_string() == *parallelism), "{ran:?}");
        for file in bench.files()?.difference(&before) {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_savepoint_of_rocksdb_at_2_goes_on_at_other_parallelisms_in_memory_and_in_a_newer_version()
-> Result<()> {
    let ways = [
        ("1", "rocksdb", "first"),
        ("3", "rocksdb", "first"),
        ("4", "rocksdb", "first"),
        ("8", "rocksdb", "first"),
        ("2", "hashmap", "first"),
        ("3", "rocksdb", "added"),
        ("4", "hashmap", "added"),
    ];
    goes_on("rocksdb", &ways).await
}

#[tokio::test]
async fn a_savepoint_of_the_memory_store_goes_on_in_rocksdb() -> Result<()> {
    goes_on("hashmap", &[("3", "rocksdb", "first"), ("2", "rocksdb", "added")]).await
}

#[tokio::test]
async fn acceptance_ds_41_what_does_not_fit_is_refused_and_the_running_job_goes_on_untouched() -> Result<()> {
    let bench = Bench::start().await?;
    // Without an end: however long the refusals take, it still runs.
    let job = bench.submit(&[ROCKSDB, AT_2], &[], Begin::Fresh).await?;
    bench.progress(NUMBERS / 3).await?;
    let (program, output) =
        (binary("savepoint_job")?.display().to_string(), bench.output.display().to_string());
    let (name, directory) = (job.to_string(), bench.savepoints.display().to_string());
    let upgrade = |version| {
        let flags = ["upgrade", &name, &program, "--dir", &directory];
        bench.command(&[&flags[..], &["--", "--output", &output, "--version-of-it", version]].concat())
    };
    let incompatible = upgrade("incompatible")?;
    assert!(!incompatible.succeeded, "{incompatible:?}");
    assert_says(&incompatible.stderr, &["the running job was not touched", "count", "tally"]);
    let removed = upgrade("removed")?;
    assert!(!removed.succeeded, "{removed:?}");
    assert_says(&removed.stderr, &["the running job was not touched", "count", "--allow-non-restored-state"]);
    let details = bench.cluster.describe(job).await?;
    assert_eq!((details.summary.status, details.summary.attempt), (JobStatus::Running, 1));
    assert!(bench.cluster.client().await?.savepoints(job).await?.is_empty(), "nothing was taken");

    let path = bench.stop(job, &[])?;
    bench.assert_without_gaps()?;
    let submit = |flags: &[&str]| {
        let program = ["submit", "--detach", &program, "--from-savepoint", &path];
        bench.command(
            &[&program[..], flags, &["--", "--output", &output, "--version-of-it", "removed"]].concat(),
        )
    };
    let refused = submit(&[])?;
    assert!(!refused.succeeded, "{refused:?}");
    assert_says(&refused.stderr, &["count", "--allow-non-restored-state"]);
    let allowed = submit(&["--allow-non-restored-state"])?;
    assert!(allowed.succeeded, "{allowed:?}");
    assert_says(&allowed.stdout, &["removed, its state is dropped"]);
    Ok(())
}

#[tokio::test]
async fn a_drained_job_has_emitted_all_and_its_savepoint_is_one_like_any_other() -> Result<()> {
    let bench = Bench::start().await?;
    let job = bench.begun(&[ROCKSDB, AT_2]).await?;
    let path = bench.stop(job, &["--drain"])?;
    let written = bench.assert_without_gaps()?;
    ensure!(written < NUMBERS, "{written} lines");
    let listed = bench.command(&["savepoint", "list", &job.to_string()])?;
    assert_says(&listed.stdout, &[&path, "yes"]);
    let arguments = ["--count", &NUMBERS.to_string()];
    let again = bench.submit(&[ROCKSDB, ("parallelism.default", "3")], &arguments, from(&path)).await?;
    bench.cluster.reaches(again, JobStatus::Finished).await?;
    bench.assert_exact()
}

#[tokio::test]
async fn a_claimed_savepoint_goes_with_the_checkpoints_that_replace_it_and_any_other_stays() -> Result<()> {
    for claim in [false, true] {
        let bench = Bench::start().await?;
        let job = bench.begun(&[ROCKSDB, AT_2]).await?;
        let path = bench.stop(job, &[])?;
        let begin = Begin::Savepoint { path: path.clone(), allow_non_restored_state: false, claim };
        let job = bench.submit(&[ROCKSDB, AT_2], &["--count", &NUMBERS.to_string()], begin).await?;
        let client = bench.cluster.client().await?;
        wait::until("checkpoints", async || {
            let completed = client.describe(job).await?.checkpoints.completed;
            Ok((completed >= 3).then_some(()))
        })
        .await?;
        match claim {
            true => wait::until_true("the savepoint to be deleted", || !is_savepoint(&path)).await?,
            false => assert!(is_savepoint(&path), "{path}"),
        }
        bench.cluster.reaches(job, JobStatus::Finished).await?;
        bench.assert_exact()?;
        assert_eq!(is_savepoint(&path), !claim);
    }
    Ok(())
}

#[tokio::test]
async fn a_savepoint_that_its_job_needs_is_not_disposed_of_and_is_restored_again() -> Result<()> {
    let mut bench = Bench::start().await?;
    let job = bench.begun(&[ROCKSDB, AT_2]).await?;
    let path = bench.stop(job, &[])?;
    let rarely = [ROCKSDB, AT_2, ("execution.checkpointing.interval", "1 h")];
    let restarts = [rarely.as_slice(), &[("restart-strategy.type", "exponential-delay")]].concat();
    let job = bench.submit(&restarts, &["--count", &NUMBERS.to_string()], from(&path)).await?;
    bench.cluster.reaches(job, JobStatus::Running).await?;
    let refused = bench.command(&["savepoint", "dispose", &path])?;
    assert!(!refused.succeeded && is_savepoint(&path), "{refused:?}");
    assert_says(&refused.stderr, &["would restore this savepoint", "delete it when newer checkpoints"]);
    let manager = *bench.cluster.task_managers().first().context("no task manager")?;
    let worker = bench.cluster.task_manager(manager)?.id().children()?.into_iter().next();
    worker.context("no worker")?.kill()?;
    bench.cluster.reaches(job, JobStatus::Finished).await?;
    let history = bench.cluster.describe(job).await?.history;
    let restored =
        history.iter().filter(|change| change.reason.contains(&format!("restored from savepoint {path}")));
    assert_eq!(restored.count(), 2, "{history:#?}");
    bench.assert_exact()?;
    let disposed = bench.command(&["savepoint", "dispose", &path])?;
    assert!(disposed.succeeded && !is_savepoint(&path), "{disposed:?}");
    Ok(())
}

#[tokio::test]
async fn state_keeps_its_max_parallelism_and_no_job_goes_beyond_it() -> Result<()> {
    let bench = Bench::start().await?;
    let job = bench.begun(&[ROCKSDB, AT_2, ("pipeline.max-parallelism", "6")]).await?;
    let path = bench.stop(job, &[])?;
    let arguments = ["--count", &NUMBERS.to_string()];
    let too_many = [ROCKSDB, ("parallelism.default", "7")];
    let refused = bench.submit(&too_many, &arguments, from(&path)).await.expect_err("7 of 6").to_string();
    assert_says(&refused, &["7", "6", "parallelism"]);
    let other = [ROCKSDB, ("parallelism.default", "4"), ("pipeline.max-parallelism", "128")];
    let job = bench.submit(&other, &arguments, from(&path)).await?;
    bench.cluster.reaches(job, JobStatus::Finished).await?;
    let vertices = bench.cluster.describe(job).await?.vertices;
    assert!(
        vertices.iter().any(|vertex| vertex.parallelism == 4 && vertex.max_parallelism == 6),
        "{vertices:?}"
    );
    bench.assert_exact()
}
