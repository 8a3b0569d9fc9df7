//! The Nexmark queries, each as a job and as a plain single-threaded loop over the same events.
//!
//! Both forms do the same work in the same words: they share the functions on single records and differ in who calls
//! them. Invariant: for the same events both come to the same [`Tally`], whatever the job's parallelism.

use std::fmt;
use std::str::FromStr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use thalweg::prelude::*;

use super::by_clock::LingeringEvents;
use super::generator::{Auction, Bid, Event, Generator, Person};
use super::text::Text;
use super::{auctions, by_clock, new_users, newest, windows};
use crate::tally::{Digest, Tally, TallySink, digest_of};

/// Q1 turns dollars into euros at this rate, in thousandths.
const EUROS_PER_1000_DOLLARS: u64 = 908;

/// Q2 looks for bids for auctions whose id is a multiple of this.
const AUCTION_DIVISOR: u64 = 123;

/// Q3 looks for auctions of this category ...
const CATEGORY: u32 = 10;

/// ... by people in these states.
const STATES: [Text; 3] = [Text::word("OR"), Text::word("ID"), Text::word("CA")];

/// A query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// All bids, as they are.
    Q0,
    /// All bids, with their prices in another currency.
    Q1,
    /// Auction and price of the bids for some auctions.
    Q2,
    /// Who sells in category 10 in Oregon, Idaho or California: auctions joined with their sellers, incrementally.
    Q3,
    /// The mean price at which each category sells.
    Q4,
    /// The auctions with most bids in the last ten seconds, every two.
    Q5,
    /// The mean price of the last ten auctions of each seller.
    Q6,
    /// The highest bids of every ten seconds.
    Q7,
    /// Who registers and puts something up for sale in the same ten seconds: new users with their auctions, window by window.
    Q8,
    /// The winning bid of each auction.
    Q9,
    /// How many bids each bidder makes before a pause of ten seconds.
    Q11,
    /// How many bids each bidder makes in every ten seconds by the clock.
    Q12,
    /// How many bids each bidder has made so far.
    Q12Count,
    /// The last bid of each bidder for each auction.
    Q18,
    /// The ten highest bids for each auction.
    Q19,
}

impl Query {
    /// All of them, in order.
    pub const ALL: [Self; 15] = [
        Self::Q0,
        Self::Q1,
        Self::Q2,
        Self::Q3,
        Self::Q4,
        Self::Q5,
        Self::Q6,
        Self::Q7,
        Self::Q8,
        Self::Q9,
        Self::Q11,
        Self::Q12,
        Self::Q12Count,
        Self::Q18,
        Self::Q19,
    ];

    /// The name by which it is chosen and reported.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q0 => "q0",
            Self::Q1 => "q1",
            Self::Q2 => "q2",
            Self::Q3 => "q3",
            Self::Q4 => "q4",
            Self::Q5 => "q5",
            Self::Q6 => "q6",
            Self::Q7 => "q7",
            Self::Q8 => "q8",
            Self::Q9 => "q9",
            Self::Q11 => "q11",
            Self::Q12 => "q12",
            Self::Q12Count => "q12_count",
            Self::Q18 => "q18",
            Self::Q19 => "q19",
        }
    }

    /// Declares the query as a job that reads the first `events` events and gives its results to `sink`.
    pub fn topology(self, env: &Environment, generator: Generator, events: u64, sink: TallySink) {
        let events = match self {
            Self::Q12 => env.source("events", LingeringEvents::new(generator, events, by_clock::SIZE)),
            _ => env.generate(None, Some(events), move |number| generator.event(number)).uid("events"),
        };
        // Event time, for the queries that ask for it.
        let timed = || events.watermarks(monotonous_timestamps().timestamps(Event::date_time_ms));
        let timed_bids = || timed().flat_map(Event::bid);
        let results = match self {
            Self::Q4 => auctions::mean_of_categories(&timed(), sink),
            Self::Q5 => windows::hot_items(&timed_bids(), sink),
            Self::Q6 => auctions::mean_of_sellers(&timed(), sink),
            Self::Q7 => windows::highest_bids(&timed_bids(), sink),
            Self::Q8 => new_users::new_users(&timed(), sink),
            Self::Q9 => auctions::winning_bids(&timed(), sink),
            Self::Q11 => windows::sessions(&timed_bids(), sink),
            Self::Q12 => by_clock::bids_by_clock(&events.flat_map(Event::bid), by_clock::SIZE, sink),
            Self::Q18 => newest::last_bids(&events.flat_map(Event::bid), sink),
            Self::Q19 => newest::highest_bids_of_auctions(&events.flat_map(Event::bid), sink),
            Self::Q0 => events.flat_map(Event::bid).sink("bids", sink),
            Self::Q1 => events.flat_map(Event::bid).map(in_euros).sink("bids", sink),
            Self::Q2 => events
                .flat_map(Event::bid)
                .filter(is_chosen)
                .map(|bid| (bid.auction, bid.price))
                .sink("prices", sink),
            Self::Q3 => events
                .flat_map(Side::of)
                .key_by(Side::seller)
                .process(Join::default())
                .uid("join")
                .sink("sales", sink),
            Self::Q12Count => events
                .flat_map(|event| event.bid().map(|bid| bid.bidder))
                .key_by(|bidder| *bidder)
                .count()
                .uid("count")
                .sink("counts", sink),
        };
        results.uid("results");
    }

    /// What of a tally does not depend on the clock, nor, with several subtasks, on the order in which they read the events. Of Q12 that is not
    /// in how many windows a bidder has bids, of Q18 and Q19 not how often a result was updated.
    pub fn comparable(self, parallelism: u32) -> fn(Tally) -> Tally {
        match self {
            Self::Q12 => |tally| Tally { count: 0, ..tally },
            Self::Q18 | Self::Q19 if parallelism > 1 => |tally| Tally { count: 0, ..tally },
            _ => |tally| tally,
        }
    }

    /// Events per CPU second of Flink 2.3.0 for the query in SQL with its state in RocksDB, on the machine of `BENCHMARKS.md`. Fixed figures
    /// for the queries of which there is one: they are not measured with each run.
    pub fn flink_sql_on_rocksdb(self) -> Option<f64> {
        match self {
            Self::Q4 => Some(46e3),
            Self::Q5 => Some(100e3),
            Self::Q7 => Some(54e3),
            Self::Q8 => Some(305e3),
            Self::Q9 => Some(37e3),
            Self::Q11 => Some(59e3),
            Self::Q12 => Some(281e3),
            Self::Q18 => Some(156e3),
            Self::Q19 => Some(118e3),
            _ => None,
        }
    }

    /// The same as a loop in one thread, as one would write it by hand.
    pub fn plain(self, generator: Generator, events: u64) -> Tally {
        let events = (0..events).map(|number| generator.event(number));
        let mut tally = Tally::default();
        match self {
            Self::Q0 => events.filter_map(Event::bid).for_each(|bid| tally.add(&bid)),
            Self::Q1 => events.filter_map(Event::bid).for_each(|bid| tally.add(&in_euros(bid))),
            Self::Q2 => {
                let chosen = events.filter_map(Event::bid).filter(is_chosen);
                chosen.for_each(|bid| tally.add(&(bid.auction, bid.price)));
            }
            Self::Q3 => plain_join(events, &mut tally),
            Self::Q4 => auctions::plain_mean_of_categories(events, &mut tally),
            Self::Q5 => windows::plain_hot_items(events.filter_map(Event::bid), &mut tally),
            Self::Q6 => auctions::plain_mean_of_sellers(events, &mut tally),
            Self::Q7 => windows::plain_highest_bids(events.filter_map(Event::bid), &mut tally),
            Self::Q8 => new_users::plain_new_users(events, &mut tally),
            Self::Q9 => auctions::plain_winning_bids(events, &mut tally),
            Self::Q11 => windows::plain_sessions(events.filter_map(Event::bid), &mut tally),
            Self::Q12 => by_clock::plain_bids(events.filter_map(Event::bid), &mut tally),
            Self::Q18 => newest::plain_last_bids(events.filter_map(Event::bid), &mut tally),
            Self::Q19 => newest::plain_highest_bids_of_auctions(events.filter_map(Event::bid), &mut tally),
            Self::Q12Count => {
                let mut counts: HashMap<u64, u64, FixedState> = HashMap::default();
                for bid in events.filter_map(Event::bid) {
                    let count = counts.entry(bid.bidder).or_default();
                    *count += 1;
                    tally.add(&(bid.bidder, *count));
                }
            }
        }
        tally
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Query {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|query| query.name() == name);
        found.ok_or_else(|| format!("there is no query `{name}`; there are {}", known()))
    }
}

#[inline]
fn in_euros(bid: Bid) -> Bid {
    Bid { price: bid.price * EUROS_PER_1000_DOLLARS / 1000, ..bid }
}

#[inline]
fn is_chosen(bid: &Bid) -> bool {
    bid.auction.is_multiple_of(AUCTION_DIVISOR)
}

impl Digest for Bid {
    #[inline]
    fn digest(&self) -> u64 {
        let texts = u64::from(self.channel.number()) << 32 | u64::from(self.url.number());
        let extra = u64::from(self.extra.number());
        digest_of([self.auction, self.bidder, self.price, self.date_time_ms as u64, texts, extra])
    }
}

/// The seller's part of a result of Q3.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
struct Seller {
    name: Text,
    city: Text,
    state: Text,
}

/// Either side of the join of Q3, after its filter.
#[derive(Record, Clone, Copy, Debug)]
enum Side {
    Person { id: u64, seller: Seller },
    Auction { id: u64, seller: u64 },
}

impl Side {
    #[inline]
    fn of(event: Event) -> Option<Self> {
        match event {
            Event::Person(Person { id, name, city, state, .. }) if STATES.contains(&state) => {
                Some(Self::Person { id, seller: Seller { name, city, state } })
            }
            Event::Auction(Auction { id, seller, category: CATEGORY, .. }) => {
                Some(Self::Auction { id, seller })
            }
            _ => None,
        }
    }

    #[inline]
    fn seller(&self) -> u64 {
        match self {
            Self::Person { id, .. } => *id,
            Self::Auction { seller, .. } => *seller,
        }
    }
}

/// A result of Q3.
#[derive(Record, Clone, Copy, Debug)]
struct Sale {
    seller: Seller,
    auction: u64,
}

impl Digest for Sale {
    #[inline]
    fn digest(&self) -> u64 {
        let Seller { name, city, state } = self.seller;
        let place = u64::from(city.number()) << 32 | u64::from(state.number());
        digest_of([u64::from(name.number()), place, self.auction])
    }
}

/// Joins a person with the person's auctions, whichever comes first.
#[derive(State, Clone, Default)]
struct Join {
    person: ValueState<Seller>,
    /// Auctions whose seller is not known yet.
    waiting: ValueState<Vec<u64>>,
}

impl KeyedProcess<u64, Side> for Join {
    type Out = Sale;

    fn on_record(&mut self, side: Side, context: &mut Context<'_, u64, Sale>) -> Result<(), Failure> {
        match side {
            Side::Person { seller, .. } => {
                self.person.set(context, seller);
                for auction in self.waiting.take(context).unwrap_or_default() {
                    context.emit(Sale { seller, auction });
                }
            }
            Side::Auction { id, .. } => match self.person.get(context).copied() {
                Some(seller) => context.emit(Sale { seller, auction: id }),
                None => self.waiting.get_or_insert_with(context, Vec::new).push(id),
            },
        }
        Ok(())
    }
}

/// Q3 as a loop: it joins in both orders too, because that is what the query asks for.
fn plain_join(events: impl Iterator<Item = Event>, tally: &mut Tally) {
    let mut persons: HashMap<u64, Seller, FixedState> = HashMap::default();
    let mut waiting: HashMap<u64, Vec<u64>, FixedState> = HashMap::default();
    for side in events.filter_map(Side::of) {
        match side {
            Side::Person { id, seller } => {
                persons.insert(id, seller);
                for auction in waiting.remove(&id).unwrap_or_default() {
                    tally.add(&Sale { seller, auction });
                }
            }
            Side::Auction { id, seller } => match persons.get(&seller) {
                Some(person) => tally.add(&Sale { seller: *person, auction: id }),
                None => waiting.entry(seller).or_default().push(id),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::run_job_with;
    use crate::tally::Tallies;
    use thalweg::testing::LocalCluster;

    const EVENTS: u64 = 30_000;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for query in Query::ALL {
            assert_eq!(query.to_string().parse(), Ok(query));
        }
        let error = Query::from_str("q99").expect_err("no such query");
        assert_eq!(
            error,
            "there is no query `q99`; there are q0, q1, q2, q3, q4, q5, q6, q7, q8, q9, q11, q12, q12_count, q18, q19"
        );
    }

    /// Three windows of ten seconds.
    const SLOW: Generator = Generator { base_time_ms: 1_600_000_000_000, delay_ns: 1_000_000 };

    #[test]
    fn a_job_and_its_loop_agree_at_every_parallelism() {
        // Q12 has its own test, with windows that are shorter.
        for query in Query::ALL.into_iter().filter(|query| *query != Query::Q12) {
            for generator in [Generator::default(), SLOW] {
                let expected = query.plain(generator, EVENTS);
                let often = Some(millis(20));
                for (parallelism, interval, store) in
                    [(1, None, "hashmap"), (1, often, "hashmap"), (2, None, "hashmap"), (1, often, "rocksdb")]
                {
                    let job = |env: &Environment| {
                        let tallies = Tallies::default();
                        query.topology(env, generator, EVENTS, tallies.sink());
                        tallies
                    };
                    let cluster = LocalCluster::new().configure("state.backend.type", store);
                    let tally = run_job_with(cluster, parallelism, interval, job).expect("the job ends");
                    let comparable = query.comparable(parallelism);
                    let at = format!("{query} at parallelism {parallelism} in {store}");
                    assert_eq!(comparable(tally), comparable(expected), "{at}");
                }
            }
        }
    }

    #[test]
    fn the_loops_count_what_the_queries_ask_for() {
        let bids = EVENTS / 50 * 46;
        let tally = |query: Query| query.plain(Generator::default(), EVENTS);
        assert_eq!((tally(Query::Q0).count, tally(Query::Q1).count), (bids, bids));
        assert_eq!(tally(Query::Q12Count).count, bids);
        assert_ne!(tally(Query::Q0).sum, tally(Query::Q1).sum);
        let chosen = tally(Query::Q2).count;
        assert!(chosen > 0 && chosen < bids / 50, "{chosen}");
        // A fifth of 1,800 auctions is of the category, half of the people live in the states; hot sellers make it rough.
        let sales = tally(Query::Q3).count;
        assert!((50..360).contains(&sales), "{sales}");
    }

    #[test]
    fn the_join_does_not_depend_on_the_order() {
        let events: Vec<Event> = (0..EVENTS).map(|number| Generator::default().event(number)).collect();
        let (mut forwards, mut backwards) = (Tally::default(), Tally::default());
        plain_join(events.iter().copied(), &mut forwards);
        plain_join(events.iter().rev().copied(), &mut backwards);
        assert_eq!(forwards, backwards);
        assert!(forwards.count > 0);
    }
}
