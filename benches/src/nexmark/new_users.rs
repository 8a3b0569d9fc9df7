//! Q8, "monitor new users": who registered and put something up for sale in the same window of event time.
//!
//! Stands behind `key_by` in the job and in the plain loop alike. An entry says what is known of a person in a window; a
//! person is given out once, when both sides are there, whichever came first.
//!
//! Invariant: state is bounded. The keys are shards of the persons' ids, not ids, so that the first record of a newer
//! window clears what older ones have left behind in its shard, without a timer for each person.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use thalweg::prelude::*;

use super::generator::{Auction, Event, Person};
use super::text::Text;
use crate::tally::{Digest, Tally, digest_of};

/// How long a window is.
pub const WINDOW_MS: i64 = 10_000;

/// How many shards there are: more than subtasks can share unevenly, few enough that all of them are visited in every
/// window.
const SHARDS: u64 = 1024;

/// So many windows before the newest one of a shard are kept, for subtasks of the source that lag behind others. What comes
/// later still is dropped.
const LATE_WINDOWS: i64 = 2;

/// Either side of the query: someone registers or sells.
#[derive(Record, Clone, Copy, Debug)]
pub(crate) enum Newcomer {
    Registered { id: u64, window: i64, name: Text },
    Sells { id: u64, window: i64 },
}

impl Newcomer {
    #[inline]
    pub(crate) fn of(event: Event) -> Option<Self> {
        match event {
            Event::Person(Person { id, name, date_time_ms, .. }) => {
                Some(Self::Registered { id, window: date_time_ms.div_euclid(WINDOW_MS), name })
            }
            Event::Auction(Auction { seller, date_time_ms, .. }) => {
                Some(Self::Sells { id: seller, window: date_time_ms.div_euclid(WINDOW_MS) })
            }
            Event::Bid(_) => None,
        }
    }

    #[inline]
    fn id_and_window(&self) -> (u64, i64) {
        match self {
            Self::Registered { id, window, .. } | Self::Sells { id, window } => (*id, *window),
        }
    }

    #[inline]
    pub(crate) fn shard(&self) -> u64 {
        self.id_and_window().0 % SHARDS
    }
}

/// What is known of a person in a window.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Registered(Text),
    Sells,
    /// Both, and it was given out.
    Told,
}

impl Known {
    /// What is known after one record more, and the person's name if that completes it. Pure.
    #[inline]
    fn and(known: Option<Self>, newcomer: Newcomer) -> (Self, Option<Text>) {
        match (known, newcomer) {
            (Some(Self::Registered(name)), Newcomer::Sells { .. })
            | (Some(Self::Sells), Newcomer::Registered { name, .. }) => (Self::Told, Some(name)),
            (None, Newcomer::Registered { name, .. }) => (Self::Registered(name), None),
            (None, Newcomer::Sells { .. }) => (Self::Sells, None),
            (Some(known), _) => (known, None),
        }
    }
}

/// A result of Q8.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewUser {
    id: u64,
    name: Text,
    window_start_ms: i64,
}

impl NewUser {
    fn new((id, window): (u64, i64), name: Text) -> Self {
        Self { id, name, window_start_ms: window * WINDOW_MS }
    }
}

impl Digest for NewUser {
    #[inline]
    fn digest(&self) -> u64 {
        digest_of([self.id, u64::from(self.name.number()), self.window_start_ms as u64])
    }
}

/// Finds the new users of a shard.
#[derive(State, Clone, Default)]
pub(crate) struct NewUsers {
    newest_window: ValueState<i64>,
    /// By person and window.
    known: MapState<(u64, i64), Known>,
}

impl NewUsers {
    /// Forgets the windows that are too old, and says whether `window` is among them.
    fn is_late(&self, window: i64, context: &mut Context<'_, u64, NewUser>) -> bool {
        let newest = self.newest_window.get(context).copied();
        if newest.is_none_or(|newest| newest < window) {
            self.newest_window.set(context, window);
            let old = self.known.iter(context).map(|(key, _)| *key);
            let old: Vec<_> = old.filter(|(_, old)| *old < window - LATE_WINDOWS).collect();
            for key in &old {
                self.known.remove(context, key);
            }
        }
        newest.is_some_and(|newest| window < newest - LATE_WINDOWS)
    }
}

impl KeyedProcess<u64, Newcomer> for NewUsers {
    type Out = NewUser;

    fn on_record(
        &mut self,
        newcomer: Newcomer,
        context: &mut Context<'_, u64, NewUser>,
    ) -> Result<(), Failure> {
        let key = newcomer.id_and_window();
        if self.is_late(key.1, context) {
            return Ok(());
        }
        let mut completed = None;
        self.known.update(context, key, |known| {
            let (known, name) = Known::and(known, newcomer);
            completed = name;
            Some(known)
        });
        if let Some(name) = completed {
            context.emit(NewUser::new(key, name));
        }
        Ok(())
    }
}

/// Q8 as a loop: events come in order, so that it knows one window at a time.
pub(crate) fn plain_new_users(events: impl Iterator<Item = Event>, tally: &mut Tally) {
    let mut known: HashMap<u64, Known, FixedState> = HashMap::default();
    let mut current = i64::MIN;
    for newcomer in events.filter_map(Newcomer::of) {
        let (id, window) = newcomer.id_and_window();
        if window != current {
            known.clear();
            current = window;
        }
        let (after, completed) = Known::and(known.get(&id).copied(), newcomer);
        known.insert(id, after);
        if let Some(name) = completed {
            tally.add(&NewUser::new((id, window), name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg::testing::run_local;

    const NAME: Text = Text::word("Boise");

    fn registered(id: u64, window: i64) -> Newcomer {
        Newcomer::Registered { id, window, name: NAME }
    }

    fn sells(id: u64, window: i64) -> Newcomer {
        Newcomer::Sells { id, window }
    }

    fn new_users(records: Vec<Newcomer>) -> Vec<(u64, i64)> {
        let collected = run_local(|env| {
            let records = env.from_iter(records);
            Ok(records.key_by(Newcomer::shard).process(NewUsers::default()).uid("new-users").collect())
        });
        let users = collected.expect("the job ends").take();
        users.into_iter().map(|user| (user.id, user.window_start_ms / WINDOW_MS)).collect()
    }

    #[test]
    fn both_sides_in_one_window_are_told_once_in_either_order() {
        assert_eq!(new_users(vec![registered(1, 0), sells(1, 0), sells(1, 0)]), [(1, 0)]);
        assert_eq!(new_users(vec![sells(1, 0), sells(1, 0), registered(1, 0), sells(1, 0)]), [(1, 0)]);
        assert_eq!(new_users(vec![registered(1, 0), sells(2, 0)]), []);
        assert_eq!(new_users(vec![registered(1, 0), sells(1, 1), sells(1, 2)]), []);
    }

    #[test]
    fn old_windows_are_forgotten_and_what_is_too_late_is_dropped() {
        let kept = vec![registered(1, 0), sells(2, LATE_WINDOWS), sells(1, 0)];
        assert_eq!(new_users(kept), [(1, 0)], "another shard does not make it late");
        let other = 1 + SHARDS;
        let kept = vec![registered(1, 0), registered(other, LATE_WINDOWS), sells(1, 0)];
        assert_eq!(new_users(kept), [(1, 0)]);
        let late = vec![registered(1, 0), registered(other, LATE_WINDOWS + 1), sells(1, 0), registered(1, 0)];
        assert_eq!(new_users(late), []);
    }
}
