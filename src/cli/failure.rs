//! From an error to a message on stderr and an exit code.

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use super::output;

/// Flags that contradict each other or miss something, found after clap's own checks: exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Prints `error` once and chooses the exit code. Clap's texts for `--help` and `--version` arrive here
/// too and are a success, as is a closed pipe.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(clap) = error.downcast_ref::<clap::Error>() {
        // With nowhere left to print to, the exit code still tells.
        let _ = clap.print();
        return if clap.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
    }
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    output::note(&format!("error: {}", chain(error)));
    if error.is::<Usage>() {
        output::note("For the flags of a command, try `exlay help COMMAND`.");
        return ExitCode::from(2);
    }
    ExitCode::FAILURE
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == ErrorKind::BrokenPipe)
}

/// The error and its causes on one line, each once: some messages already end with their cause.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn causes_are_printed_once() {
        let io = || io::Error::other("disk on fire");
        let plain = Err::<(), _>(io()).context("reading a").context("converting").unwrap_err();
        assert_eq!(chain(&plain), "converting: reading a: disk on fire");
        let typed = Err::<(), _>(exlay::Error::io("config.json")(io())).context("loading").unwrap_err();
        assert_eq!(chain(&typed), "loading: config.json: disk on fire");
    }

    #[test]
    fn a_broken_pipe_is_found_below_other_context() {
        let pipe = io::Error::from(ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&Err::<(), _>(pipe).context("printing").unwrap_err()));
        assert!(!is_broken_pipe(&anyhow::anyhow!("broken pipe")));
    }
}
