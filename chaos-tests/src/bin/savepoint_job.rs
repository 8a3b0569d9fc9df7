//! A job in several versions, to go from one to another with savepoints: counts numbers by key and writes every update to files.
//!
//! `savepoint_job --version-of-it added --rate 1000 --output DIR`

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use thalweg::prelude::*;
use thalweg_connectors::{TextFileSink, TextFileSource};

#[derive(Parser, Clone)]
#[command(name = "savepoint_job", no_binary_name = true)]
struct Options {
    /// How many numbers; endless when absent.
    #[arg(long)]
    count: Option<u64>,
    /// Numbers a second over all subtasks; as fast as possible when absent.
    #[arg(long)]
    rate: Option<f64>,
    /// A directory with files of numbers, in place of `count` and `rate`; files that appear later are read too.
    #[arg(long)]
    input: Option<PathBuf>,
    /// How many keys the numbers fall into.
    #[arg(long, default_value_t = 97)]
    keys: u64,
    /// Where the updates go.
    #[arg(long)]
    output: PathBuf,
    /// Which version.
    #[arg(long, value_enum, default_value_t = Version::First)]
    version_of_it: Version,
    /// The version comes up and fails at its first record.
    #[arg(long)]
    fails: bool,
}

#[derive(ValueEnum, Clone, Copy, PartialEq)]
enum Version {
    /// Counts.
    First,
    /// With a field more in the state, and an operator more.
    Added,
    /// Without the operator that counts.
    Removed,
    /// The count is a text.
    Incompatible,
}

#[derive(Record, Debug, Clone, Default, PartialEq)]
struct Tally {
    count: u64,
}

#[derive(Record, Debug, Clone, Default, PartialEq)]
struct TallyWithSum {
    count: u64,
    #[record(default)]
    sum: u64,
}

#[derive(Record, Debug, Clone, Default, PartialEq)]
struct TallyAsText {
    count: String,
}

#[derive(State, Clone, Default)]
struct CountFirst {
    tally: ValueState<Tally>,
}

#[derive(State, Clone, Default)]
struct CountAdded {
    tally: ValueState<TallyWithSum>,
}

#[derive(State, Clone, Default)]
struct CountAsText {
    tally: ValueState<TallyAsText>,
}

impl KeyedProcess<u64, u64> for CountFirst {
    type Out = (u64, u64);

    fn on_record(&mut self, _: u64, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        let count = self.tally.get(context).map_or(0, |tally| tally.count) + 1;
        self.tally.set(context, Tally { count });
        context.emit((*context.key(), count));
        Ok(())
    }
}

impl KeyedProcess<u64, u64> for CountAdded {
    type Out = (u64, u64);

    fn on_record(&mut self, number: u64, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        let mut tally = self.tally.get(context).cloned().unwrap_or_default();
        tally.count += 1;
        tally.sum += number;
        let count = tally.count;
        self.tally.set(context, tally);
        context.emit((*context.key(), count));
        Ok(())
    }
}

impl KeyedProcess<u64, u64> for CountAsText {
    type Out = (u64, u64);

    fn on_record(&mut self, number: u64, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        self.tally.set(context, TallyAsText { count: number.to_string() });
        context.emit((*context.key(), number));
        Ok(())
    }
}

fn main() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let options = Options::parse_from(env.args());
        let (keys, fails) = (options.keys, options.fails);
        let numbers = match &options.input {
            Some(input) => env
                .source("numbers", TextFileSource::lines(input).split_bytes(100).watching(millis(50)))
                .uid("numbers")
                .try_map(|line: String| {
                    line.parse::<u64>().or_failure(format_args!("`{line}` is no number"))
                }),
            None => env.generate(options.rate, options.count, |number| number).name("numbers").uid("numbers"),
        };
        let numbers = numbers.try_map(move |number| match fails {
            true => Err(Failure::user("this version fails as told")),
            false => Ok(number),
        });
        let by_key = numbers.key_by(move |number| number % keys);
        let counted = match options.version_of_it {
            Version::First => by_key.process(CountFirst::default()).uid("count"),
            Version::Added => by_key.process(CountAdded::default()).uid("count"),
            Version::Incompatible => by_key.process(CountAsText::default()).uid("count"),
            Version::Removed => numbers.map(move |number| (number % keys, number)),
        };
        if options.version_of_it == Version::Added {
            counted.key_by(|(key, _)| *key).count().uid("updates of each key").map(|_| 0_u8).print();
        }
        counted
            .map(|(key, count)| format!("{key} {count}"))
            .sink("updates", TextFileSink::directory(&options.output))
            .uid("updates");
        Ok(())
    })
}
