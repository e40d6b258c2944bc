//! Packed linears in files.

use exlay::formats::exl2::{has_packed, read_packed};
use exlay::formats::safetensors::{Checkpoint, Dtype, ShardWriter};

use crate::{data, directory, refused};

/// The synthetic layers, alone in a directory as a checkpoint must be.
fn layers() -> (tempfile::TempDir, Checkpoint) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(data("exl2-layers.safetensors"), directory.path().join("output.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    (directory, checkpoint)
}

/// The oracle is a numpy decoder that was itself compared with ExLlamaV2's kernels.
#[test]
fn decoder_is_bit_exact() {
    let (_directory, checkpoint) = layers();
    let cases: Vec<&str> = checkpoint.names().filter_map(|name| name.strip_suffix(".decoded")).collect();
    assert_eq!(cases.len(), 14);
    for case in cases {
        assert!(has_packed(&checkpoint, case));
        let decoded = checkpoint.get(&format!("{case}.decoded")).unwrap();
        let &[k, columns] = decoded.shape else { panic!("two dimensions") };
        let matrix = read_packed(&checkpoint, case, k, columns).unwrap();
        let weights = matrix.dequantize();
        let kept = weights.chunks(matrix.n).flat_map(|row| &row[..columns]);
        let expected = decoded.bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        let differing = kept.zip(expected).filter(|(found, expected)| found.to_bits() != *expected).count();
        assert_eq!(differing, 0, "{case}: of {} weights", k * columns);
        assert!(
            weights.chunks(matrix.n).all(|row| row[columns..].iter().all(|w| w.to_f32() == 0.0)),
            "{case}"
        );
        assert_eq!(matrix.stored_bits(), matrix.layout.total_bits(matrix.n), "{case}");
        assert_eq!(matrix.bias.is_some(), case == "padded-columns");
    }
}

#[test]
fn quantized_model_reads_whole() {
    for (directory, bpw) in [("2.5", 2.484), ("4.0", 4.0)] {
        let checkpoint = Checkpoint::open(data("tiny-stories-exl2").join(directory)).unwrap();
        let (mut bits, mut weights) = (0, 0);
        for layer in 0..4 {
            for (name, k, n) in [
                ("self_attn.q_proj", 256, 256),
                ("self_attn.k_proj", 256, 128),
                ("self_attn.v_proj", 256, 128),
                ("self_attn.o_proj", 256, 256),
                ("mlp.gate_proj", 256, 512),
                ("mlp.up_proj", 256, 512),
                ("mlp.down_proj", 512, 256),
            ] {
                let matrix = read_packed(&checkpoint, &format!("model.layers.{layer}.{name}"), k, n).unwrap();
                bits += matrix.stored_bits();
                weights += (k * n) as u64;
            }
        }
        let found = bits as f64 / weights as f64;
        assert!((found - bpw).abs() < 5e-4, "{found}, ExLlamaV2 says {bpw}");
        assert_eq!(read_packed(&checkpoint, "lm_head", 256, 2048).unwrap().n, 2048);
        assert!(!has_packed(&checkpoint, "model.embed_tokens"));
    }
}

/// One tensor as it lies in a file.
type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// Reads the case `padded-columns` (K 256, 40 outputs padded to 64, with bias) after one of its tensors
/// was changed, or removed where `change` returns `None`.
fn changed(
    part: &str,
    change: impl Fn(Tensor) -> Option<Tensor>,
) -> exlay::Result<exlay::packing::PackedMatrix> {
    let (_source, source) = layers();
    let target = directory(&[]);
    let mut writer = ShardWriter::create(target.path(), u64::MAX).unwrap();
    for name in ["q_weight", "q_scale", "q_scale_max", "q_groups", "q_invperm", "bias"] {
        let view = source.get(&format!("padded-columns.{name}")).unwrap();
        let tensor = (view.dtype, view.shape.to_vec(), view.bytes.to_vec());
        let tensor = if name == part { change(tensor) } else { Some(tensor) };
        if let Some((dtype, shape, bytes)) = tensor {
            writer.write(&format!("padded-columns.{name}"), dtype, &shape, &bytes).unwrap();
        }
    }
    writer.finish().unwrap();
    read_packed(&Checkpoint::open(target.path()).unwrap(), "padded-columns", 256, 40)
}

/// Overwrites the element at `index` with `bytes`.
fn set(index: usize, bytes: &[u8]) -> impl Fn(Tensor) -> Option<Tensor> {
    let bytes = bytes.to_vec();
    move |(dtype, shape, mut content)| {
        let at = index * bytes.len();
        content[at..at + bytes.len()].copy_from_slice(&bytes);
        Some((dtype, shape, content))
    }
}

#[test]
fn missing_parts_are_refused_by_name() {
    assert!(changed("bias", Some).unwrap().bias.is_some());
    assert!(changed("bias", |_| None).unwrap().bias.is_none());
    for part in ["q_weight", "q_scale", "q_scale_max", "q_groups", "q_invperm"] {
        refused(changed(part, |_| None), &[&format!("`padded-columns.{part}`"), "is missing"]);
    }
}

#[test]
fn wrong_types_are_refused_by_name() {
    for part in ["q_weight", "q_scale", "q_invperm"] {
        let float = |(_, shape, bytes)| Some((Dtype::F32, shape, bytes));
        refused(changed(part, float), &[&format!("`padded-columns.{part}`"), "F32", "I32"]);
    }
    for part in ["q_scale_max", "bias"] {
        let brain = |(_, shape, bytes)| Some((Dtype::BF16, shape, bytes));
        refused(changed(part, brain), &[&format!("`padded-columns.{part}`"), "BF16", "F16"]);
    }
    let half = |(_, shape, bytes)| Some((Dtype::F16, shape, bytes));
    refused(changed("q_groups", half), &["`padded-columns.q_groups`", "F16", "I16"]);
}

#[test]
fn wrong_shapes_are_refused_by_name() {
    for part in ["q_weight", "q_scale", "q_scale_max", "q_invperm", "bias"] {
        let shorter = |(dtype, mut shape, mut bytes): Tensor| {
            let last = shape.len() - 1;
            let kept = shape[last] - 1;
            bytes.truncate(bytes.len() / shape[last] * kept);
            shape[last] = kept;
            Some((dtype, shape, bytes))
        };
        refused(changed(part, shorter), &[&format!("`padded-columns.{part}`"), "shape"]);
    }
    let flat = |(dtype, shape, bytes): Tensor| Some((dtype, vec![shape.iter().product()], bytes));
    refused(changed("q_weight", flat), &["`padded-columns.q_weight`", "two dimensions"]);
    let (_source, source) = layers();
    refused(read_packed(&source, "padded-columns", 288, 40), &["padded-columns.q_groups", "256", "288"]);
    refused(read_packed(&source, "padded-columns", 256, 65), &["padded-columns.q_weight", "64", "96"]);
    refused(read_packed(&source, "padded-columns", 256, 0), &["padded-columns.q_weight"]);
}

#[test]
fn wrong_groups_are_refused_by_name() {
    // Four groups of 64 rows, the first of 5 bits: starts 0, 10, ...
    for (index, value, word) in [
        (0, 7_u16, "7 bits"),
        (0, 0, "0 bits"),
        (0, 2, "most to fewest"),
        (1, 1, "not at 0"),
        (3, 0, "covers"),
        (3, 11, "whole number"),
        (7, 34, "covers"),
        (7, 65535, "covers"),
    ] {
        let words = ["`padded-columns.q_groups`", word];
        refused(changed("q_groups", set(index, &value.to_le_bytes())), &words);
    }
    let odd = |(dtype, _, mut bytes): Tensor| {
        bytes.truncate(14);
        Some((dtype, vec![7], bytes))
    };
    refused(changed("q_groups", odd), &["`padded-columns.q_groups`", "7 entries"]);
}

#[test]
fn wrong_values_are_refused() {
    for value in [256_i32, -1, i32::MIN, i32::MAX] {
        refused(
            changed("q_invperm", set(9, &value.to_le_bytes())),
            &["padded-columns", "q_invperm", "of 256"],
        );
    }
    let twice = |(dtype, shape, mut bytes): Tensor| {
        bytes.copy_within(0..4, 4);
        Some((dtype, shape, bytes))
    };
    refused(changed("q_invperm", twice), &["padded-columns", "q_invperm", "twice"]);
    for bits in [0x7e00_u16, 0x7c00, 0xfc00] {
        refused(
            changed("q_scale_max", set(2, &bits.to_le_bytes())),
            &["`padded-columns.q_scale_max`", "element 2"],
        );
        refused(changed("bias", set(5, &bits.to_le_bytes())), &["`padded-columns.bias`", "element 5"]);
    }
}
