//! Asks a service again, ever later, and says at once why.
//!
//! Invariant: nobody waits for retries in silence. The first try that fails is told with its cause, its cure, where the service is and how long
//! it will be asked.

use std::fmt;
use std::future::Future;

use tokio::time::sleep;
use tracing::warn;

use super::{AwsSettings, Backoff, Kind, Problem, random};

/// How often a host is looked for again that is not there: a name that is written wrongly stays so.
const UNKNOWN_HOST_RETRIES: u32 = 2;

/// A service and where it is, as people are told: `Kinesis in the region eu-west-1`.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    service: &'static str,
    region: Option<String>,
    endpoint: Option<String>,
}

impl Place {
    pub(crate) fn of(service: &'static str, settings: &AwsSettings) -> Self {
        Self { service, region: settings.region.clone(), endpoint: settings.endpoint.clone() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.service)?;
        if let Some(endpoint) = &self.endpoint {
            write!(formatter, " at {endpoint}")?;
        }
        if let Some(region) = &self.region {
            write!(formatter, " in the region {region}")?;
        }
        Ok(())
    }
}

/// What is asked of whom.
#[derive(Debug, Clone)]
pub(crate) struct Question<'a> {
    pub(crate) place: &'a Place,
    /// As `list the shards of`.
    pub(crate) doing: &'static str,
    /// As `the stream orders`.
    pub(crate) what: String,
}

impl Question<'_> {
    /// Asks again what was throttled or met trouble that passes, as often as `backoff` says.
    pub(crate) async fn again<T, F>(&self, backoff: Backoff, mut ask: impl FnMut() -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let mut retry = 0;
        loop {
            let problem = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(problem) => problem,
            };
            let retries = retries(problem.kind, backoff);
            if retry >= retries {
                return Err(problem);
            }
            if retry == 0 {
                warn!("{}", self.trouble(&problem, backoff, retries));
            }
            sleep(backoff.pause(retry, random())).await;
            retry += 1;
        }
    }

    /// What is told of the first try that fails.
    fn trouble(&self, problem: &Problem, backoff: Backoff, retries: u32) -> String {
        let Self { place, doing, what } = self;
        let failure = problem.failure(doing, what);
        let times = if retries == 1 { "once more".to_owned() } else { format!("{retries} times more") };
        let seconds = backoff.longest(retries).as_secs_f64();
        format!(
            "{failure}. {place} will be asked at most {times}, with pauses of {seconds:.1} s together at most"
        )
    }
}

/// How often something is tried again that failed so.
fn retries(kind: Kind, backoff: Backoff) -> u32 {
    match kind {
        Kind::UnknownHost => backoff.max_retries.min(UNKNOWN_HOST_RETRIES),
        kind if kind.may_pass() => backoff.max_retries,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    const BACKOFF: Backoff = Backoff {
        base: Duration::from_millis(2),
        max: Duration::from_millis(3),
        exponent: 2.0,
        max_retries: 10,
    };

    fn problem(kind: Kind) -> Problem {
        Problem::new(kind, "Code", "no answer")
    }

    /// What is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// How often it is asked that fails so, and how many lines are logged of it.
    async fn asked(kind: Kind) -> (u32, usize) {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        let place = Place::of("Kinesis", &AwsSettings::default());
        let question = Question { place: &place, doing: "list the shards of", what: "the stream s".into() };
        let mut asked = 0;
        let answer: Result<(), Problem> = question
            .again(BACKOFF, || {
                asked += 1;
                async move { Err(problem(kind)) }
            })
            .await;
        assert_eq!(answer, Err(problem(kind)));
        let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(logged.lines().all(|line| line.contains("WARN")), "{logged}");
        (asked, logged.lines().count())
    }

    #[tokio::test]
    async fn what_may_pass_is_asked_again_a_host_that_is_not_there_hardly_and_a_refusal_not() {
        for (kind, times, lines) in [
            (Kind::Throttled, 11, 1),
            (Kind::Passing, 11, 1),
            (Kind::UnknownHost, 3, 1),
            (Kind::NotFound, 1, 0),
            (Kind::Denied, 1, 0),
            (Kind::BadCredentials, 1, 0),
            (Kind::Refused, 1, 0),
        ] {
            assert_eq!(asked(kind).await, (times, lines), "{kind:?}");
        }
    }

    #[test]
    fn the_first_trouble_is_told_with_cause_cure_place_and_time() {
        let settings = |region: Option<&str>, endpoint: Option<&str>| AwsSettings {
            region: region.map(str::to_owned),
            endpoint: endpoint.map(str::to_owned),
            ..AwsSettings::default()
        };
        let place = Place::of("Kinesis", &settings(Some("us-est-1"), None));
        let question = Question { place: &place, doing: "list the shards of", what: "the stream s".into() };
        let backoff = Backoff {
            base: Duration::from_secs(1),
            max: Duration::from_secs(5),
            exponent: 1.5,
            max_retries: 10,
        };
        let told =
            question.trouble(&problem(Kind::UnknownHost), backoff, retries(Kind::UnknownHost, backoff));
        assert_eq!(
            told,
            "cannot list the shards of the stream s: Code: no answer; check how `aws.region` or `aws.endpoint` is written, and that the \
             name servers of this machine know the hosts of AWS. Kinesis in the region us-est-1 will be asked at most 2 times more, with \
             pauses of 2.5 s together at most"
        );
        for (region, endpoint, expected) in [
            (None, Some("http://127.0.0.1:1"), "Firehose at http://127.0.0.1:1"),
            (Some("eu-west-1"), Some("http://h"), "Firehose at http://h in the region eu-west-1"),
        ] {
            assert_eq!(Place::of("Firehose", &settings(region, endpoint)).to_string(), expected);
        }
    }
}
