//! Log lines in CloudWatch's embedded metric format: JSON that says which of its fields are metrics. Pure.
//!
//! Whatever brings a program's output to CloudWatch Logs brings the metrics with it; no request is made. One line has all metrics
//! with the same dimensions, up to what a line may have.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::report::{Datum, Dimensions};

/// Metrics of one line.
const MAX_METRICS: usize = 100;

/// Values of one metric of a line.
const MAX_VALUES: usize = 100;

/// A metric, and as many of its values as a line may have.
type Part<'a> = (&'a Datum, &'a [f64]);

/// The lines of a report, without their ends.
#[must_use]
pub fn lines(namespace: &str, data: &[Datum]) -> Vec<String> {
    let mut by_dimensions: BTreeMap<(&Dimensions, i64), Vec<Part<'_>>> = BTreeMap::new();
    for datum in data {
        let of_line = by_dimensions.entry((&datum.dimensions, datum.timestamp_ms)).or_default();
        of_line.extend(datum.values.chunks(MAX_VALUES).map(|values| (datum, values)));
    }
    let mut lines = Vec::new();
    for ((dimensions, timestamp_ms), metrics) in by_dimensions {
        let mut left = metrics;
        while !left.is_empty() {
            let mut names = std::collections::BTreeSet::new();
            // The same metric twice, because it has many values, needs a line more.
            let fits =
                |(datum, _): &mut Part<'_>| names.len() < MAX_METRICS && names.insert(datum.name.clone());
            let of_line: Vec<_> = left.extract_if(.., fits).collect();
            lines.push(line(namespace, dimensions, timestamp_ms, &of_line));
        }
    }
    lines
}

fn line(namespace: &str, dimensions: &Dimensions, timestamp_ms: i64, metrics: &[Part<'_>]) -> String {
    let names: Vec<&str> = dimensions.iter().map(|(name, _)| name.as_str()).collect();
    let described: Vec<Value> =
        metrics.iter().map(|(datum, _)| json!({"Name": datum.name, "Unit": datum.unit.name()})).collect();
    let directive = json!({"Namespace": namespace, "Dimensions": [names], "Metrics": described});
    let mut line = Map::new();
    line.insert("_aws".into(), json!({"Timestamp": timestamp_ms, "CloudWatchMetrics": [directive]}));
    for (name, value) in dimensions {
        line.insert(name.clone(), Value::from(value.as_str()));
    }
    for (datum, values) in metrics {
        let value = match values {
            [one] => Value::from(*one),
            several => Value::from(*several),
        };
        line.insert(datum.name.clone(), value);
    }
    Value::Object(line).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::table::Unit;

    fn datum(name: &str, task: Option<&str>, values: Vec<f64>) -> Datum {
        let mut dimensions = vec![("Application".to_string(), "words".to_string())];
        dimensions.extend(task.map(|task| ("Task".to_string(), task.to_string())));
        Datum {
            name: name.into(),
            unit: Unit::Milliseconds,
            dimensions,
            values,
            timestamp_ms: 1_700_000_000_123,
        }
    }

    #[test]
    fn metrics_with_the_same_dimensions_share_a_line() {
        let data = [
            datum("uptime", None, vec![5.0]),
            datum("busyTimeMsPerSecond", Some("map"), vec![250.0, 750.5]),
            datum("downtime", None, vec![0.0]),
        ];
        let lines: Vec<Value> = lines("AWS/KinesisAnalytics", &data)
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let directive = |dimensions: &[&str], names: &[&str]| {
            let metrics: Vec<_> =
                names.iter().map(|name| json!({"Name": name, "Unit": "Milliseconds"})).collect();
            let of = json!({
                "Namespace": "AWS/KinesisAnalytics", "Dimensions": [dimensions], "Metrics": metrics,
            });
            json!({"Timestamp": 1_700_000_000_123_i64, "CloudWatchMetrics": [of]})
        };
        let whole = json!({
            "_aws": directive(&["Application"], &["uptime", "downtime"]),
            "Application": "words", "uptime": 5.0, "downtime": 0.0,
        });
        let task = json!({
            "_aws": directive(&["Application", "Task"], &["busyTimeMsPerSecond"]),
            "Application": "words", "Task": "map", "busyTimeMsPerSecond": [250.0, 750.5],
        });
        assert_eq!(lines, [whole, task]);
    }

    #[test]
    fn lines_have_limits() {
        let data: Vec<_> = (0..250).map(|number| datum(&format!("n{number}"), None, vec![1.0])).collect();
        assert_eq!(lines("n", &data).len(), 3);
        let many = [datum("n", None, (0..250).map(f64::from).collect())];
        let values: Vec<f64> = lines("n", &many)
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .flat_map(|line| line["n"].as_array().unwrap().clone())
            .map(|value| value.as_f64().unwrap())
            .collect();
        assert_eq!(values, (0..250).map(f64::from).collect::<Vec<_>>());
        assert!(lines("n", &[]).is_empty());
    }
}
