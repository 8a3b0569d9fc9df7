//! The consumers under whose names a job reads: found, registered if they are to be, and deregistered when the job has come to its end.
//!
//! Stands between subscriptions and the service. Invariant: a process looks for the consumer of a stream once, however many subtasks it has,
//! until the service says that it is gone.

use std::collections::BTreeMap;

use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::super::service::Service;
use super::options::{ConsumerRegistration, FanOutOptions};
use crate::aws::{Kind, Problem, random};

/// The ARNs of consumers, by stream.
#[derive(Debug, Default)]
pub(in super::super) struct Consumers {
    found: Mutex<BTreeMap<String, String>>,
}

/// Whether one that is not there is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Register,
    Await,
}

impl Consumers {
    /// The consumer with which a reader subscribes to the shards of a stream.
    pub(super) async fn arn(
        &self,
        service: &Service,
        options: &FanOutOptions,
        stream: &str,
    ) -> Result<String, Problem> {
        let missing = match &options.registration {
            ConsumerRegistration::None(arns) => {
                let unknown =
                    || Problem::new(Kind::Refused, "Consumer", "the stream has no ARN of a consumer");
                return arns.get(stream).or_else(|| arns.get("")).cloned().ok_or_else(unknown);
            }
            ConsumerRegistration::Lazy => Missing::Register,
            ConsumerRegistration::Eager => Missing::Await,
        };
        // Kept while one looks, so that others wait for what it finds.
        let mut found = self.found.lock().await;
        if let Some(arn) = found.get(stream) {
            return Ok(arn.clone());
        }
        let arn = find(service, options, stream, missing).await?;
        found.insert(stream.to_owned(), arn.clone());
        Ok(arn)
    }

    /// The service does not know it any more: somebody has deregistered it.
    pub(super) async fn forget(&self, stream: &str) {
        self.found.lock().await.remove(stream);
    }

    /// Lets a stream have its consumer before anybody reads, where that is the enumerator's.
    pub(in super::super) async fn prepare(
        service: &Service,
        options: &FanOutOptions,
        stream: &str,
    ) -> Result<(), Problem> {
        match options.registration {
            ConsumerRegistration::Eager => find(service, options, stream, Missing::Register).await.map(drop),
            ConsumerRegistration::Lazy | ConsumerRegistration::None(_) => Ok(()),
        }
    }

    /// Removes what the job has registered with a stream.
    pub(in super::super) async fn remove(
        service: &Service,
        options: &FanOutOptions,
        stream: &str,
    ) -> Result<(), Problem> {
        if matches!(options.registration, ConsumerRegistration::None(_)) {
            return Ok(());
        }
        let name = options.consumer_name.as_deref().unwrap_or_default();
        let (backoff, longest) = options.deregistering;
        let removed = async {
            let arn = stream_arn(service, options, stream).await?;
            let asking = service.asking("deregister the consumer of", stream);
            asking.again(backoff, || service.deregister(&arn, name)).await
        };
        timeout(longest, removed).await.unwrap_or_else(|_| Err(late()))?;
        info!(stream, consumer = name, "The consumer is deregistered.");
        Ok(())
    }
}

/// Looks until it is there and can be used.
async fn find(
    service: &Service,
    options: &FanOutOptions,
    stream: &str,
    missing: Missing,
) -> Result<String, Problem> {
    let name = options.consumer_name.as_deref().unwrap_or_default();
    let (backoff, longest) = options.registering;
    let found = async {
        let stream_arn = stream_arn(service, options, stream).await?;
        let looking = service.asking("look for a consumer of", stream);
        let registering = service.asking("register a consumer with", stream);
        for look in 0..=options.describing.max_retries {
            match looking.again(options.describing, || service.consumer(&stream_arn, name)).await {
                Ok((arn, true)) => return Ok(arn),
                // It comes about.
                Ok((_, false)) => {}
                Err(Problem { kind: Kind::NotFound, .. }) if missing == Missing::Register => {
                    info!(stream, consumer = name, "The consumer is registered.");
                    registering.again(backoff, || service.register(&stream_arn, name)).await?;
                }
                // The enumerator registers it.
                Err(Problem { kind: Kind::NotFound, .. }) if look < options.describing.max_retries => {}
                Err(problem) => return Err(problem),
            }
            sleep(options.describing.pause(look, random())).await;
        }
        Err(late())
    };
    match missing {
        Missing::Register => timeout(longest, found).await.unwrap_or_else(|_| Err(late())),
        Missing::Await => found.await,
    }
}

async fn stream_arn(service: &Service, options: &FanOutOptions, stream: &str) -> Result<String, Problem> {
    let asking = service.asking("describe", stream);
    asking.again(options.describing_streams, || service.stream_arn(stream)).await
}

fn late() -> Problem {
    Problem::new(
        Kind::Passing,
        "Timeout",
        "the consumer of enhanced fan-out is not there, or not gone, in time",
    )
}
