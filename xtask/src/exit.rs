//! What went wrong, as an exit code that scripts can use.
//!
//! Stands at the end of every command: an error that carries one of the types below leaves with its code, any other one
//! with 1.

use std::fmt;
use std::process::ExitCode;

/// The arguments make no sense: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

/// The machine lacks something that could not be installed: exit code 3. The text names the cure.
#[derive(Debug)]
pub struct MachineLacks(pub String);

/// SIGINT or SIGTERM arrived: exit code 130.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for MachineLacks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("interrupted; everything that was started has been stopped")
    }
}

impl std::error::Error for Usage {}
impl std::error::Error for MachineLacks {}
impl std::error::Error for Interrupted {}

/// Prints the error and answers the exit code that belongs to it.
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() || error.is::<lexopt::Error>() {
        2
    } else if error.is::<MachineLacks>() {
        3
    } else if error.is::<Interrupted>() {
        130
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn every_kind_of_error_has_its_code_even_with_context_around_it() {
        assert_eq!(code(&anyhow!("a check failed")), 1);
        assert_eq!(code(&Usage("no".into()).into()), 2);
        assert_eq!(code(&lexopt::Error::from("no").into()), 2);
        assert_eq!(code(&MachineLacks("gcc".into()).into()), 3);
        assert_eq!(code(&Interrupted.into()), 130);
        let wrapped = Err::<(), _>(MachineLacks("gcc".into())).context("setup").expect_err("it is an error");
        assert_eq!(code(&wrapped), 3);
    }
}
