//! The packed linears of one finished block in the working directory: a safetensors image with the
//! tensors of an EXL2 file, inside the envelope of a state file.

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize};

use super::state_file::{read_state, write_state};
use crate::error::{Error, Result};
use crate::packing::{Layout, PackedMatrix};

const KIND: &str = "block";

/// Writes the linears of a block, whole or not at all.
///
/// # Errors
/// The system refuses to write.
pub fn write_block(path: impl AsRef<Path>, linears: &BTreeMap<String, PackedMatrix>) -> Result<()> {
    let path = path.as_ref();
    let tensors: Vec<Stored> = linears.iter().flat_map(|(name, matrix)| stored(name, matrix)).collect();
    let damaged =
        |error: safetensors::SafeTensorError| Error::file(path, format!("cannot be built: {error}"));
    let views = tensors
        .iter()
        .map(|tensor| Ok((&tensor.name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)?)))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(damaged)?;
    write_state(path, KIND, &serialize(views, None).map_err(damaged)?)
}

/// Reads the linears of a block by name: none when the file is absent, cut short or damaged.
///
/// # Errors
/// The system refuses to read a file that exists.
pub fn read_block(path: impl AsRef<Path>) -> Result<Option<BTreeMap<String, PackedMatrix>>> {
    Ok(read_state(path, KIND)?.and_then(|content| parse(&content)))
}

struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn stored(name: &str, matrix: &PackedMatrix) -> Vec<Stored> {
    let groups = matrix.layout.groups().len();
    let tensor = |suffix: &str, dtype, shape: &[usize], bytes| Stored {
        name: format!("{name}.{suffix}"),
        dtype,
        shape: shape.to_vec(),
        bytes,
    };
    let words = |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let halves = |values: &[f16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let pairs = matrix.layout.q_groups().iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut tensors = vec![
        tensor("q_weight", Dtype::I32, &[matrix.layout.word_rows(), matrix.n], words(&matrix.q_weight)),
        tensor("q_scale", Dtype::I32, &[groups, matrix.n / 8], words(&matrix.q_scale)),
        tensor("q_scale_max", Dtype::F16, &[groups], halves(&matrix.q_scale_max)),
        tensor("q_groups", Dtype::I16, &[2 * groups], pairs),
        tensor("q_invperm", Dtype::I32, &[matrix.k], words(&matrix.q_invperm)),
    ];
    let bias = matrix.bias.as_ref().map(|bias| tensor("bias", Dtype::F16, &[matrix.n], halves(bias)));
    tensors.extend(bias);
    tensors
}

fn parse(content: &[u8]) -> Option<BTreeMap<String, PackedMatrix>> {
    let file = SafeTensors::deserialize(content).ok()?;
    let names = file.names().into_iter().filter_map(|name| name.strip_suffix(".q_weight"));
    names.map(|name| Some((name.to_owned(), matrix(&file, name)?))).collect()
}

fn matrix(file: &SafeTensors<'_>, name: &str) -> Option<PackedMatrix> {
    let bytes = |suffix: &str| Some(file.tensor(&format!("{name}.{suffix}")).ok()?.data().to_vec());
    let words =
        |suffix: &str| Some(bytes(suffix)?.as_chunks().0.iter().copied().map(u32::from_le_bytes).collect());
    let halves = |suffix: &str| {
        Some(bytes(suffix)?.as_chunks().0.iter().copied().map(f16::from_le_bytes).collect::<Vec<_>>())
    };
    let groups: Vec<u16> = bytes("q_groups")?.as_chunks().0.iter().copied().map(u16::from_le_bytes).collect();
    let weight = file.tensor(&format!("{name}.q_weight")).ok()?;
    let &[rows, columns] = weight.shape() else { return None };
    let layout = Layout::from_q_groups(&groups, rows).ok()?;
    PackedMatrix::new(
        columns,
        layout,
        words("q_weight")?,
        words("q_scale")?,
        halves("q_scale_max")?,
        words("q_invperm")?,
        halves("bias"),
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn example(seed: u32, bias: bool) -> PackedMatrix {
        let layout = "0.05:6b/0.2:3b/0.75:2b 32/64/64g s4".parse::<super::super::recipe::Recipe>().unwrap();
        let layout = layout.layout(352).unwrap();
        let (n, groups) = (96, layout.groups().len());
        let word = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9).wrapping_add(seed);
        PackedMatrix::new(
            n,
            layout.clone(),
            (0..layout.word_rows() * n).map(word).collect(),
            (0..groups * n / 8).map(word).collect(),
            (0..groups).map(|i| f16::from_f32(0.01 * (i + 1) as f32)).collect(),
            (0..352).map(|i| (i * 5 + seed) % 352).collect(),
            bias.then(|| (0..n).map(|i| f16::from_f32(i as f32 - 40.5)).collect()),
        )
        .unwrap()
    }

    #[test]
    fn linears_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("block-00012.state");
        assert!(read_block(&path).unwrap().is_none());
        let linears = BTreeMap::from([
            ("model.layers.6.mlp.up_proj".to_owned(), example(1, false)),
            ("model.layers.6.mlp.down_proj".to_owned(), example(2, true)),
        ]);
        write_block(&path, &linears).unwrap();
        assert_eq!(read_block(&path).unwrap().unwrap(), linears);
    }

    #[test]
    fn a_damaged_block_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("block");
        write_block(&path, &BTreeMap::from([("a".to_owned(), example(1, false))])).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[5000] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(read_block(&path).unwrap().is_none());
        // A right checksum over something that is not a block.
        write_state(&path, KIND, b"nonsense").unwrap();
        assert!(read_block(&path).unwrap().is_none());
    }
}
