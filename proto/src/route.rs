//! Which job manager to ask next: the pure part of finding the leader, for clients and task managers alike.
//!
//! A round asks every known address at most once, the supposed leader first. When nobody of a round leads, there is a
//! pause that doubles from round to round. Invariants: an address is asked at most once between two pauses, so two job
//! managers that name each other cause no storm; whoever answered last as the leader is asked first the next time.

use std::time::Duration;

/// Most addresses that are remembered.
const MAX_ADDRESSES: usize = 64;

/// How long to pause after rounds in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first round.
    pub min: Duration,
    /// Never longer than this.
    pub max: Duration,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteStep {
    /// Ask this address.
    Ask(String),
    /// Pause, then ask for the next step.
    Pause(Duration),
}

/// What is known about who leads.
#[derive(Debug, Clone)]
pub struct Route {
    addresses: Vec<String>,
    backoff: Backoff,
    leader: Option<String>,
    asked: Vec<String>,
    pause: Duration,
}

impl Route {
    /// Nothing known yet but where to ask.
    #[must_use]
    pub fn new(addresses: Vec<String>, backoff: Backoff) -> Self {
        let mut route =
            Self { addresses: Vec::new(), backoff, leader: None, asked: Vec::new(), pause: backoff.min };
        route.learn(addresses);
        route
    }

    /// What to do next. An [`RouteStep::Ask`] is to be followed by one of the three answers below.
    pub fn step(&mut self) -> RouteStep {
        let candidates = self.leader.iter().chain(&self.addresses);
        let next = candidates.into_iter().find(|address| !self.asked.contains(address)).cloned();
        if let Some(address) = next {
            self.asked.push(address.clone());
            return RouteStep::Ask(address);
        }
        self.asked.clear();
        let pause = self.pause;
        self.pause = (pause * 2).min(self.backoff.max);
        RouteStep::Pause(pause)
    }

    /// This address leads.
    pub fn leads(&mut self, address: &str) {
        self.leader = Some(address.to_string());
        self.asked.clear();
        self.pause = self.backoff.min;
    }

    /// The address that was asked does not lead; it names another one or knows none.
    pub fn redirected(&mut self, leader: Option<String>) {
        self.leader = leader;
    }

    /// This address could not be reached, or its connection broke.
    pub fn unreachable(&mut self, address: &str) {
        self.leader.take_if(|leader| leader == address);
        if !self.asked.iter().any(|asked| asked == address) {
            self.asked.push(address.to_string());
        }
    }

    /// More addresses, as the leader lists them. They come after those that are known, so that what a person configured
    /// stays in use.
    pub fn learn(&mut self, addresses: impl IntoIterator<Item = String>) {
        for address in addresses {
            if self.addresses.len() < MAX_ADDRESSES && !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
    }

    /// All known addresses.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    const BACKOFF: Backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_millis(300) };

    fn route(addresses: &[&str]) -> Route {
        Route::new(addresses.iter().map(ToString::to_string).collect(), BACKOFF)
    }

    fn ask(route: &mut Route) -> String {
        match route.step() {
            RouteStep::Ask(address) => address,
            RouteStep::Pause(pause) => panic!("a pause of {pause:?}"),
        }
    }

    fn pause(route: &mut Route) -> u128 {
        match route.step() {
            RouteStep::Pause(pause) => pause.as_millis(),
            RouteStep::Ask(address) => panic!("asks {address}"),
        }
    }

    #[test]
    fn rounds_in_vain_ask_everybody_and_pause_longer_and_longer() {
        let mut route = route(&["a", "b", "c"]);
        for expected in [50, 100, 200, 300, 300] {
            for address in ["a", "b", "c"] {
                assert_eq!(ask(&mut route), address);
                route.unreachable(address);
            }
            assert_eq!(pause(&mut route), expected);
        }
        assert_eq!(ask(&mut route), "a");
        route.leads("a");
        assert_eq!(ask(&mut route), "a");
        for address in ["b", "c"] {
            route.unreachable("a");
            assert_eq!(ask(&mut route), address);
        }
        assert_eq!(pause(&mut route), 50, "an answer of a leader ends the long pauses");
    }

    #[test]
    fn a_named_leader_is_asked_next_even_if_it_was_unknown() {
        let mut route = route(&["a", "b"]);
        assert_eq!(ask(&mut route), "a");
        route.redirected(Some("d".into()));
        assert_eq!(ask(&mut route), "d");
        route.leads("d");
        assert_eq!(ask(&mut route), "d", "and stays the first choice");
    }

    #[test]
    fn followers_that_name_a_dead_leader_do_not_cause_a_storm() {
        let mut route = route(&["a", "b", "c"]);
        route.leads("c");
        assert_eq!(ask(&mut route), "c");
        route.unreachable("c");
        for address in ["a", "b"] {
            assert_eq!(ask(&mut route), address);
            route.redirected(Some("c".into()));
        }
        assert_eq!(pause(&mut route), 50);
        assert_eq!(ask(&mut route), "c", "the last word is tried again after the pause");
    }

    #[test]
    fn two_that_name_each_other_are_asked_once_between_pauses() {
        let mut route = route(&["a"]);
        assert_eq!(ask(&mut route), "a");
        route.redirected(Some("b".into()));
        assert_eq!(ask(&mut route), "b");
        route.redirected(Some("a".into()));
        assert_eq!(pause(&mut route), 50);
    }

    #[test]
    fn a_broken_connection_is_not_dialled_again_in_the_same_round() {
        let mut route = route(&["a", "b"]);
        assert_eq!(ask(&mut route), "a");
        route.leads("a");
        route.unreachable("a");
        assert_eq!(ask(&mut route), "b");
    }

    #[test]
    fn learned_addresses_are_added_once_and_bounded() {
        let mut route = route(&["a"]);
        route.learn(["b".into(), "a".into()]);
        assert_eq!(route.addresses(), ["a", "b"]);
        route.learn((0..1000).map(|number| number.to_string()));
        assert_eq!(route.addresses().len(), MAX_ADDRESSES);
    }
}
