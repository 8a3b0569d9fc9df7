//! Plan mode: prints the job graph for the job manager's check, and ends.

use std::io::{self, Write};

use crate::environment::Environment;
use crate::error::Result;

use super::{EXIT_REFUSED, declare_for_cluster, exit};

/// What the line with the graph starts with. Other lines are the author's own and ignored.
const PREFIX: &str = "THALWEG-PLAN ";

pub(super) fn run(topology: impl FnOnce(&mut Environment) -> Result<()>, arguments: &[String]) -> ! {
    let printed = declare_for_cluster(topology, arguments).and_then(|program| {
        let json = serde_json::to_string(&program.graph)?;
        // The author's code may have printed a line without its end.
        let mut stdout = io::stdout().lock();
        write!(stdout, "\n{PREFIX}{json}\n")?;
        stdout.flush()?;
        Ok(())
    });
    match printed {
        Ok(()) => std::process::exit(0),
        Err(error) => exit(EXIT_REFUSED, &error),
    }
}
