//! Settings that belong together, as one value: restart strategy and checkpoint configuration.
//!
//! Made from a [`Configuration`] where a job is submitted; stored with the job; read by the pure cores that decide when to
//! restart and when to checkpoint. Durations are plain milliseconds here because the cores compute with them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, ConfigKey, Configuration, keys};
use crate::limits::{MAX_CONCURRENT_CHECKPOINTS, MAX_RETAINED_CHECKPOINTS};
use crate::status::JobStatus;

/// Whether every record counts exactly once after a failure, or at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CheckpointMode {
    /// Channels wait for each other at a barrier: no record is lost or counted twice.
    #[default]
    ExactlyOnce,
    /// No channel waits: no record is lost, some may be counted again.
    AtLeastOnce,
}

/// Which of its checkpoints outlive a job. Those of a job that has finished never do: there is nothing left to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CheckpointRetention {
    /// Those of a job that failed.
    #[default]
    DeleteOnCancellation,
    /// Those of a job that failed or was cancelled.
    RetainOnCancellation,
    /// None.
    NoExternalized,
}

impl CheckpointRetention {
    /// Whether the checkpoints of a job that ends in this state are kept.
    #[must_use]
    pub fn keeps(self, ended: JobStatus) -> bool {
        match ended {
            JobStatus::Failed => self != Self::NoExternalized,
            JobStatus::Canceled => self == Self::RetainOnCancellation,
            _ => false,
        }
    }
}

/// When checkpoints are taken, and where they are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointConfig {
    /// Time from the start of one checkpoint to the start of the next; `None` for no checkpoints.
    pub interval_ms: Option<u64>,
    /// What is guaranteed.
    pub mode: CheckpointMode,
    /// A checkpoint that takes longer is given up.
    pub timeout_ms: u64,
    /// Least time from the end of one checkpoint to the start of the next.
    pub min_pause_ms: u64,
    /// Checkpoints that may be in progress at the same time, as configured; see [`CheckpointConfig::concurrent`].
    pub max_concurrent: u32,
    /// Whether barriers may overtake records; see [`CheckpointConfig::overtakes_after`].
    #[serde(default)]
    pub unaligned: bool,
    /// Time from the trigger of an unaligned checkpoint in which its barriers keep their place all the same.
    #[serde(default)]
    pub aligned_timeout_ms: u64,
    /// Checkpoints that may fail one after the other before the job fails.
    pub tolerable_failures: u32,
    /// Completed checkpoints that are kept.
    pub retained: u32,
    /// Which of them outlive the job.
    pub retention: CheckpointRetention,
    /// Where checkpoints are stored: a path or a URI.
    pub directory: Option<String>,
    /// Where savepoints are stored when nobody says otherwise.
    #[serde(default)]
    pub savepoint_directory: Option<String>,
}

impl CheckpointConfig {
    /// Reads the `execution.checkpointing.*` keys.
    ///
    /// # Errors
    /// If a value does not have the right form.
    ///
    /// ```
    /// use thalweg_common::config::{CheckpointConfig, Configuration};
    ///
    /// let configuration = Configuration::from_yaml("execution.checkpointing.interval: 30 s")?;
    /// let checkpoints = CheckpointConfig::from_configuration(&configuration)?;
    /// assert_eq!(checkpoints.interval_ms, Some(30_000));
    /// assert_eq!(checkpoints.timeout_ms, 600_000);
    /// # Ok::<(), thalweg_common::config::ConfigError>(())
    /// ```
    pub fn from_configuration(configuration: &Configuration) -> Result<Self, ConfigError> {
        let read = Reader { configuration };
        let mode = match read.text(&keys::CHECKPOINTING_MODE)?.as_str() {
            "AT_LEAST_ONCE" => CheckpointMode::AtLeastOnce,
            _ => CheckpointMode::ExactlyOnce,
        };
        Ok(Self {
            interval_ms: read.optional(&keys::CHECKPOINTING_INTERVAL, Reader::milliseconds)?,
            mode,
            timeout_ms: read.milliseconds(&keys::CHECKPOINTING_TIMEOUT)?,
            min_pause_ms: read.milliseconds(&keys::CHECKPOINTING_MIN_PAUSE)?,
            max_concurrent: read.count(&keys::CHECKPOINTING_MAX_CONCURRENT)?,
            unaligned: read.flag(&keys::CHECKPOINTING_UNALIGNED)?,
            aligned_timeout_ms: read.milliseconds(&keys::CHECKPOINTING_ALIGNED_TIMEOUT)?,
            tolerable_failures: read.count(&keys::CHECKPOINTING_TOLERABLE_FAILURES)?,
            retained: read.count(&keys::CHECKPOINTING_RETAINED)?,
            retention: match read.text(&keys::CHECKPOINTING_RETENTION)?.as_str() {
                "RETAIN_ON_CANCELLATION" => CheckpointRetention::RetainOnCancellation,
                "NO_EXTERNALIZED_CHECKPOINTS" => CheckpointRetention::NoExternalized,
                _ => CheckpointRetention::DeleteOnCancellation,
            },
            directory: read.optional(&keys::CHECKPOINTING_DIRECTORY, Reader::text)?,
            savepoint_directory: read.optional(&keys::SAVEPOINT_DIRECTORY, Reader::text)?,
        })
    }

    /// Whether checkpoints are taken.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.interval_ms.is_some()
    }

    /// How many checkpoints may be in progress at the same time. A gate can follow only one that makes no channel wait, or that
    /// may overtake.
    #[must_use]
    pub fn concurrent(&self) -> usize {
        match self.mode {
            CheckpointMode::ExactlyOnce if !self.unaligned => {
                (self.max_concurrent as usize).clamp(1, MAX_CONCURRENT_CHECKPOINTS)
            }
            _ => 1,
        }
    }

    /// How long after its trigger a checkpoint's barriers overtake records; nothing if they never do. In at-least-once mode there
    /// is no alignment that could take long.
    #[must_use]
    pub fn overtakes_after(&self) -> Option<Duration> {
        let overtakes = self.unaligned && self.mode == CheckpointMode::ExactlyOnce;
        overtakes.then(|| Duration::from_millis(self.aligned_timeout_ms))
    }

    /// How many completed checkpoints are kept.
    #[must_use]
    pub fn keeps(&self) -> usize {
        (self.retained as usize).clamp(1, MAX_RETAINED_CHECKPOINTS)
    }
}

impl Default for CheckpointConfig {
    /// No checkpoints; everything else as in Flink, but checkpoints of a failed job are kept.
    fn default() -> Self {
        Self {
            interval_ms: None,
            mode: CheckpointMode::default(),
            timeout_ms: 10 * 60 * 1_000,
            min_pause_ms: 0,
            max_concurrent: 1,
            unaligned: false,
            aligned_timeout_ms: 0,
            tolerable_failures: 0,
            retained: 1,
            retention: CheckpointRetention::default(),
            directory: None,
            savepoint_directory: None,
        }
    }
}

/// Whether and when a failed job is restarted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub enum RestartStrategy {
    /// Never: the first failure fails the job.
    #[default]
    None,
    /// Always after the same time, a limited number of times.
    FixedDelay {
        /// Restarts before the job fails for good; [`RestartStrategy::UNLIMITED`] for no limit.
        attempts: u32,
        /// Time from a failure to the restart.
        delay_ms: u64,
    },
    /// After a time that grows with every failure, until the job has run well for long enough.
    ExponentialDelay {
        /// Time from the first failure to the restart.
        initial_backoff_ms: u64,
        /// Longest time from a failure to the restart.
        max_backoff_ms: u64,
        /// Factor by which the time grows with every failure.
        backoff_multiplier: f64,
        /// A job that ran this long without a failure starts over with the initial time.
        reset_backoff_threshold_ms: u64,
        /// Part of the time by which it is made longer or shorter at random.
        jitter_factor: f64,
        /// Restarts before the job fails for good, counted from the last reset; `None` for no limit.
        attempts: Option<u32>,
    },
    /// Always after the same time, as long as failures are rare enough.
    FailureRate {
        /// Failures within the interval before the job fails for good.
        max_failures: u32,
        /// The interval in which failures are counted.
        interval_ms: u64,
        /// Time from a failure to the restart.
        delay_ms: u64,
    },
}

impl RestartStrategy {
    /// A number of attempts that no job ever reaches.
    pub const UNLIMITED: u32 = u32::MAX;

    /// Reads the `restart-strategy.*` keys. Without `restart-strategy.type` a job with checkpoints is restarted every second
    /// without end, and a job without them is not restarted, as in Flink.
    ///
    /// # Errors
    /// If a value does not have the right form, or values contradict each other.
    ///
    /// ```
    /// use thalweg_common::config::{Configuration, RestartStrategy};
    ///
    /// let configuration = Configuration::from_yaml("execution.checkpointing.interval: 30 s")?;
    /// assert_eq!(
    ///     RestartStrategy::from_configuration(&configuration)?,
    ///     RestartStrategy::FixedDelay { attempts: RestartStrategy::UNLIMITED, delay_ms: 1_000 }
    /// );
    /// # Ok::<(), thalweg_common::config::ConfigError>(())
    /// ```
    pub fn from_configuration(configuration: &Configuration) -> Result<Self, ConfigError> {
        let read = Reader { configuration };
        let Some(wanted) = read.optional(&keys::RESTART_STRATEGY, Reader::text)? else {
            let checkpoints = read.optional(&keys::CHECKPOINTING_INTERVAL, Reader::milliseconds)?;
            return Ok(Self::without_a_choice(checkpoints.is_some()));
        };
        match wanted.as_str() {
            "fixed-delay" => Ok(Self::FixedDelay {
                attempts: read.count(&keys::FIXED_DELAY_ATTEMPTS)?,
                delay_ms: read.milliseconds(&keys::FIXED_DELAY_DELAY)?,
            }),
            "exponential-delay" => Self::exponential_delay(&read),
            "failure-rate" => Ok(Self::FailureRate {
                max_failures: read.count(&keys::FAILURE_RATE_MAX_FAILURES)?,
                interval_ms: read.milliseconds(&keys::FAILURE_RATE_INTERVAL)?,
                delay_ms: read.milliseconds(&keys::FAILURE_RATE_DELAY)?,
            }),
            _ => Ok(Self::None),
        }
    }

    fn without_a_choice(checkpoints: bool) -> Self {
        if checkpoints { Self::FixedDelay { attempts: Self::UNLIMITED, delay_ms: 1_000 } } else { Self::None }
    }

    fn exponential_delay(read: &Reader<'_>) -> Result<Self, ConfigError> {
        let initial_backoff_ms = read.milliseconds(&keys::EXPONENTIAL_DELAY_INITIAL_BACKOFF)?;
        let max_backoff_ms = read.milliseconds(&keys::EXPONENTIAL_DELAY_MAX_BACKOFF)?;
        if max_backoff_ms < initial_backoff_ms {
            return Err(ConfigError::Contradiction {
                key: keys::EXPONENTIAL_DELAY_MAX_BACKOFF.name,
                value: read.text(&keys::EXPONENTIAL_DELAY_MAX_BACKOFF)?,
                rule: format!(
                    "it cannot be shorter than `{}`, which is {initial_backoff_ms} ms; raise it or lower the other",
                    keys::EXPONENTIAL_DELAY_INITIAL_BACKOFF.name
                ),
            });
        }
        Ok(Self::ExponentialDelay {
            initial_backoff_ms,
            max_backoff_ms,
            backoff_multiplier: read.decimal(&keys::EXPONENTIAL_DELAY_MULTIPLIER)?,
            reset_backoff_threshold_ms: read.milliseconds(&keys::EXPONENTIAL_DELAY_RESET_THRESHOLD)?,
            jitter_factor: read.decimal(&keys::EXPONENTIAL_DELAY_JITTER)?,
            attempts: read.optional(&keys::EXPONENTIAL_DELAY_ATTEMPTS, Reader::count)?,
        })
    }
}

/// Reads values of a configuration that may not have been validated.
struct Reader<'a> {
    configuration: &'a Configuration,
}

impl Reader<'_> {
    /// The value, or `None` if the key is neither set nor has a default.
    fn optional<T>(
        &self,
        key: &ConfigKey,
        read: fn(&Self, &ConfigKey) -> Result<T, ConfigError>,
    ) -> Result<Option<T>, ConfigError> {
        self.configuration.text(key).map(|_| read(self, key)).transpose()
    }

    /// The value in its canonical form.
    fn text(&self, key: &ConfigKey) -> Result<String, ConfigError> {
        let value = self.configuration.text(key).unwrap_or_default();
        key.kind.normalize(value).ok_or_else(|| invalid(key, value))
    }

    fn flag(&self, key: &ConfigKey) -> Result<bool, ConfigError> {
        self.parsed(key, super::parse::parse_boolean)
    }

    fn milliseconds(&self, key: &ConfigKey) -> Result<u64, ConfigError> {
        self.parsed(key, |text| super::parse_duration(text).and_then(as_milliseconds))
    }

    fn count(&self, key: &ConfigKey) -> Result<u32, ConfigError> {
        self.parsed(key, |text| super::parse::parse_integer(text).and_then(|number| number.try_into().ok()))
    }

    fn decimal(&self, key: &ConfigKey) -> Result<f64, ConfigError> {
        self.parsed(key, super::parse::parse_decimal)
    }

    fn parsed<T>(&self, key: &ConfigKey, parse: fn(&str) -> Option<T>) -> Result<T, ConfigError> {
        let text = self.text(key)?;
        parse(&text).ok_or_else(|| invalid(key, &text))
    }
}

fn as_milliseconds(duration: Duration) -> Option<u64> {
    u64::try_from(duration.as_millis()).ok()
}

fn invalid(key: &ConfigKey, value: &str) -> ConfigError {
    ConfigError::InvalidValue {
        key: key.name.to_owned(),
        value: value.to_owned(),
        expected: key.kind.expectation(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(text: &str) -> Configuration {
        Configuration::from_yaml(text).expect("the settings of this test are right")
    }

    fn strategy(text: &str) -> RestartStrategy {
        RestartStrategy::from_configuration(&configuration(text)).expect("these settings fit together")
    }

    #[test]
    fn the_default_of_a_type_is_what_an_empty_configuration_says() {
        assert_eq!(
            CheckpointConfig::from_configuration(&Configuration::new()).expect("defaults are right"),
            CheckpointConfig::default()
        );
        assert_eq!(strategy(""), RestartStrategy::default());
    }

    #[test]
    fn all_checkpoint_keys_are_read() {
        let checkpoints = CheckpointConfig::from_configuration(&configuration(
            "execution.checkpointing.interval: 250\n\
             execution.checkpointing.mode: at-least-once\n\
             execution.checkpointing.timeout: 1 min\n\
             execution.checkpointing.min-pause: 100 ms\n\
             execution.checkpointing.max-concurrent-checkpoints: 4\n\
             execution.checkpointing.unaligned: true\n\
             execution.checkpointing.aligned-checkpoint-timeout: 30 s\n\
             execution.checkpointing.tolerable-failed-checkpoints: 3\n\
             state.checkpoints.num-retained: 5\n\
             execution.checkpointing.externalized-checkpoint-retention: RETAIN_ON_CANCELLATION\n\
             state.checkpoints.dir: file:///checkpoints\n\
             state.savepoints.dir: s3://savepoints",
        ))
        .expect("these settings are right");
        assert_eq!(
            checkpoints,
            CheckpointConfig {
                interval_ms: Some(250),
                mode: CheckpointMode::AtLeastOnce,
                timeout_ms: 60_000,
                min_pause_ms: 100,
                max_concurrent: 4,
                unaligned: true,
                aligned_timeout_ms: 30_000,
                tolerable_failures: 3,
                retained: 5,
                retention: CheckpointRetention::RetainOnCancellation,
                directory: Some("file:///checkpoints".to_owned()),
                savepoint_directory: Some("s3://savepoints".to_owned()),
            }
        );
        assert!(checkpoints.is_enabled());
        assert_eq!((checkpoints.concurrent(), checkpoints.keeps()), (1, 5), "at-least-once follows only one");
        assert_eq!(checkpoints.overtakes_after(), None, "at-least-once has no alignment");
        let exactly_once = CheckpointConfig { mode: CheckpointMode::ExactlyOnce, ..checkpoints };
        assert_eq!(
            (exactly_once.concurrent(), exactly_once.overtakes_after()),
            (1, Some(Duration::from_secs(30)))
        );
        let aligned = CheckpointConfig { unaligned: false, ..exactly_once };
        assert_eq!((aligned.concurrent(), aligned.overtakes_after()), (4, None));
    }

    #[test]
    fn checkpoints_outlive_their_job_as_the_retention_says() {
        use CheckpointRetention::{DeleteOnCancellation, NoExternalized, RetainOnCancellation};
        for (retention, failed, cancelled) in [
            (DeleteOnCancellation, true, false),
            (RetainOnCancellation, true, true),
            (NoExternalized, false, false),
        ] {
            assert_eq!(retention.keeps(JobStatus::Failed), failed, "{retention:?}");
            assert_eq!(retention.keeps(JobStatus::Canceled), cancelled, "{retention:?}");
            assert!(!retention.keeps(JobStatus::Finished), "{retention:?}");
        }
    }

    #[test]
    fn restart_strategies() {
        let unlimited = RestartStrategy::FixedDelay { attempts: u32::MAX, delay_ms: 1_000 };
        for (text, wanted) in [
            ("execution.checkpointing.interval: 1 s", unlimited),
            ("execution.checkpointing.interval: 1 s\nrestart-strategy: disable", RestartStrategy::None),
            ("restart-strategy.type: none", RestartStrategy::None),
            ("restart-strategy: fixed-delay", RestartStrategy::FixedDelay { attempts: 1, delay_ms: 1_000 }),
            (
                "restart-strategy.type: fixeddelay\nrestart-strategy.fixed-delay.attempts: 2147483647\n\
                 restart-strategy.fixed-delay.delay: 10 s",
                RestartStrategy::FixedDelay { attempts: 2_147_483_647, delay_ms: 10_000 },
            ),
            (
                "restart-strategy.type: exponential-delay",
                RestartStrategy::ExponentialDelay {
                    initial_backoff_ms: 1_000,
                    max_backoff_ms: 300_000,
                    backoff_multiplier: 2.0,
                    reset_backoff_threshold_ms: 3_600_000,
                    jitter_factor: 0.1,
                    attempts: None,
                },
            ),
            (
                "restart-strategy.type: exponential-delay\n\
                 restart-strategy.exponential-delay.initial-backoff: 10 ms\n\
                 restart-strategy.exponential-delay.max-backoff: 10 ms\n\
                 restart-strategy.exponential-delay.backoff-multiplier: 1.5\n\
                 restart-strategy.exponential-delay.reset-backoff-threshold: 1 min\n\
                 restart-strategy.exponential-delay.jitter-factor: 0\n\
                 restart-strategy.exponential-delay.attempts-before-reset-backoff: 8",
                RestartStrategy::ExponentialDelay {
                    initial_backoff_ms: 10,
                    max_backoff_ms: 10,
                    backoff_multiplier: 1.5,
                    reset_backoff_threshold_ms: 60_000,
                    jitter_factor: 0.0,
                    attempts: Some(8),
                },
            ),
            (
                "restart-strategy.type: failure-rate\n\
                 restart-strategy.failure-rate.max-failures-per-interval: 3\n\
                 restart-strategy.failure-rate.failure-rate-interval: 5 min\n\
                 restart-strategy.failure-rate.delay: 0",
                RestartStrategy::FailureRate { max_failures: 3, interval_ms: 300_000, delay_ms: 0 },
            ),
        ] {
            assert_eq!(strategy(text), wanted, "for {text}");
        }
    }

    #[test]
    fn contradictions_and_values_that_were_not_validated_are_refused() {
        let error = RestartStrategy::from_configuration(&configuration(
            "restart-strategy: exponential-delay\nrestart-strategy.exponential-delay.initial-backoff: 10 min",
        ))
        .expect_err("the maximum is below the initial value");
        assert_eq!(
            error.to_string(),
            "`restart-strategy.exponential-delay.max-backoff` is `5 min`, but it cannot be shorter than \
             `restart-strategy.exponential-delay.initial-backoff`, which is 600000 ms; raise it or lower the other"
        );

        let received: Configuration =
            serde_json::from_str(r#"{"execution.checkpointing.interval":"often"}"#).expect("a map of texts");
        let refused =
            CheckpointConfig::from_configuration(&received).expect_err("`often` is no duration").to_string();
        assert!(refused.starts_with("`execution.checkpointing.interval` cannot be `often`"), "{refused}");
        assert!(RestartStrategy::from_configuration(&received).is_err());
    }

    #[test]
    fn both_survive_an_encoding() {
        let strategy = strategy("restart-strategy: exponential-delay");
        let bytes = bincode::serde::encode_to_vec(&strategy, bincode::config::standard()).expect("encodes");
        let (back, _): (RestartStrategy, _) =
            bincode::serde::decode_from_slice(&bytes, bincode::config::standard()).expect("decodes");
        assert_eq!(back, strategy);

        let json = serde_json::to_string(&CheckpointConfig::default()).expect("encodes");
        assert_eq!(
            serde_json::from_str::<CheckpointConfig>(&json).expect("decodes"),
            CheckpointConfig::default()
        );
    }
}
