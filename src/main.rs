//! The `exlay` command: parses the command line, runs one command, maps the result to an exit code.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage. A reader that closes the pipe early is no failure.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::failure::report(&error),
    }
}
