//! The oracles themselves, against values worked out by hand, an independent decoder's matrices and the logits of
//! transformers and ExLlamaV2.

#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy exempts only test functions")]

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

mod kernels;
mod model;
mod packed;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// Little-endian elements of a tensor.
fn read<const SIZE: usize, T>(
    file: &SafeTensors<'_>,
    name: &str,
    dtype: Dtype,
    element: fn([u8; SIZE]) -> T,
) -> Vec<T> {
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), dtype, "{name}");
    tensor.data().as_chunks().0.iter().map(|bytes| element(*bytes)).collect()
}
