//! The regular join: pairs of all records with the same key, however far apart they are, for as long as they are retained.
//!
//! Semantics are those of a join in Flink's SQL over two append-only streams. Invariants: what has been inserted and not deleted is, of the
//! records that are retained, the result of the join; a record without a partner stands for itself in an outer join until the first
//! partner comes, and is deleted then in the same step.

use thalweg_common::Record;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_common::ttl::StateTtl;
use thalweg_state::{Accessor, Declarations, DeclareExpiring, ExpiringMap, ExpiringValue, State, StateKey};

use crate::co_process::KeyedCoProcess;
use crate::operator::{Context, Key};

/// Which records without a partner are part of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// None.
    Inner,
    /// Those of the left stream.
    Left,
    /// Those of the right stream.
    Right,
    /// Those of both.
    Full,
}

impl JoinKind {
    fn keeps_left(self) -> bool {
        matches!(self, Self::Left | Self::Full)
    }

    fn keeps_right(self) -> bool {
        matches!(self, Self::Right | Self::Full)
    }
}

/// A change of a result: Flink's `RowKind`.
#[derive(Record, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[record(crate = thalweg_common)]
pub enum Change<T> {
    /// It is part of the result from now on.
    Insert(T),
    /// It was inserted before, and is no part of the result any more.
    Delete(T),
}

impl<T> Change<T> {
    /// The same change of what the function makes of the row.
    #[must_use]
    pub fn map<U>(self, function: impl FnOnce(T) -> U) -> Change<U> {
        match self {
            Self::Insert(row) => Change::Insert(function(row)),
            Self::Delete(row) => Change::Delete(function(row)),
        }
    }
}

/// A row of a result: the left and the right record, one of which is missing where a record has found no partner.
pub type Pair<L, R> = (Option<L>, Option<R>);

/// A record that is kept, and whether it stands in the result without a partner.
type Kept<T> = (T, bool);

/// One side of the join, for each key.
struct Side<T> {
    records: ExpiringMap<u64, Kept<T>>,
    /// The number of the next one. It lives as long as the last one does.
    next: ExpiringValue<u64>,
}

impl<T> Clone for Side<T> {
    fn clone(&self) -> Self {
        Self { records: self.records.clone(), next: self.next.clone() }
    }
}

impl<T: Record> Side<T> {
    fn new() -> Self {
        Self { records: ExpiringMap::default(), next: ExpiringValue::default() }
    }

    fn declare<K: StateKey>(&mut self, name: &str, ttl: StateTtl, declarations: &mut Declarations<K>) {
        self.records.declare(name, ttl, declarations);
        self.next.declare(&format!("{name}-next"), ttl, declarations);
    }

    fn keep(&self, record: T, is_alone: bool, context: &mut impl Accessor) {
        let next = self.next.get_or_insert_with(context, || 0);
        let number = *next;
        *next += 1;
        self.records.insert(context, number, (record, is_alone));
    }

    /// The numbers of the records that live, in the order in which they came.
    fn numbers(&self, context: &impl Accessor) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.records.peek_all(context).map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// The function that joins, and emits changes of its result or, if there are only insertions, the pairs themselves.
pub struct RegularJoin<L, R, Out> {
    kind: JoinKind,
    ttl: StateTtl,
    left: Side<L>,
    right: Side<R>,
    emitted: fn(Change<Pair<L, R>>) -> Option<Out>,
}

impl<L, R, Out> Clone for RegularJoin<L, R, Out> {
    fn clone(&self) -> Self {
        let (left, right) = (self.left.clone(), self.right.clone());
        Self { kind: self.kind, ttl: self.ttl, left, right, emitted: self.emitted }
    }
}

impl<L: Record, R: Record> RegularJoin<L, R, (L, R)> {
    /// Emits each pair once. Retains each record for this time.
    pub fn inner(retained: StateTtl) -> Self {
        let emitted = |change| match change {
            Change::Insert((Some(left), Some(right))) => Some((left, right)),
            // An inner join inserts nothing else.
            _ => None,
        };
        Self { kind: JoinKind::Inner, ttl: retained, left: Side::new(), right: Side::new(), emitted }
    }
}

impl<L: Record, R: Record> RegularJoin<L, R, Change<Pair<L, R>>> {
    /// Emits the changes of the result. Retains each record for this time.
    pub fn changes(kind: JoinKind, retained: StateTtl) -> Self {
        Self { kind, ttl: retained, left: Side::new(), right: Side::new(), emitted: Some }
    }
}

impl<L: Record, R: Record, Out: 'static> State for RegularJoin<L, R, Out> {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        self.left.declare("left", self.ttl, declarations);
        self.right.declare("right", self.ttl, declarations);
    }
}

impl<K: Key, L: Record, R: Record, Out: Record> KeyedCoProcess<K, L, R> for RegularJoin<L, R, Out> {
    type Out = Out;

    const TIMERS: bool = false;

    fn on_first(&mut self, left: L, context: &mut Context<'_, K, Self::Out>) -> Result<(), Failure> {
        let emit = |context: &mut Context<'_, K, Out>, change: Change<(Option<L>, Option<R>)>| {
            (self.emitted)(change).into_iter().for_each(|out| context.emit(out));
        };
        join(&self.left, left, &self.right, self.kind.keeps_left(), emit, context);
        Ok(())
    }

    fn on_second(&mut self, right: R, context: &mut Context<'_, K, Self::Out>) -> Result<(), Failure> {
        let emit = |context: &mut Context<'_, K, Out>, change: Change<(Option<R>, Option<L>)>| {
            let change = change.map(|(right, left)| (left, right));
            (self.emitted)(change).into_iter().for_each(|out| context.emit(out));
        };
        join(&self.right, right, &self.left, self.kind.keeps_right(), emit, context);
        Ok(())
    }
}

/// Joins a record of one side with those of the other one, which `keeps_own` says to stand alone if there are none, and keeps it.
fn join<K: Key, A: Record, B: Record, Out: Record>(
    own: &Side<A>,
    record: A,
    other: &Side<B>,
    keeps_own: bool,
    emit: impl Fn(&mut Context<'_, K, Out>, Change<(Option<A>, Option<B>)>),
    context: &mut Context<'_, K, Out>,
) {
    let numbers = other.numbers(context);
    for number in &numbers {
        let Some((partner, was_alone)) = other.records.peek(context, number).cloned() else { continue };
        if was_alone {
            emit(context, Change::Delete((None, Some(partner.clone()))));
            // Its life goes on as it was.
            if let Some((_, is_alone)) = other.records.peek_mut(context, number) {
                *is_alone = false;
            }
        }
        emit(context, Change::Insert((Some(record.clone()), Some(partner))));
    }
    let is_alone = numbers.is_empty() && keeps_own;
    if is_alone {
        emit(context, Change::Insert((Some(record.clone()), None)));
    }
    own.keep(record, is_alone, context);
}
