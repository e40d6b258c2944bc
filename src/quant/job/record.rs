//! `job.json` itself: what is in it, and whether a file of that name is one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Inputs, Stage};
use crate::error::{Error, Result};
use crate::formats::atomic::write_atomic;
use crate::quant::fingerprint::hex;

const PROGRAM: &str = "exlay";
/// Rises with every change of the working directory's meaning.
const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) inputs: Inputs,
    pub(super) stage: Stage,
    pub(super) next_block: usize,
    pub(super) files: BTreeSet<String>,
}

/// What is under the name `job.json`.
pub(super) enum Found {
    Nothing,
    /// One of ours that cannot be trusted.
    Damaged,
    Job(Record),
}

impl Record {
    pub(super) fn new(inputs: Inputs) -> Self {
        Self { inputs, stage: Stage::Calibrate, next_block: 0, files: BTreeSet::new() }
    }

    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let document =
            json!({ "a_job_of": PROGRAM, "version": VERSION, "checksum": self.checksum(), "job": self });
        write_atomic(path, format!("{document:#}\n").as_bytes())
    }

    fn checksum(&self) -> String {
        let text = serde_json::to_string(self).expect("only strings, numbers and lists");
        hex(Sha256::new_with_prefix(text))
    }

    /// Reads `job.json`.
    pub(super) fn find(path: &Path) -> Result<Found> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            bytes => bytes.map_err(Error::io(path))?,
        };
        let Ok(value) = serde_json::from_slice::<Value>(&bytes) else {
            return if is_ours_in_part(&bytes) { Ok(Found::Damaged) } else { Err(foreign(path)) };
        };
        if value.get("a_job_of").and_then(Value::as_str) != Some(PROGRAM) {
            return Err(foreign(path));
        }
        if value.get("version") != Some(&json!(VERSION)) {
            return Err(Error::file(
                path,
                "a job of another version of exlay; delete that directory or use another --work-dir",
            ));
        }
        let checksum = value.get("checksum").and_then(Value::as_str);
        let record = value.get("job").and_then(|job| Self::deserialize(job).ok());
        Ok(match record {
            Some(record) if Some(record.checksum().as_str()) == checksum && record.names_are_plain() => {
                Found::Job(record)
            }
            _ => Found::Damaged,
        })
    }

    /// Nothing outside of the directory is ever deleted, whatever the file says.
    fn names_are_plain(&self) -> bool {
        self.files.iter().all(|name| is_plain_name(name))
    }
}

/// Whether a name is that of a file in a directory, and no way out of it.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(only)), None) if only == name)
}

/// Whether bytes that are not JSON can be the beginning of our `job.json`, or what a file system
/// leaves of one after a loss of power.
fn is_ours_in_part(bytes: &[u8]) -> bool {
    let beginning = format!("{{\n  \"a_job_of\": \"{PROGRAM}\"");
    let beginning = beginning.as_bytes();
    bytes.iter().all(|&byte| byte == 0) || bytes.starts_with(&beginning[..beginning.len().min(bytes.len())])
}

fn foreign(path: &Path) -> Error {
    Error::file(path, "this job.json is not exlay's (ExLlamaV2 makes one too); use another --work-dir")
}
