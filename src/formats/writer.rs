//! Writes safetensors files as tensors come, in shards of a bounded size.
//!
//! The header stands before the data but is known after it, and 4-byte elements go first so that
//! everything is aligned: both kinds of data are spooled, and joined behind the header when a shard is
//! full ([`super::spool`]). Files get their final names in [`ShardWriter::finish`]; before that, dropping the
//! writer removes them, unless they are kept: then a writer of another process can go on with them.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::atomic::{remove_partial, sync_directory, write_atomic};
use super::spool::{NAMES, Shard, Spooled};
use super::tensor::Dtype;
use crate::error::{Error, Result};

/// Name of the file by which a killed writer can be resumed.
pub const JOURNAL: &str = "writer.partial";

/// Rises with every change of the journal's meaning.
const VERSION: u32 = 1;

/// What of a writer outlives it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Journal {
    version: u32,
    limit: u64,
    /// What the caller said of its own progress.
    mark: usize,
    /// Bytes of the complete shards.
    shards: Vec<u64>,
    /// Names of the tensors in them.
    names: Vec<String>,
    current: Option<Current>,
}

/// The shard in the making.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Current {
    lengths: [u64; 2],
    tensors: Vec<Spooled>,
    /// Bytes of the joined file, once it is being joined.
    joined: Option<u64>,
}

/// Writes `output.safetensors`, or `output-00001-of-0000N.safetensors` and so on, into a directory.
pub struct ShardWriter {
    directory: PathBuf,
    limit: u64,
    current: Option<Shard>,
    /// Bytes of complete files under temporary names.
    shards: Vec<u64>,
    /// Names of the tensors in them.
    complete: Vec<String>,
    names: HashSet<String>,
    /// Tensors that an earlier writer has written.
    known: HashSet<String>,
    /// The caller's mark, once anything is kept.
    mark: Option<usize>,
    finished: bool,
}

impl ShardWriter {
    /// A writer into `directory`, which must exist. A shard holds at most `shard_limit_bytes` of data,
    /// or a single larger tensor.
    ///
    /// # Errors
    /// If the directory holds safetensors files already.
    pub fn create(directory: impl AsRef<Path>, shard_limit_bytes: u64) -> Result<Self> {
        let directory = directory.as_ref();
        for entry in fs::read_dir(directory).map_err(Error::io(directory))? {
            let path = entry.map_err(Error::io(directory))?.path();
            if path.extension().is_some_and(|ending| ending == "safetensors") {
                return Err(Error::file(path, "is in the way; give an empty output directory"));
            }
        }
        Ok(Self::new(directory, shard_limit_bytes))
    }

    fn new(directory: &Path, limit: u64) -> Self {
        Self {
            directory: directory.to_path_buf(),
            limit,
            current: None,
            shards: Vec::new(),
            complete: Vec::new(),
            names: HashSet::new(),
            known: HashSet::new(),
            mark: None,
            finished: false,
        }
    }

    /// Goes on where an earlier writer into `directory` was when it last kept its work; with the mark that it was given.
    /// Tensors from there on are written again, in the same order; those that are there already are skipped. None
    /// when nothing was kept, with another limit, or its files are not as they were.
    ///
    /// # Errors
    /// The system refuses.
    pub fn resume(directory: impl AsRef<Path>, shard_limit_bytes: u64) -> Result<Option<(Self, usize)>> {
        let directory = directory.as_ref();
        remove_partial(&directory.join(JOURNAL));
        let Ok(text) = fs::read(directory.join(JOURNAL)) else { return Ok(None) };
        let Ok(journal) = serde_json::from_slice::<Journal>(&text) else { return Ok(None) };
        if (journal.version, journal.limit) != (VERSION, shard_limit_bytes) {
            return Ok(None);
        }
        let mut writer = Self::new(directory, shard_limit_bytes);
        (writer.shards, writer.mark) = (journal.shards, Some(journal.mark));
        let size = |path: PathBuf| fs::metadata(path).map(|file| file.len()).ok();
        let there = |(index, &bytes): (usize, &u64)| {
            size(writer.temporary(index)).or_else(|| size(writer.named(index))) == Some(bytes)
        };
        if !writer.shards.iter().enumerate().all(there) {
            return Ok(None);
        }
        writer.known.extend(journal.names.iter().cloned());
        writer.complete = journal.names;
        if let Some(Current { lengths, tensors, joined }) = journal.current {
            let here = |at: usize| size(directory.join(NAMES[at])).is_some_and(|bytes| bytes >= lengths[at]);
            let joined = joined.unwrap_or(0);
            let begun = joined == 0 || size(writer.temporary(writer.shards.len())) >= Some(joined);
            if !(here(0) && here(1) && begun) {
                return Ok(None);
            }
            writer.known.extend(tensors.iter().map(|tensor| tensor.name.clone()));
            writer.current = Some(Shard::reopen(directory, lengths, tensors)?);
            if joined > 0 {
                writer.close(joined)?;
            }
        }
        Ok(Some((writer, journal.mark)))
    }

    /// Makes what was written so far outlive this writer, whatever happens to it; `mark` comes back from
    /// [`ShardWriter::resume`].
    ///
    /// # Errors
    /// The system refuses.
    pub fn keep(&mut self, mark: usize) -> Result<()> {
        self.mark = Some(mark);
        if let Some(shard) = &mut self.current {
            shard.flush(true)?;
        }
        self.save(self.current.as_ref(), None)
    }

    /// Writes one tensor of little-endian elements.
    ///
    /// # Errors
    /// If the name was used before, the bytes do not fit the shape, or the system refuses (a full disk).
    pub fn write(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<()> {
        let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        if elements.and_then(|elements| elements.checked_mul(dtype.size())) != Some(bytes.len()) {
            let message = format!("{} bytes do not fill shape {shape:?} of {}", bytes.len(), dtype.name());
            return Err(Error::tensor(&self.directory, name, message));
        }
        if name == "__metadata__" || !self.names.insert(name.to_owned()) {
            return Err(Error::tensor(&self.directory, name, "was written before; names must differ"));
        }
        if self.known.contains(name) {
            return Ok(());
        }
        let full = |shard: &Shard| {
            let length: u64 = shard.lengths().iter().sum();
            length.saturating_add(bytes.len() as u64) > self.limit
        };
        if self.current.as_ref().is_some_and(full) {
            self.close(0)?;
        }
        let shard = match &mut self.current {
            Some(shard) => shard,
            None => self.current.insert(Shard::create(&self.directory)?),
        };
        shard.write(name, dtype, shape, bytes)
    }

    /// Completes the files, gives them their final names and returns those, in order. The journal of a writer that
    /// kept its work stays, so that this can be done again.
    ///
    /// # Errors
    /// If nothing was written, or the system refuses.
    pub fn finish(mut self) -> Result<Vec<PathBuf>> {
        self.close(0)?;
        // An earlier writer may have been killed before it did.
        self.remove_spools();
        let count = self.shards.len();
        if count == 0 {
            return Err(Error::file(&self.directory, "no tensors were written"));
        }
        let paths: Vec<PathBuf> = (0..count).map(|index| self.named(index)).collect();
        for (index, path) in paths.iter().enumerate() {
            let temporary = self.temporary(index);
            // An earlier writer may have come so far.
            if temporary.exists() || !path.exists() {
                fs::rename(temporary, path).map_err(Error::io(path))?;
            }
        }
        sync_directory(&self.directory)?;
        self.finished = true;
        Ok(paths)
    }

    /// Joins the current shard, of whose file `from` bytes are there.
    fn close(&mut self, from: u64) -> Result<()> {
        let Some(mut shard) = self.current.take() else { return Ok(()) };
        let path = self.temporary(self.shards.len());
        if self.mark.is_some() {
            shard.flush(true)?;
            self.save(Some(&shard), Some(from))?;
        }
        let size = shard.join(&path, from, &mut |shard, joined| match self.mark {
            Some(_) => self.save(Some(shard), Some(joined)),
            None => Ok(()),
        });
        // Listed in any case, so that it is removed if the writer is dropped.
        self.shards.push(*size.as_ref().unwrap_or(&0));
        size?;
        self.complete.extend(shard.tensors().iter().map(|tensor| tensor.name.clone()));
        if self.mark.is_some() {
            self.save(None, None)?;
        }
        self.remove_spools();
        Ok(())
    }

    fn save(&self, current: Option<&Shard>, joined: Option<u64>) -> Result<()> {
        let current = current.map(|shard| {
            let (lengths, tensors) = (shard.lengths(), shard.tensors().to_vec());
            Current { lengths, tensors, joined }
        });
        let mark = self.mark.unwrap_or(0);
        let (shards, names) = (self.shards.clone(), self.complete.clone());
        let journal = Journal { version: VERSION, limit: self.limit, mark, shards, names, current };
        let text = serde_json::to_vec(&journal).expect("only strings, numbers and lists");
        write_atomic(self.directory.join(JOURNAL), &text)
    }

    /// Where a complete shard waits for its name.
    fn temporary(&self, index: usize) -> PathBuf {
        self.directory.join(format!("shard-{:05}.partial", index + 1))
    }

    /// The final name of a shard when all are complete.
    fn named(&self, index: usize) -> PathBuf {
        self.directory.join(match self.shards.len() {
            1 => "output.safetensors".to_owned(),
            count => format!("output-{:05}-of-{count:05}.safetensors", index + 1),
        })
    }

    fn remove_spools(&self) {
        for name in NAMES {
            // Nothing can be done about a file that cannot be removed; its name says what it is.
            let _ = fs::remove_file(self.directory.join(name));
        }
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        if self.finished || self.mark.is_some() {
            return;
        }
        self.current = None;
        self.remove_spools();
        for index in 0..self.shards.len() {
            let _ = fs::remove_file(self.temporary(index));
        }
    }
}
