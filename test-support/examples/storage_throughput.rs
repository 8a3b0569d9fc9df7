//! Throughput of the storages with one object of 64 MiB: `cargo run --release -p thalweg-test-support --example
//! storage_throughput -- [DIRECTORY]`. S3 is the peer of the tests, so its figures are that program's at least as much as ours.

use std::path::PathBuf;

use anyhow::Result;
use thalweg_common::clock::{SharedClock, Stopwatch, SystemClock};
use thalweg_common::storage::{Storage, StorageFactory};
use thalweg_test_support::S3Peer;

const BYTES: usize = 64 << 20;
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory)?;
    let clock: SharedClock = SystemClock::shared();
    let peer = S3Peer::start().await?;
    peer.create_bucket("throughput").await?;
    let factory = StorageFactory::new(peer.settings());
    let in_directory = directory.path().join("objects").display().to_string();
    for uri in [in_directory.as_str(), "s3://throughput/objects"] {
        measure(&*factory.open(uri)?, directory.path(), &clock).await?;
    }
    Ok(())
}

async fn measure(storage: &dyn Storage, local: &std::path::Path, clock: &SharedClock) -> Result<()> {
    let object: Vec<u8> =
        (0..BYTES as u64 / 8).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect();
    let object = bytes::Bytes::from(object);
    let (source, back) = (local.join("source"), local.join("back"));
    let mut best = [0.0_f64; 4];
    for round in 0..ROUNDS {
        // A new file each time: what was uploaded before may be a link to it.
        let source = source.with_extension(round.to_string());
        std::fs::write(&source, &object)?;
        std::fs::File::open(&source)?.sync_all()?;
        let mut faster = |which: usize, stopwatch: &Stopwatch| {
            let rate = BYTES as f64 / 1e6 / stopwatch.elapsed().as_secs_f64();
            if let Some(best) = best.get_mut(which) {
                *best = best.max(rate);
            }
        };
        let stopwatch = Stopwatch::start(clock);
        storage.put("put", object.clone()).await?;
        faster(0, &stopwatch);
        let stopwatch = Stopwatch::start(clock);
        anyhow::ensure!(storage.get("put").await? == object, "another object came back");
        faster(1, &stopwatch);
        let stopwatch = Stopwatch::start(clock);
        let uploaded = storage.upload_file(&source, "file", None).await?;
        faster(2, &stopwatch);
        let stopwatch = Stopwatch::start(clock);
        storage.download_file("file", &back, Some(uploaded)).await?;
        faster(3, &stopwatch);
        std::fs::remove_file(&source)?;
    }
    let [put, get, upload, download] = best;
    println!(
        "{}: MB/s, best of {ROUNDS}: put {put:.0}, get {get:.0}, upload_file {upload:.0}, download_file {download:.0}",
        storage.uri()
    );
    Ok(())
}
