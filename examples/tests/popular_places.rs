//! The job `popular_places` on the seventeen rides of the example: all 51 results.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../popular_places.rs"]
#[allow(dead_code)]
mod job;

use job::{Place, Popular, RideEvent, popular_places};
use thalweg::prelude::*;
use thalweg::testing::{JobHarness, JobSetup, LocalCluster, scripted};

/// Each line with its cell and the middle of that.
const RIDES: [(&str, u32, f32, f32); 17] = [
    (
        "7377,START,2013-01-01 00:20:00,1970-01-01 00:00:00,-73.98866,40.722633,-73.99004,40.729404,1,2013006135,2013006131",
        55293,
        -73.9891,
        40.723125,
    ),
    (
        "7112,START,2013-01-01 00:19:34,1970-01-01 00:00:00,-73.99086,40.724506,-73.95045,40.78016,1,2013005988,2013005984",
        55042,
        -73.9905,
        40.724377,
    ),
    (
        "7382,START,2013-01-01 00:20:00,1970-01-01 00:00:00,-73.96592,40.758488,-73.92247,40.70634,3,2013006138,2013006134",
        48310,
        -73.9653,
        40.758125,
    ),
    (
        "7566,START,2013-01-01 00:20:22,1970-01-01 00:00:00,-73.98985,40.72957,-73.992516,40.742844,1,2013006236,2013006232",
        54042,
        -73.9905,
        40.729374,
    ),
    (
        "2764,END,2013-01-01 00:10:16,2013-01-01 00:20:15,-73.96024,40.715557,-73.93652,40.697453,2,2013002688,2013002685",
        60581,
        -73.9359,
        40.696877,
    ),
    (
        "5474,END,2013-01-01 00:16:03,2013-01-01 00:20:03,-73.999054,40.728065,-73.997696,40.72175,1,2013004933,2013004930",
        55537,
        -73.9975,
        40.721874,
    ),
    (
        "7330,START,2013-01-01 00:20:00,1970-01-01 00:00:00,-73.98836,40.734596,-73.91704,40.769817,1,2013003700,2013003696",
        53044,
        -73.9877,
        40.734375,
    ),
    (
        "4542,END,2013-01-01 00:14:08,2013-01-01 00:20:08,-73.99749,40.72578,-74.00683,40.71985,1,2013004224,2013004221",
        56030,
        -74.0073,
        40.719376,
    ),
    (
        "7124,START,2013-01-01 00:19:36,1970-01-01 00:00:00,-73.95722,40.774555,-73.95821,40.769627,2,2013005997,2013005993",
        45066,
        -73.9569,
        40.774376,
    ),
    (
        "4447,END,2013-01-01 00:14:00,2013-01-01 00:20:00,-74.00887,40.71089,-74.001335,40.729256,5,2013000636,2013000633",
        54034,
        -74.0017,
        40.729374,
    ),
    (
        "5636,END,2013-01-01 00:16:43,2013-01-01 00:19:47,-73.992676,40.724342,-73.989426,40.718742,2,2013005046,2013005043",
        56293,
        -73.9891,
        40.718124,
    ),
    (
        "3856,END,2013-01-01 00:13:00,2013-01-01 00:20:00,-73.957085,40.766354,-73.9687,40.75467,6,2013002456,2013002453",
        49058,
        -73.9681,
        40.754375,
    ),
    (
        "7185,START,2013-01-01 00:19:52,1970-01-01 00:00:00,-73.97753,40.725983,-73.989334,40.74764,2,2013003123,2013003120",
        54801,
        -73.9779,
        40.725624,
    ),
    (
        "4182,END,2013-01-01 00:13:32,2013-01-01 00:19:29,-73.99107,40.73968,-73.975815,40.73316,1,2013001366,2013001363",
        53302,
        -73.9765,
        40.733124,
    ),
    (
        "7183,START,2013-01-01 00:19:52,1970-01-01 00:00:00,-73.980675,40.733932,-73.991714,40.749027,3,2013006033,2013006029",
        53049,
        -73.9807,
        40.734375,
    ),
    (
        "7512,START,2013-01-01 00:20:08,1970-01-01 00:00:00,-73.97719,40.745293,-73.95612,40.771873,1,2013000228,2013000228",
        50802,
        -73.9765,
        40.745625,
    ),
    (
        "7424,START,2013-01-01 00:20:00,1970-01-01 00:00:00,-73.952,40.7161,-73.992325,40.696938,1,2013006163,2013006159",
        56819,
        -73.9527,
        40.715626,
    ),
];

/// 2013-01-01 00:00 UTC.
const MIDNIGHT: Timestamp = 1_356_998_400_000;
const MINUTE: Timestamp = 60_000;

/// The first of the rides, and the same with its beginning, or its end, in Boston.
#[test]
fn acceptance_ds_21_only_rides_with_both_ends_in_the_city_are_kept() {
    let inside = RIDES[0].0;
    let [from, to] =
        ["-73.98866,40.722633", "-73.99004,40.729404"].map(|place| inside.replace(place, "-71.06,42.36"));
    assert!(from != inside && to != inside);
    let topology = |env: &mut Environment| {
        popular_places(&env.source("rides", scripted::<String>()), 1).print().name("popular");
        Ok(())
    };
    let mut job = JobHarness::open(topology, JobSetup::default()).unwrap();
    job.feed("rides", [from, inside.to_string(), to]).unwrap();
    job.end_input().unwrap();
    let found = job.output::<Popular>("popular").unwrap();
    let place = Place::middle_of(RIDES[0].1);
    let window = |end| Popular { place, window_end: MIDNIGHT + end * MINUTE, is_start: true, rides: 1 };
    assert_eq!(found, [window(25), window(30), window(35)]);
}

#[test]
fn acceptance_ds_22_lines_are_in_their_cells() {
    for (line, cell, longitude, latitude) in RIDES {
        let ride = RideEvent::parse(line).unwrap();
        assert!(ride.from.is_in_nyc() && ride.to.is_in_nyc(), "{line}");
        let place = if ride.is_start { ride.from } else { ride.to };
        assert_eq!(place.cell(), cell, "{line}");
        let Place { longitude: found_longitude, latitude: found_latitude } = Place::middle_of(cell);
        // Four decimals of the longitude are given, and six of the latitude.
        assert!((found_longitude - longitude).abs() < 0.00006, "{line}: {found_longitude}");
        assert!((found_latitude - latitude).abs() < 0.000002, "{line}: {found_latitude}");
    }
    assert!(RideEvent::parse("1,START,2013-01-01").unwrap_err().message.contains("too few fields"));
}

#[test]
fn acceptance_ds_22_popular_places() {
    for parallelism in [1, 2] {
        let cluster = LocalCluster::new().configure("parallelism.default", parallelism);
        let collected = cluster
            .run(|env| {
                let lines = env.from_iter(RIDES.map(|(line, ..)| line.to_string()));
                Ok(popular_places(&lines, 1).collect())
            })
            .unwrap();
        let mut expected = Vec::new();
        for (line, cell, ..) in RIDES {
            let ride = RideEvent::parse(line).unwrap();
            let window = |end: Timestamp| MIDNIGHT + end * MINUTE;
            let ends = [20, 25, 30, 35].map(window).into_iter();
            for window_end in ends.filter(|end| end - 15 * MINUTE <= ride.at && ride.at < *end) {
                let place = Place::middle_of(cell);
                expected.push(Popular { place, window_end, is_start: ride.is_start, rides: 1 });
            }
        }
        let per_window = [20, 25, 30, 35].map(|end| {
            expected.iter().filter(|popular| popular.window_end == MIDNIGHT + end * MINUTE).count()
        });
        assert_eq!(per_window, [6, 17, 17, 11]);
        let mut found: Vec<String> = collected.take().iter().map(ToString::to_string).collect();
        let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        found.sort();
        expected.sort();
        assert_eq!(found.len(), 51);
        assert_eq!(found, expected);
    }
}

#[test]
fn acceptance_ds_22_output_reads_as_in_the_lab() {
    let popular =
        Popular { place: Place::middle_of(56_293), window_end: 1_357_000_200_000, is_start: true, rides: 21 };
    assert_eq!(popular.to_string(), "(-73.9891,40.718124,1357000200000,true,21)");
}
