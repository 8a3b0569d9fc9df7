//! Nexmark queries submitted to a cluster of real processes come to what a plain loop over the same events comes to.

use anyhow::{Context, Result};
use thalweg_benches::nexmark::generator::Generator;
use thalweg_benches::nexmark::queries::Query;
use thalweg_benches::tally::Tally;
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::process::binary;
use thalweg_common::status::JobStatus;

const EVENTS: u64 = 30_000;

/// Three windows of ten seconds.
const GENERATOR: Generator = Generator { base_time_ms: 1_600_000_000_000, delay_ns: 1_000_000 };

#[tokio::test]
async fn queries_on_two_workers_agree_with_their_loops() -> Result<()> {
    let options = ClusterOptions { task_managers: 2, slots: 1, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await?;
    // The windows of Q12 are ten seconds of the clock; it has a test of its own, with shorter ones.
    for query in Query::ALL.into_iter().filter(|query| *query != Query::Q12) {
        let output = cluster.folder().join(query.name());
        let output_text = output.to_str().context("a folder whose name is UTF-8")?;
        let (events, delay_ns) = (EVENTS.to_string(), GENERATOR.delay_ns.to_string());
        let mut arguments = vec!["--query", query.name(), "--events", &events];
        arguments.extend(["--delay-ns", &delay_ns, "--output", output_text]);
        let configuration = [("parallelism.default", "2"), ("execution.checkpointing.interval", "100 ms")];
        let job = cluster.submit(binary("nexmark_job")?, &arguments, &configuration).await?;
        cluster.reaches(job, JobStatus::Finished).await?;
        let (found, expected) = (Tally::of_directory(&output)?, query.plain(GENERATOR, EVENTS));
        let comparable = query.comparable(2);
        assert_eq!(comparable(found), comparable(expected), "{query}");
    }
    Ok(())
}
