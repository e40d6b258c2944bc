//! One shard in the making: its data is spooled by element size, and joined behind the header when it is full. Which tensors
//! go into it, and what of it outlives a kill, is not known here.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::header::LENGTH_BYTES;
use super::tensor::Dtype;
use crate::error::{Error, Result};

/// Names of the spools: 4-byte elements, then 2-byte ones.
pub(super) const NAMES: [&str; 2] = ["wide.partial", "narrow.partial"];

/// Bytes that are joined before they are synced and reported.
const STEP: u64 = 1 << 30;

/// Data of one element size, in a file that only this process knows.
struct Spool {
    path: PathBuf,
    file: BufWriter<File>,
    length: u64,
}

/// A tensor that was spooled: bytes `start..end` of its spool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spooled {
    pub(super) name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
    end: u64,
}

/// One shard in the making.
pub(super) struct Shard {
    spools: [Spool; 2],
    tensors: Vec<Spooled>,
}

impl Shard {
    /// A shard with nothing in it.
    pub(super) fn create(directory: &Path) -> Result<Self> {
        let open = |name: &str| Spool::open(directory.join(name), 0);
        Ok(Self { spools: [open(NAMES[0])?, open(NAMES[1])?], tensors: Vec::new() })
    }

    /// A shard as it once was: with these tensors, and spools of these lengths, which they have or exceed.
    pub(super) fn reopen(directory: &Path, lengths: [u64; 2], tensors: Vec<Spooled>) -> Result<Self> {
        let open = |at: usize| Spool::open(directory.join(NAMES[at]), lengths[at]);
        Ok(Self { spools: [open(0)?, open(1)?], tensors })
    }

    /// Bytes of each spool.
    pub(super) fn lengths(&self) -> [u64; 2] {
        [self.spools[0].length, self.spools[1].length]
    }

    /// The tensors in the order in which they came.
    pub(super) fn tensors(&self) -> &[Spooled] {
        &self.tensors
    }

    /// Appends a tensor whose bytes fit its shape.
    pub(super) fn write(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<()> {
        let spool = &mut self.spools[spool_of(dtype)];
        spool.file.write_all(bytes).map_err(Error::io(&spool.path))?;
        let start = spool.length;
        spool.length += bytes.len() as u64;
        let (name, shape, end) = (name.to_owned(), shape.to_vec(), spool.length);
        self.tensors.push(Spooled { name, dtype, shape, start, end });
        Ok(())
    }

    /// Hands everything to the system, and to the disk with `sync`.
    pub(super) fn flush(&mut self, sync: bool) -> Result<()> {
        for spool in &mut self.spools {
            spool.file.flush().map_err(Error::io(&spool.path))?;
            if sync {
                spool.file.get_ref().sync_data().map_err(Error::io(&spool.path))?;
            }
        }
        Ok(())
    }

    /// Writes the whole file, of which `from` bytes are there; `step` is told how many are there and synced, now and
    /// then. Returns its size.
    pub(super) fn join(
        &mut self,
        path: &Path,
        from: u64,
        step: &mut dyn FnMut(&Self, u64) -> Result<()>,
    ) -> Result<u64> {
        self.flush(false)?;
        let header = self.header();
        let size = header.len() as u64 + self.lengths().iter().sum::<u64>();
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(Error::io(path))?;
        file.set_len(from).map_err(Error::io(path))?;
        file.seek(SeekFrom::Start(from)).map_err(Error::io(path))?;
        if from < header.len() as u64 {
            file.write_all(&header[from as usize..]).map_err(Error::io(path))?;
        }
        let (mut at, mut synced) = (from.max(header.len() as u64), from);
        let mut first = header.len() as u64;
        for index in 0..self.spools.len() {
            let end = first + self.spools[index].length;
            while at < end {
                let part = (end - at).min(STEP);
                self.spools[index].copy(at - first, part, &mut file).map_err(Error::io(path))?;
                at += part;
                if at - synced >= STEP {
                    file.sync_data().map_err(Error::io(path))?;
                    step(self, at)?;
                    synced = at;
                }
            }
            first = end;
        }
        file.sync_all().map_err(Error::io(path))?;
        Ok(size)
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
}

impl Spool {
    /// A spool of `length` bytes, cut from what is there.
    fn open(path: PathBuf, length: u64) -> Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let open = || {
            let mut file = options.open(&path)?;
            if file.metadata()?.len() < length {
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "is shorter than it was"));
            }
            file.set_len(length)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(Error::io(&path))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 20, file), length })
    }

    /// Copies a part, with nothing left in the buffer.
    fn copy(&mut self, from: u64, bytes: u64, to: &mut File) -> std::io::Result<()> {
        let source = self.file.get_mut();
        source.seek(SeekFrom::Start(from))?;
        std::io::copy(&mut source.take(bytes), to).map(|_| ())
    }
}

fn spool_of(dtype: Dtype) -> usize {
    usize::from(dtype.size() == 2)
}
