//! Q8, "monitor new users": who registers and puts something up for sale in the same ten seconds of event time, once for each auction. As a job
//! it is a join of both streams in tumbling windows, beside it the plain loop that it is compared with.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use thalweg::prelude::*;

use super::generator::{Auction, Event, Person};
use super::text::Text;
use crate::tally::{Digest, Tally, TallySink, digest_of};

/// How long a window is.
const SIZE: Duration = Duration::from_secs(10);

const SIZE_MS: i64 = SIZE.as_millis() as i64;

/// Someone registers.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
struct Registration {
    person: u64,
    name: Text,
}

impl Registration {
    #[inline]
    fn of(event: Event) -> Option<Self> {
        let Event::Person(Person { id, name, .. }) = event else { return None };
        Some(Self { person: id, name })
    }
}

/// Someone puts something up for sale.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
struct Offer {
    seller: u64,
    reserve: u64,
}

impl Offer {
    #[inline]
    fn of(event: Event) -> Option<Self> {
        let Event::Auction(Auction { seller, reserve, .. }) = event else { return None };
        Some(Self { seller, reserve })
    }
}

/// A result of Q8.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
struct NewUser {
    person: u64,
    name: Text,
    reserve: u64,
}

impl NewUser {
    #[inline]
    fn new(registration: &Registration, offer: &Offer) -> Self {
        Self { person: registration.person, name: registration.name, reserve: offer.reserve }
    }
}

impl Digest for NewUser {
    #[inline]
    fn digest(&self) -> u64 {
        digest_of([self.person, u64::from(self.name.number()), self.reserve])
    }
}

/// Q8 as a job.
pub(crate) fn new_users(events: &DataStream<Event>, sink: TallySink) -> StreamSink {
    // Nearly all events are bids: both streams are given the others only.
    let events = events.filter(|event| !matches!(event, Event::Bid(_)));
    let registrations = events.flat_map(Registration::of).key_by(|registration| registration.person);
    let offers = events.flat_map(Offer::of).key_by(|offer| offer.seller);
    let joined = registrations.connect(&offers).window(tumbling(SIZE)).join(NewUser::new);
    joined.uid("new-users").sink("new users", sink)
}

/// Q8 as a loop: events come in the order of their time, so that it knows one window at a time.
pub(crate) fn plain_new_users(events: impl Iterator<Item = Event>, tally: &mut Tally) {
    let mut registrations: HashMap<u64, Registration, FixedState> = HashMap::default();
    let mut offers: Vec<Offer> = Vec::new();
    let mut window = i64::MIN;
    let mut fire = |registrations: &mut HashMap<u64, Registration, FixedState>, offers: &mut Vec<Offer>| {
        for offer in offers.drain(..) {
            if let Some(registration) = registrations.get(&offer.seller) {
                tally.add(&NewUser::new(registration, &offer));
            }
        }
        registrations.clear();
    };
    for event in events {
        if matches!(event, Event::Bid(_)) {
            continue;
        }
        let own = event.date_time_ms().div_euclid(SIZE_MS);
        if own != window {
            fire(&mut registrations, &mut offers);
            window = own;
        }
        offers.extend(Offer::of(event));
        registrations.extend(Registration::of(event).map(|registration| (registration.person, registration)));
    }
    fire(&mut registrations, &mut offers);
}
