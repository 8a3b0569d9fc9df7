//! The actor's loop: leadership first, then what was done, what is told, and time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use thalweg_common::id::JobId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::term::Term;
use super::work::Done;
use super::{ConnectionId, Context, Mail, NotLeading};
use crate::consensus::Leadership;

/// How often a leader without any deadline looks at the time.
const IDLE: Duration = Duration::from_secs(60);

pub(super) struct Actor {
    context: Arc<Context>,
    mails: mpsc::Receiver<Mail>,
    reasons: watch::Sender<Arc<BTreeMap<JobId, String>>>,
    leadership: watch::Receiver<Leadership>,
    changes: watch::Receiver<u64>,
    /// Present while this node leads.
    term: Option<Term>,
    next_connection: ConnectionId,
}

/// What the loop woke up for.
enum Event {
    Leadership,
    Done(Done),
    State,
    Mail(Mail),
    Tick,
}

impl Actor {
    pub(super) fn new(
        context: Arc<Context>,
        mails: mpsc::Receiver<Mail>,
        reasons: watch::Sender<Arc<BTreeMap<JobId, String>>>,
    ) -> Self {
        let leadership = context.consensus.leadership();
        let changes = context.consensus.state().changes();
        Self { context, mails, reasons, leadership, changes, term: None, next_connection: 1 }
    }

    pub(super) async fn run(mut self, token: CancellationToken) {
        self.follow_leadership();
        loop {
            let event = tokio::select! {
                biased;
                () = token.cancelled() => break,
                event = self.next_event() => event,
            };
            match event {
                None => break,
                Some(event) => self.handle(event),
            }
        }
        self.end_term();
    }

    /// Cancel-safe: nothing is changed before an event is returned.
    async fn next_event(&mut self) -> Option<Event> {
        let leads = self.term.is_some();
        let idle = self.term.as_ref().and_then(Term::idle_for).unwrap_or(IDLE);
        let done = async {
            match self.term.as_mut() {
                Some(term) if !term.work.is_empty() => term.work.next().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = self.leadership.changed() => changed.ok().map(|()| Event::Leadership),
            Some(done) = done => Some(Event::Done(done)),
            _ = self.changes.changed(), if leads => Some(Event::State),
            mail = self.mails.recv() => mail.map(Event::Mail),
            () = tokio::time::sleep(idle), if leads => Some(Event::Tick),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Leadership => self.follow_leadership(),
            Event::Mail(mail) => self.mail(mail),
            Event::Done(done) => self.with_term(|term| term.done(done)),
            Event::State => self.with_term(Term::take_new_jobs),
            Event::Tick => self.with_term(Term::tick),
        }
        // Other events may have kept the loop from its timer.
        let is_late = |term: &Term| term.idle_for().is_some_and(|idle| idle.is_zero());
        if self.term.as_ref().is_some_and(is_late) {
            self.with_term(Term::tick);
        }
        self.publish_reasons();
    }

    fn with_term(&mut self, act: impl FnOnce(&mut Term)) {
        if let Some(term) = self.term.as_mut() {
            act(term);
        }
    }

    /// Begins and ends terms.
    fn follow_leadership(&mut self) {
        let leadership = self.leadership.borrow_and_update().clone();
        let goes_on = |term: &Term| leadership.is_leader && term.number() == leadership.term;
        if self.term.as_ref().is_some_and(goes_on) {
            return;
        }
        self.end_term();
        if leadership.is_leader {
            self.changes.mark_unchanged();
            self.term = Some(Term::begin(leadership.term, Arc::clone(&self.context)));
        }
    }

    fn end_term(&mut self) {
        if let Some(term) = self.term.take() {
            term.end(&Status::from(self.not_leading()));
        }
    }

    fn not_leading(&self) -> NotLeading {
        NotLeading::of(&self.context.consensus.leadership().borrow())
    }

    fn mail(&mut self, mail: Mail) {
        let not_leading = self.not_leading();
        let Some(term) = self.term.as_mut() else { return refuse(mail, not_leading) };
        match mail {
            Mail::Connect { register, outbound, reply } => {
                let connection = self.next_connection;
                self.next_connection += 1;
                let result = term.connect(connection, register, outbound).map(|()| connection);
                if reply.send(result).is_err() {
                    term.closed(connection, "it went away while it registered");
                }
            }
            Mail::Received { connection, message } => term.received(connection, message),
            Mail::Closed { connection, reason } => term.closed(connection, &reason),
            Mail::Cancel { job_id, reply } => {
                term.cancel(job_id);
                answer(reply, ());
            }
            Mail::Savepoint { job_id, directory, mode, reply } => {
                answer(reply, term.savepoint(job_id, directory, mode));
            }
            Mail::Checkpoint { job_id, reply } => answer(reply, term.checkpoint(job_id)),
            Mail::Rescale { job_id, layout, reply } => answer(reply, term.rescale(job_id, layout)),
            Mail::View { job_id, reply } => answer(reply, term.views(job_id)),
            Mail::Checkpoints { job_id, reply } => answer(reply, term.checkpoints(job_id)),
            Mail::TaskManagers { reply } => answer(reply, term.task_managers()),
            Mail::Logs { job_id, tail_bytes, sink, reply } => {
                term.ask_logs(job_id, tail_bytes, sink);
                answer(reply, ());
            }
            Mail::Time { job_id, sink, reply } => answer(reply, term.ask_time(job_id, sink)),
        }
    }

    fn publish_reasons(&self) {
        let reasons = self.term.as_ref().map(Term::reasons).unwrap_or_default();
        self.reasons.send_if_modified(|known| {
            let changed = **known != reasons;
            if changed {
                *known = Arc::new(reasons);
            }
            changed
        });
    }
}

/// Answers a question. Whoever asked may be gone; then nobody needs the answer.
fn answer<T>(reply: tokio::sync::oneshot::Sender<Result<T, NotLeading>>, value: T) {
    let _ = reply.send(Ok(value));
}

fn refuse(mail: Mail, not_leading: NotLeading) {
    // Whoever asked may be gone.
    match mail {
        Mail::Connect { reply, .. } => drop(reply.send(Err(not_leading.into()))),
        Mail::Received { .. } | Mail::Closed { .. } => {}
        Mail::Cancel { reply, .. } | Mail::Logs { reply, .. } => drop(reply.send(Err(not_leading))),
        Mail::Savepoint { reply, .. } => drop(reply.send(Err(not_leading))),
        Mail::Checkpoint { reply, .. } => drop(reply.send(Err(not_leading))),
        Mail::Rescale { reply, .. } => drop(reply.send(Err(not_leading))),
        Mail::View { reply, .. } => drop(reply.send(Err(not_leading))),
        Mail::Checkpoints { reply, .. } => drop(reply.send(Err(not_leading))),
        Mail::TaskManagers { reply } => drop(reply.send(Err(not_leading))),
        Mail::Time { reply, .. } => drop(reply.send(Err(not_leading))),
    }
}
