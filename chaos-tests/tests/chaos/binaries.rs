//! Binaries that the cluster must refuse, each with the reason.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};

fn executable(path: &Path, bytes: &[u8]) -> Result<PathBuf> {
    fs::write(path, bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(path.to_path_buf())
}

#[tokio::test]
async fn what_is_no_job_is_refused_with_the_reason() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { task_managers: 0, ..ClusterOptions::default() }).await?;
    let job = fs::read(env!("CARGO_BIN_EXE_chaos_job"))?;
    let mut foreign = job.clone();
    // e_machine: AArch64.
    foreign.get_mut(18..20).context("an ELF header")?.copy_from_slice(&183u16.to_le_bytes());
    let half = job.get(..job.len() / 2).context("half of the job")?;
    let cases = [
        ("truncated", executable(&cluster.folder().join("truncated"), half)?, "truncated"),
        ("script", executable(&cluster.folder().join("script"), b"#!/bin/sh\necho hello\n")?, "script"),
        (
            "rubbish",
            executable(&cluster.folder().join("rubbish"), b"just some bytes")?,
            "not a Linux executable",
        ),
        ("foreign", executable(&cluster.folder().join("foreign"), &foreign)?, "aarch64"),
        ("no plan", PathBuf::from("/bin/true"), "plan"),
        ("rubbish plan", PathBuf::from(env!("CARGO_BIN_EXE_rubbish_plan")), "plan"),
    ];
    for (name, binary, reason) in cases {
        let refused = cluster.submit(binary, &[], &[]).await;
        let message = format!("{:#}", refused.err().with_context(|| format!("{name} was accepted"))?);
        assert!(message.to_lowercase().contains(&reason.to_lowercase()), "{name}: {message}");
    }
    assert!(cluster.client().await?.list().await?.is_empty(), "a refused binary made a job");
    Ok(())
}
