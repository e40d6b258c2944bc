//! Hidden states of all calibration rows at one place of the model, on disk. Which place is next
//! and when to write is the job's business.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::state_file::{StateReader, StateWriter};
use crate::error::{Error, Result};

const KIND: &str = "hidden states";
/// Five numbers and the digest of the job.
const HEADER: u64 = 72;
const VERSION: usize = 2;

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotShape {
    /// The block whose inputs these are; the number of blocks for the last outputs.
    pub block: usize,
    /// Streams: 1, or 2 with a reference.
    pub streams: usize,
    /// Calibration rows of each.
    pub rows: usize,
    /// Values of a row: tokens times hidden size.
    pub width: usize,
}

impl SnapshotShape {
    fn row_bytes(&self) -> Option<u64> {
        (self.width as u64).checked_mul(4)
    }

    fn content(&self) -> Option<u64> {
        self.row_bytes()?.checked_mul(self.rows()? as u64)?.checked_add(HEADER)
    }

    /// Rows of all streams, one stream after the other.
    fn rows(&self) -> Option<usize> {
        self.streams.checked_mul(self.rows)
    }

    fn header(&self, job: &str) -> [u8; HEADER as usize] {
        let mut header = [0; HEADER as usize];
        header[40..].copy_from_slice(&Sha256::digest(job));
        for (i, value) in [VERSION, self.block, self.streams, self.rows, self.width].into_iter().enumerate() {
            header[i * 8..(i + 1) * 8].copy_from_slice(&(value as u64).to_le_bytes());
        }
        header
    }

    fn from_header(header: &[u8; HEADER as usize]) -> Option<Self> {
        let (words, _) = header.as_chunks::<8>();
        let field = |i: usize| usize::try_from(u64::from_le_bytes(words[i])).ok();
        let shape = Self { block: field(1)?, streams: field(2)?, rows: field(3)?, width: field(4)? };
        (field(0)? == VERSION).then_some(shape)
    }
}

/// A snapshot being written, row by row; seen under its name only after `finish`.
pub struct SnapshotWriter {
    writer: StateWriter,
    shape: SnapshotShape,
    left: usize,
}

impl SnapshotWriter {
    /// Starts a snapshot for a job, told by its fingerprint.
    ///
    /// # Errors
    /// The file cannot be made, or its size overflows.
    pub fn create(path: impl AsRef<Path>, shape: SnapshotShape, job: &str) -> Result<Self> {
        let (Some(length), Some(left)) = (shape.content(), shape.rows()) else {
            return Err(Error::shape("snapshot", format!("{shape:?} is too large")));
        };
        let mut writer = StateWriter::create(path, KIND, length)?;
        writer.write(&shape.header(job))?;
        Ok(Self { writer, shape, left })
    }

    /// Appends the next row, `[width]` f32: those of the first stream, then those of the second.
    ///
    /// # Errors
    /// A row of another length, more rows than announced, or a refusing system.
    pub fn row(&mut self, values: &[f32]) -> Result<()> {
        if values.len() != self.shape.width || self.left == 0 {
            let message =
                format!("a row of {} values, {} left, for {:?}", values.len(), self.left, self.shape);
            return Err(Error::shape("snapshot", message));
        }
        self.left -= 1;
        if cfg!(target_endian = "little") {
            return self.writer.write(bytemuck::cast_slice(values));
        }
        values.iter().try_for_each(|value| self.writer.write(&value.to_le_bytes()))
    }

    /// Makes the snapshot durable and visible.
    ///
    /// # Errors
    /// Rows are missing, or the system refuses.
    pub fn finish(self) -> Result<()> {
        if self.left > 0 {
            return Err(Error::shape(
                "snapshot",
                format!("{} rows of {:?} are missing", self.left, self.shape),
            ));
        }
        self.writer.finish()
    }
}

/// A verified snapshot, read row by row.
pub struct Snapshot {
    path: PathBuf,
    reader: StateReader,
    shape: SnapshotShape,
}

impl Snapshot {
    /// Opens a snapshot: none when it is absent, cut short, damaged or of another job.
    ///
    /// # Errors
    /// The system refuses to read a file that exists.
    pub fn open(path: impl AsRef<Path>, job: &str) -> Result<Option<Self>> {
        let path = path.as_ref();
        let Some(mut reader) = StateReader::open(path, KIND)? else { return Ok(None) };
        let mut header = [0; HEADER as usize];
        if reader.length() < HEADER {
            return Ok(None);
        }
        reader.read_at(0, &mut header).map_err(Error::io(path))?;
        let shape = SnapshotShape::from_header(&header).filter(|s| s.content() == Some(reader.length()));
        let shape = shape.filter(|shape| shape.header(job) == header);
        Ok(shape.map(|shape| Self { path: path.to_path_buf(), reader, shape }))
    }

    /// What it holds.
    pub fn shape(&self) -> SnapshotShape {
        self.shape
    }

    /// One row of a stream, `[width]` f32.
    ///
    /// # Errors
    /// There is no such row, or the system refuses to read.
    pub fn row(&mut self, stream: usize, row: usize) -> Result<Vec<f32>> {
        let shape = self.shape;
        if stream >= shape.streams || row >= shape.rows {
            return Err(Error::shape("snapshot", format!("row {row} of stream {stream} of {shape:?}")));
        }
        // The size of the file was checked when it was opened, so this is no more than is on the disk.
        let bytes = shape.row_bytes().expect("checked when opened");
        let mut values = vec![0f32; shape.width];
        let at = stream * shape.rows + row;
        let offset = (at as u64).saturating_mul(bytes).saturating_add(HEADER);
        self.reader.read_at(offset, bytemuck::cast_slice_mut(&mut values)).map_err(Error::io(&self.path))?;
        if cfg!(target_endian = "big") {
            values.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits().swap_bytes()));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const SHAPE: SnapshotShape = SnapshotShape { block: 12, streams: 2, rows: 3, width: 35 };

    const JOB: &str = "a fingerprint";

    fn values(row: usize) -> Vec<f32> {
        (0..35).map(|i| (i as f32 - 17.5) * (row as f32 + 0.25)).collect()
    }

    fn write(path: &Path) {
        let mut writer = SnapshotWriter::create(path, SHAPE, JOB).unwrap();
        (0..6).for_each(|row| writer.row(&values(row)).unwrap());
        assert!(writer.row(&values(6)).is_err(), "one row too many");
        writer.finish().unwrap();
    }

    #[test]
    fn rows_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hidden");
        assert!(Snapshot::open(&path, JOB).unwrap().is_none());
        write(&path);
        let mut snapshot = Snapshot::open(&path, JOB).unwrap().unwrap();
        assert_eq!(snapshot.shape(), SHAPE);
        for (stream, row) in [(0, 2), (1, 0), (0, 0), (1, 2)] {
            assert_eq!(snapshot.row(stream, row).unwrap(), values(3 * stream + row));
        }
        for (stream, row) in [(0, 3), (2, 0), (0, usize::MAX), (usize::MAX, 0)] {
            assert!(snapshot.row(stream, row).is_err());
        }
    }

    #[test]
    fn a_snapshot_of_another_job_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hidden");
        write(&path);
        assert!(Snapshot::open(&path, "another").unwrap().is_none());
    }

    #[test]
    fn a_damaged_snapshot_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hidden");
        write(&path);
        let good = fs::read(&path).unwrap();
        for cut in [0, 63, 64, 100, good.len() - 1] {
            fs::write(&path, &good[..cut]).unwrap();
            assert!(Snapshot::open(&path, JOB).unwrap().is_none());
        }
        let mut bad = good.clone();
        bad[200] ^= 1;
        fs::write(&path, bad).unwrap();
        assert!(Snapshot::open(&path, JOB).unwrap().is_none());
    }

    /// A file with a right checksum but a header that contradicts its length, or lies about it.
    #[test]
    fn a_lying_header_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hidden");
        for shape in [
            SnapshotShape { rows: 4, ..SHAPE },
            SnapshotShape { rows: usize::MAX, width: usize::MAX, ..SHAPE },
            SnapshotShape { rows: usize::MAX, streams: usize::MAX, ..SHAPE },
            SnapshotShape { width: 0, ..SHAPE },
        ] {
            let content = [&shape.header(JOB)[..], &[0; 6 * 35 * 4]].concat();
            super::super::state_file::write_state(&path, KIND, &content).unwrap();
            assert!(Snapshot::open(&path, JOB).unwrap().is_none());
        }
        super::super::state_file::write_state(&path, KIND, b"short").unwrap();
        assert!(Snapshot::open(&path, JOB).unwrap().is_none());
    }

    #[test]
    fn a_row_of_another_length_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = SnapshotWriter::create(directory.path().join("hidden"), SHAPE, JOB).unwrap();
        assert!(writer.row(&[0.0; 34]).is_err());
        assert!(writer.finish().is_err(), "rows are missing");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
