//! Groups of metrics: where user code registers its own, as in Flink's `MetricGroup`.

use std::fmt;

use thalweg_common::failure::Failure;
use thalweg_common::limits::{MAX_METRIC_GROUPS, MAX_METRIC_NAME_CHARACTERS};
use thalweg_proto::model::MetricScope;

use super::kinds::{Counter, Gauge, Histogram, Meter};
use super::operator::{OperatorMetrics, Registered, UserKind};
use super::part::PartGauge;

/// A group in which a function registers metrics of its own: Flink's `MetricGroup`.
///
/// Every metric is one of a subtask; `thalweg describe --output json` shows them, and Prometheus. Those below a group named
/// `KinesisAnalytics` are exported to CloudWatch too. There a group with a key and a value is a dimension, other groups are part
/// of the name, and histograms are left out.
///
/// Names of metrics and groups have 1 to 116 letters and digits. Counts begin anew with each attempt of the task, as in Flink.
///
/// ```
/// use thalweg_common::failure::Failure;
/// use thalweg_runtime::metrics::Counter;
/// use thalweg_runtime::operator::OpenContext;
/// use thalweg_runtime::operators;
/// use thalweg_runtime::process::{Process, ProcessContext};
/// use thalweg_runtime::testing::{OperatorHarness, Setup};
///
/// #[derive(Clone, Default)]
/// struct Tokenizer {
///     words: Counter,
/// }
///
/// impl Process<String> for Tokenizer {
///     type Out = (String, u64);
///
///     fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
///         let group = context.metric_group().add_group("KinesisAnalytics");
///         self.words = group.add_group(("Service", "WordCountApplication")).counter("TotalWords")?;
///         Ok(())
///     }
///
///     fn on_record(&mut self, line: String, context: &mut ProcessContext<'_, (String, u64)>) -> Result<(), Failure> {
///         for word in line.split_whitespace() {
///             self.words.inc();
///             context.emit((word.to_string(), 1));
///         }
///         Ok(())
///     }
/// }
///
/// let tokenizer = operators::process(Tokenizer::default());
/// let mut harness = OperatorHarness::<String, (String, u64)>::open(tokenizer.as_ref(), Setup::default()).unwrap();
/// harness.push(vec!["to be or not to be".to_string()]).unwrap();
/// assert_eq!(harness.metric("KinesisAnalytics.Service.WordCountApplication.TotalWords"), Some(6.0));
/// ```
#[derive(Debug, Clone)]
pub struct MetricGroup {
    metrics: OperatorMetrics,
    /// The groups so far, or what is wrong with one of them.
    scope: Result<Vec<MetricScope>, Failure>,
}

/// What a group is called: a name (`"Tokenizer"`), or a key with its value (`("Service", "WordCount")`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricGroupName(MetricScope);

impl From<&str> for MetricGroupName {
    fn from(name: &str) -> Self {
        Self(MetricScope { name: name.to_string(), value: None })
    }
}

impl<V: fmt::Display> From<(&str, V)> for MetricGroupName {
    fn from((key, value): (&str, V)) -> Self {
        Self(MetricScope { name: key.to_string(), value: Some(value.to_string()) })
    }
}

impl MetricGroup {
    pub(super) fn of(metrics: OperatorMetrics) -> Self {
        Self { metrics, scope: Ok(Vec::new()) }
    }

    /// A group in this one. What is wrong with its name is told when a metric is registered in it.
    #[must_use]
    pub fn add_group(&self, name: impl Into<MetricGroupName>) -> Self {
        let MetricGroupName(inner) = name.into();
        let scope = self.scope.clone().and_then(|mut scope| {
            check_name("group", &inner.name)?;
            check_value(&inner)?;
            if scope.len() == MAX_METRIC_GROUPS {
                return Err(wrong(format!(
                    "the metric group `{}` is too deep: a metric has at most {MAX_METRIC_GROUPS} groups around it",
                    inner.name
                )));
            }
            scope.push(inner);
            Ok(scope)
        });
        Self { metrics: self.metrics.clone(), scope }
    }

    /// Registers a counter. The same name again gives the same counter.
    ///
    /// # Errors
    /// When the name of the metric or of a group is not right, when it is that of another kind of metric, or when the operator
    /// has too many.
    pub fn counter(&self, name: &str) -> Result<Counter, Failure> {
        self.register(name, UserKind::Counter(Counter::default()), |kind| match kind {
            UserKind::Counter(counter) => Some(counter),
            _ => None,
        })
    }

    /// Registers a gauge, which shows 0 until it is set.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn gauge(&self, name: &str) -> Result<Gauge, Failure> {
        self.register(name, UserKind::Gauge(Gauge::default()), |kind| match kind {
            UserKind::Gauge(gauge) => Some(gauge),
            _ => None,
        })
    }

    /// Shows a gauge for as long as it lives, with this value at first: for connectors, of a part of their input that comes and goes.
    ///
    /// # Errors
    /// When the name of the metric or of a group is not right.
    pub fn part_gauge(&self, name: &str, value: f64) -> Result<PartGauge, Failure> {
        check_name("metric", name)?;
        let gauge = Gauge::default();
        gauge.set(value);
        let kind = UserKind::Gauge(gauge.clone());
        let number =
            self.metrics.show_part(Registered { scope: self.scope.clone()?, name: name.to_string(), kind });
        Ok(PartGauge::new(gauge, self.metrics.clone(), number))
    }

    /// Registers a meter.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn meter(&self, name: &str) -> Result<Meter, Failure> {
        self.register(name, UserKind::Meter(Meter::default()), |kind| match kind {
            UserKind::Meter(meter) => Some(meter),
            _ => None,
        })
    }

    /// Registers a histogram.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn histogram(&self, name: &str) -> Result<Histogram, Failure> {
        self.register(name, UserKind::Histogram(Histogram::default()), |kind| match kind {
            UserKind::Histogram(histogram) => Some(histogram),
            _ => None,
        })
    }

    fn register<M>(
        &self,
        name: &str,
        kind: UserKind,
        of_kind: impl Fn(UserKind) -> Option<M>,
    ) -> Result<M, Failure> {
        check_name("metric", name)?;
        let scope = self.scope.clone()?;
        let (wanted, registered) = (kind.word(), Registered { scope, name: name.to_string(), kind });
        let found = self.metrics.register(registered)?;
        let word = found.word();
        of_kind(found).ok_or_else(|| {
            wrong(format!(
                "the metric `{name}` is a {word} already and cannot be a {wanted} too: give one of the two another name"
            ))
        })
    }
}

/// The mistake of a job's author.
pub(super) fn wrong(message: String) -> Failure {
    Failure::user(message).permanent()
}

fn check_name(what: &str, name: &str) -> Result<(), Failure> {
    let is_right = !name.is_empty()
        && name.len() <= MAX_METRIC_NAME_CHARACTERS
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_right {
        return Ok(());
    }
    Err(wrong(format!(
        "the name `{name}` of a {what} is not right: use 1 to {MAX_METRIC_NAME_CHARACTERS} letters and digits, without accents, \
         blanks and punctuation"
    )))
}

/// Values may be anything that a dimension may be.
fn check_value(scope: &MetricScope) -> Result<(), Failure> {
    let is_right = |value: &String| {
        !value.trim().is_empty()
            && value.len() <= MAX_METRIC_NAME_CHARACTERS
            && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
    };
    if scope.value.as_ref().is_none_or(is_right) {
        return Ok(());
    }
    Err(wrong(format!(
        "the value of the metric group `{}` is not right: use 1 to {MAX_METRIC_NAME_CHARACTERS} characters of ASCII that can be \
         printed",
        scope.name
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use thalweg_proto::model::{MetricValue, UserMetric};

    fn group() -> (OperatorMetrics, MetricGroup) {
        let metrics = OperatorMetrics::default();
        (metrics.clone(), metrics.group())
    }

    #[test]
    fn names_are_letters_and_digits() {
        let (metrics, group) = group();
        let longest = "a1".repeat(58);
        group.counter(&longest).unwrap();
        for name in ["", "total words", "total_words", "wörter", "a.b", &format!("{longest}b")] {
            let message = group.counter(name).unwrap_err().message;
            assert!(message.starts_with(&format!("the name `{name}` of a metric is not right")), "{message}");
            assert!(message.contains("1 to 116 letters and digits"), "{message}");
            let failure = group.add_group(name).add_group("Right").gauge("right").unwrap_err();
            assert!(failure.message.starts_with(&format!("the name `{name}` of a group is not right")));
            assert!(!failure.retryable);
        }
        for value in ["", " ", "a\nb", "é", &"v".repeat(117)] {
            let message = group.add_group(("key", value)).meter("right").unwrap_err().message;
            assert!(message.starts_with("the value of the metric group `key` is not right"), "{message}");
        }
        group.add_group(("stream", "orders-v1.2 (test)")).meter("right").unwrap();
        assert_eq!(metrics.read_user().len(), 2);
    }

    #[test]
    fn the_same_name_is_the_same_metric() {
        let (metrics, group) = group();
        group.add_group("A").counter("n").unwrap().inc();
        group.add_group("A").counter("n").unwrap().inc();
        group.counter("n").unwrap().inc_by(5);
        let values: Vec<_> = metrics.read_user().into_iter().map(|metric| metric.value).collect();
        assert_eq!(values, [MetricValue::Counter(2), MetricValue::Counter(5)]);
        let message = group.gauge("n").unwrap_err().message;
        assert!(message.contains("`n` is a counter already and cannot be a gauge too"), "{message}");
    }

    #[test]
    fn there_are_limits() {
        let (metrics, mut group) = group();
        for number in 0..thalweg_common::limits::MAX_USER_METRICS {
            group.counter(&format!("n{number}")).unwrap();
        }
        let message = group.counter("oneMore").unwrap_err().message;
        assert!(message.contains("has 200 metrics of its own already"), "{message}");
        assert_eq!(metrics.read_user().len(), 200);
        for _ in 0..MAX_METRIC_GROUPS {
            group = group.add_group("g");
        }
        group.counter("n1").unwrap_err();
        let message = group.add_group("g").counter("n1").unwrap_err().message;
        assert!(message.contains("too deep"), "{message}");
    }

    #[test]
    fn gauges_of_parts_are_shown_while_they_live_and_never_too_many() {
        let (metrics, group) = group();
        let shown = || metrics.read_user().into_iter().map(|metric| metric.value).collect::<Vec<_>>();
        let of_part = |id: usize| group.add_group(("shardId", id)).part_gauge("behind", -1.0).unwrap();
        let mut parts: Vec<_> = (0..1_000).map(of_part).collect();
        group.counter("n").unwrap().inc();
        parts[999].set(7.0);
        parts.drain(1..999);
        assert_eq!(shown(), [MetricValue::Counter(1), MetricValue::Gauge(-1.0), MetricValue::Gauge(7.0)]);
        drop(parts);
        assert_eq!(shown(), [MetricValue::Counter(1)]);
        group.part_gauge("not right", 0.0).unwrap_err();
        PartGauge::default().set(1.0);
    }

    #[test]
    fn what_is_registered_is_read() {
        let (metrics, group) = group();
        let group = group.add_group("KinesisAnalytics").add_group(("Program", "RecordCountApplication"));
        group.gauge("FilteredRecords").unwrap().set(2.5);
        group.meter("Marks").unwrap().mark_many(3);
        group.histogram("Sizes").unwrap().update(1.0);
        let read: Vec<_> = metrics.read_user().iter().map(UserMetric::to_string).collect();
        let prefix = "KinesisAnalytics.Program.RecordCountApplication.";
        assert_eq!(read, ["FilteredRecords", "Marks", "Sizes"].map(|name| format!("{prefix}{name}")));
    }
}
