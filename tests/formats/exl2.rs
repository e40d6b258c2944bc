//! Packed linears in files.

use exlay::formats::exl2::{has_packed, read_packed};
use exlay::formats::safetensors::Checkpoint;

use crate::data;

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
