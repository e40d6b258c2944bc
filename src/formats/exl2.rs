//! The tensors of one packed linear in an EXL2 checkpoint.
//!
//! Names, types and shapes are those that the ExLlamaV2 0.3.2 loader checks; what the bits mean is in
//! [`crate::packing`].

use half::f16;

use super::safetensors::{Checkpoint, Dtype, ShardWriter};
use crate::error::{Error, Result};
use crate::packing::{Layout, PackedMatrix, Words, padded_columns};

/// Whether `key` (`model.layers.0.self_attn.q_proj`) is packed.
pub fn has_packed(checkpoint: &Checkpoint, key: &str) -> bool {
    checkpoint.has(&format!("{key}.q_weight"))
}

/// Reads the packed linear `key` with `k` input and `out_features` output features.
///
/// # Errors
/// As [`lend_packed`].
pub fn read_packed(
    checkpoint: &Checkpoint,
    key: &str,
    k: usize,
    out_features: usize,
) -> Result<PackedMatrix> {
    let words = |part: &str| checkpoint.get(&format!("{key}.{part}"))?.to_u32();
    let PackedMatrix { n, layout, q_scale_max, q_invperm, bias, .. } =
        lend_packed(checkpoint, key, k, out_features)?;
    Ok(PackedMatrix {
        k,
        n,
        layout,
        q_weight: words("q_weight")?,
        q_scale: words("q_scale")?,
        q_scale_max,
        q_invperm,
        bias,
    })
}

/// The same with the words that make up nearly all of it left in the mapped file.
///
/// # Errors
/// [`Error::Tensor`] for a tensor that is missing, has another type or shape than the format and the
/// two sizes ask for, or whose values contradict each other.
pub fn lend_packed<'a>(
    checkpoint: &'a Checkpoint,
    key: &str,
    k: usize,
    out_features: usize,
) -> Result<PackedMatrix<Words<'a>>> {
    let get = |part: &str| checkpoint.get(&format!("{key}.{part}"));
    let n = padded_columns(out_features);

    let q_groups = get("q_groups")?;
    let pairs = q_groups.to_u16()?;
    let q_weight = get("q_weight")?;
    q_weight.expect_dtype(Dtype::I32)?;
    let &[word_rows, _] = q_weight.shape else {
        return Err(q_weight.error(format!("its shape is {:?}; two dimensions are needed", q_weight.shape)));
    };
    q_weight.expect_shape(&[word_rows, n])?;
    let layout =
        Layout::from_q_groups(&pairs, word_rows).map_err(|error| q_groups.error(error.to_string()))?;
    if layout.rows() != k {
        let found = format!("its groups have {} rows, config.json asks for {k}", layout.rows());
        return Err(q_groups.error(format!("{found}; the two files are not of the same model")));
    }

    let groups = layout.groups().len();
    let q_scale = get("q_scale")?;
    q_scale.expect_shape(&[groups, n / 8])?;
    let q_scale_max = get("q_scale_max")?;
    q_scale_max.expect_shape(&[groups])?;
    q_scale_max.expect_dtype(Dtype::F16)?;
    let q_invperm = get("q_invperm")?;
    q_invperm.expect_shape(&[k])?;
    let bias = if checkpoint.has(&format!("{key}.bias")) {
        let bias = get("bias")?;
        bias.expect_shape(&[n])?;
        bias.expect_dtype(Dtype::F16)?;
        Some(bias.to_f16()?)
    } else {
        None
    };

    let path = q_weight.path;
    q_scale.expect_dtype(Dtype::I32)?;
    let words = [q_weight.bytes, q_scale.bytes].map(Words::Bytes);
    PackedMatrix::lent(n, layout, words, q_scale_max.to_f16()?, q_invperm.to_u32()?, bias)
        .map_err(|error| Error::tensor(path, key, error.to_string()))
}

/// Writes the tensors of a packed linear under `key`.
///
/// # Errors
/// As for [`ShardWriter::write`].
pub fn write_packed(writer: &mut ShardWriter, key: &str, matrix: &PackedMatrix) -> Result<()> {
    let (n, groups) = (matrix.n, matrix.layout.groups().len());
    let mut write = |part: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>| {
        writer.write(&format!("{key}.{part}"), dtype, shape, &bytes)
    };
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let halves = |halves: &[f16]| halves.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<u8>>();
    let pairs = matrix.layout.q_groups().iter().flat_map(|entry| entry.to_le_bytes()).collect();
    write("q_weight", Dtype::I32, &[matrix.layout.word_rows(), n], words(&matrix.q_weight))?;
    write("q_scale", Dtype::I32, &[groups, n / 8], words(&matrix.q_scale))?;
    write("q_scale_max", Dtype::F16, &[groups], halves(&matrix.q_scale_max))?;
    write("q_groups", Dtype::I16, &[2 * groups], pairs)?;
    write("q_invperm", Dtype::I32, &[matrix.k], words(&matrix.q_invperm))?;
    match &matrix.bias {
        Some(bias) => write("bias", Dtype::F16, &[n], halves(bias)),
        None => Ok(()),
    }
}
