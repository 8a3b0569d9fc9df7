//! Copies a stream of Kinesis, record by record, to another one, or to a delivery stream of Firehose.
//!
//! ```text
//! cargo run --release -p thalweg-examples-aws --example kinesis_copy -- --properties application_properties.json
//! ```
//!
//! The file has the groups `ConsumerConfigProperties` and `ProducerConfigProperties`, with keys of Flink's Kinesis connectors such as
//! `aws.region`, and the name of each stream as `stream.name`. With `delivery.stream` in place of `stream.name` the copy goes to Firehose.

use thalweg::prelude::*;
use thalweg_connectors::{FirehoseSink, KinesisSink, KinesisSource};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole job.
pub fn topology(env: &mut Environment) -> thalweg::Result<()> {
    let mut consumer = env.properties("ConsumerConfigProperties");
    let mut producer = env.properties("ProducerConfigProperties");
    let input = consumer.remove("stream.name").unwrap_or_else(|| "ExampleInputStream".to_string());
    env.enable_checkpointing(secs(10));

    let records = env.source("input", KinesisSource::strings(input).with_properties(consumer)?).uid("input");
    if let Some(stream) = producer.remove("delivery.stream") {
        records.sink("output", FirehoseSink::strings(stream).with_properties(producer)?).uid("output");
    } else {
        let stream = producer.remove("stream.name").unwrap_or_else(|| "ExampleOutputStream".to_string());
        // The partition key is the decimal number that Java's `String.hashCode` gives.
        records.sink("output", KinesisSink::strings(stream).with_properties(producer)?).uid("output");
    }
    Ok(())
}

fn main() -> thalweg::Result<()> {
    thalweg::run(topology)
}
