//! The header of a safetensors file, checked before anything is read by it.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};

/// Bytes before the header: its length as a little-endian u64.
pub(super) const LENGTH_BYTES: usize = 8;

/// A longer header is refused, as by the safetensors crate.
const LONGEST: u64 = 100_000_000;

/// What one file holds: its tensors in the order of their data, and where the data begins.
pub(super) struct Header {
    /// Name, type, shape and byte range relative to `data_start`.
    pub(super) tensors: Vec<(String, TensorInfo)>,
    /// Byte offset of the first tensor.
    pub(super) data_start: usize,
}

/// Entries in file order; a name that occurs twice is an error, which a map would hide.
struct Entries(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entries, A::Error> {
        let (mut entries, mut names) = (Vec::new(), HashSet::new());
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("`{name}` occurs twice")));
            }
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let of_name = |error| A::Error::custom(format!("tensor `{name}`: {error}"));
            let info = map.next_value::<TensorInfo>().map_err(of_name)?;
            entries.push((name, info));
        }
        Ok(Entries(entries))
    }
}

/// Reads and checks the header of a whole file: its tensors have known types, sizes that follow from
/// their shapes, and fill the file without gap or overlap.
///
/// # Errors
/// [`Error::File`] or [`Error::Tensor`] naming `path` and what is wrong.
pub(super) fn read(path: &Path, file: &[u8]) -> Result<Header> {
    let damaged = |message: String| Error::file(path, format!("{message}; download or copy the file again"));
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(damaged(format!("{} bytes are too few for a safetensors file", file.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > LONGEST || length > rest.len() as u64 {
        let says = format!("its header is said to have {length} bytes");
        return Err(damaged(format!("{says}, the file has {} bytes in all", file.len())));
    }
    let (header, data) = rest.split_at(length as usize);
    let Entries(mut tensors) = serde_json::from_slice(header)
        .map_err(|error| damaged(format!("its header is not that of a safetensors file: {error}")))?;
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    check_ranges(path, &tensors, data.len())?;
    Metadata::new(None, tensors.clone()).map_err(|error| damaged(format!("its header is wrong: {error}")))?;
    Ok(Header { tensors, data_start: file.len() - data.len() })
}

/// Tensors sorted by offset must tile `available` bytes, each with the size of its shape.
fn check_ranges(path: &Path, tensors: &[(String, TensorInfo)], available: usize) -> Result<()> {
    let mut end = 0;
    for (name, info) in tensors {
        let refuse = |message: String| {
            Error::tensor(path, name, format!("{message}; the file is damaged, download or copy it again"))
        };
        let (start, stop) = info.data_offsets;
        if stop > available {
            let holds = format!("the file holds {available} bytes of data");
            return Err(refuse(format!("its data ends at byte {stop}, {holds} (cut short?)")));
        }
        if start != end || stop < start {
            let where_ = format!("its data is said to lie at bytes {start}..{stop}");
            return Err(refuse(format!(
                "{where_}, which overlaps its neighbour or leaves a gap at byte {end}"
            )));
        }
        let elements = info.shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        let bits = elements.and_then(|elements| elements.checked_mul(info.dtype.bitsize()));
        if bits.is_none_or(|bits| bits % 8 != 0 || bits / 8 != stop - start) {
            let has = format!("it has {} bytes", stop - start);
            return Err(refuse(format!(
                "{has}, which contradicts its shape {:?} of {}",
                info.shape, info.dtype
            )));
        }
        end = stop;
    }
    if end != available {
        let message = format!("{} bytes after the last tensor belong to none", available - end);
        return Err(Error::file(path, format!("{message}; download or copy the file again")));
    }
    Ok(())
}
