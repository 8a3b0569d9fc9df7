//! All paths from a node of the graph back to first events: the matches that end there.

use crate::partial::{PartialMatches, START};

/// Memory to walk in, kept between walks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Walk {
    /// The nodes from the last one back to where the walk is.
    path: Vec<u32>,
    /// For each of them the edge to look at next.
    edges: Vec<u32>,
}

impl Walk {
    /// Calls `each` for every path to `node` that begins with an event of a number in `from..to`: with that number and the nodes, the
    /// last one first. `earliest` may tell for each node a lower bound of the numbers with which its paths begin.
    pub(crate) fn paths<T>(
        &mut self,
        partial: &PartialMatches<T>,
        node: u32,
        (from, to): (u64, u64),
        earliest: &[u64],
        mut each: impl FnMut(u64, &[u32]),
    ) {
        let leads_there = |node: u32| {
            let first = earliest.get(node as usize).copied().unwrap_or(0);
            partial.node(node).latest_start >= from && first < to
        };
        self.path.clear();
        self.edges.clear();
        if leads_there(node) {
            self.path.push(node);
            self.edges.push(0);
        }
        while let (Some(node), Some(edge)) = (self.path.last().copied(), self.edges.last_mut()) {
            let next = partial.edges_of(node).get(*edge as usize).copied();
            *edge += 1;
            match next {
                None => {
                    self.path.pop();
                    self.edges.pop();
                }
                Some(START) => {
                    let number = partial.event(partial.node(node)).number;
                    if (from..to).contains(&number) {
                        each(number, &self.path);
                    }
                }
                Some(before) if leads_there(before) => {
                    self.path.push(before);
                    self.edges.push(0);
                }
                Some(_) => {}
            }
        }
    }
}
