//! Text files run the checks of every connector.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use thalweg_connectors::conformance::{Guarantee, SinkSubject, SourceSubject};
use thalweg_connectors::{TextFileSink, TextFileSource};

/// A directory that is watched.
struct Watched(TempDir);

impl SourceSubject for Watched {
    type Source = TextFileSource;

    fn source(&self) -> TextFileSource {
        TextFileSource::lines(self.0.path()).split_bytes(64).watching(Duration::from_millis(1))
    }

    fn number(&self, line: &String) -> u64 {
        line.parse().unwrap()
    }

    fn write(&self, numbers: Range<u64>) {
        let (hidden, name) = (format!(".{:09}", numbers.start), format!("{:09}", numbers.start));
        let lines: String = numbers.map(|number| format!("{number}\n")).collect();
        fs::write(self.0.path().join(&hidden), lines).unwrap();
        fs::rename(self.0.path().join(hidden), self.0.path().join(name)).unwrap();
    }
}

thalweg_connectors::source_conformance!(Watched(tempfile::tempdir().unwrap()));

/// A directory that is written.
struct Parts(TempDir);

impl SinkSubject for Parts {
    type In = String;
    type Sink = TextFileSink;

    const GUARANTEE: Guarantee = Guarantee::ExactlyOnce;

    fn sink(&self) -> TextFileSink {
        TextFileSink::directory(self.0.path())
    }

    fn record(&self, number: u64) -> String {
        number.to_string()
    }

    fn written(&self) -> Vec<u64> {
        let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().path());
        let is_visible =
            |path: &Path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'));
        let texts = names.filter(|path| is_visible(path)).map(|path| fs::read_to_string(path).unwrap());
        texts.flat_map(|text| text.lines().map(|line| line.parse().unwrap()).collect::<Vec<u64>>()).collect()
    }
}

thalweg_connectors::sink_conformance!(Parts(tempfile::tempdir().unwrap()));
