//! Finds the shards of the streams: lists them again and again, and at once when one has come to its end.
//!
//! Invariant: trouble while new shards are looked for does not fail a job that reads others meanwhile, unless it will not pass.

use std::sync::Arc;

use thalweg_common::clock::SharedClock;
use thalweg_common::failure::Failure;
use thalweg_runtime::io::Io;
use thalweg_runtime::split::{Discovery, Next, SplitEnumerator};
use tracing::warn;

use super::fan_out::Consumers;
use super::graph::ShardGraph;
use super::options::Options;
use super::service::Service;
use super::shard::ShardSplit;
use crate::aws::Kind;

const LIST: &str = "list the shards of";

/// Finds the shards of a [`KinesisSource`](super::KinesisSource).
#[derive(Debug)]
pub struct ShardEnumerator {
    streams: Arc<[String]>,
    options: Arc<Options>,
    service: Arc<Service>,
    graph: ShardGraph,
    /// Whether the streams have the consumers that are the enumerator's to register.
    is_prepared: bool,
    clock: SharedClock,
    io: Io,
}

impl ShardEnumerator {
    pub(super) fn new(
        streams: Arc<[String]>,
        options: Arc<Options>,
        service: Arc<Service>,
        graph: ShardGraph,
        (clock, io): (SharedClock, Io),
    ) -> Self {
        Self { streams, options, service, graph, is_prepared: false, clock, io }
    }

    /// Lets all streams have their consumers, with enhanced fan-out.
    fn prepare(&mut self) -> Result<(), Failure> {
        if let Some(fan_out) = &self.options.fan_out {
            for stream in self.streams.iter() {
                let prepared = self.io.wait_for(Consumers::prepare(&self.service, fan_out, stream))?;
                prepared.map_err(|problem| {
                    problem.failure("register a consumer with", format_args!("the stream {stream}"))
                })?;
            }
        }
        self.is_prepared = true;
        Ok(())
    }

    /// Lists all streams.
    fn list(&mut self) -> Result<(), Failure> {
        let streams = Arc::clone(&self.streams);
        for stream in streams.iter() {
            // Before it is listed, so that what arrives while it is counts as new.
            let now_ms = self.clock.now_ms();
            let asking = self.service.asking(LIST, stream);
            let listed = asking.again(self.options.listing, || self.service.shards(stream));
            match self.io.wait_for(listed)? {
                Ok(shards) => self.graph.listed(stream, shards, self.options.initial, now_ms),
                Err(problem) => {
                    let failure = problem.failure(LIST, asking.what);
                    let is_new = !self.graph.has_listed(stream);
                    if !is_new && problem.kind.may_pass() {
                        warn!(stream, "New shards will be looked for later: {failure}");
                        continue;
                    }
                    // A stream that was never there, or may not be read, will not change by trying again.
                    let will_stay = matches!(problem.kind, Kind::NotFound | Kind::Denied | Kind::Refused);
                    return Err(if is_new && will_stay { failure.permanent() } else { failure });
                }
            }
        }
        if self.graph.is_empty() {
            return Err(Failure::user(format!(
                "No shards can be found for all subscribed streams: {}; check their names, and that they are active",
                self.streams.join(", ")
            )));
        }
        Ok(())
    }
}

impl SplitEnumerator for ShardEnumerator {
    type Split = ShardSplit;
    type State = ShardGraph;

    const TRACKS_FINISHED: bool = true;
    const CLOSES: bool = true;

    fn discover(&mut self) -> Result<Discovery<ShardSplit>, Failure> {
        if !self.is_prepared {
            self.prepare()?;
        }
        self.list()?;
        Ok(Discovery { splits: self.graph.take_ready(), next: Next::After(self.options.discovery_interval) })
    }

    fn finished(&mut self, splits: &[String]) -> Result<Vec<ShardSplit>, Failure> {
        self.graph.ended(splits);
        if self.graph.has_unknown_children(splits) {
            // A shard comes to its end because it was split or merged: its records go on elsewhere.
            self.list()?;
        }
        Ok(self.graph.take_ready())
    }

    fn state(&self) -> ShardGraph {
        self.graph.clone()
    }

    fn close(&mut self) -> Result<(), Failure> {
        let Some(fan_out) = &self.options.fan_out else { return Ok(()) };
        for stream in self.streams.iter() {
            let removed = self.io.wait_for(Consumers::remove(&self.service, fan_out, stream))?;
            removed.map_err(|problem| {
                problem.failure("deregister the consumer of", format_args!("the stream {stream}"))
            })?;
        }
        Ok(())
    }
}
