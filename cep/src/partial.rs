//! The partial matches of a key: a graph of events in which every path from a run back to a first event is a partial match.
//!
//! It is the shared buffer of SASE+ (Agrawal et al., "Efficient Pattern Matching over Event Streams", 2008) without its version
//! numbers. There runs are separate, so that a version must tell whose edge an edge is. Here partial matches whose last event is the
//! same one in the same place are one run, because they have the same future (Bucchi et al., "CORE: a Complex Event Recognition
//! Engine", 2022): every path is valid, and `n` events of `a+` take `n` nodes and fewer than `2 n` edges for their `n (n + 1) / 2`
//! partial matches. Where conditions look at earlier events, partial matches have futures of their own, and the graph is a tree.
//!
//! Invariants: nodes are in the order of their events, edges lead to earlier nodes, and a node's edges lie together. Partial matches die
//! by their first event, the oldest first, so that one number, `live_from`, says which paths are left. What no run reaches any more is
//! removed when there is as much of it as of what is left, so that memory stays linear without counting references.

use thalweg_common::limits::MIN_COLLECTED_NODES;
use thalweg_common::{Record, Timestamp};

/// The edge of a node whose event begins a partial match.
pub(crate) const START: u32 = u32::MAX;

/// The partial matches of a key: state of a function, so that it is part of checkpoints.
#[derive(Record, Clone, Debug)]
#[record(crate = thalweg_common)]
pub struct PartialMatches<T> {
    /// The number of the next event that is kept.
    next_event: u64,
    /// Partial matches whose first event has a lower number are dead.
    pub(crate) live_from: u64,
    events: Vec<Kept<T>>,
    nodes: Vec<Node>,
    edges: Vec<u32>,
    pub(crate) runs: Vec<Run>,
    /// Matches that wait, because one that began earlier may come.
    pub(crate) completed: Vec<Completed>,
    /// What matches that are complete next get as their order.
    next_order: u64,
    /// How many nodes the last removal has left.
    left: u32,
}

/// An event that partial matches have taken.
#[derive(Record, Clone, Debug)]
#[record(crate = thalweg_common)]
pub(crate) struct Kept<T> {
    pub(crate) number: u64,
    pub(crate) timestamp: Timestamp,
    pub(crate) event: T,
}

/// An event in a place.
#[derive(Record, Clone, Copy, Debug)]
#[record(crate = thalweg_common)]
pub(crate) struct Node {
    /// Its position among the events.
    event: u32,
    pub(crate) place: u16,
    /// Where its edges begin; they end where those of the next node begin.
    edges_from: u32,
    /// The number of the latest event that begins a path to here.
    pub(crate) latest_start: u64,
}

/// Partial matches with the same last event in the same place.
#[derive(Record, Clone, Copy, Debug)]
#[record(crate = thalweg_common)]
pub(crate) struct Run {
    pub(crate) node: u32,
    /// The ways that are open, a bit each.
    pub(crate) open: u64,
    /// Whether no event has come since.
    pub(crate) is_fresh: bool,
}

/// Matches that are complete: all paths to a node from starts in a range.
#[derive(Record, Clone, Copy, Debug)]
#[record(crate = thalweg_common)]
pub(crate) struct Completed {
    pub(crate) node: u32,
    pub(crate) timestamp: Timestamp,
    /// From this number of a first event, inclusive.
    pub(crate) from: u64,
    /// Whether one of them begins with that event; otherwise they begin with later ones.
    pub(crate) is_next: bool,
    /// To this one, exclusive.
    pub(crate) to: u64,
    /// Matches of one event, or of the end of one window, have the same one; later ones have higher ones.
    pub(crate) order: u64,
}

impl<T> Default for PartialMatches<T> {
    fn default() -> Self {
        Self {
            next_event: 0,
            live_from: 0,
            events: Vec::new(),
            nodes: Vec::new(),
            edges: Vec::new(),
            runs: Vec::new(),
            completed: Vec::new(),
            next_order: 0,
            left: 0,
        }
    }
}

impl<T> PartialMatches<T> {
    /// Whether there are none, so that nothing needs to be kept.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.completed.is_empty()
    }

    /// How many nodes and edges the graph has, also those that are yet to be removed: what memory grows with.
    pub fn size(&self) -> (usize, usize) {
        (self.nodes.len(), self.edges.len())
    }

    /// When the oldest partial match that may be left began.
    pub fn earliest_start(&self) -> Option<Timestamp> {
        self.starts(self.live_from).next().map(|(_, timestamp)| timestamp)
    }

    /// The numbers and times of the events that begin partial matches, from this number on, in order.
    pub(crate) fn starts(&self, from: u64) -> impl Iterator<Item = (u64, Timestamp)> + '_ {
        let begins = (0..).zip(&self.nodes).filter(|(index, _)| self.edges_of(*index).contains(&START));
        let starts = begins.map(|(_, node)| self.event(node)).map(|kept| (kept.number, kept.timestamp));
        starts.filter(move |(number, _)| *number >= from)
    }

    pub(crate) fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    pub(crate) fn event(&self, node: &Node) -> &Kept<T> {
        &self.events[node.event as usize]
    }

    pub(crate) fn edges_of(&self, index: u32) -> &[u32] {
        let index = index as usize;
        let to = self.nodes.get(index + 1).map_or(self.edges.len(), |next| next.edges_from as usize);
        &self.edges[self.nodes[index].edges_from as usize..to]
    }

    /// Keeps an event, in front of its nodes.
    pub(crate) fn keep(&mut self, event: T, timestamp: Timestamp) {
        self.events.push(Kept { number: self.next_event, timestamp, event });
        self.next_event += 1;
    }

    /// Adds a node of the event that was kept last, with edges to earlier nodes.
    pub(crate) fn add_node(&mut self, place: u16, edges: impl Iterator<Item = u32>) -> u32 {
        let number = self.next_event - 1;
        let edges_from = self.edges.len() as u32;
        let mut latest_start = 0;
        for edge in edges {
            let start = if edge == START { number } else { self.node(edge).latest_start };
            latest_start = latest_start.max(start);
            self.edges.push(edge);
        }
        let event = (self.events.len() - 1) as u32;
        self.nodes.push(Node { event, place, edges_from, latest_start });
        (self.nodes.len() - 1) as u32
    }

    /// All paths to a node from starts in a range are complete.
    pub(crate) fn complete(&mut self, node: u32, timestamp: Timestamp, (from, to): (u64, u64)) {
        let order = self.next_order;
        self.completed.push(Completed { node, timestamp, from, is_next: false, to, order });
    }

    /// What is complete from here on is so later.
    pub(crate) fn next_order(&mut self) {
        self.next_order += 1;
    }

    /// For each node the earliest event, from a number on, that begins a path to it; the largest number if there is none.
    pub(crate) fn earliest_starts(&self, from: u64, earliest: &mut Vec<u64>) {
        earliest.clear();
        for (index, node) in (0..).zip(&self.nodes) {
            let number = self.event(node).number;
            let of_edge = |edge: &u32| match *edge {
                START if number >= from => number,
                START => u64::MAX,
                before => earliest[before as usize],
            };
            let first = self.edges_of(index).iter().map(of_edge).min();
            earliest.push(first.unwrap_or(u64::MAX));
        }
    }

    /// Lets everything die that began before an event.
    pub(crate) fn discard_before(&mut self, number: u64) {
        if number > self.live_from {
            self.live_from = number;
            let nodes = &self.nodes;
            self.runs.retain(|run| nodes[run.node as usize].latest_start >= number);
            self.completed.retain(|match_| {
                let latest = nodes[match_.node as usize].latest_start;
                latest >= number.max(match_.from) && match_.to > number
            });
        }
    }

    /// Removes what no run reaches, if there is enough of it. `places` is memory to work in.
    pub(crate) fn collect(&mut self, places: &mut Vec<u32>) {
        if self.is_empty() {
            if !self.nodes.is_empty() {
                self.events.clear();
                self.nodes.clear();
                self.edges.clear();
                self.left = 0;
            }
        } else if self.nodes.len() >= MIN_COLLECTED_NODES.max(2 * self.left as usize) {
            self.remove_unreached(places);
            self.left = self.nodes.len() as u32;
        }
    }

    fn remove_unreached(&mut self, places: &mut Vec<u32>) {
        const UNREACHED: u32 = u32::MAX;
        const REACHED: u32 = 0;
        places.clear();
        places.resize(self.nodes.len(), UNREACHED);
        let roots = self.runs.iter().map(|run| run.node);
        for root in roots.chain(self.completed.iter().map(|match_| match_.node)) {
            places[root as usize] = REACHED;
        }
        let is_live = |nodes: &[Node], node: u32| nodes[node as usize].latest_start >= self.live_from;
        for index in (0..self.nodes.len() as u32).rev() {
            if places[index as usize] == REACHED {
                let before = self.edges_of(index).iter().filter(|edge| **edge != START);
                for edge in before.filter(|edge| is_live(&self.nodes, **edge)) {
                    places[*edge as usize] = REACHED;
                }
            }
        }
        let (mut nodes, mut edges, mut events) = (Vec::new(), Vec::new(), Vec::new());
        let mut kept = std::mem::take(&mut self.events).into_iter().map(Some).collect::<Vec<_>>();
        let mut last_event = None;
        for index in 0..self.nodes.len() as u32 {
            if places[index as usize] == UNREACHED {
                continue;
            }
            let node = self.nodes[index as usize];
            if last_event != Some(node.event) {
                last_event = Some(node.event);
                events.extend(kept[node.event as usize].take());
            }
            places[index as usize] = nodes.len() as u32;
            let edges_from = edges.len() as u32;
            let number = events.last().map_or(0, |kept: &Kept<T>| kept.number);
            for edge in self.edges_of(index) {
                match *edge {
                    START if number >= self.live_from => edges.push(START),
                    START => {}
                    before if self.nodes[before as usize].latest_start >= self.live_from => {
                        edges.push(places[before as usize]);
                    }
                    _ => {}
                }
            }
            nodes.push(Node { event: (events.len() - 1) as u32, edges_from, ..node });
        }
        (self.nodes, self.edges, self.events) = (nodes, edges, events);
        self.runs.iter_mut().for_each(|run| run.node = places[run.node as usize]);
        self.completed.iter_mut().for_each(|match_| match_.node = places[match_.node as usize]);
    }
}
