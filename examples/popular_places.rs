//! Popular places: where in New York taxi rides begin and end, in the last fifteen minutes, every five minutes.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example popular_places -- --input /rides --threshold 20
//! ```
//!
//! Each file has a ride event per line: `7377,START,2013-01-01 00:20:00,1970-01-01 00:00:00,-73.98866,40.722633,...`.

use std::fmt;
use std::path::PathBuf;

use clap::Parser;
use thalweg::aggregates::Count;
use thalweg::prelude::*;
use thalweg_connectors::TextFileSource;
use thalweg_connectors::formats::timestamp::{DateTime, TimestampStandard};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Says where many taxi rides begin and end.
#[derive(Parser)]
#[command(name = "popular_places", no_binary_name = true)]
struct Options {
    /// The directory with the ride events.
    #[arg(long, value_name = "DIRECTORY")]
    input: PathBuf,
    /// How many rides make a place popular.
    #[arg(long, default_value_t = 20, value_name = "RIDES")]
    threshold: u64,
}

/// A ride begins or ends.
#[derive(Record, Clone, Debug)]
pub struct RideEvent {
    /// Whether it begins.
    pub is_start: bool,
    /// When, in milliseconds since the epoch.
    pub at: Timestamp,
    /// Where it began.
    pub from: Place,
    /// Where it ends.
    pub to: Place,
}

/// A place in degrees.
#[derive(Record, Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// East of Greenwich.
    pub longitude: f32,
    /// North of the equator.
    pub latitude: f32,
}

/// A place with many rides in a window.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Popular {
    /// The middle of its cell.
    pub place: Place,
    /// The end of the window, in milliseconds since the epoch.
    pub window_end: Timestamp,
    /// Whether the rides begin there.
    pub is_start: bool,
    /// How many.
    pub rides: u64,
}

impl fmt::Display for Popular {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { longitude, latitude } = self.place;
        write!(f, "({longitude},{latitude},{},{},{})", self.window_end, self.is_start, self.rides)
    }
}

/// The grid over New York: its western and northern edge, and the size of a cell.
const WEST: f64 = -74.05;
const NORTH: f64 = 41.0;
const CELL_LONGITUDE: f64 = 0.0014;
const CELL_LATITUDE: f64 = 0.00125;
const CELLS_IN_A_ROW: u32 = 250;

impl Place {
    /// Whether it is in New York.
    pub fn is_in_nyc(self) -> bool {
        let (longitude, latitude) = (f64::from(self.longitude), f64::from(self.latitude));
        (WEST..=-73.7).contains(&longitude) && (40.5..=NORTH).contains(&latitude)
    }

    /// The cell of the grid that it is in.
    pub fn cell(self) -> u32 {
        let column = ((WEST.abs() - f64::from(self.longitude).abs()) / CELL_LONGITUDE).floor() as u32;
        let row = ((NORTH - f64::from(self.latitude)) / CELL_LATITUDE).floor() as u32;
        column + row * CELLS_IN_A_ROW
    }

    /// The middle of a cell.
    pub fn middle_of(cell: u32) -> Self {
        let (column, row) = (f64::from(cell % CELLS_IN_A_ROW), f64::from(cell / CELLS_IN_A_ROW));
        let longitude = -(WEST.abs() - column * CELL_LONGITUDE - CELL_LONGITUDE / 2.0);
        let latitude = NORTH - row * CELL_LATITUDE - CELL_LATITUDE / 2.0;
        Self { longitude: longitude as f32, latitude: latitude as f32 }
    }
}

impl RideEvent {
    /// Reads a line.
    ///
    /// # Errors
    /// If a field is missing or no number or time.
    pub fn parse(line: &str) -> Result<Self, Failure> {
        let fields: Vec<&str> = line.split(',').collect();
        let [_, kind, start, end, from_longitude, from_latitude, to_longitude, to_latitude, ..] = fields[..]
        else {
            return Err(Failure::user(format!("`{line}` has too few fields for a ride event")));
        };
        let place = |longitude: &str, latitude: &str| -> Result<Place, Failure> {
            let degrees =
                |text: &str| text.parse().or_failure(format_args!("`{text}` in `{line}` is no number"));
            Ok(Place { longitude: degrees(longitude)?, latitude: degrees(latitude)? })
        };
        let is_start = kind == "START";
        let time = if is_start { start } else { end };
        let at = DateTime::parse(time, TimestampStandard::Sql)
            .or_failure(format_args!("`{time}` in `{line}` is no time"))?
            .epoch_ms();
        Ok(Self {
            is_start,
            at,
            from: place(from_longitude, from_latitude)?,
            to: place(to_longitude, to_latitude)?,
        })
    }
}

/// Places where at least `threshold` rides have begun, or ended, within fifteen minutes; every five minutes.
pub fn popular_places(lines: &DataStream<String>, threshold: u64) -> DataStream<Popular> {
    lines
        .try_map(|line| RideEvent::parse(&line))
        .watermarks(bounded_out_of_orderness(secs(60)).timestamps(|ride: &RideEvent| ride.at))
        .filter(|ride| ride.from.is_in_nyc() && ride.to.is_in_nyc())
        .map(|ride| (if ride.is_start { ride.from } else { ride.to }.cell(), ride.is_start))
        .key_by(|place| *place)
        .window(sliding(minutes(15), minutes(5)))
        .aggregate_with(Count, move |(cell, is_start), window, rides| {
            let popular = Popular {
                place: Place::middle_of(*cell),
                window_end: window.end,
                is_start: *is_start,
                rides,
            };
            (rides >= threshold).then_some(popular)
        })
        .uid("popular-places")
}

fn main() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let options = Options::parse_from(env.args());
        let lines = env.source("rides", TextFileSource::lines(&options.input)).uid("rides");
        popular_places(&lines, options.threshold).print();
        Ok(())
    })
}
