//! Files that say who works in a place: locked while a process does, and released by the system however it ends.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};

/// Opens a file, made if missing, and locks it; none when another process holds it. Some network file systems have no
/// locks: then nothing warns of a second process.
///
/// # Errors
/// The system refuses.
pub(super) fn lock(path: &Path) -> Result<Option<File>> {
    let mut options = File::options();
    let file =
        options.create(true).truncate(false).read(true).write(true).open(path).map_err(Error::io(path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(Some(file)),
        Err(TryLockError::Error(error)) => Err(Error::io(path)(error)),
    }
}
