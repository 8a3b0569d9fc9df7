//! The Nexmark generator: event number -> event, a pure function without state or allocation.
//!
//! Stands at the beginning of a record's way, in the job's source and in the plain loop alike. Of each 50 events the first
//! is a person, the next three are auctions and the other 46 bids. Some auctions, bidders and sellers are hot, as in the
//! field's standard. Invariant: an event only names persons and auctions with a smaller event number.

use thalweg::Record;

use super::text::{Text, splitmix};

/// After so many events the kinds repeat.
pub const EVENTS_PER_ROUND: u64 = 50;
/// Persons of a round: its first events.
pub const PERSONS_PER_ROUND: u64 = 1;
/// Auctions of a round: they follow the persons. All others are bids.
pub const AUCTIONS_PER_ROUND: u64 = 3;

/// One bid in so many is for any recent auction, all others for the hot one.
pub const HOT_AUCTION_RATIO: u64 = 2;
/// One bid in so many is by any recent person, all others by the hot one.
pub const HOT_BIDDER_RATIO: u64 = 4;
/// One auction in so many is by any recent person, all others by the hot one.
pub const HOT_SELLER_RATIO: u64 = 4;

/// The id of the first person and of the first auction.
pub const FIRST_ID: u64 = 1000;

/// A hot one stays hot until there are so many more.
const HOT_FOR: u64 = 100;
/// How many auctions back bids go.
const OPEN_AUCTIONS: u64 = 100;
/// How many persons back bidders and sellers go.
const ACTIVE_PERSONS: u64 = 1000;

/// The mean encoded sizes in bytes, reached by padding with `extra`.
const PERSON_BYTES: u64 = 200;
const AUCTION_BYTES: u64 = 500;
const BID_BYTES: u64 = 100;

/// The first category, and how many there are.
const FIRST_CATEGORY: u32 = 10;
const CATEGORIES: u64 = 5;

/// Auctions are open for at most this long.
const LONGEST_AUCTION_MS: u64 = 20_000;

const STATES: [Text; 6] = [
    Text::word("AZ"),
    Text::word("CA"),
    Text::word("ID"),
    Text::word("OR"),
    Text::word("WA"),
    Text::word("WY"),
];
const CITIES: [Text; 10] = [
    Text::word("Phoenix"),
    Text::word("Los Angeles"),
    Text::word("San Francisco"),
    Text::word("Boise"),
    Text::word("Portland"),
    Text::word("Bend"),
    Text::word("Redmond"),
    Text::word("Seattle"),
    Text::word("Kent"),
    Text::word("Cheyenne"),
];
const CHANNELS: [Text; 4] =
    [Text::word("Google"), Text::word("Facebook"), Text::word("Baidu"), Text::word("Apple")];

/// Someone who sells or bids.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Person {
    /// From [`FIRST_ID`].
    pub id: u64,
    /// The person's name.
    pub name: Text,
    /// The person's address for mail.
    pub email_address: Text,
    /// The number of a credit card.
    pub credit_card: Text,
    /// Where the person lives.
    pub city: Text,
    /// The state of the United States in which that is, by its two letters.
    pub state: Text,
    /// Event time, in milliseconds since 1970.
    pub date_time_ms: i64,
    /// Padding to the standard's size.
    pub extra: Text,
}

/// Something for sale.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auction {
    /// From [`FIRST_ID`].
    pub id: u64,
    /// What is for sale.
    pub item_name: Text,
    /// More about it.
    pub description: Text,
    /// The first price, in cents.
    pub initial_bid: u64,
    /// The lowest price at which it is sold, in cents.
    pub reserve: u64,
    /// Event time, in milliseconds since 1970.
    pub date_time_ms: i64,
    /// When the auction closes, in milliseconds since 1970.
    pub expires_ms: i64,
    /// The id of the person who sells.
    pub seller: u64,
    /// 10 to 14.
    pub category: u32,
    /// Padding to the standard's size.
    pub extra: Text,
}

/// A bid for an auction.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bid {
    /// The id of the auction.
    pub auction: u64,
    /// The id of the person who bids.
    pub bidder: u64,
    /// In cents.
    pub price: u64,
    /// By what way the bidder came.
    pub channel: Text,
    /// From which page.
    pub url: Text,
    /// Event time, in milliseconds since 1970.
    pub date_time_ms: i64,
    /// Padding to the standard's size.
    pub extra: Text,
}

/// What happens in the auction house.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Someone registers.
    Person(Person),
    /// Something is put up for sale.
    Auction(Auction),
    /// Someone bids.
    Bid(Bid),
}

impl Event {
    /// When it happens, in milliseconds since 1970.
    #[inline]
    pub fn date_time_ms(&self) -> i64 {
        match self {
            Self::Person(person) => person.date_time_ms,
            Self::Auction(auction) => auction.date_time_ms,
            Self::Bid(bid) => bid.date_time_ms,
        }
    }

    /// The bid, if it is one.
    #[inline]
    pub fn bid(self) -> Option<Bid> {
        match self {
            Self::Bid(bid) => Some(bid),
            Self::Person(_) | Self::Auction(_) => None,
        }
    }
}

/// Makes events from their numbers. Equal generators make equal events, on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generator {
    /// The time of event 0, in milliseconds since 1970.
    pub base_time_ms: i64,
    /// Event time from one event to the next, in nanoseconds.
    pub delay_ns: u64,
}

impl Default for Generator {
    /// 100,000 events in a second of event time.
    fn default() -> Self {
        Self { base_time_ms: 1_600_000_000_000, delay_ns: 10_000 }
    }
}

impl Generator {
    /// The event of this number, from 0.
    #[inline]
    pub fn event(&self, number: u64) -> Event {
        let (round, place) = (number / EVENTS_PER_ROUND, number % EVENTS_PER_ROUND);
        let date_time_ms = self.base_time_ms + (number * self.delay_ns / 1_000_000) as i64;
        let bits = splitmix(number);
        if place >= PERSONS_PER_ROUND + AUCTIONS_PER_ROUND {
            Event::Bid(bid(round, date_time_ms, bits))
        } else if place >= PERSONS_PER_ROUND {
            let id = round * AUCTIONS_PER_ROUND + place - PERSONS_PER_ROUND;
            Event::Auction(auction(id, round, date_time_ms, bits))
        } else {
            Event::Person(person(round, date_time_ms, bits))
        }
    }
}

fn person(id: u64, date_time_ms: i64, bits: u64) -> Person {
    let more = splitmix(bits);
    let name = Text::filling(bits, 10 + (bits >> 13 & 7));
    let email_address = Text::filling(bits >> 16, 14 + (bits >> 29 & 7));
    let credit_card = Text::filling(bits >> 32, 19);
    let city = CITIES[below(more, 10) as usize];
    let state = STATES[below(bits >> 32, 6) as usize];
    let texts = [name, email_address, credit_card, city, state];
    let extra = extra(more >> 32, PERSON_BYTES, 2, &texts);
    Person { id: FIRST_ID + id, name, email_address, credit_card, city, state, date_time_ms, extra }
}

fn auction(id: u64, last_person: u64, date_time_ms: i64, bits: u64) -> Auction {
    let more = splitmix(bits);
    let item_name = Text::filling(bits, 15 + (bits >> 13 & 7));
    let description = Text::filling(bits >> 16, 60 + (bits >> 29 & 63));
    let initial_bid = price(bits >> 35);
    let seller = if more.is_multiple_of(HOT_SELLER_RATIO) {
        recent(last_person, ACTIVE_PERSONS, more >> 2)
    } else {
        last_person / HOT_FOR * HOT_FOR
    };
    Auction {
        id: FIRST_ID + id,
        item_name,
        description,
        initial_bid,
        reserve: initial_bid + price(more >> 20),
        date_time_ms,
        expires_ms: date_time_ms + 1 + (more >> 8) as i64 % LONGEST_AUCTION_MS as i64,
        seller: FIRST_ID + seller,
        category: FIRST_CATEGORY + below(more >> 32, CATEGORIES) as u32,
        // The category has the four bytes that are missing to seven numbers of eight.
        extra: extra(bits >> 40, AUCTION_BYTES - 4, 6, &[item_name, description]),
    }
}

#[inline]
fn bid(round: u64, date_time_ms: i64, bits: u64) -> Bid {
    let more = splitmix(bits);
    let (last_auction, last_person) = (round * AUCTIONS_PER_ROUND + AUCTIONS_PER_ROUND - 1, round);
    let auction = if bits.is_multiple_of(HOT_AUCTION_RATIO) {
        recent(last_auction, OPEN_AUCTIONS, more)
    } else {
        last_auction / HOT_FOR * HOT_FOR
    };
    let bidder = if (bits >> 1).is_multiple_of(HOT_BIDDER_RATIO) {
        recent(last_person, ACTIVE_PERSONS, more >> 32)
    } else {
        // Another one than the hot seller, once there is another one.
        (last_person / HOT_FOR * HOT_FOR + 1).min(last_person)
    };
    let channel = CHANNELS[(bits >> 3 & 3) as usize];
    let url = Text::filling(bits >> 5, 24 + (bits >> 18 & 15));
    Bid {
        auction: FIRST_ID + auction,
        bidder: FIRST_ID + bidder,
        price: price(bits >> 22),
        channel,
        url,
        date_time_ms,
        extra: extra(bits >> 32, BID_BYTES, 4, &[channel, url]),
    }
}

/// Any of the last `count` of those numbered 0 to `last`.
#[inline]
fn recent(last: u64, count: u64, bits: u64) -> u64 {
    last - below(bits, count.min(last + 1))
}

/// 32 bits spread evenly over 0 to `count - 1`.
#[inline]
fn below(bits: u64, count: u64) -> u64 {
    ((bits & 0xffff_ffff) * count) >> 32
}

/// 1 to 10,000 dollars in cents, small prices as common as large ones: 100 times a power of two, straight lines between
/// the powers. Integers, so that it is the same on every machine. Uses 24 bits.
#[inline]
fn price(bits: u64) -> u64 {
    let power = ((bits & 0xff) * 20) >> 8;
    let fraction = bits >> 8 & 0xffff;
    (100 * (1 << 16 | fraction)) << power >> 16
}

/// Padding, so that an event of `numbers` eight-byte fields and these texts has `bytes` on average; the padding is up to a
/// fifth shorter or longer.
#[inline]
fn extra(bits: u64, bytes: u64, numbers: u64, texts: &[Text]) -> Text {
    let texts_bytes: u64 = texts.iter().map(|text| 4 + text.len() as u64).sum();
    let missing = bytes.saturating_sub(8 * numbers + texts_bytes + 4);
    let fifth = missing / 5;
    Text::filling(bits, missing - fifth + below(bits << 8, 2 * fifth + 1))
}

#[cfg(test)]
mod tests {
    use thalweg::record::Record as _;

    use super::*;

    fn events(numbers: std::ops::Range<u64>) -> impl Iterator<Item = Event> {
        numbers.map(|number| Generator::default().event(number))
    }

    fn bids(numbers: std::ops::Range<u64>) -> Vec<Bid> {
        events(numbers).filter_map(Event::bid).collect()
    }

    #[test]
    fn each_round_has_one_person_three_auctions_and_46_bids() {
        for start in [0, 50, 12_345 * 50, 1_000_000_000_000 * 50] {
            let mut kinds = [0; 3];
            for event in events(start..start + 50) {
                kinds[match event {
                    Event::Person(_) => 0,
                    Event::Auction(_) => 1,
                    Event::Bid(_) => 2,
                }] += 1;
            }
            assert_eq!(kinds, [1, 3, 46], "from {start}");
        }
    }

    #[test]
    fn events_name_only_what_came_before_and_ids_have_no_gaps() {
        let (mut persons, mut auctions) = (FIRST_ID, FIRST_ID);
        for event in events(0..200_000) {
            match event {
                Event::Person(person) => {
                    assert_eq!(person.id, persons);
                    persons += 1;
                }
                Event::Auction(auction) => {
                    assert_eq!(auction.id, auctions);
                    auctions += 1;
                    assert!((FIRST_ID..persons).contains(&auction.seller), "{auction:?}");
                    assert!(
                        auction.expires_ms > auction.date_time_ms && auction.reserve > auction.initial_bid
                    );
                    assert!((10..15).contains(&auction.category));
                }
                Event::Bid(bid) => {
                    assert!((FIRST_ID..auctions).contains(&bid.auction), "{bid:?}");
                    assert!((FIRST_ID..persons).contains(&bid.bidder), "{bid:?}");
                    assert!((100..=(200 * 100) << 19).contains(&bid.price), "{bid:?}");
                }
            }
        }
    }

    #[test]
    fn the_hot_ones_get_their_share() {
        let from = 1_000_000;
        let bids = bids(from..from + 500_000);
        let share = |holds: &dyn Fn(u64, &Bid) -> bool| {
            let numbers = (from..).filter(|number| number % 50 >= 4);
            let hot = numbers.zip(&bids).filter(|(number, bid)| holds(number / 50, bid)).count();
            hot as f64 / bids.len() as f64
        };
        // One in a hundred of the cold half happens to be for the hot auction too.
        let auctions = share(&|round, bid| (bid.auction - FIRST_ID) == (round * 3 + 2) / 100 * 100);
        assert!((0.49..0.52).contains(&auctions), "{auctions}");
        let bidders = share(&|round, bid| bid.bidder - FIRST_ID == round / 100 * 100 + 1);
        assert!((0.74..0.76).contains(&bidders), "{bidders}");
        let auctions: Vec<Auction> = events(from..from + 500_000)
            .filter_map(|event| if let Event::Auction(auction) = event { Some(auction) } else { None })
            .collect();
        let hot = auctions.iter().filter(|auction| (auction.seller - FIRST_ID).is_multiple_of(100)).count();
        let sellers = hot as f64 / auctions.len() as f64;
        assert!((0.74..0.77).contains(&sellers), "{sellers}");
    }

    #[test]
    fn encoded_events_have_the_standard_sizes_and_come_back() {
        let (mut sizes, mut counts) = ([0; 3], [0; 3]);
        for event in events(0..100_000) {
            let mut bytes = Vec::new();
            event.encode(&mut bytes);
            assert_eq!(Event::decode(&mut bytes.as_slice()), Ok(event));
            let kind = u32::decode(&mut bytes.as_slice()).unwrap() as usize;
            // The number of the variant is not part of the person, auction or bid.
            sizes[kind] += bytes.len() - 4;
            counts[kind] += 1;
        }
        for (kind, expected) in [200.0, 500.0, 100.0].into_iter().enumerate() {
            let mean = sizes[kind] as f64 / f64::from(counts[kind]);
            assert!((mean / expected - 1.0_f64).abs() < 0.02, "{mean} bytes instead of {expected}");
        }
    }

    #[test]
    fn categories_states_and_event_times_are_spread() {
        let mut states = std::collections::BTreeMap::new();
        let mut previous = i64::MIN;
        for event in events(0..600_000) {
            let time = match event {
                Event::Person(person) => {
                    *states.entry(person.state.as_str()).or_insert(0) += 1;
                    person.date_time_ms
                }
                Event::Auction(auction) => auction.date_time_ms,
                Event::Bid(bid) => bid.date_time_ms,
            };
            assert!(time >= previous);
            previous = time;
        }
        assert_eq!(previous, Generator::default().base_time_ms + 5_999);
        assert_eq!(states.keys().copied().collect::<Vec<_>>(), ["AZ", "CA", "ID", "OR", "WA", "WY"]);
        assert!(states.values().all(|count| (1_800..2_200).contains(count)), "{states:?}");
    }

    #[test]
    fn the_same_number_is_the_same_event_in_every_release() {
        let digest = |numbers| {
            events(numbers).fold(0_u64, |digest, event| {
                let mut bytes = Vec::new();
                event.encode(&mut bytes);
                bytes.iter().fold(digest, |digest, byte| splitmix(digest ^ u64::from(*byte)))
            })
        };
        let digests = (digest(0..1_000), digest(7_000_000_000..7_000_001_000));
        assert_eq!(digests, (13_369_963_517_388_514_503, 5_811_396_631_022_523_010));
    }
}
