//! Writes safetensors files as tensors come, in shards of a bounded size.
//!
//! The header stands before the data but is known after it, and 4-byte elements go first so that
//! everything is aligned: both kinds of data are spooled, and joined behind the header when a shard is
//! full. Files get their final names in [`ShardWriter::finish`]; before that, dropping the writer
//! removes them.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::header::LENGTH_BYTES;
use super::tensor::Dtype;
use crate::error::{Error, Result};

/// Data of one element size, in a file that only this process knows.
struct Spool {
    path: PathBuf,
    file: BufWriter<File>,
    length: u64,
}

/// A tensor that was spooled.
struct Spooled {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
    end: u64,
}

/// One shard in the making: the spool of 4-byte elements, then that of 2-byte ones.
struct Shard {
    spools: [Spool; 2],
    tensors: Vec<Spooled>,
}

/// Writes `output.safetensors`, or `output-00001-of-0000N.safetensors` and so on, into a directory.
pub struct ShardWriter {
    directory: PathBuf,
    limit: u64,
    current: Option<Shard>,
    /// Complete files under temporary names.
    shards: Vec<PathBuf>,
    names: HashSet<String>,
    finished: bool,
}

impl ShardWriter {
    /// A writer into `directory`, which must exist. A shard holds at most `shard_limit_bytes` of data,
    /// or a single larger tensor.
    ///
    /// # Errors
    /// If the directory holds safetensors files already.
    pub fn create(directory: impl AsRef<Path>, shard_limit_bytes: u64) -> Result<Self> {
        let directory = directory.as_ref().to_path_buf();
        for entry in std::fs::read_dir(&directory).map_err(Error::io(&directory))? {
            let path = entry.map_err(Error::io(&directory))?.path();
            if path.extension().is_some_and(|ending| ending == "safetensors") {
                return Err(Error::file(path, "is in the way; give an empty output directory"));
            }
        }
        let (shards, names) = (Vec::new(), HashSet::new());
        Ok(Self { directory, limit: shard_limit_bytes, current: None, shards, names, finished: false })
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
        let full = |shard: &Shard| shard.length().saturating_add(bytes.len() as u64) > self.limit;
        if self.current.as_ref().is_some_and(full) {
            self.close()?;
        }
        let shard = match &mut self.current {
            Some(shard) => shard,
            None => self.current.insert(Shard::create(&self.directory)?),
        };
        shard.write(name, dtype, shape, bytes)
    }

    /// Completes the files, gives them their final names and returns those, in order.
    ///
    /// # Errors
    /// If nothing was written, or the system refuses.
    pub fn finish(mut self) -> Result<Vec<PathBuf>> {
        self.close()?;
        let count = self.shards.len();
        if count == 0 {
            return Err(Error::file(&self.directory, "no tensors were written"));
        }
        let name = |index: usize| match count {
            1 => "output.safetensors".to_owned(),
            _ => format!("output-{:05}-of-{count:05}.safetensors", index + 1),
        };
        let paths: Vec<PathBuf> = (0..count).map(|index| self.directory.join(name(index))).collect();
        for (temporary, path) in self.shards.iter().zip(&paths) {
            std::fs::rename(temporary, path).map_err(Error::io(path))?;
        }
        sync_directory(&self.directory)?;
        self.finished = true;
        Ok(paths)
    }

    fn close(&mut self) -> Result<()> {
        let Some(shard) = self.current.take() else { return Ok(()) };
        let path = self.directory.join(format!("shard-{:05}.partial", self.shards.len() + 1));
        self.shards.push(path.clone());
        shard.join(&path)
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.current = None;
        for path in &self.shards {
            // Nothing can be done about a file that cannot be removed; its name says what it is.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Shard {
    fn create(directory: &Path) -> Result<Self> {
        let spools = [
            Spool::create(directory.join("wide.partial"))?,
            Spool::create(directory.join("narrow.partial"))?,
        ];
        Ok(Self { spools, tensors: Vec::new() })
    }

    fn length(&self) -> u64 {
        self.spools.iter().map(|spool| spool.length).sum()
    }

    fn write(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<()> {
        let spool = &mut self.spools[spool_of(dtype)];
        spool.file.write_all(bytes).map_err(Error::io(&spool.path))?;
        let start = spool.length;
        spool.length += bytes.len() as u64;
        let (name, shape, end) = (name.to_owned(), shape.to_vec(), spool.length);
        self.tensors.push(Spooled { name, dtype, shape, start, end });
        Ok(())
    }

    /// The header, its length before it, padded so that the data begins at a multiple of 8.
    fn header(&self) -> Vec<u8> {
        let mut entries = Map::new();
        entries.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
        for tensor in &self.tensors {
            let before = if spool_of(tensor.dtype) == 0 { 0 } else { self.spools[0].length };
            let offsets = [before + tensor.start, before + tensor.end];
            let entry =
                json!({ "dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": offsets });
            entries.insert(tensor.name.clone(), entry);
        }
        let mut text = Value::Object(entries).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        debug_assert_eq!(header.len(), LENGTH_BYTES);
        header.append(&mut text);
        header
    }

    fn join(mut self, path: &Path) -> Result<()> {
        let mut file = File::create(path).map_err(Error::io(path))?;
        file.write_all(&self.header()).map_err(Error::io(path))?;
        for spool in &mut self.spools {
            spool.file.flush().map_err(Error::io(&spool.path))?;
            let source = spool.file.get_mut();
            source.seek(SeekFrom::Start(0)).map_err(Error::io(&spool.path))?;
            std::io::copy(source, &mut file).map_err(Error::io(path))?;
        }
        file.sync_all().map_err(Error::io(path))
    }
}

fn spool_of(dtype: Dtype) -> usize {
    usize::from(dtype.size() == 2)
}

impl Spool {
    fn create(path: PathBuf) -> Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(true);
        let file = BufWriter::with_capacity(1 << 20, options.open(&path).map_err(Error::io(&path))?);
        Ok(Self { path, file, length: 0 })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // As for the writer: a spool that cannot be removed is left under a name that says what it is.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes new names in a directory survive a power cut.
fn sync_directory(directory: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(directory).and_then(|file| file.sync_all()).map_err(Error::io(directory))?;
    }
    Ok(())
}
