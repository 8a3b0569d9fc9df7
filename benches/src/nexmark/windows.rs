//! The queries over windows of bids, each as a job and as the plain loop that it is compared with: Q5, the auction with most bids in the
//! last ten seconds, every two; Q7, the highest bid of every ten seconds; Q11, how many bids each bidder makes before a pause of ten.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use thalweg::aggregates::Count;
use thalweg::prelude::*;

use super::generator::Bid;
use crate::tally::{Digest, Tally, TallySink, digest_of};

/// How long the windows of Q5 and Q7 are, and the pause that ends those of Q11.
const SIZE: Duration = Duration::from_secs(10);

/// From one window of Q5 to the next.
const SLIDE: Duration = Duration::from_secs(2);

const SIZE_MS: i64 = SIZE.as_millis() as i64;
const SLIDE_MS: i64 = SLIDE.as_millis() as i64;
/// How many slides a window of Q5 covers.
const SLICES: i64 = SIZE_MS / SLIDE_MS;

/// How many bids something has in a window: of Q5 an auction, of Q11 a bidder.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
struct Bids {
    id: u64,
    window_end_ms: i64,
    count: u64,
}

impl Digest for Bids {
    #[inline]
    fn digest(&self) -> u64 {
        digest_of([self.id, self.window_end_ms as u64, self.count])
    }
}

/// The one with more bids; of equals the older auction.
#[inline]
fn hotter(one: Bids, other: Bids) -> Bids {
    if (other.count, one.id) > (one.count, other.id) { other } else { one }
}

/// What Q7 wants of a bid.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
struct Offer {
    auction: u64,
    bidder: u64,
    price: u64,
    date_time_ms: i64,
}

impl Offer {
    #[inline]
    fn of(bid: Bid) -> Self {
        let Bid { auction, bidder, price, date_time_ms, .. } = bid;
        Self { auction, bidder, price, date_time_ms }
    }

    /// The higher one; of equals the one that is less in everything else, whichever came first.
    #[inline]
    fn or(self, other: Self) -> Self {
        let rest = |offer: Self| (offer.date_time_ms, offer.auction, offer.bidder);
        if (other.price, rest(self)) > (self.price, rest(other)) { other } else { self }
    }
}

impl Digest for Offer {
    #[inline]
    fn digest(&self) -> u64 {
        digest_of([self.auction, self.bidder, self.price, self.date_time_ms as u64])
    }
}

/// Q5 as a job.
pub(crate) fn hot_items(bids: &DataStream<Bid>, sink: TallySink) -> StreamSink {
    let counts = bids
        .map(|bid| bid.auction)
        .key_by(|auction| *auction)
        .window(sliding(SIZE, SLIDE))
        .aggregate_with(Count, |auction, window, count| {
            [Bids { id: *auction, window_end_ms: window.end, count }]
        })
        .uid("bids of auctions");
    // The counts of a window have its last millisecond as timestamp, so that each is in one window of this size.
    let hottest = counts.key_by(|bids| bids.window_end_ms).window(tumbling(SLIDE)).reduce(hotter);
    hottest.uid("hottest").sink("hot items", sink)
}

/// Bids of auctions.
type Counts = HashMap<u64, u64, FixedState>;

/// Q5 as a loop: events come in the order of their time.
pub(crate) fn plain_hot_items(bids: impl Iterator<Item = Bid>, tally: &mut Tally) {
    let mut slices: BTreeMap<i64, Counts> = BTreeMap::new();
    let mut next_end = None;
    let mut fire = |slices: &mut BTreeMap<i64, Counts>, end: i64| {
        let mut counts = Counts::default();
        let covered = slices.range(end - SLICES..end).flat_map(|(_, slice)| slice);
        covered.for_each(|(auction, count)| *counts.entry(*auction).or_default() += count);
        let window_end_ms = end * SLIDE_MS;
        let all = counts.into_iter().map(|(id, count)| Bids { id, window_end_ms, count });
        all.reduce(hotter).iter().for_each(|hottest| tally.add(hottest));
        slices.remove(&(end - SLICES));
    };
    for bid in bids {
        let slice = bid.date_time_ms.div_euclid(SLIDE_MS);
        let next = next_end.get_or_insert(slice + 1);
        while *next <= slice {
            fire(&mut slices, *next);
            *next += 1;
        }
        *slices.entry(slice).or_default().entry(bid.auction).or_default() += 1;
    }
    let next = next_end.unwrap_or_default();
    (next..next + SLICES).for_each(|end| fire(&mut slices, end));
}

/// Q7 as a job.
pub(crate) fn highest_bids(bids: &DataStream<Bid>, sink: TallySink) -> StreamSink {
    let highest = bids.map(Offer::of).window_all(tumbling(SIZE)).reduce(Offer::or);
    highest.uid("highest").sink("highest bids", sink)
}

/// Q7 as a loop.
pub(crate) fn plain_highest_bids(bids: impl Iterator<Item = Bid>, tally: &mut Tally) {
    let mut highest: Option<Offer> = None;
    let window = |offer: &Offer| offer.date_time_ms.div_euclid(SIZE_MS);
    for offer in bids.map(Offer::of) {
        highest = match highest {
            Some(highest) if window(&highest) == window(&offer) => Some(highest.or(offer)),
            Some(highest) => {
                tally.add(&highest);
                Some(offer)
            }
            None => Some(offer),
        };
    }
    highest.iter().for_each(|highest| tally.add(highest));
}

/// Q11 as a job.
pub(crate) fn sessions(bids: &DataStream<Bid>, sink: TallySink) -> StreamSink {
    let sessions = bids.map(|bid| bid.bidder).key_by(|bidder| *bidder).window(session(SIZE));
    let counts = sessions.aggregate_with(Count, |bidder, window, count| {
        [Bids { id: *bidder, window_end_ms: window.end, count }]
    });
    counts.uid("sessions").sink("bids of sessions", sink)
}

/// Q11 as a loop.
pub(crate) fn plain_sessions(bids: impl Iterator<Item = Bid>, tally: &mut Tally) {
    let mut open: HashMap<u64, Bids, FixedState> = HashMap::default();
    for bid in bids {
        let window_end_ms = bid.date_time_ms + SIZE_MS;
        let fresh = Bids { id: bid.bidder, window_end_ms, count: 0 };
        let session = open.entry(bid.bidder).or_insert(fresh);
        // Sessions that touch are one.
        if bid.date_time_ms > session.window_end_ms {
            tally.add(session);
            *session = fresh;
        }
        session.window_end_ms = window_end_ms;
        session.count += 1;
    }
    open.values().for_each(|session| tally.add(session));
}
