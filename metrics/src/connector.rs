//! What connectors tell of the parts of their input: how far behind a shard of a stream is, and the like.
//!
//! Stands beside the [table](crate::table), whose metrics every operator has. A connector tells each value of a part in Flink's metric group,
//! whose keys and values say which part it is; Prometheus has them so. For CloudWatch they are put together: one value for each stream, the
//! greatest of its parts, and at the finest level one for each part. Pure.

use std::collections::BTreeMap;

use thalweg_proto::model::{MetricValue, UserMetric};

use crate::report::Dimensions;
use crate::sight::JobSight;
use crate::table::{Unit, operators};

/// A metric of a part of a connector's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectorMetric {
    /// Its exact name.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// What it means, in a sentence.
    pub help: &'static str,
    /// The group of all metrics of the connector.
    group: &'static str,
    /// The key of what has the parts, and the dimension that it is.
    whole: (&'static str, &'static str),
    /// The key of a part, and the dimension that it is.
    part: (&'static str, &'static str),
}

const fn of_shard(name: &'static str, unit: Unit, help: &'static str) -> ConnectorMetric {
    let (whole, part) = (("stream", "StreamName"), ("shardId", "ShardId"));
    ConnectorMetric { name, unit, help, group: "KinesisConsumer", whole, part }
}

/// All of them.
pub const CONNECTOR_METRICS: &[ConnectorMetric] = &[
    of_shard(
        "millisBehindLatest",
        Unit::Milliseconds,
        "How far behind the newest record of the stream the job is; 0 when it has caught up, -1 before anything was read",
    ),
    of_shard(
        "bytesRequestedPerFetch",
        Unit::Bytes,
        "Bytes that one read of a shard asks for, by the mean size of its records; 0 before that is known",
    ),
];

/// The row of a metric that a connector tells, and of which part of what it is.
pub(crate) fn of(metric: &UserMetric) -> Option<(&'static ConnectorMetric, &str, &str)> {
    let [group, whole, part] = &metric.scope[..] else { return None };
    let row = CONNECTOR_METRICS.iter().find(|row| {
        row.name == metric.name
            && row.group == group.name
            && row.whole.0 == whole.name
            && row.part.0 == part.name
    })?;
    Some((row, whole.value.as_deref()?, part.value.as_deref()?))
}

/// Values with their dimensions behind that of the job, of whole streams and then, if wanted, of their parts.
pub(crate) fn values(
    job: &JobSight,
    has_parts: bool,
) -> impl Iterator<Item = (&'static ConnectorMetric, Dimensions, f64)> {
    let mut wholes: BTreeMap<(&str, &str), (&'static ConnectorMetric, f64)> = BTreeMap::new();
    let mut parts = Vec::new();
    for operator in job.tasks.iter().flat_map(operators) {
        for metric in &operator.counters.metrics {
            let (Some((row, whole, part)), MetricValue::Gauge(value)) = (of(metric), metric.value) else {
                continue;
            };
            let greatest = wholes.entry((row.name, whole)).or_insert((row, value));
            greatest.1 = greatest.1.max(value);
            if has_parts {
                let dimension = |name: &str, value: &str| (name.to_owned(), value.to_owned());
                parts.push((row, vec![dimension(row.whole.1, whole), dimension(row.part.1, part)], value));
            }
        }
    }
    let wholes: Vec<_> = wholes
        .into_iter()
        .map(|((_, whole), (row, value))| (row, vec![(row.whole.1.to_owned(), whole.to_owned())], value))
        .collect();
    wholes.into_iter().chain(parts)
}
