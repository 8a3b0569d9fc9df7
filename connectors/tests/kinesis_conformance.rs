//! The Kinesis source and sink and the Firehose sink run the checks of every connector.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "kinesis/firehose.rs"]
mod firehose;
#[path = "kinesis/mod.rs"]
mod kinesis;

use std::ops::Range;
use std::time::Duration;

use thalweg_connectors::KinesisSource;
use thalweg_connectors::conformance::{SourceSubject, Trouble};
use thalweg_runtime::io::Io;

use kinesis::Peer;

/// The source over a stream of four shards.
struct Shards {
    peer: Peer,
    configured: fn(&Peer, KinesisSource<String>) -> KinesisSource<String>,
    /// The request by which records come.
    operation: &'static str,
}

impl Shards {
    fn polled() -> Self {
        Self { peer: Peer::with_stream(4), configured: Peer::configured, operation: "GetRecords" }
    }

    fn pushed() -> Self {
        Self { peer: Peer::with_stream(4), configured: Peer::pushed, operation: "SubscribeToShard" }
    }
}

impl SourceSubject for Shards {
    type Source = KinesisSource<String>;

    fn source(&self) -> KinesisSource<String> {
        let source = (self.configured)(&self.peer, KinesisSource::strings("s"));
        // Nothing is to be found while the peer is silent: a look for shards would wait for it.
        source.discovery_interval(Duration::from_secs(60))
    }

    fn number(&self, text: &String) -> u64 {
        text.parse().unwrap()
    }

    fn write(&self, numbers: Range<u64>) {
        numbers.for_each(|number| self.peer.put(number));
    }

    fn io(&self) -> Io {
        self.peer.io()
    }

    fn trouble(&self, trouble: Option<Trouble>) -> bool {
        let has_it = self.peer.trouble(trouble, self.operation, 8);
        if trouble == Some(Trouble::Failing) {
            self.peer.model.end_subscriptions();
        }
        has_it
    }

    fn connections(&self) -> Option<usize> {
        Some(self.peer.model.connections())
    }

    fn requests(&self) -> Option<usize> {
        Some(self.peer.model.requests(self.operation))
    }

    fn breathe(&self) {
        self.peer.breathe();
    }
}

/// The source that polls.
mod source {
    use super::Shards;

    thalweg_connectors::source_conformance!(Shards::polled());
}

/// The source by enhanced fan-out.
mod fan_out_source {
    use super::Shards;

    thalweg_connectors::source_conformance!(Shards::pushed());
}

/// The sink.
mod sink {
    use thalweg_connectors::KinesisSink;
    use thalweg_connectors::conformance::{Guarantee, SinkSubject, Trouble};
    use thalweg_runtime::io::Io;

    use super::kinesis::{Peer, credentials};

    struct Stream(Peer);

    impl SinkSubject for Stream {
        type In = String;
        type Sink = KinesisSink<String>;

        const GUARANTEE: Guarantee = Guarantee::AtLeastOnce;

        fn sink(&self) -> KinesisSink<String> {
            KinesisSink::strings("s").endpoint(self.0.model.endpoint()).credentials(credentials())
        }

        fn record(&self, number: u64) -> String {
            number.to_string()
        }

        fn written(&self) -> Vec<u64> {
            let shards = self.0.model.records("s").unwrap();
            let numbers =
                shards.iter().flatten().map(|record| String::from_utf8_lossy(&record.data).parse().unwrap());
            numbers.collect()
        }

        fn io(&self) -> Io {
            self.0.io()
        }

        fn trouble(&self, trouble: Option<Trouble>) -> bool {
            self.0.trouble(trouble, "PutRecords", 4)
        }

        fn connections(&self) -> Option<usize> {
            Some(self.0.model.connections())
        }

        fn breathe(&self) {
            self.0.breathe();
        }
    }

    thalweg_connectors::sink_conformance!(Stream(Peer::with_stream(4)));
}
