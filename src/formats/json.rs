//! A JSON object in a file, with errors that name the file and the key.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// An object and the file that it came from. A key with the value `null` counts as absent.
pub(super) struct Object {
    path: PathBuf,
    /// Names of the objects that this one lies in, each followed by a dot.
    prefix: String,
    map: Map<String, Value>,
}

/// Reads the object in a file; `None` if there is no such file.
pub(super) fn load_object(path: &Path) -> Result<Option<Object>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path)(error)),
    };
    let map = serde_json::from_str(&text)
        .map_err(|error| Error::file(path, format!("is not a JSON object: {error}; copy the file again")))?;
    Ok(Some(Object { path: path.to_path_buf(), prefix: String::new(), map }))
}

impl Object {
    /// An error about this file.
    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        Error::file(&self.path, message)
    }

    /// Whether the key is there, even with `null`.
    pub(super) fn contains(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The object under a key.
    pub(super) fn object(&self, key: &str) -> Result<Option<Self>> {
        let map: Option<Map<String, Value>> = self.value(key, "an object")?;
        let prefix = format!("{}{key}.", self.prefix);
        Ok(map.map(|map| Self { path: self.path.clone(), prefix, map }))
    }

    /// The value of a key as `T`, described by `kind`.
    pub(super) fn value<T: DeserializeOwned>(&self, key: &str, kind: &str) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let prefix = &self.prefix;
        T::deserialize(value)
            .map(Some)
            .map_err(|_| self.error(format!("{prefix}{key} is {value}; {kind} is needed")))
    }

    /// The finite number under a key.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.value(key, "a number")
    }

    /// The truth value under a key.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.value(key, "true or false")
    }

    /// The size under a key, in `1..=largest`.
    pub(super) fn size(&self, key: &str, largest: usize) -> Result<Option<usize>> {
        let size: Option<usize> = self.value(key, "a whole number above 0")?;
        match size {
            Some(size) if size == 0 || size > largest => {
                Err(self.error(format!("{}{key} is {size}; it must lie in 1..={largest}", self.prefix)))
            }
            size => Ok(size),
        }
    }

    /// As [`Object::size`], for a key that must be there.
    pub(super) fn required_size(&self, key: &str, largest: usize) -> Result<usize> {
        self.size(key, largest)?.ok_or_else(|| self.error(format!("{key} is missing")))
    }
}
