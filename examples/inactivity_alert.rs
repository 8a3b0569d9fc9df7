//! Says which users have done nothing for five minutes, by a timer of each user that every event puts off.
//!
//! ```text
//! cargo run --release -p thalweg-examples --example inactivity_alert -- --after-seconds 5
//! cargo run --release -p thalweg-examples --example inactivity_alert -- --jobmanager 127.0.0.1:6123 --output /alerts
//! ```

use std::fmt;
use std::path::PathBuf;

use clap::Parser;
use thalweg::prelude::*;
use thalweg_connectors::TextFileSink;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Says which users have done nothing for a while.
#[derive(Parser)]
#[command(name = "inactivity_alert", no_binary_name = true)]
struct Options {
    /// How many users there are.
    #[arg(long, default_value_t = 20, value_name = "USERS", value_parser = clap::value_parser!(u64).range(1..))]
    users: u64,
    /// Events per second of all users; each comes from another one.
    #[arg(long, default_value_t = 2.0, value_name = "PER_SECOND")]
    rate: f64,
    /// Stop after this many events; never when it is not given.
    #[arg(long, value_name = "EVENTS")]
    limit: Option<u64>,
    /// After how much time without an event a user is inactive.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    after_seconds: u64,
    /// Write the alerts into files in this directory instead of printing them.
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
}

/// A user has done something.
#[derive(Record, Clone, Debug)]
pub struct Activity {
    /// Who.
    pub user: String,
    /// Whether it was to leave: nobody waits for another event then.
    pub is_farewell: bool,
}

/// A user has done nothing for a while.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Alert {
    /// Who.
    pub user: String,
    /// What is the matter, as `inactive-5m`.
    pub kind: String,
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.user, self.kind)
    }
}

/// Has a timer for each user that is active.
#[derive(State, Clone, Default)]
pub struct Inactivity {
    deadline: ValueState<Timestamp>,
    #[state(skip)]
    after: Duration,
}

impl Inactivity {
    /// Tells users that do nothing for so long.
    pub fn after(after: Duration) -> Self {
        Self { after, ..Self::default() }
    }

    fn kind(&self) -> String {
        let seconds = self.after.as_secs();
        if seconds.is_multiple_of(60) {
            format!("inactive-{}m", seconds / 60)
        } else {
            format!("inactive-{seconds}s")
        }
    }
}

impl KeyedProcess<String, Activity> for Inactivity {
    type Out = Alert;

    fn on_record(
        &mut self,
        event: Activity,
        context: &mut Context<'_, String, Alert>,
    ) -> Result<(), Failure> {
        if let Some(deadline) = self.deadline.take(context) {
            context.delete_processing_time_timer(deadline);
        }
        if !event.is_farewell {
            let deadline = context.current_processing_time() + self.after.as_millis() as Timestamp;
            context.register_processing_time_timer(deadline);
            self.deadline.set(context, deadline);
        }
        Ok(())
    }

    fn on_timer(&mut self, _: Timestamp, context: &mut Context<'_, String, Alert>) -> Result<(), Failure> {
        self.deadline.clear(context);
        let user = context.take_key();
        context.emit(Alert { user, kind: self.kind() });
        Ok(())
    }
}

fn main() -> thalweg::Result<()> {
    thalweg::run(|env| {
        let options = Options::parse_from(env.args());
        env.enable_checkpointing(secs(1));

        // Some users come again sooner than others, and now and then one leaves.
        let users = options.users;
        let activity = move |number: u64| {
            let user = number * number % users;
            Activity { user: format!("user-{user}"), is_farewell: number % 50 == 49 }
        };
        let alerts = env
            .generate(Some(options.rate), options.limit, activity)
            .uid("activity")
            .key_by(|event| event.user.clone())
            .process(Inactivity::after(secs(options.after_seconds)))
            .uid("inactivity");

        match options.output {
            Some(directory) => alerts.sink("alerts", TextFileSink::directory(directory)),
            None => alerts.print(),
        };
        Ok(())
    })
}
