//! The working directory of a conversion: `job.json` with everything that influences the result, how
//! far the work is, and which files belong to the job. What the stages do is not known here.
//!
//! A process may be killed at any moment. `job.json` is replaced whole; a file is listed in it
//! before it is first written, so that nothing of the job's is ever unknown to it; and every other
//! state file carries a checksum and is redone when it does not fit.

mod inputs;
mod record;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use inputs::Inputs;
use record::{Found, Record};

use super::lock::lock;
use super::state_file::is_state_file;
use crate::error::{Error, Result};
use crate::formats::atomic::remove_partial;

/// The stages of a conversion, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Token rows and their embeddings.
    Calibrate,
    /// Errors of all options of all blocks.
    Measure,
    /// Choosing one option per block.
    Allocate,
    /// Storing each block with its chosen option.
    Quantize,
    /// Writing the model.
    Compile,
    /// Nothing is left to do.
    Finished,
}

/// How a job was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// There was none.
    Fresh,
    /// It goes on where it was.
    Resumed,
    /// There was one, and it starts over for this reason.
    Restarted(String),
}

/// An open job. The directory is locked against other processes until it is dropped.
#[derive(Debug)]
pub struct Job {
    directory: PathBuf,
    record: Record,
    /// Held for its lock, which the system releases with the process.
    _lock: File,
}

const JOB: &str = "job.json";
const LOCK: &str = "job.lock";

impl Job {
    /// Opens the job in `directory`, which is made if missing. With `resume` an earlier job goes on,
    /// without it the files that the earlier job lists are deleted and a new one starts.
    ///
    /// # Errors
    /// Other inputs than the earlier job's (listed one by one), a `job.json` that is not exlay's or
    /// another version's, a directory in use by another process, or a refusing system.
    pub fn open(directory: impl AsRef<Path>, inputs: Inputs, resume: bool) -> Result<(Self, Opening)> {
        let directory = directory.as_ref().to_path_buf();
        fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
        let path = directory.join(JOB);
        // Looked at before anything is written: a directory that is refused stays as it was.
        Record::find(&path)?;
        let lock = lock_directory(&directory)?;
        let (record, opening) = match Record::find(&path)? {
            Found::Nothing => (Record::new(inputs), Opening::Fresh),
            Found::Damaged => {
                (Record::new(inputs), Opening::Restarted(format!("{} was damaged", path.display())))
            }
            Found::Job(record) if resume => {
                record.inputs.expect_same(&inputs, &path)?;
                record.files.iter().for_each(|name| remove_partial(&directory.join(name)));
                (record, Opening::Resumed)
            }
            Found::Job(record) => {
                for name in &record.files {
                    remove(&directory.join(name))?;
                }
                (Record::new(inputs), Opening::Restarted("asked to start over".into()))
            }
        };
        remove_partial(&path);
        let job = Self { directory, record, _lock: lock };
        job.save()?;
        Ok((job, opening))
    }

    /// The inputs of the job in `directory`, if there is one: for resuming with the directory alone.
    ///
    /// # Errors
    /// As [`Job::open`].
    pub fn recorded(directory: impl AsRef<Path>) -> Result<Option<Inputs>> {
        Ok(match Record::find(&directory.as_ref().join(JOB))? {
            Found::Job(record) => Some(record.inputs),
            Found::Nothing | Found::Damaged => None,
        })
    }

    /// Everything that its results depend on.
    pub fn inputs(&self) -> &Inputs {
        &self.record.inputs
    }

    /// The stage to work on.
    pub fn stage(&self) -> Stage {
        self.record.stage
    }

    /// The block of the stage to work on next.
    pub fn next_block(&self) -> usize {
        self.record.next_block
    }

    /// Records that the work before (`stage`, `next_block`) is done. Results must be on disk already.
    ///
    /// # Errors
    /// The system refuses to write.
    pub fn advance(&mut self, stage: Stage, next_block: usize) -> Result<()> {
        (self.record.stage, self.record.next_block) = (stage, next_block);
        self.save()
    }

    /// Where a file of the job is, for reading.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where a file of the job is, for writing: it is listed as the job's from now on.
    ///
    /// # Errors
    /// There is a file of that name that is not the job's, or the system refuses to write.
    ///
    /// # Panics
    /// `name` is not a plain file name.
    pub fn claim(&mut self, name: &str) -> Result<PathBuf> {
        assert!(record::is_plain_name(name), "`{name}` is not a plain file name");
        let path = self.path(name);
        if !self.record.files.contains(name) {
            // A state file that is not listed is left from a job whose list was damaged.
            if path.symlink_metadata().is_ok() && !is_state_file(&path) {
                return Err(Error::file(
                    path,
                    "exists but was not made by this job; move it away or use another --work-dir",
                ));
            }
            self.record.files.insert(name.to_owned());
            self.save()?;
        }
        Ok(path)
    }

    /// Names of all files of the job, besides `job.json` and `job.lock`.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.record.files.iter().map(String::as_str)
    }

    fn save(&self) -> Result<()> {
        self.record.save(&self.directory.join(JOB))
    }
}

/// The name of a file that belongs to one block: `block-00012.state` for ("block", 12).
pub fn block_name(what: &str, block: usize) -> String {
    format!("{what}-{block:05}.state")
}

fn lock_directory(directory: &Path) -> Result<File> {
    let message = "another exlay is working in this directory; wait for it or use another --work-dir";
    lock(&directory.join(LOCK))?.ok_or_else(|| Error::file(directory, message))
}

/// Removes a file and what a killed process left of it; no file is no error.
fn remove(path: &Path) -> Result<()> {
    remove_partial(path);
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
