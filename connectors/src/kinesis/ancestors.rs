//! What a shard must remember of the shards before it: a record that another job has written twice may be in one of them, and again here.
//!
//! Asked once, before the first record of a shard that came about by a split or merge is given out. Invariant: what is asked is bounded, in time by
//! the window of de-duplication, and in number by the nearest ancestors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::limits::{
    KINESIS_MAX_RECORDS_PER_READ, KINESIS_REMEMBERED_ANCESTORS, KINESIS_REMEMBERED_IDS,
};
use tokio::time::sleep;

use super::deaggregate::user_records;
use super::open_shard::millis;
use super::position::Position;
use super::seen::{Remembered, number_of};
use super::service::{Page, Service};
use super::shard::Shard;
use crate::aws::{Backoff, Kind, Problem};

/// What is asked about a stream.
const READ: &str = "read older shards of";

/// How the shards before one are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looking {
    /// How long before the first record of the shard.
    pub(super) window: Duration,
    pub(super) backoff: Backoff,
    /// Between two reads.
    pub(super) interval: Duration,
    pub(super) now_ms: Timestamp,
}

/// The ids in the shards from which this one came about, the oldest first.
pub(super) async fn ids(service: &Service, shard: &Shard, how: Looking) -> Result<Vec<Remembered>, Problem> {
    let first_ms = first_arrival(service, shard, how).await?.unwrap_or(how.now_ms);
    let window_ms = i64::try_from(how.window.as_millis()).unwrap_or(i64::MAX);
    let from = match first_ms.saturating_sub(window_ms) {
        // Before there were records.
        ..=0 => Position::TrimHorizon,
        at_ms => Position::AtTimestamp { at_ms },
    };
    let asking = service.asking(READ, &shard.stream);
    let listed = asking.again(how.backoff, || service.shards(&shard.stream)).await?;
    let listed: BTreeMap<&str, &Shard> =
        listed.iter().map(|listed| (listed.shard.id.as_str(), &listed.shard)).collect();
    let mut waiting: VecDeque<&String> = shard.parents.iter().collect();
    let mut visited = BTreeSet::new();
    let mut ids = Vec::new();
    while let Some(id) = waiting.pop_front()
        && visited.len() < KINESIS_REMEMBERED_ANCESTORS
    {
        // What is not listed is older than the stream keeps anything.
        if let Some(ancestor) = listed.get(id.as_str())
            && visited.insert(id)
        {
            waiting.extend(&ancestor.parents);
            ids.extend(ids_of(service, ancestor, &from, how).await?);
        }
    }
    ids.sort_unstable();
    let too_many = ids.len().saturating_sub(KINESIS_REMEMBERED_IDS);
    Ok(ids.split_off(too_many))
}

/// The ids in a shard that is closed, from a position on.
async fn ids_of(
    service: &Service,
    shard: &Shard,
    from: &Position,
    how: Looking,
) -> Result<Vec<Remembered>, Problem> {
    let mut ids: VecDeque<Remembered> = VecDeque::new();
    let mut reading = Reading::of(service, shard, how);
    match reading.begin(from).await {
        // The stream has deleted it meanwhile.
        Err(Problem { kind: Kind::NotFound, .. }) => return Ok(Vec::new()),
        begun => begun?,
    }
    while let Some(page) = reading.page(KINESIS_MAX_RECORDS_PER_READ).await? {
        for record in &page.records {
            let at_ms = record.approximate_arrival_timestamp().map(millis).unwrap_or_default();
            let data = record.data().clone().into_inner().into();
            let found = user_records(&data, &(0..=u128::MAX)).unwrap_or_default();
            ids.extend(found.into_iter().filter_map(|record| Some((at_ms, number_of(&record.id?)))));
            while ids.len() > KINESIS_REMEMBERED_IDS {
                ids.pop_front();
            }
        }
    }
    Ok(ids.into())
}

/// When the first record of a shard arrived, if there is one.
async fn first_arrival(service: &Service, shard: &Shard, how: Looking) -> Result<Option<Timestamp>, Problem> {
    let mut reading = Reading::of(service, shard, how);
    reading.begin(&Position::TrimHorizon).await?;
    while let Some(page) = reading.page(1).await? {
        if let Some(record) = page.records.first() {
            return Ok(record.approximate_arrival_timestamp().map(millis));
        }
    }
    Ok(None)
}

/// Reads of one shard, one after the other.
struct Reading<'a> {
    service: &'a Service,
    shard: &'a Shard,
    how: Looking,
    next: Option<String>,
}

impl<'a> Reading<'a> {
    fn of(service: &'a Service, shard: &'a Shard, how: Looking) -> Self {
        Self { service, shard, how, next: None }
    }

    async fn begin(&mut self, from: &Position) -> Result<(), Problem> {
        let asking = self.service.asking(READ, &self.shard.stream);
        let begun = asking.again(self.how.backoff, || self.service.iterator(self.shard, from));
        self.next = Some(begun.await?);
        Ok(())
    }

    /// The next page; nothing when there is nothing more at present.
    async fn page(&mut self, limit: u32) -> Result<Option<Page>, Problem> {
        let Some(iterator) = self.next.take() else { return Ok(None) };
        sleep(self.how.interval).await;
        let asking = self.service.asking(READ, &self.shard.stream);
        let page = asking.again(self.how.backoff, || self.service.records(iterator.clone(), limit)).await?;
        // A page may be empty although others behind it are not.
        let is_at_end = page.records.is_empty() && page.behind_ms.unwrap_or(0) == 0;
        self.next = page.next.clone().filter(|_| !is_at_end);
        Ok(Some(page))
    }
}
