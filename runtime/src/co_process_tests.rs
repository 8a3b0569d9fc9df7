//! Functions with two inputs: which method a record comes to, and state that goes to other subtasks.
#![allow(clippy::unwrap_used)]

use thalweg_common::key_group::{key_group, key_hash, subtask_of};
use thalweg_state::{Declare, MapState, ValueState};

use super::*;
use crate::operators;
use crate::side_output::OutputTag;
use crate::testing::{OperatorHarness, Setup};

/// Orders and payments of an account.
type Event = Either<(u64, u64), (u64, String)>;

const EARLY: OutputTag<String> = OutputTag::new("early");

/// Emits an account's orders with who pays for them, from when that is known.
#[derive(Clone, Default)]
struct Bills {
    payer: ValueState<String>,
    waiting: MapState<u64, u64>,
}

impl State for Bills {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        self.payer.declare("payer", declarations);
        self.waiting.declare("waiting", declarations);
    }
}

impl KeyedCoProcess<u64, (u64, u64), (u64, String)> for Bills {
    type Out = (String, u64);

    fn on_first(
        &mut self,
        (_, order): (u64, u64),
        context: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), Failure> {
        match self.payer.get(context).cloned() {
            Some(payer) => context.emit((payer, order)),
            None => self.waiting.insert(context, order, order).map_or((), drop),
        }
        Ok(())
    }

    fn on_second(
        &mut self,
        (_, payer): (u64, String),
        context: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), Failure> {
        let mut waiting: Vec<u64> = self.waiting.iter(context).map(|(order, _)| *order).collect();
        waiting.sort_unstable();
        for order in waiting {
            context.output(&EARLY, format!("{order} of {}", context.key()));
            context.emit((payer.clone(), order));
        }
        self.waiting.clear(context);
        self.payer.set(context, payer);
        Ok(())
    }
}

fn open(setup: Setup) -> OperatorHarness<Event, (String, u64)> {
    let key = |event: &Event| match event {
        Either::First((account, _)) | Either::Second((account, _)) => *account,
    };
    let factory = operators::keyed_process(key, Co(Bills::default()));
    OperatorHarness::open(factory.as_ref(), setup).unwrap()
}

fn order(account: u64, number: u64) -> Event {
    Either::First((account, number))
}

fn payer(account: u64, name: &str) -> Event {
    Either::Second((account, name.to_string()))
}

#[test]
fn both_inputs_share_the_state_of_their_key() {
    let mut bills = open(Setup::default());
    bills.push(vec![order(1, 10), order(2, 20), payer(2, "Bo"), order(2, 21), order(1, 11)]).unwrap();
    assert_eq!(bills.output(), [("Bo".to_string(), 20), ("Bo".to_string(), 21)]);
    assert_eq!(bills.side_output(&EARLY).records(), ["20 of 2"]);
    bills.push(vec![payer(1, "Al")]).unwrap();
    assert_eq!(bills.output(), [("Al".to_string(), 10), ("Al".to_string(), 11)]);
}

#[test]
fn the_state_of_both_goes_to_the_subtask_that_owns_the_key() {
    let mut before = open(Setup::default());
    before.push((0..20).map(|account| order(account, account)).collect()).unwrap();
    let snapshot = before.barrier(1).unwrap();
    let mut found = Vec::new();
    for index in 0..3 {
        let owned = |account: &u64| {
            let group = key_group(key_hash(account, &mut Vec::new()), 128);
            subtask_of(group, 3, 128) == index
        };
        let mut after = open(Setup::default().subtask(index, 3).restoring(snapshot.clone()));
        after.push((0..20).filter(owned).map(|account| payer(account, "Al")).collect()).unwrap();
        found.extend(after.output().into_iter().map(|(_, order)| order));
    }
    found.sort_unstable();
    assert_eq!(found, (0..20).collect::<Vec<_>>());
}
