//! Hidden states of calibration rows, cut into the passes in which they run: on the device where they fit beside the
//! rest, otherwise on the host, otherwise in a file. Nothing else knows where they are.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::source::Source;
use crate::gpu::Submission;
use crate::ops::Tensor;
use crate::{Error, Result};

/// How many bytes of hidden states are kept where; what is beyond both is kept in a file.
#[derive(Clone, Debug)]
pub struct RowsRoom {
    /// Bytes on the device.
    pub device: u64,
    /// Bytes on the host.
    pub host: u64,
    /// Where files are made that no other process knows of.
    pub directory: PathBuf,
}

/// Rows of hidden states [tokens, hidden].
pub struct HiddenRows {
    passes: Vec<Pass>,
    rows: usize,
    file: Option<Arc<RowsFile>>,
}

/// The tokens of one row that run at once.
struct Pass {
    row: usize,
    first: usize,
    tokens: usize,
    held: Held,
}

enum Held {
    Device(Tensor),
    Host(Vec<f32>),
    /// So many values from a place in the file on.
    File(u64, usize),
}

impl HiddenRows {
    /// Holds rows, each [tokens, hidden], of one of two streams that share [`Source::rows_room`] evenly: the first of them on the
    /// device, the next ones on the host.
    ///
    /// # Errors
    /// As [`Tensor::upload`] and the system report.
    pub fn new(source: &Source<'_>, rows: impl Iterator<Item = Result<Vec<f32>>>) -> Result<Self> {
        let (most, hidden) = (source.scratch().rows(), source.config().hidden_size);
        let RowsRoom { device, host, directory } = source.rows_room();
        let (mut device, mut host) = (device / 2, host / 2);
        let mut held = Self { passes: Vec::new(), rows: 0, file: None };
        for (row, values) in rows.enumerate() {
            for (index, chunk) in values?.chunks(most * hidden).enumerate() {
                let bytes = size_of_val(chunk) as u64;
                let place = if let Some(left) = device.checked_sub(bytes) {
                    device = left;
                    Held::Device(Tensor::upload(source.device(), "hidden states", chunk, hidden)?)
                } else if let Some(left) = host.checked_sub(bytes) {
                    host = left;
                    Held::Host(chunk.to_vec())
                } else {
                    if held.file.is_none() {
                        held.file = Some(Arc::new(RowsFile::create(directory, OWN)?));
                    }
                    let file = held.file.as_ref().expect("made where there was none");
                    Held::File(file.append(chunk)?, chunk.len())
                };
                let tokens = chunk.len() / hidden;
                held.passes.push(Pass { row, first: index * most, tokens, held: place });
            }
            held.rows = row + 1;
        }
        Ok(held)
    }

    /// A copy, each pass where it is here.
    ///
    /// # Errors
    /// As the device and the system report.
    pub fn copy(&self) -> Result<Self> {
        let file = self.file.as_ref().map(|file| file.copy().map(Arc::new)).transpose()?;
        let mut copies: Option<Submission> = None;
        let mut copy = |pass: &Pass| {
            let held = match &pass.held {
                Held::Host(values) => Held::Host(values.clone()),
                Held::File(at, count) => Held::File(*at, *count),
                Held::Device(tensor) => {
                    let (device, label) = (tensor.device(), tensor.buffer().label());
                    let copy = Tensor::zeros(device, label, tensor.rows(), tensor.cols())?;
                    let work = copies.get_or_insert_with(|| Submission::new(device, "copy of hidden states"));
                    transfer(tensor, &copy, tensor.rows(), work)?;
                    Held::Device(copy)
                }
            };
            Ok(Pass { held, ..*pass })
        };
        let passes = self.passes.iter().map(&mut copy).collect::<Result<_>>()?;
        copies.as_mut().map_or(Ok(()), Submission::run)?;
        Ok(Self { passes, rows: self.rows, file })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Row and tokens of each pass, in the order in which they run.
    pub fn passes(&self) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let spans = self.passes.iter().map(|pass| (pass.row, pass.first..pass.first + pass.tokens));
        spans.collect::<Vec<_>>().into_iter()
    }

    /// Puts the hidden states of a pass into the first rows of `to`, after what is in `work` already.
    ///
    /// # Errors
    /// As the device and the system report.
    pub fn load(&self, pass: usize, to: &Tensor, work: &mut Submission) -> Result<()> {
        match &self.passes[pass].held {
            Held::Device(from) => transfer(from, to, from.rows(), work),
            Held::Host(values) => {
                work.run()?;
                to.write(values)
            }
            Held::File(at, count) => {
                work.run()?;
                to.write(&self.file()?.read(*at, *count)?)
            }
        }
    }

    /// Replaces the hidden states of a pass by the first rows of `from` as they are after what is in `work` already.
    ///
    /// # Errors
    /// As the device and the system report.
    pub fn store(&mut self, pass: usize, from: &Tensor, work: &mut Submission) -> Result<()> {
        let file = self.file.clone();
        match &mut self.passes[pass].held {
            Held::Device(to) => transfer(from, to, to.rows(), work),
            Held::Host(values) => {
                work.run()?;
                from.read_into(values)
            }
            Held::File(at, count) => {
                work.run()?;
                let mut values = vec![0.0; *count];
                from.read_into(&mut values)?;
                file.map_or(Ok(()), |file| file.write(*at, &values))
            }
        }
    }

    /// Values of a row, tokens times hidden size; waits for the device.
    ///
    /// # Errors
    /// As the device and the system report.
    pub fn read_row(&self, row: usize) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        for pass in self.passes.iter().filter(|pass| pass.row == row) {
            match &pass.held {
                Held::Device(tensor) => values.extend(tensor.read(tensor.rows())?),
                Held::Host(held) => values.extend_from_slice(held),
                Held::File(at, count) => values.extend(self.file()?.read(*at, *count)?),
            }
        }
        Ok(values)
    }

    /// Values of all rows; see [`HiddenRows::read_row`].
    ///
    /// # Errors
    /// As the device and the system report.
    pub fn read(&self) -> Result<Vec<Vec<f32>>> {
        (0..self.rows).map(|row| self.read_row(row)).collect()
    }

    /// Replaces a row.
    ///
    /// # Errors
    /// [`Error::Shape`] when its length differs; as the device and the system report.
    pub fn write(&mut self, row: usize, values: &[f32]) -> Result<()> {
        let file = self.file.clone();
        let mut left = values;
        for pass in self.passes.iter_mut().filter(|pass| pass.row == row) {
            let count = match &pass.held {
                Held::Device(tensor) => tensor.rows() * tensor.cols(),
                Held::Host(values) => values.len(),
                Held::File(_, count) => *count,
            };
            let Some((these, rest)) = left.split_at_checked(count) else { break };
            match &mut pass.held {
                Held::Device(tensor) => tensor.write(these)?,
                Held::Host(values) => values.copy_from_slice(these),
                Held::File(at, _) => file.as_ref().map_or(Ok(()), |file| file.write(*at, these))?,
            }
            left = rest;
        }
        if left.is_empty() {
            return Ok(());
        }
        Err(Error::shape("hidden states", format!("a row of {} values", values.len())))
    }

    fn file(&self) -> Result<&RowsFile> {
        self.file.as_deref().ok_or_else(|| Error::shape("hidden states", "rows in a file, and no file"))
    }
}

/// Streams, in the names of their files.
const OWN: &str = "own";
const OTHER: &str = "reference";

/// Copies rows from one tensor to another.
fn transfer(from: &Tensor, to: &Tensor, rows: usize, work: &mut Submission) -> Result<()> {
    work.copy(from.buffer(), to.buffer(), (4 * rows * from.cols()) as u64)
}

/// Values in a file that goes with this. Where the system allows it the file has no name, so that no killed process leaves it.
struct RowsFile {
    path: PathBuf,
    file: Mutex<File>,
}

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 24;

impl RowsFile {
    /// A new file; `stream` tells those of two streams apart.
    fn create(directory: &Path, stream: &str) -> Result<Self> {
        let path = directory.join(format!("rows-{stream}-{}.spill", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(Error::io(&path))?;
        if cfg!(unix) {
            std::fs::remove_file(&path).map_err(Error::io(&path))?;
        }
        Ok(Self { file: Mutex::new(file), path })
    }

    /// The other stream's file with the same in it.
    fn copy(&self) -> Result<Self> {
        let other = Self::create(self.path.parent().unwrap_or(Path::new("")), OTHER)?;
        let length = self.at(|file| file.seek(SeekFrom::End(0)))?;
        for at in (0..length).step_by(PIECE) {
            let bytes = (PIECE as u64).min(length - at) as usize;
            other.append(&self.read(at, bytes / size_of::<f32>())?)?;
        }
        Ok(other)
    }

    /// Writes values after all others, and tells where.
    fn append(&self, values: &[f32]) -> Result<u64> {
        self.at(|file| {
            let at = file.seek(SeekFrom::End(0))?;
            file.write_all(bytemuck::cast_slice(values))?;
            Ok(at)
        })
    }

    fn write(&self, at: u64, values: &[f32]) -> Result<()> {
        self.at(|file| {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytemuck::cast_slice(values))
        })
    }

    fn read(&self, at: u64, count: usize) -> Result<Vec<f32>> {
        let mut values = vec![0.0; count];
        self.at(|file| {
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(bytemuck::cast_slice_mut(&mut values))
        })?;
        Ok(values)
    }

    fn at<T>(&self, work: impl FnOnce(&mut File) -> std::io::Result<T>) -> Result<T> {
        work(&mut self.file.lock().unwrap_or_else(PoisonError::into_inner)).map_err(Error::io(&self.path))
    }
}

impl Drop for RowsFile {
    fn drop(&mut self) {
        if !cfg!(unix) {
            // What cannot be removed is in nobody's way.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
