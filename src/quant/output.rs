//! The directory of a finished model: who writes it, where it is written until it is complete, and how it gets its name.
//!
//! A model is written into `OUTPUT.exlay-partial` and renamed. While a job means to write there, `OUTPUT.exlay-job`
//! names it: it is locked while the job runs, and what it says outlives a kill, so that no other job takes the partial
//! directory for its own. What is written is not known here ([`super::compile`]).

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::fingerprint::file_digest;
use super::lock::lock;
use crate::formats::atomic::sync_parent;
use crate::formats::safetensors::JOURNAL;
use crate::{Error, Result};

/// The job that writes an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    /// Its working directory, as far as it is known from everywhere.
    work: PathBuf,
    /// See [`super::job::Inputs::fingerprint`].
    fingerprint: String,
}

/// The right to write an output directory; given up when dropped, kept on disk while there is a partial directory.
#[derive(Debug)]
pub struct Claim {
    directory: PathBuf,
    file: File,
    owner: Owner,
    /// What an earlier run of this job left aside was made from the same inputs.
    same: bool,
}

impl Claim {
    /// Locks the output `directory` for the job in `work`, without changing anything yet.
    ///
    /// # Errors
    /// [`Error::Argument`] when another process is at work there, or another job has left an unfinished model.
    pub fn lock(directory: &Path, work: &Path, fingerprint: String) -> Result<Self> {
        let path = job_path(directory);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
        }
        let Some(mut file) = lock(&path)? else { return Err(busy(directory)) };
        let mut text = String::new();
        // What cannot be read names nobody.
        let known =
            file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str::<Owner>(&text).ok());
        let owner = Owner { work: resolved(work), fingerprint };
        let partial = partial_path(directory);
        if partial.symlink_metadata().is_ok() && known.as_ref().is_none_or(|known| known.work != owner.work) {
            let whose = match known {
                Some(known) => format!("the job in {}", known.work.display()),
                None => "a job that is not known".to_owned(),
            };
            let message = format!(
                "{} is the unfinished model of {whose}; finish that job first, delete both, or name another directory",
                partial.display()
            );
            return Err(Error::argument("--output", message));
        }
        let same = known.is_some_and(|known| known == owner);
        Ok(Self { directory: directory.to_path_buf(), file, owner, same })
    }

    /// Makes the output this job's, on disk too, and removes what it has left aside under other inputs.
    ///
    /// # Errors
    /// As [`make_free`] and the system report.
    pub fn take(&mut self) -> Result<()> {
        make_free(&self.directory)?;
        if !self.same {
            self.clear()?;
        }
        let (path, text) = (job_path(&self.directory), serde_json::to_vec(&self.owner));
        let text = text.map_err(|error| Error::file(&path, error.to_string()))?;
        let mut write = || {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&text)?;
            self.file.sync_all()
        };
        write().map_err(Error::io(&path))?;
        // A process that ended in this very moment may have removed the file that is locked here.
        if fs::read(&path).is_ok_and(|found| found == text) { Ok(()) } else { Err(busy(&self.directory)) }
    }

    /// Where the model is written until it is complete.
    pub fn partial(&self) -> PathBuf {
        partial_path(&self.directory)
    }

    /// Removes what was written aside.
    ///
    /// # Errors
    /// As the system reports.
    pub fn clear(&self) -> Result<()> {
        let partial = self.partial();
        if partial.exists() { fs::remove_dir_all(&partial).map_err(Error::io(&partial)) } else { Ok(()) }
    }

    /// Gives the complete directory its name.
    ///
    /// # Errors
    /// As [`make_free`] and the system report.
    pub fn publish(self) -> Result<()> {
        make_free(&self.directory)?;
        fs::rename(self.partial(), &self.directory).map_err(Error::io(&self.directory))?;
        sync_parent(&self.directory)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.partial().exists() {
            // A file that stays says nothing wrong: its job can go on, and any other may take it over.
            let _ = fs::remove_file(job_path(&self.directory));
        }
    }
}

fn busy(directory: &Path) -> Error {
    let message =
        format!("another exlay is writing to {}; wait for it or name another directory", directory.display());
    Error::argument("--output", message)
}

/// Tells a directory that this job made from any other: names and sizes of its files but the writer's journal, and the
/// content of config.json.
///
/// # Errors
/// As the system reports.
pub fn directory_digest(directory: &Path) -> Result<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io(directory))? {
        let entry = entry.map_err(Error::io(directory))?;
        if entry.file_name() == JOURNAL {
            continue;
        }
        let bytes = entry.metadata().map_err(Error::io(entry.path()))?.len();
        files.push(format!("{} {bytes}", entry.file_name().to_string_lossy()));
    }
    files.sort();
    files.push(file_digest(directory.join("config.json"))?);
    Ok(files.join("\n"))
}

/// Refuses a name that is taken: a file, a link, or a directory that holds anything. An empty directory is removed, so
/// that one which cannot be (a mount point) is refused before the work and not after it.
///
/// # Errors
/// [`Error::Argument`] that names it.
pub fn make_free(directory: &Path) -> Result<()> {
    let refuse = |why: &str| Err(Error::argument("--output", format!("{} {why}", directory.display())));
    if directory.file_name().is_none() {
        return refuse("cannot be replaced; name a directory that is not there yet");
    }
    let Ok(found) = fs::symlink_metadata(directory) else { return Ok(()) };
    if !found.is_dir() {
        return refuse("is a file or a link; name a directory that is not there yet");
    }
    if fs::read_dir(directory).map_err(Error::io(directory))?.next().is_some() {
        return refuse("holds other files; name another directory or empty it");
    }
    match fs::remove_dir(directory) {
        Ok(()) => Ok(()),
        Err(error) => {
            refuse(&format!("cannot be replaced ({error}); name a directory that is not there yet"))
        }
    }
}

/// A path without links and dots as far as it exists.
pub(super) fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    for ancestor in absolute.ancestors() {
        if let (Ok(known), Ok(rest)) = (ancestor.canonicalize(), absolute.strip_prefix(ancestor)) {
            // Nothing joined would add a slash.
            return if rest.as_os_str().is_empty() { known } else { known.join(rest) };
        }
    }
    absolute
}

fn partial_path(directory: &Path) -> PathBuf {
    beside(directory, ".exlay-partial")
}

fn job_path(directory: &Path) -> PathBuf {
    beside(directory, ".exlay-job")
}

fn beside(directory: &Path, ending: &str) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_os_string();
    name.push(ending);
    directory.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(directory: &Path, job: &str, fingerprint: &str) -> Result<Claim> {
        let work = directory.join(job);
        fs::create_dir_all(&work).unwrap();
        Claim::lock(&directory.join("out"), &work, fingerprint.to_owned())
    }

    fn refused(directory: &Path, job: &str) -> String {
        claim(directory, job, "1").unwrap_err().to_string()
    }

    #[test]
    fn one_job_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let mut first = claim(home, "a", "1").unwrap();
        first.take().unwrap();
        assert!(refused(home, "b").contains("another exlay is writing"));
        drop(first);
        assert!(!home.join("out.exlay-job").exists());
        claim(home, "b", "2").unwrap().take().unwrap();
    }

    /// The lock is gone with the process, what it has written is not.
    #[test]
    fn an_unfinished_model_is_its_jobs() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let file = home.join("out.exlay-partial/shard");
        let write = |fingerprint| {
            let mut claim = claim(home, "a", fingerprint).unwrap();
            claim.take().unwrap();
            let found = file.exists();
            fs::create_dir_all(claim.partial()).unwrap();
            fs::write(&file, "hours of work").unwrap();
            found
        };
        assert!(!write("1"));
        let message = refused(home, "b");
        assert!(message.contains("out.exlay-partial is the unfinished model of the job in"), "{message}");
        assert!(message.contains("/a;") && file.exists(), "{message}");
        assert!(write("1"), "the same job finds it");
        // A run that is refused after it has the lock deletes nothing.
        drop(claim(home, "a", "2").unwrap());
        assert!(file.exists());
        assert!(!write("2"), "of other inputs it is worth nothing");
        fs::write(home.join("out.exlay-job"), "{").unwrap();
        assert!(refused(home, "a").contains("a job that is not known"));
        fs::remove_dir_all(home.join("out.exlay-partial")).unwrap();
        claim(home, "b", "1").unwrap().take().unwrap();
    }

    #[test]
    fn a_complete_directory_gets_its_name() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let mut claim = claim(home, "a", "1").unwrap();
        claim.take().unwrap();
        fs::create_dir(claim.partial()).unwrap();
        fs::write(claim.partial().join("config.json"), "{}").unwrap();
        claim.publish().unwrap();
        let names: Vec<_> = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(home.join("out/config.json").exists());
    }
}
