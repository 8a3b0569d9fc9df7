//! The job under test of `cargo xtask chaos exactly-once`: follows each key's events and writes a line for each of them.
//!
//! `exactly_once_job --events 300000 --rate 5000 --keys 40000 --output DIR`. What is known of a key is in its state alone: the
//! digest is read out of the payload, all of which must be as it was written. With `--enumerated` an enumerator finds the events.

use std::path::PathBuf;

use clap::Parser;
use thalweg::prelude::*;
use thalweg_chaos_tests::exactly_once::blocks::Blocks;
use thalweg_chaos_tests::exactly_once::events::{
    PAYLOAD_WORDS, REMEMBERED, forgets, key_of, line, next_digest, trace,
};
use thalweg_connectors::TextFileSink;

#[derive(Parser, Clone)]
#[command(name = "exactly_once_job", no_binary_name = true)]
struct Options {
    /// How many events there are.
    #[arg(long)]
    events: u64,
    /// Events a second.
    #[arg(long)]
    rate: f64,
    /// How many keys they fall into.
    #[arg(long)]
    keys: u64,
    /// Whether an enumerator finds them, a block at a time.
    #[arg(long)]
    enumerated: bool,
    /// Where the lines go.
    #[arg(long)]
    output: PathBuf,
}

#[derive(Record, Debug, Clone, Default, PartialEq)]
struct Seen {
    count: u64,
    payload: Vec<u64>,
}

impl Seen {
    fn new(count: u64, digest: u64) -> Self {
        Self { count, payload: (0..PAYLOAD_WORDS).map(|place| word(digest, place)).collect() }
    }

    /// The digest, or one that is none when a word of the payload is not as it was written.
    fn digest(&self) -> u64 {
        let Some(digest) = self.payload.first() else { return u64::MAX };
        let mut words = self.payload.iter().zip(0..PAYLOAD_WORDS);
        let is_sound = self.payload.len() as u64 == PAYLOAD_WORDS
            && words.all(|(found, place)| *found == word(*digest, place));
        if is_sound { *digest } else { u64::MAX }
    }
}

fn word(digest: u64, place: u64) -> u64 {
    if place == 0 { digest } else { next_digest(digest, place) }
}

/// Follows the events of each key.
#[derive(State, Clone, Default)]
struct Follow {
    seen: ValueState<Seen>,
    remembered: MapState<u64, u64>,
}

impl KeyedProcess<u64, u64> for Follow {
    type Out = String;

    fn on_record(&mut self, event: u64, context: &mut Context<'_, u64, String>) -> Result<(), Failure> {
        let (count, digest) = self.seen.get(context).map_or((0, 0), |seen| (seen.count, seen.digest()));
        let (count, digest) = (count + 1, next_digest(digest, event));
        let key = *context.key();
        self.seen.set(context, Seen::new(count, digest));
        if forgets(key, count) {
            self.remembered.clear(context);
        }
        self.remembered.insert(context, count, event);
        if let Some(oldest) = count.checked_sub(REMEMBERED) {
            self.remembered.remove(context, &oldest);
        }
        let traces = self.remembered.iter(context).map(|(count, event)| trace(*count, *event));
        let remembered = traces.fold(0, u64::wrapping_add);
        context.emit(line(key, count, digest, remembered));
        Ok(())
    }
}

fn main() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let options = Options::parse_from(env.args());
        let keys = options.keys;
        let events = match options.enumerated {
            true => env.source("events", Blocks::new(options.events, options.rate)),
            false => env.generate(Some(options.rate), Some(options.events), |number| number).name("events"),
        };
        events
            .uid("events")
            .key_by(move |event| key_of(*event, keys))
            .process(Follow::default())
            .name("follow")
            .uid("follow")
            .sink("lines", TextFileSink::directory(&options.output))
            .uid("lines");
        Ok(())
    })
}
