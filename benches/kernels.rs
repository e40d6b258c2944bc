//! `cargo bench --bench kernels -- [flags]`: `exlay bench kernels` in the profile of benchmarks, with the same flags.
//!
//! Without `--bench` among the arguments (as in `cargo test --all-targets`) nothing happens.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let (own, flags): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument == "--bench" || argument == "--test");
    if own != ["--bench"] {
        eprintln!("kernels are timed by `cargo bench --bench kernels` only");
        return ExitCode::SUCCESS;
    }
    match Command::new(env!("CARGO_BIN_EXE_exlay")).args(["bench", "kernels"]).args(flags).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}: {error}", env!("CARGO_BIN_EXE_exlay"));
            ExitCode::FAILURE
        }
    }
}
