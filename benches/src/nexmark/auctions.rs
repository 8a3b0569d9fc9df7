//! The queries over auctions that close: Q9, the winning bid of each; Q4, the mean price at which a category sells; Q6, that of the last ten
//! auctions of a seller. Each as a job and as the plain loop that it is compared with.
//!
//! Q4 and Q6 emit a [`Change`] for each auction that is sold, so that the sum over all of them does not depend on the order in which auctions
//! with the same end close.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use thalweg::prelude::*;

use super::change::Change;
use super::generator::{Auction, Bid, Event};
use crate::tally::{Digest, Tally, TallySink, digest_of};

/// Of so many auctions Q6 wants the mean.
const LAST_AUCTIONS: usize = 10;

/// An auction, as far as the queries look at it.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
struct Terms {
    begins_ms: i64,
    expires_ms: i64,
    seller: u64,
    category: u32,
}

/// A bid, as far as the queries look at it. The greatest wins: the highest, and of those the first one.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Offer {
    price: u64,
    /// Before all others that are later.
    earliness: i64,
    bidder: u64,
}

impl Terms {
    #[inline]
    fn takes(&self, offer: Offer) -> bool {
        (self.begins_ms..=self.expires_ms).contains(&-offer.earliness)
    }
}

/// Either side of the join.
#[derive(Record, Clone, Copy, Debug)]
enum Side {
    Opens { id: u64, terms: Terms },
    Offered { auction: u64, offer: Offer },
}

impl Side {
    #[inline]
    fn of(event: Event) -> Option<Self> {
        match event {
            Event::Auction(Auction { id, date_time_ms: begins_ms, expires_ms, seller, category, .. }) => {
                Some(Self::Opens { id, terms: Terms { begins_ms, expires_ms, seller, category } })
            }
            Event::Bid(Bid { auction, bidder, price, date_time_ms, .. }) => {
                Some(Self::Offered { auction, offer: Offer { price, earliness: -date_time_ms, bidder } })
            }
            Event::Person(_) => None,
        }
    }

    #[inline]
    fn auction(&self) -> u64 {
        match self {
            Self::Opens { id, .. } => *id,
            Self::Offered { auction, .. } => *auction,
        }
    }
}

/// An auction that has closed, and its winning bid.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
struct Sold {
    auction: u64,
    terms: Terms,
    winner: Offer,
}

impl Digest for Sold {
    #[inline]
    fn digest(&self) -> u64 {
        let Self { auction, terms, winner } = self;
        let sale = digest_of([terms.expires_ms as u64, terms.seller, u64::from(terms.category)]);
        digest_of([*auction, sale, winner.price, winner.earliness as u64, winner.bidder])
    }
}

/// Waits until an auction closes.
#[derive(State, Clone, Default)]
struct Closing {
    terms: ValueState<Terms>,
    best: ValueState<Offer>,
    /// Bids that another subtask of the source has read before the auction.
    early: ValueState<Vec<Offer>>,
}

impl KeyedProcess<u64, Side> for Closing {
    type Out = Sold;

    fn on_record(&mut self, side: Side, context: &mut Context<'_, u64, Sold>) -> Result<(), Failure> {
        match side {
            Side::Opens { terms, .. } => {
                self.terms.set(context, terms);
                let early = self.early.take(context).unwrap_or_default();
                if let Some(best) = early.into_iter().filter(|offer| terms.takes(*offer)).max() {
                    self.best.set(context, best);
                }
                context.register_event_time_timer(terms.expires_ms);
            }
            Side::Offered { offer, .. } => match self.terms.get(context).copied() {
                Some(terms) if terms.takes(offer) => {
                    if self.best.get(context).is_none_or(|best| *best < offer) {
                        self.best.set(context, offer);
                    }
                }
                Some(_) => {}
                None => {
                    // Once the watermark is there the auction must have come, or has closed.
                    context.register_event_time_timer(-offer.earliness);
                    self.early.get_or_insert_with(context, Vec::new).push(offer);
                }
            },
        }
        Ok(())
    }

    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, u64, Sold>) -> Result<(), Failure> {
        let auction = *context.key();
        match self.terms.get(context).copied() {
            Some(terms) if terms.expires_ms <= at => {
                self.terms.clear(context);
                if let Some(winner) = self.best.take(context) {
                    context.emit(Sold { auction, terms, winner });
                }
            }
            Some(_) => {}
            None => self.early.clear(context),
        }
        Ok(())
    }
}

/// Auctions with their winning bids: Q9, and the first half of the others.
fn sold(events: &DataStream<Event>) -> DataStream<Sold> {
    events.flat_map(Side::of).key_by(Side::auction).process(Closing::default()).uid("closing")
}

/// The same as a loop: events come in the order of their time, and an auction before its bids.
fn plain_sold(events: impl Iterator<Item = Event>, mut close: impl FnMut(Sold)) {
    let mut open: HashMap<u64, (Terms, Option<Offer>), FixedState> = HashMap::default();
    let mut ends: BTreeMap<(i64, u64), ()> = BTreeMap::new();
    let mut close_until = |time_ms: i64,
                           open: &mut HashMap<u64, (Terms, Option<Offer>), FixedState>,
                           ends: &mut BTreeMap<(i64, u64), ()>| {
        while let Some(first) = ends.first_entry().filter(|first| first.key().0 < time_ms) {
            let (_, auction) = first.remove_entry().0;
            if let Some((terms, Some(winner))) = open.remove(&auction) {
                close(Sold { auction, terms, winner });
            }
        }
    };
    for side in events.filter_map(Side::of) {
        match side {
            Side::Opens { id, terms } => {
                close_until(terms.begins_ms, &mut open, &mut ends);
                open.insert(id, (terms, None));
                ends.insert((terms.expires_ms, id), ());
            }
            Side::Offered { auction, offer } => {
                close_until(-offer.earliness, &mut open, &mut ends);
                if let Some((terms, best)) = open.get_mut(&auction)
                    && terms.takes(offer)
                    && best.is_none_or(|best| best < offer)
                {
                    *best = Some(offer);
                }
            }
        }
    }
    close_until(i64::MAX, &mut open, &mut ends);
}

/// Q9 as a job.
pub(crate) fn winning_bids(events: &DataStream<Event>, sink: TallySink) -> StreamSink {
    sold(events).sink("winning bids", sink)
}

/// Q9 as a loop.
pub(crate) fn plain_winning_bids(events: impl Iterator<Item = Event>, tally: &mut Tally) {
    plain_sold(events, |sold| tally.add(&sold));
}

/// A sum of prices.
#[derive(Record, Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Prices {
    /// The category, or the seller.
    of: u64,
    sum: u64,
    count: u64,
}

impl Prices {
    fn and(self, price: u64) -> Self {
        Self { sum: self.sum + price, count: self.count + 1, ..self }
    }
}

/// What is reported is the mean.
impl Digest for Prices {
    #[inline]
    fn digest(&self) -> u64 {
        digest_of([self.of, self.sum / self.count.max(1)])
    }
}

/// The mean price of each category so far.
#[derive(State, Clone, Default)]
struct MeanOfCategory {
    prices: ValueState<Prices>,
}

impl KeyedProcess<u32, Sold> for MeanOfCategory {
    type Out = Change<Prices>;

    fn on_record(&mut self, sold: Sold, context: &mut Context<'_, u32, Self::Out>) -> Result<(), Failure> {
        let before = self.prices.get(context).copied();
        let after = before.unwrap_or(Prices { of: u64::from(sold.terms.category), ..Prices::default() });
        let after = after.and(sold.winner.price);
        self.prices.set(context, after);
        context.emit(Change { before, after: Some(after) });
        Ok(())
    }
}

/// Q4 as a job.
pub(crate) fn mean_of_categories(events: &DataStream<Event>, sink: TallySink) -> StreamSink {
    let means = sold(events).key_by(|sold| sold.terms.category).process(MeanOfCategory::default());
    means.uid("means").sink("means of categories", sink)
}

/// Q4 as a loop.
pub(crate) fn plain_mean_of_categories(events: impl Iterator<Item = Event>, tally: &mut Tally) {
    let mut means: HashMap<u32, Prices, FixedState> = HashMap::default();
    plain_sold(events, |sold| {
        let before = means.get(&sold.terms.category).copied();
        let after = before.unwrap_or(Prices { of: u64::from(sold.terms.category), ..Prices::default() });
        let after = after.and(sold.winner.price);
        means.insert(sold.terms.category, after);
        tally.add(&Change { before, after: Some(after) });
    });
}

/// The last auctions of a seller, those that ended last at the end: when each ended, its id, its price.
type Last = Vec<(i64, u64, u64)>;

/// Adds an auction, unless there are enough that are later.
fn add(last: &mut Last, sold: &Sold) {
    last.push((sold.terms.expires_ms, sold.auction, sold.winner.price));
    last.sort_unstable();
    if last.len() > LAST_AUCTIONS {
        last.remove(0);
    }
}

fn mean(seller: u64, last: &Last) -> Option<Prices> {
    let none = Prices { of: seller, ..Prices::default() };
    (!last.is_empty()).then(|| last.iter().fold(none, |prices, (_, _, price)| prices.and(*price)))
}

/// The mean price of the last auctions of each seller.
#[derive(State, Clone, Default)]
struct MeanOfSeller {
    last: ValueState<Last>,
}

impl KeyedProcess<u64, Sold> for MeanOfSeller {
    type Out = Change<Prices>;

    fn on_record(&mut self, sold: Sold, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        let last = self.last.get_or_insert_with(context, Vec::new);
        let before = mean(sold.terms.seller, last);
        add(last, &sold);
        let after = mean(sold.terms.seller, last);
        context.emit(Change { before, after });
        Ok(())
    }
}

/// Q6 as a job.
pub(crate) fn mean_of_sellers(events: &DataStream<Event>, sink: TallySink) -> StreamSink {
    let means = sold(events).key_by(|sold| sold.terms.seller).process(MeanOfSeller::default());
    means.uid("means").sink("means of sellers", sink)
}

/// Q6 as a loop.
pub(crate) fn plain_mean_of_sellers(events: impl Iterator<Item = Event>, tally: &mut Tally) {
    let mut sellers: HashMap<u64, Last, FixedState> = HashMap::default();
    plain_sold(events, |sold| {
        let last = sellers.entry(sold.terms.seller).or_default();
        let before = mean(sold.terms.seller, last);
        add(last, &sold);
        tally.add(&Change { before, after: mean(sold.terms.seller, last) });
    });
}
