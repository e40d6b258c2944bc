//! The envelope of every binary file in a working directory: a magic word, the kind of content, its
//! length, and a checksum, so that a file cut short or damaged is seen and treated as absent.
//!
//! ```text
//! 0   8   "EXLAYST1"
//! 8   16  kind in ASCII, filled with zeros
//! 24  8   bytes of content, little endian
//! 32  32  zeros
//! 64  ..  content
//! end 32  SHA-256 of everything before
//! ```

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::formats::atomic::AtomicFile;

const MAGIC: &[u8; 8] = b"EXLAYST1";
const HEADER: usize = 64;
const CHECKSUM: usize = 32;

/// A state file being written; seen under its name only after [`StateWriter::finish`].
pub struct StateWriter {
    file: AtomicFile,
    hash: Sha256,
    left: u64,
}

impl StateWriter {
    /// Starts a file of `kind` (at most 16 ASCII characters) with `length` bytes of content.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: impl AsRef<Path>, kind: &str, length: u64) -> Result<Self> {
        let mut writer = Self { file: AtomicFile::create(path)?, hash: Sha256::new(), left: length };
        writer.append(&header(kind, length))?;
        Ok(writer)
    }

    /// Appends content.
    ///
    /// # Panics
    /// More bytes than announced.
    ///
    /// # Errors
    /// The system refuses to write.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.left = self.left.checked_sub(bytes.len() as u64).expect("no more content than announced");
        self.append(bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.file.write(bytes)
    }

    /// Adds the checksum and gives the file its name.
    ///
    /// # Panics
    /// Fewer bytes than announced.
    ///
    /// # Errors
    /// The system refuses to write, sync or rename.
    pub fn finish(mut self) -> Result<()> {
        assert_eq!(self.left, 0, "content is missing");
        let checksum = self.hash.finalize();
        self.file.write(&checksum)?;
        self.file.finish()
    }
}

/// Writes a whole state file.
///
/// # Errors
/// The system refuses to write.
pub fn write_state(path: impl AsRef<Path>, kind: &str, content: &[u8]) -> Result<()> {
    let mut writer = StateWriter::create(path, kind, content.len() as u64)?;
    writer.write(content)?;
    writer.finish()
}

/// A state file whose checksum was right when it was opened.
#[derive(Debug)]
pub struct StateReader {
    file: File,
    length: u64,
}

impl StateReader {
    /// Opens and verifies a state file: none when it is absent, of another kind, cut short or damaged.
    ///
    /// # Errors
    /// The system refuses to read a file that exists.
    pub fn open(path: impl AsRef<Path>, kind: &str) -> Result<Option<Self>> {
        let path = path.as_ref();
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(Error::io(path))?,
        };
        verify(file, kind).map_err(Error::io(path))
    }

    /// Bytes of content.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Fills `bytes` from the content, starting `offset` bytes into it.
    ///
    /// # Errors
    /// The range is not within the content, or the system refuses to read.
    pub fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.length) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the content of a state file"));
        }
        self.file.seek(SeekFrom::Start(HEADER as u64 + offset))?;
        self.file.read_exact(bytes)
    }
}

/// The content of a state file; none when it is absent, of another kind, cut short or damaged.
///
/// # Errors
/// The system refuses to read a file that exists.
pub fn read_state(path: impl AsRef<Path>, kind: &str) -> Result<Option<Vec<u8>>> {
    let path = path.as_ref();
    let Some(mut reader) = StateReader::open(path, kind)? else { return Ok(None) };
    // The length was checked against the file's, so this allocates no more than is on the disk.
    let mut content = vec![0; reader.length as usize];
    reader.read_at(0, &mut content).map_err(Error::io(path))?;
    Ok(Some(content))
}

/// Whether a file begins like a state file, whatever its state.
pub fn is_state_file(path: impl AsRef<Path>) -> bool {
    let mut magic = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *MAGIC
}

fn header(kind: &str, length: u64) -> [u8; HEADER] {
    assert!(kind.len() <= 16 && kind.is_ascii(), "`{kind}` does not fit the header");
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..8 + kind.len()].copy_from_slice(kind.as_bytes());
    header[24..32].copy_from_slice(&length.to_le_bytes());
    header
}

fn verify(mut file: File, kind: &str) -> io::Result<Option<StateReader>> {
    let size = file.metadata()?.len();
    let Some(length) = size.checked_sub((HEADER + CHECKSUM) as u64) else { return Ok(None) };
    let mut start = [0; HEADER];
    file.read_exact(&mut start)?;
    if start != header(kind, length) {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    hash.update(start);
    let mut buffer = vec![0; 1 << 20];
    let mut left = length;
    while left > 0 {
        let part = &mut buffer[..(1 << 20).min(left) as usize];
        file.read_exact(part)?;
        hash.update(&*part);
        left -= part.len() as u64;
    }
    let mut checksum = [0; CHECKSUM];
    file.read_exact(&mut checksum)?;
    let intact = hash.finalize()[..] == checksum;
    Ok(intact.then_some(StateReader { file, length }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn content_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        for length in [0, 1, 63, (1 << 20) + 5] {
            let content: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            write_state(&path, "block", &content).unwrap();
            assert_eq!(read_state(&path, "block").unwrap().as_deref(), Some(&content[..]));
            assert_eq!(fs::metadata(&path).unwrap().len(), 96 + length as u64);
        }
        let mut reader = StateReader::open(&path, "block").unwrap().unwrap();
        let mut part = [0; 5];
        reader.read_at(1 << 20, &mut part).unwrap();
        assert_eq!(
            part,
            [1u64 << 20, (1 << 20) + 1, (1 << 20) + 2, (1 << 20) + 3, (1 << 20) + 4]
                .map(|i| (i * 31 % 251) as u8)
        );
        assert!(reader.read_at((1 << 20) + 1, &mut part).is_err());
        assert!(reader.read_at(u64::MAX, &mut part).is_err());
        assert!(is_state_file(&path));
    }

    #[test]
    fn absent_and_of_another_kind_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        assert!(read_state(&path, "block").unwrap().is_none());
        write_state(&path, "block", b"x").unwrap();
        assert!(read_state(&path, "hidden").unwrap().is_none());
        assert!(read_state(directory.path(), "block").is_err(), "a directory is no state file");
    }

    /// Every cut, and one flipped bit at every byte, is noticed.
    #[test]
    fn damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        write_state(&path, "block", b"some content").unwrap();
        let good = fs::read(&path).unwrap();
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(read_state(&path, "block").unwrap().is_none(), "cut at {length}");
        }
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert!(read_state(&path, "block").unwrap().is_none(), "flipped at {byte}");
        }
        let longer = [&good[..], b"x"].concat();
        fs::write(&path, longer).unwrap();
        assert!(read_state(&path, "block").unwrap().is_none());
    }

    #[test]
    #[should_panic(expected = "content is missing")]
    fn short_content_is_a_bug() {
        let directory = tempfile::tempdir().unwrap();
        let _never = StateWriter::create(directory.path().join("state"), "block", 5).unwrap().finish();
    }
}
