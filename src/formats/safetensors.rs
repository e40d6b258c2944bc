//! The safetensors files of a model directory: mapped, checked, and read a tensor at a time.
//!
//! All headers are checked when a [`Checkpoint`] is opened. Which tensors a model needs and what they
//! mean is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::Dtype as FileDtype;
use serde::Deserialize;

use super::header;
pub use super::tensor::{Dtype, TensorView};
pub use super::writer::{JOURNAL, ShardWriter};
use crate::error::{Error, Result};

/// One mapped file.
struct Shard {
    path: PathBuf,
    map: Mmap,
}

/// Where a tensor lies.
struct Entry {
    shard: usize,
    dtype: FileDtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// All tensors of a model directory.
pub struct Checkpoint {
    directory: PathBuf,
    shards: Vec<Shard>,
    entries: BTreeMap<String, Entry>,
}

impl Checkpoint {
    /// Opens the `*.safetensors` of a directory and checks every header.
    ///
    /// With an index (`*.safetensors.index.json`) exactly its files are opened. An index whose files are
    /// missing beside an `output*.safetensors` was left behind by ExLlamaV2, and is ignored.
    ///
    /// # Errors
    /// If there are no such files, one is damaged or named by the index but missing, two hold a tensor
    /// of the same name, or one lacks a tensor that the index promises.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let files = list_files(directory)?;
        let index = read_index(directory, &files)?;
        let mut checkpoint =
            Self { directory: directory.to_path_buf(), shards: Vec::new(), entries: BTreeMap::new() };
        match &index {
            Some(index) => {
                let named: BTreeSet<&String> = index.weight_map.values().collect();
                named.into_iter().try_for_each(|file| checkpoint.add(directory.join(file)))?;
                checkpoint.check_index(index)?;
            }
            None => files.safetensors.iter().try_for_each(|file| checkpoint.add(directory.join(file)))?,
        }
        Ok(checkpoint)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// If there is none, it has no elements, or its type is none of [`Dtype`].
    pub fn get(&self, name: &str) -> Result<TensorView<'_>> {
        let Some((name, entry)) = self.entries.get_key_value(name) else {
            let message = "is missing; the checkpoint does not fit its config.json, or a file was not copied";
            return Err(Error::tensor(&self.directory, name, message));
        };
        let shard = &self.shards[entry.shard];
        let refuse = |message: String| Err(Error::tensor(&shard.path, name, message));
        let Some(dtype) = Dtype::from_file(entry.dtype) else {
            let found = format!("its type is {}", entry.dtype);
            return refuse(format!(
                "{found}; F16, BF16, F32, I32 and I16 are supported, convert the model first"
            ));
        };
        if entry.start == entry.end {
            return refuse(format!("its shape {:?} has no elements; the checkpoint is damaged", entry.shape));
        }
        let bytes = &shard.map[entry.start..entry.end];
        Ok(TensorView { dtype, shape: &entry.shape, bytes, name, path: &shard.path })
    }

    /// The directory that was opened.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The files that were opened.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        // Looked at before it is opened: opening a named pipe would wait for a writer.
        if !std::fs::metadata(&path).map_err(Error::io(&path))?.is_file() {
            return Err(Error::file(&path, "is not a regular file; a model's files must be"));
        }
        let file = File::open(&path).map_err(Error::io(&path))?;
        // SAFETY: the map is private to this struct and only read. Another process that cuts the file
        // short while it is mapped can end this one by a signal; that is the price of every mapped
        // reader of models, and nothing here writes to a model that is open.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(&path))?;
        let header = header::read(&path, &map)?;
        let shard = self.shards.len();
        for (name, info) in header.tensors {
            if let Some(other) = self.entries.get(&name) {
                let other = self.shards[other.shard].path.display();
                return Err(Error::tensor(
                    &path,
                    name,
                    format!("is also in {other}; remove one of the two files"),
                ));
            }
            let (start, end) = info.data_offsets;
            let (start, end) = (header.data_start + start, header.data_start + end);
            self.entries.insert(name, Entry { shard, dtype: info.dtype, shape: info.shape, start, end });
        }
        self.shards.push(Shard { path, map });
        Ok(())
    }

    fn check_index(&self, index: &Index) -> Result<()> {
        for (name, file) in &index.weight_map {
            let found = self.entries.get(name).map(|entry| &self.shards[entry.shard].path);
            if found.is_none_or(|path| path.file_name() != Some(OsStr::new(file))) {
                let message = format!("{} names it, but it is not in that file", index.path.display());
                return Err(Error::tensor(self.directory.join(file), name, message));
            }
        }
        Ok(())
    }
}

/// The names in a directory that matter here, sorted.
struct Files {
    safetensors: Vec<String>,
    indices: Vec<String>,
}

fn list_files(directory: &Path) -> Result<Files> {
    let mut files = Files { safetensors: Vec::new(), indices: Vec::new() };
    for entry in std::fs::read_dir(directory).map_err(Error::io(directory))? {
        let name = entry.map_err(Error::io(directory))?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(".safetensors") {
            files.safetensors.push(name.to_owned());
        } else if name.ends_with(".safetensors.index.json") {
            files.indices.push(name.to_owned());
        }
    }
    files.safetensors.sort();
    files.indices.sort();
    if files.safetensors.is_empty() {
        let message =
            "holds no *.safetensors; give a Hugging Face model directory whose weights are in that format";
        return Err(Error::file(directory, message));
    }
    Ok(files)
}

/// `*.safetensors.index.json`: which file holds which tensor.
#[derive(Deserialize)]
struct Index {
    #[serde(skip)]
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
}

/// The index to go by, if there is one that is not stale.
fn read_index(directory: &Path, files: &Files) -> Result<Option<Index>> {
    let name = match files.indices.as_slice() {
        [] => return Ok(None),
        [name] => name,
        [first, second, ..] => {
            let message = format!("holds two indices, {first} and {second}; remove one");
            return Err(Error::file(directory, message));
        }
    };
    let path = directory.join(name);
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let mut index: Index = serde_json::from_str(&text)
        .map_err(|error| Error::file(&path, format!("is no index of safetensors files: {error}")))?;
    let here = |file: &&String| files.safetensors.binary_search(file).is_ok();
    match index.weight_map.values().find(|file| !here(file)) {
        Some(_) if files.safetensors.iter().any(|file| file.starts_with("output")) => Ok(None),
        Some(missing) => {
            let message =
                format!("names `{missing}`, which is not in the directory; download it, or remove the index");
            Err(Error::file(&path, message))
        }
        None if index.weight_map.is_empty() => Err(Error::file(&path, "names no tensors; remove it")),
        None => {
            index.path = path;
            Ok(Some(index))
        }
    }
}
