//! Files: what is read is right, and what is wrong is refused with an error that helps.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod config;
mod dataset;
mod exl2;
mod packing;
mod rope;
mod safetensors;
mod tokenizer;
mod writer;

use std::path::PathBuf;

/// A file or directory among the test data.
fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Asserts that this failed, with all of `words` in the message.
#[track_caller]
fn refused<T>(result: exlay::Result<T>, words: &[&str]) {
    let message = match result {
        Ok(_) => panic!("not refused; expected an error with {words:?}"),
        Err(error) => error.to_string(),
    };
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

/// A directory with these files.
fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}
