//! Files that are either complete or absent under their name: written aside, synced, renamed.
//! What is in them is not known here.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file being written. Nothing is seen under its name before [`AtomicFile::finish`]; dropped
/// without it, the partial file is removed.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    partial: PathBuf,
    writer: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Starts a file that will be called `path`, in a directory that exists.
    ///
    /// # Errors
    /// The partial file cannot be made.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let partial = partial_path(&path);
        let file = File::create(&partial).map_err(Error::io(&partial))?;
        Ok(Self { path, partial, writer: Some(BufWriter::with_capacity(1 << 20, file)) })
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// The system refuses, for example because the disk is full; the message names the final path.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let path = &self.path;
        let writer = self.writer.as_mut().expect("only finish takes the writer, and consumes the file");
        writer.write_all(bytes).map_err(Error::io(path))
    }

    /// Makes the file durable and visible under its name, replacing what was there.
    ///
    /// # Errors
    /// The system refuses; what was there before stays.
    pub fn finish(mut self) -> Result<()> {
        let writer = self.writer.take().expect("finish is called once");
        let done = || -> io::Result<()> {
            let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            drop(file);
            fs::rename(&self.partial, &self.path)
        };
        let result = done().map_err(Error::io(&self.path)).and_then(|()| sync_parent(&self.path));
        if result.is_err() {
            remove_partial(&self.path);
        }
        result
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            remove_partial(&self.path);
        }
    }
}

/// Writes a whole file at once; afterwards it holds `bytes`, or what it held before.
///
/// # Errors
/// As [`AtomicFile`].
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write(bytes)?;
    file.finish()
}

/// Removes what a killed process left of `path` before it had its name. Does nothing when there is
/// no such file; a failure is no error, since the next write replaces it.
pub fn remove_partial(path: &Path) {
    let _nothing_to_do_about_it = fs::remove_file(partial_path(path));
}

/// Where `path` is written before it gets its name.
fn partial_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".exlay-partial");
    path.with_file_name(name)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the name of `path` durable.
///
/// # Errors
/// As the system reports.
pub fn sync_parent(path: &Path) -> Result<()> {
    sync_directory(parent(path))
}

/// Makes new names in a directory durable, where the system has a way to.
///
/// # Errors
/// As the system reports.
pub fn sync_directory(directory: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(directory).and_then(|file| file.sync_all()).map_err(Error::io(directory))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_complete_or_absent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write(&[7; 3_000_000]).unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "the partial file is gone");

        write_atomic(&path, b"first").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write(b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let file = AtomicFile::create(&path).unwrap();
        std::mem::forget(file);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        remove_partial(&path);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        remove_partial(&path);
    }

    #[test]
    fn a_failed_rename_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        let error = write_atomic(&path, b"x").unwrap_err().to_string();
        assert!(error.contains("taken"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
