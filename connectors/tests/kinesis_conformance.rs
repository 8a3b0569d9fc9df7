//! The Kinesis source and sink and the Firehose sink run the checks of every connector.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "kinesis/firehose.rs"]
mod firehose;
#[path = "kinesis/mod.rs"]
mod kinesis;

/// The source.
mod source {
    use std::ops::Range;
    use std::time::Duration;

    use thalweg_connectors::KinesisSource;
    use thalweg_connectors::conformance::{SourceSubject, Trouble};
    use thalweg_runtime::io::Io;

    use super::kinesis::Peer;

    struct Shards(Peer);

    impl SourceSubject for Shards {
        type Source = KinesisSource<String>;

        fn source(&self) -> KinesisSource<String> {
            // Nothing is to be found while the peer is silent: a look for shards would wait for it.
            self.0.configured(KinesisSource::strings("s")).discovery_interval(Duration::from_secs(60))
        }

        fn number(&self, text: &String) -> u64 {
            text.parse().unwrap()
        }

        fn write(&self, numbers: Range<u64>) {
            numbers.for_each(|number| self.0.put(number));
        }

        fn io(&self) -> Io {
            self.0.io()
        }

        fn trouble(&self, trouble: Option<Trouble>) -> bool {
            self.0.trouble(trouble, "GetRecords", 8)
        }

        fn connections(&self) -> Option<usize> {
            Some(self.0.model.connections())
        }

        fn requests(&self) -> Option<usize> {
            Some(self.0.model.requests("GetRecords"))
        }

        fn breathe(&self) {
            self.0.breathe();
        }
    }

    thalweg_connectors::source_conformance!(Shards(Peer::with_stream(4)));
}

/// The source by enhanced fan-out.
mod fan_out_source {
    use std::ops::Range;
    use std::time::Duration;

    use thalweg_connectors::KinesisSource;
    use thalweg_connectors::conformance::{SourceSubject, Trouble};
    use thalweg_runtime::io::Io;

    use super::kinesis::Peer;

    struct Pushed(Peer);

    impl SourceSubject for Pushed {
        type Source = KinesisSource<String>;

        fn source(&self) -> KinesisSource<String> {
            self.0.pushed(KinesisSource::strings("s")).discovery_interval(Duration::from_secs(60))
        }

        fn number(&self, text: &String) -> u64 {
            text.parse().unwrap()
        }

        fn write(&self, numbers: Range<u64>) {
            numbers.for_each(|number| self.0.put(number));
        }

        fn io(&self) -> Io {
            self.0.io()
        }

        fn trouble(&self, trouble: Option<Trouble>) -> bool {
            let has_it = self.0.trouble(trouble, "SubscribeToShard", 8);
            if trouble == Some(Trouble::Failing) {
                self.0.model.end_subscriptions();
            }
            has_it
        }

        fn connections(&self) -> Option<usize> {
            Some(self.0.model.connections())
        }

        fn requests(&self) -> Option<usize> {
            Some(self.0.model.requests("SubscribeToShard"))
        }

        fn breathe(&self) {
            self.0.breathe();
        }
    }

    thalweg_connectors::source_conformance!(Pushed(Peer::with_stream(4)));
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
