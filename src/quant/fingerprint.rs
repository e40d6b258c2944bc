//! Which model and which calibration text something was made from, without reading all of it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A model directory, recognised by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// The directory's name, for messages; not compared.
    pub name: String,
    /// SHA-256 in hex of config.json and, for each safetensors file, its name, size, header and
    /// samples of its data.
    pub fingerprint: String,
}

/// Places in a weight file where its data is sampled, besides the start.
const SAMPLES: u64 = 64;
/// Bytes per sample.
const SAMPLE: usize = 4096;
/// Bytes of a file read from its start: the header of most files and the first weights.
const START: usize = 1 << 20;

impl ModelIdentity {
    /// Recognises the model in `directory`.
    ///
    /// Two fine-tunes of one model have the same configuration, names and sizes, so the data is
    /// sampled too; a change that misses all samples is not seen.
    ///
    /// # Errors
    /// There is no config.json, no safetensors file, or the system refuses to read.
    pub fn of(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let mut hash = Sha256::new();
        let config = directory.join("config.json");
        hash.update(fs::read(&config).map_err(Error::io(&config))?);
        let files = weight_files(directory)?;
        if files.is_empty() {
            return Err(Error::file(directory, "no *.safetensors file; is this a model directory?"));
        }
        for path in files {
            hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
            sample(&path, &mut hash).map_err(Error::io(&path))?;
        }
        Ok(Self { name: name_of(directory), fingerprint: hex(hash) })
    }

    /// The model after a transform, told by what [`super::transform::Transform::id`] says.
    #[must_use]
    pub fn transformed(mut self, id: &str) -> Self {
        if !id.is_empty() {
            self.fingerprint = format!("{} {id}", self.fingerprint);
        }
        self
    }
}

/// SHA-256 of a whole file in hex; for files of moderate size such as calibration texts.
///
/// # Errors
/// The system refuses to read.
pub fn file_digest(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let mut hash = Sha256::new();
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut buffer = vec![0; START];
    loop {
        match file.read(&mut buffer).map_err(Error::io(path))? {
            0 => return Ok(hex(hash)),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn weight_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io(directory))? {
        let path = entry.map_err(Error::io(directory))?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn sample(path: &Path, hash: &mut Sha256) -> io::Result<()> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    hash.update(size.to_le_bytes());
    let mut buffer = Vec::with_capacity(START);
    file.by_ref().take(START as u64).read_to_end(&mut buffer)?;
    hash.update(&buffer);
    for i in 1..=SAMPLES {
        let last = size.saturating_sub(SAMPLE as u64);
        buffer.clear();
        file.seek(SeekFrom::Start((u128::from(last) * u128::from(i) / u128::from(SAMPLES)) as u64))?;
        file.by_ref().take(SAMPLE as u64).read_to_end(&mut buffer)?;
        hash.update(&buffer);
    }
    Ok(())
}

fn name_of(directory: &Path) -> String {
    // `.` and `..` have no name before they are resolved.
    let full = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_path_buf());
    full.file_name().unwrap_or(full.as_os_str()).to_string_lossy().into_owned()
}

/// The digest as lower-case hexadecimal digits.
pub(super) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_config_size_name_or_weights_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
        let of = || ModelIdentity::of(directory.path()).unwrap().fingerprint;
        let mut weights = vec![5; 3 << 20];
        write("config.json", b"{}");
        assert!(ModelIdentity::of(directory.path()).is_err(), "no weights");
        write("model.safetensors", &weights);
        let mut seen = vec![of()];
        assert_eq!(of(), seen[0]);
        write("tokenizer.json", b"not part of it");
        assert_eq!(of(), seen[0]);

        write("config.json", b"{ }");
        seen.push(of());
        let last = weights.len() - 1;
        weights[last] = 6;
        write("model.safetensors", &weights);
        seen.push(of());
        weights.push(6);
        write("model.safetensors", &weights);
        seen.push(of());
        write("other.safetensors", &weights);
        seen.push(of());
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn known_digest() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("text"), "abc").unwrap();
        // The example of FIPS 180-2.
        assert_eq!(
            file_digest(directory.path().join("text")).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
