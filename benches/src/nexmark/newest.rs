//! The queries over what is newest or highest: Q18, the last bid of each bidder for each auction; Q19, the ten highest bids for each auction.
//! Each as a job and as the plain loop that it is compared with.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use thalweg::prelude::*;

use super::change::Change;
use super::generator::Bid;
use crate::tally::{Tally, TallySink};

/// So many bids Q19 wants of each auction.
const HIGHEST: usize = 10;

/// Later bids, and of those of the same time the higher one.
#[inline]
fn is_later(bid: &Bid, than: &Bid) -> bool {
    let order = |bid: &Bid| (bid.date_time_ms, bid.price, bid.extra.number());
    order(bid) > order(than)
}

/// The change that a bid makes to the newest one, if it makes any.
#[inline]
fn newest(last: Option<&Bid>, bid: Bid) -> Option<Change<Bid>> {
    let before = last.copied();
    before.is_none_or(|last| is_later(&bid, &last)).then_some(Change { before, after: Some(bid) })
}

/// The last bid of a bidder for an auction.
#[derive(State, Clone, Default)]
struct Last {
    bid: ValueState<Bid>,
}

impl KeyedProcess<(u64, u64), Bid> for Last {
    type Out = Change<Bid>;

    fn on_record(
        &mut self,
        bid: Bid,
        context: &mut Context<'_, (u64, u64), Self::Out>,
    ) -> Result<(), Failure> {
        if let Some(change) = newest(self.bid.get(context), bid) {
            self.bid.set(context, bid);
            context.emit(change);
        }
        Ok(())
    }
}

/// Q18 as a job.
pub(crate) fn last_bids(bids: &DataStream<Bid>, sink: TallySink) -> StreamSink {
    let last = bids.key_by(|bid| (bid.auction, bid.bidder)).process(Last::default());
    last.uid("last").sink("last bids", sink)
}

/// Q18 as a loop.
pub(crate) fn plain_last_bids(bids: impl Iterator<Item = Bid>, tally: &mut Tally) {
    let mut last: HashMap<(u64, u64), Bid, FixedState> = HashMap::default();
    for bid in bids {
        let key = (bid.auction, bid.bidder);
        if let Some(change) = newest(last.get(&key), bid) {
            last.insert(key, bid);
            tally.add(&change);
        }
    }
}

/// Bids by price, the lowest first.
type Ranking = Vec<Bid>;

/// Adds a bid, if it is among the highest, and says what has changed.
#[inline]
fn rank(ranking: &mut Ranking, bid: Bid) -> Option<Change<Bid>> {
    let order = |bid: &Bid| (bid.price, -bid.date_time_ms, bid.bidder, bid.extra.number());
    let is_full = ranking.len() == HIGHEST;
    if is_full && ranking.first().is_some_and(|lowest| order(&bid) <= order(lowest)) {
        return None;
    }
    let before = is_full.then(|| ranking.remove(0));
    let place = ranking.partition_point(|other| order(other) < order(&bid));
    ranking.insert(place, bid);
    Some(Change { before, after: Some(bid) })
}

/// The highest bids for an auction.
#[derive(State, Clone, Default)]
struct Highest {
    ranking: ValueState<Ranking>,
}

impl KeyedProcess<u64, Bid> for Highest {
    type Out = Change<Bid>;

    fn on_record(&mut self, bid: Bid, context: &mut Context<'_, u64, Self::Out>) -> Result<(), Failure> {
        if let Some(change) = rank(self.ranking.get_or_insert_with(context, Vec::new), bid) {
            context.emit(change);
        }
        Ok(())
    }
}

/// Q19 as a job.
pub(crate) fn highest_bids_of_auctions(bids: &DataStream<Bid>, sink: TallySink) -> StreamSink {
    let highest = bids.key_by(|bid| bid.auction).process(Highest::default());
    highest.uid("highest").sink("ten highest bids", sink)
}

/// Q19 as a loop.
pub(crate) fn plain_highest_bids_of_auctions(bids: impl Iterator<Item = Bid>, tally: &mut Tally) {
    let mut rankings: HashMap<u64, Ranking, FixedState> = HashMap::default();
    for bid in bids {
        if let Some(change) = rank(rankings.entry(bid.auction).or_default(), bid) {
            tally.add(&change);
        }
    }
}
