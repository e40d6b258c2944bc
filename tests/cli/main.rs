//! The `exlay` command from outside: exit codes, texts, what goes to stdout and what to stderr.

mod bench;
mod devices;
mod eval;
mod generate;
mod inspect;
mod selftest;

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;

/// `exlay` in the project's directory, with a fixed width of text.
pub fn exlay(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("exlay").expect("cargo builds the binary for its tests");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("COLUMNS").args(args);
    command
}

/// Runs it and checks the exit code.
pub fn run(args: &[&str], code: i32) -> Output {
    let output = exlay(args).output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "exlay {}: {stderr}", args.join(" "));
    output
}

/// Its data.
pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("output is UTF-8")
}

/// Its messages.
pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("messages are UTF-8")
}

/// A directory of the project as an argument.
pub fn path(relative: &str) -> &str {
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(relative).exists(), "{relative}");
    relative
}

#[test]
fn help_is_data_and_a_success() {
    let help = run(&["--help"], 0);
    assert_eq!(stderr(&help), "");
    insta::assert_snapshot!("help", stdout(&help));
    let inspect = run(&["inspect", "--help"], 0);
    insta::assert_snapshot!("help-inspect", stdout(&inspect));
    assert_eq!(stdout(&run(&["--version"], 0)), concat!("exlay ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_usage_is_2_and_names_the_flag() {
    for (args, named) in [
        (&[][..], "Usage: exlay"),
        (&["fly"], "fly"),
        (&["inspect"], "<DIR>"),
        (&["inspect", "dir", "--fly"], "--fly"),
        (&["inspect", "dir", "--tier", "best"], "--tier"),
        (&["inspect", "dir", "--vram", "lots"], "--vram"),
    ] {
        let output = run(args, 2);
        assert_eq!(stdout(&output), "", "{args:?}");
        assert!(stderr(&output).contains(named), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_failure_is_1_and_one_line() {
    let output = run(&["inspect", "no-such-directory"], 1);
    assert_eq!(stdout(&output), "");
    let message = stderr(&output);
    assert!(message.starts_with("error: no-such-directory"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    for args in [&["inspect", path("examples/tiny-stories")][..], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("exlay"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).stdout(writer);
        let output =
            command.stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{args:?}");
    }
}
