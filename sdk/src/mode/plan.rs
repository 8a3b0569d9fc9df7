//! Plan mode: prints the job graph for the job manager's check, and ends.

use std::io::{self, Write};

use thalweg_common::graph::PLAN_PREFIX;

use crate::environment::Environment;
use crate::error::Result;

use super::{EXIT_REFUSED, declare_for_cluster, exit};

pub(super) fn run(topology: impl FnOnce(&mut Environment) -> Result<()>, arguments: &[String]) -> ! {
    let printed = declare_for_cluster(topology, arguments).and_then(|program| {
        let json = serde_json::to_string(&program.graph)?;
        // The author's code may have printed a line without its end.
        let mut stdout = io::stdout().lock();
        write!(stdout, "\n{PLAN_PREFIX}{json}\n")?;
        stdout.flush()?;
        Ok(())
    });
    match printed {
        Ok(()) => std::process::exit(0),
        Err(error) => exit(EXIT_REFUSED, &error),
    }
}
