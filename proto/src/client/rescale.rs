//! Asking for another parallelism of a running job.
//!
//! Invariant: it is not asked for again by itself: what became of it is unknown when the connection breaks, and the job tells.

use thalweg_common::id::JobId;

use super::{Attempt, ClientError, JobClient, Search};
use crate::convert::{Malformed, WireId};
use crate::v1;
use crate::v1::rescale_event::Message;

/// What became of a rescaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescaled {
    /// All tasks run at the new parallelism.
    Running,
    /// The leader has changed meanwhile: the job tells by its parallelism, once it is RUNNING.
    Unknown,
}

impl JobClient {
    /// Lets a running job go on at another parallelism, and returns when all its tasks run. Operators that set theirs in the program keep
    /// it. `step` is told what is being done.
    ///
    /// # Errors
    /// When the cluster refuses, or the job has its old parallelism again because it could not run at the new one.
    pub async fn rescale(
        &self,
        job_id: JobId,
        parallelism: u32,
        mut step: impl FnMut(&str) + Send,
    ) -> Result<Rescaled, ClientError> {
        self.learn_members().await?;
        let request = v1::RescaleJobRequest { job_id: job_id.to_wire(), parallelism };
        let mut search = Search::start(self);
        let mut events = loop {
            let answer = search.service().await?.rescale_job(request.clone()).await;
            if let Some(response) = search.settle(Attempt::from(answer))? {
                break response.into_inner();
            }
        };
        loop {
            match events.message().await {
                Ok(Some(v1::RescaleEvent { message: Some(Message::Step(text)) })) => step(&text),
                Ok(Some(v1::RescaleEvent { message: Some(Message::Running(_)) })) => {
                    return Ok(Rescaled::Running);
                }
                Ok(Some(v1::RescaleEvent { message: None })) => {
                    return Err(Malformed::missing("rescale_event.message").into());
                }
                Ok(None) => return Ok(Rescaled::Unknown),
                Err(status) => {
                    return match Attempt::<()>::from(Err(status)) {
                        Attempt::Refused(error) => Err(error),
                        _ => Ok(Rescaled::Unknown),
                    };
                }
            }
        }
    }
}
