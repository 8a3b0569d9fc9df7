//! When an asynchronous request is repeated. Pure.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::failure::Failure;

/// Which failures are worth another try.
type Predicate = Arc<dyn Fn(&Failure) -> bool + Send + Sync>;

/// How often and when a request that has failed is repeated: Flink's `AsyncRetryStrategy`. All tries share the timeout of the record.
///
/// ```
/// use std::time::Duration;
/// use thalweg_runtime::operators::async_io::AsyncRetry;
///
/// let fixed = AsyncRetry::fixed_delay(3, Duration::from_millis(100));
/// let growing = AsyncRetry::exponential_backoff(5, Duration::from_millis(10), Duration::from_secs(1), 2.0)
///     .when(|failure| failure.message.contains("throttled"));
/// ```
#[derive(Clone)]
pub struct AsyncRetry {
    tries: u32,
    first: Duration,
    most: Duration,
    factor: f64,
    predicate: Option<Predicate>,
}

impl Default for AsyncRetry {
    fn default() -> Self {
        Self::none()
    }
}

impl fmt::Debug for AsyncRetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tries, first, most, factor, .. } = self;
        write!(f, "{tries} tries, {first:?} apart, times {factor} up to {most:?}")
    }
}

impl AsyncRetry {
    /// A request that fails makes the task fail.
    #[must_use]
    pub fn none() -> Self {
        Self::fixed_delay(1, Duration::ZERO)
    }

    /// At most `tries` tries in all, with the same pause between any two.
    #[must_use]
    pub fn fixed_delay(tries: u32, pause: Duration) -> Self {
        Self { tries, first: pause, most: pause, factor: 1.0, predicate: None }
    }

    /// At most `tries` tries in all; the pauses begin with `first` and grow by `factor` up to `most`.
    #[must_use]
    pub fn exponential_backoff(tries: u32, first: Duration, most: Duration, factor: f64) -> Self {
        Self { tries, first, most, factor: factor.max(1.0), predicate: None }
    }

    /// Only failures for which this holds are worth another try.
    #[must_use]
    pub fn when(mut self, predicate: impl Fn(&Failure) -> bool + Send + Sync + 'static) -> Self {
        self.predicate = Some(Arc::new(predicate));
        self
    }

    /// The pause behind try number `tried`, from 1, which has failed. None if there is no other.
    pub(super) fn pause(&self, tried: u32, failure: &Failure) -> Option<Duration> {
        let is_worth_it = self.predicate.as_ref().is_none_or(|predicate| predicate(failure));
        if tried >= self.tries || !is_worth_it {
            return None;
        }
        let exponent = i32::try_from(tried.saturating_sub(1)).unwrap_or(i32::MAX);
        let pause = self.first.as_secs_f64() * self.factor.powi(exponent);
        Some(Duration::try_from_secs_f64(pause).map_or(self.most, |pause| pause.min(self.most)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_the_same_or_grow_and_end() {
        let failure = Failure::external("no answer");
        let ms = Duration::from_millis;
        let growing = AsyncRetry::exponential_backoff(6, ms(10), ms(60), 2.0);
        let table = [
            ("none", AsyncRetry::none(), vec![]),
            ("fixed", AsyncRetry::fixed_delay(3, ms(100)), vec![100, 100]),
            ("growing", growing.clone(), vec![10, 20, 40, 60, 60]),
            ("of another kind", growing.clone().when(|failure| failure.message.contains("slow")), vec![]),
            (
                "of this kind",
                growing.when(|failure| failure.message.contains("no")),
                vec![10, 20, 40, 60, 60],
            ),
            (
                "never too long",
                AsyncRetry::exponential_backoff(3, ms(1), Duration::MAX, f64::MAX),
                vec![1, u128::MAX],
            ),
        ];
        for (name, retry, expected) in table {
            let pauses = (1..).map_while(|tried| retry.pause(tried, &failure));
            let pauses: Vec<u128> = pauses
                .map(|pause| if pause == Duration::MAX { u128::MAX } else { pause.as_millis() })
                .collect();
            assert_eq!(pauses, expected, "{name}");
        }
    }
}
