//! News of what a client has asked for and waits for, to the last.

use tokio::sync::{mpsc, watch};
use tonic::Status;

use crate::leader::News;

/// Tells a client the news, each as `event` writes it. `unknown` says what the next leader does not know.
pub(super) async fn tell<N: News, E>(
    mut news: watch::Receiver<N>,
    events: mpsc::Sender<Result<E, Status>>,
    event: fn(N) -> Result<E, Status>,
    unknown: &str,
) {
    loop {
        let now = news.borrow_and_update().clone();
        let is_last = now.is_last();
        if events.send(event(now)).await.is_err() || is_last {
            return;
        }
        if news.changed().await.is_err() {
            // The last news may have come just before the end.
            let now = news.borrow().clone();
            let last = if now.is_last() { event(now) } else { Err(Status::unavailable(unknown)) };
            // The client may have gone.
            let _ = events.send(last).await;
            return;
        }
    }
}
