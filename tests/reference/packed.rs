//! The oracles of the packed format and its quantizer against recorded layers.

use exlay::reference::dequantize::{column, group_maximum, original_order, packed_order};
use exlay::reference::gptq::gptq;
use exlay::reference::matmul::matmul;
use exlay::reference::quant_matmul::{self, Rounding, quant_matmul};
use exlay::reference::scale_loss;
use exlay::reference::scale_search::{base_scales, multiplier, scale_search};
use exlay::reference::unpack::{Packed, fields};
use exlay::reference::{pack, permute, real};
use half::f16;
use safetensors::{Dtype, SafeTensors};

use crate::{data, read};

/// A packed matrix and what `exl2_reference.py` decoded it to, `[K, columns without padding]`.
struct Case {
    name: String,
    tensors: pack::PackedTensors,
    decoded: Vec<f16>,
}

fn cases(bytes: &[u8]) -> Vec<Case> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let mut names: Vec<&str> =
        file.names().into_iter().filter_map(|name| name.strip_suffix(".q_weight")).collect();
    names.sort_unstable();
    assert_eq!(names.len(), 14);
    let case = |name: &str| Case {
        name: name.to_owned(),
        tensors: pack::PackedTensors {
            q_weight: read(&file, &format!("{name}.q_weight"), Dtype::I32, u32::from_le_bytes),
            q_scale: read(&file, &format!("{name}.q_scale"), Dtype::I32, u32::from_le_bytes),
            q_scale_max: read(&file, &format!("{name}.q_scale_max"), Dtype::F16, f16::from_le_bytes),
            q_groups: read(&file, &format!("{name}.q_groups"), Dtype::I16, u16::from_le_bytes),
            q_invperm: read(&file, &format!("{name}.q_invperm"), Dtype::I32, u32::from_le_bytes),
        },
        decoded: read(&file, &format!("{name}.decoded"), Dtype::F16, f16::from_le_bytes),
    };
    names.into_iter().map(case).collect()
}

fn layers() -> Vec<Case> {
    cases(&std::fs::read(data("exl2-layers.safetensors")).unwrap())
}

/// `(bits, rows)` of each group.
fn layout(packed: Packed<'_>) -> Vec<(u32, usize)> {
    packed.spans().iter().map(|span| (span.bits as u32, span.rows)).collect()
}

#[test]
fn packed_words_are_those_of_the_format() {
    // One column of 32 rows, code = row mod 2^bits.
    let golden: [(usize, &[u32]); 6] = [
        (2, &[0xe4e4_e4e4; 2]),
        (3, &[0x88fa_c688, 0xc688_fac6, 0xfac6_88fa]),
        (4, &[0x7654_3210, 0xfedc_ba98, 0x7654_3210, 0xfedc_ba98]),
        (5, &[0x8a41_8820, 0xc5a9_2839, 0xca30_7b9a, 0x38bd_ab49, 0xffbb_cdeb]),
        (6, &[0x440c_2040, 0xa248_1c61, 0x3ce3_4c2c, 0x544d_2450, 0xa658_5d65, 0x7de7_5c6d]),
        (
            8,
            &[
                0x302_0100,
                0x706_0504,
                0xb0a_0908,
                0xf0e_0d0c,
                0x1312_1110,
                0x1716_1514,
                0x1b1a_1918,
                0x1f1e_1d1c,
            ],
        ),
    ];
    for (bits, words) in golden {
        let codes: Vec<u8> = (0..32).map(|row| (row % (1_u32 << bits)) as u8).collect();
        assert_eq!(fields(words, 1, bits), codes, "{bits} bits");
        assert_eq!(pack::fields(&codes, 1, bits), words, "{bits} bits");
    }
    assert_eq!(pack::scale_words(&[1, 2, 3, 4, 5, 6, 7, 16]), [0xf654_3210]);
}

#[test]
fn decoded_layers_are_exact() {
    for Case { name, tensors, decoded } in layers() {
        let packed = tensors.view();
        let (k, n) = (packed.rows(), packed.columns());
        let kept = decoded.len() / k;
        let found = original_order(packed);
        let by_packed_row = packed_order(packed);
        let columns: Vec<Vec<f16>> = (0..n).map(|at| column(packed, at)).collect();
        for row in 0..k {
            for at in 0..n {
                // Padded columns are not recorded: they decode to zero.
                let expected = if at < kept { decoded[row * kept + at].to_bits() } else { 0 };
                assert_eq!(found[row * n + at].to_bits(), expected, "{name}: row {row}, column {at}");
                assert_eq!(columns[at][row].to_bits(), by_packed_row[row * n + at].to_bits(), "{name}");
            }
        }
    }
}

#[test]
fn packing_the_codes_again_gives_the_same_tensors() {
    for Case { name, tensors, .. } in layers() {
        let packed = tensors.view();
        let permutation = permute::inverse(packed.q_invperm);
        let again = pack::pack(
            &packed.codes(),
            &packed.scale_codes(),
            packed.q_scale_max,
            &permutation,
            &layout(packed),
        );
        assert_eq!(again.q_weight, tensors.q_weight, "{name}");
        assert_eq!(again.q_scale, tensors.q_scale, "{name}");
        assert_eq!(again.q_groups, tensors.q_groups, "{name}");
        assert_eq!(again.q_invperm, tensors.q_invperm, "{name}");
    }
}

#[test]
fn packed_products_are_those_of_the_decoded_matrix() {
    for Case { name, tensors, .. } in layers() {
        let packed = tensors.view();
        let (k, n) = (packed.rows(), packed.columns());
        let x: Vec<f32> = (0..3 * k).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
        let dense = original_order(packed);
        let transposed: Vec<f16> = (0..n * k).map(|at| dense[at % k * n + at / k]).collect();
        let expected = matmul(&x, &transposed, k, None, None);
        // The same f64 products summed in the same order.
        assert_eq!(quant_matmul(&x, packed, Rounding::Exact), expected, "{name}");

        let chosen = [n - 1, 0, 7];
        let magnitudes = quant_matmul::magnitudes(&x, packed, &chosen);
        let unrounded = quant_matmul::columns(&x, packed, &chosen, Rounding::Maximum);
        for (at, (found, magnitude)) in unrounded.iter().zip(&magnitudes).enumerate() {
            let expected = expected[at / 3 * n + chosen[at % 3]];
            // Two roundings to f16, each of 2^-11 of the value, or of 2^-25 where it is subnormal; the scale's
            // error counts once for every step between the code and zero, 128 at most.
            let x_row = &x[at / 3 * k..(at / 3 + 1) * k];
            let subnormal = 129.0 * x_row.iter().map(|x| f64::from(x.abs())).sum::<f64>() * 2.0_f64.powi(-25);
            let bound = 2.0 * 2.0_f64.powi(-11) * magnitude * 1.01 + subnormal;
            assert!((found - expected).abs() <= bound, "{name}: {found}, {expected}, {bound}");
        }
    }
}

#[test]
fn group_maximum_keeps_subnormals() {
    // 0.01 / 256 is subnormal in f16, where steps are 2^-24: f16(0.01) makes 655.5 steps, a tie.
    let maximum = group_maximum(f16::from_f32(0.01));
    assert_eq!(maximum.to_f64(), 656.0 * 2.0_f64.powi(-24));
    assert_eq!(group_maximum(f16::from_f32(5e-6)).to_bits(), 0);
}

#[test]
fn scale_search_finds_the_scale_that_made_the_weights() {
    // Columns that lie on a grid of steps 0.5 and 0.125, 4 bits: -8 .. 7 times the step.
    let weights: Vec<f32> =
        (0..16).flat_map(|row| [0.5 * (row as f32 - 8.0), 0.125 * (row as f32 - 8.0)]).collect();
    let found = scale_search(&weights, 2, 4);
    assert_eq!(base_scales(&weights, 2, 4), [(4.0_f64 / 7.5) as f32, (1.0_f64 / 7.5) as f32]);
    // A quarter of the largest scale has half its code.
    assert_eq!(found.codes, [16, 8]);
    assert_eq!(found.errors.len(), 97);
    assert!(found.errors.iter().all(|error| *error >= found.errors[found.best]));
    // The step is 0.9375 of the base, and multipliers are 1/192 apart.
    assert!((multiplier(found.best) - 0.9375).abs() < 0.5 / 192.0 + 1e-6, "{}", found.best);
    assert_eq!((multiplier(0), multiplier(96)), (0.7, 1.2));
}

#[test]
fn loss_search_finds_the_scale_that_made_the_weights() {
    let weights: Vec<f32> =
        (0..16).flat_map(|row| [0.5 * (row as f32 - 8.0), 0.125 * (row as f32 - 8.0)]).collect();
    let identity: Vec<f32> = (0..256).map(|at| if at % 17 == 0 { 1.0 } else { 0.0 }).collect();
    let found = scale_loss::search(&weights, 2, &identity, &[0.4, 0.5, 0.6], 4);
    assert_eq!((found.best, found.codes), (1, vec![16, 8]));
    assert!(found.losses[1] == 0.0 && found.losses[0] > 0.0 && found.losses[2] > 0.0);
    // 0.6 becomes 1, an error of -0.4; then 0.31 + 0.5 · 0.4 becomes 1, an error of -0.49 / 2.
    let loss = scale_loss::column_loss(&[0.6, 0.31], &[1.0, 0.5, 0.0, 2.0], f16::ONE, 4);
    assert!((loss - (0.16 + 0.245 * 0.245)).abs() < 1e-12, "{loss}");
    assert_eq!(scale_loss::column_loss(&[0.6], &[2.0], f16::ZERO, 4), 0.3 * 0.3);
}

#[test]
fn gptq_gives_the_recorded_layer() {
    let bytes = std::fs::read(data("exl2-layers.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let source = read(&file, "gptq-4-3.source", Dtype::F32, f32::from_le_bytes);
    let hessian = read(&file, "gptq-4-3.hessian", Dtype::F64, f64::from_le_bytes);
    let case = cases(&bytes).into_iter().find(|case| case.name == "gptq-4-3").unwrap();
    let packed = case.tensors.view();
    let found = gptq(&source, 64, &hessian, &layout(packed), 0.12).unwrap();

    assert_eq!(permute::inverse(&found.permutation), packed.q_invperm);
    assert_eq!(found.scale_max, packed.q_scale_max);
    assert_eq!(found.scale_codes, packed.scale_codes());
    let differing =
        found.decoded.iter().zip(&case.decoded).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    println!("{differing} of {} weights differ", case.decoded.len());
    // The recorded layer was made in f32, which may round another way where a weight lies between two codes.
    assert!(differing * 1000 <= case.decoded.len(), "{differing}");

    let again =
        pack::pack(&found.codes, &found.scale_codes, &found.scale_max, &found.permutation, &layout(packed));
    assert_eq!(
        original_order(again.view()),
        found.decoded,
        "decoding the codes gives the quantizer's weights"
    );
}

#[test]
fn gptq_reports_the_error_under_the_damped_hessian() {
    let bytes = std::fs::read(data("exl2-layers.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let source = read(&file, "gptq-4-3.source", Dtype::F32, f32::from_le_bytes);
    let mut hessian = read(&file, "gptq-4-3.hessian", Dtype::F64, f64::from_le_bytes);
    let found = gptq(&source, 64, &hessian, &[(3, 192), (2, 64)], 0.12).unwrap();
    let k = 256;
    let mean = (0..k).map(|i| hessian[i * k + i]).sum::<f64>() / k as f64;
    for i in 0..k {
        hessian[i * k + i] += 0.12 * mean;
    }
    // tr ΔᵀHΔ, column by column.
    let mut expected = 0.0;
    for column in 0..64 {
        let delta: Vec<f64> = (0..k)
            .map(|row| f64::from(source[row * 64 + column]) - found.decoded[row * 64 + column].to_f64())
            .collect();
        let h_delta = matmul(&delta, &hessian, k, None, None);
        expected += delta.iter().zip(h_delta).map(|(a, b)| a * b).sum::<f64>();
    }
    assert!((found.squared_error / expected - 1.0).abs() < 1e-9, "{} {expected}", found.squared_error);
    assert!(gptq(&source, 64, &vec![-1.0; k * k], &[(4, 256)], 0.12).is_none(), "not positive definite");
}

#[test]
fn a_group_of_zeros_decodes_to_zeros() {
    let identity: Vec<f64> = (0..32 * 32).map(|at| if at % 33 == 0 { 1.0 } else { 0.0 }).collect();
    let found = gptq(&[0.0_f32; 32 * 8], 8, &identity, &[(4, 32)], 0.12).unwrap();
    assert!(found.codes.iter().all(|code| *code == 15), "0 / 0 takes the largest code");
    assert!(real::widen(&found.decoded).iter().all(|weight| *weight == 0.0));
}
