//! Rounding with error feedback inside a group, and packing.

use exlay::gpu::{CommandList, Device};
use exlay::ops::Tensor;
use exlay::ops::gptq_group::{Rounded, gptq_group};
use exlay::ops::pack::pack;
use exlay::ops::scale_search::{GroupRows, ScaleSearch, column_max, scale_error, scale_pick};
use exlay::reference::dequantize::weight;
use exlay::reference::gptq::{round, round_group};
use exlay::reference::pack::{fields, scale_words};
use exlay::reference::scale_search::scale_code;
use half::f16;

use crate::quant_numbers::Numbers;
use crate::quant_scales::weights;
use crate::support::devices;

/// What the device made of one group of a matrix.
struct Found {
    codes: Vec<u32>,
    errors: Vec<f32>,
    decoded: Vec<[f16; 2]>,
    sums: Vec<f32>,
    words: Vec<u32>,
    scale_words: Vec<u32>,
    scale_codes: Vec<u8>,
    scales: Vec<f16>,
}

const FIRST: usize = 32;
const WORD: usize = 3;

fn round_on_device(device: &Device, w: &[f32], n: usize, u: &[f32], rows: usize, bits: u32) -> Found {
    let k = w.len() / n;
    let tensor = |label, values: &[f32], cols| Tensor::upload(device, label, values, cols).unwrap();
    // The factor's slab begins five rows above the group's first.
    let u_rows: Vec<f32> =
        std::iter::repeat_n(f32::NAN, 5 * k).chain(u[FIRST * k..].iter().copied()).collect();
    let (w_device, u_device) = (tensor("w", w, n), tensor("u", &u_rows, k));
    let alloc = |label, bytes: usize| device.alloc(label, bytes as u64).unwrap();
    let codes = alloc("codes", 4 * rows * n);
    let errors = Tensor::zeros(device, "errors", rows, n).unwrap();
    let decoded = alloc("decoded", 2 * k * n);
    let sums = alloc("sums", 4 * (n / 32 + 1));
    let word_rows = rows / 32 * bits as usize;
    let words = alloc("words", 4 * (WORD + word_rows) * n);
    let scales = alloc("scales", n);
    let mut search = ScaleSearch::new(device, &[n], 2, rows).unwrap();
    let group = GroupRows { weights: &w_device, column: 0, first: FIRST, rows, group: 1, bits };
    let mut list = CommandList::new(device, "test");
    column_max(&mut list, &search, &group).unwrap();
    scale_error(&mut list, &mut search, &group).unwrap();
    scale_pick(&mut list, &mut search, 1).unwrap();
    let out = Rounded { codes: &codes, errors: &errors, decoded: &decoded, sums: &sums, sum: 1 };
    gptq_group(&mut list, &search, &group, (&u_device, 5), &out).unwrap();
    pack(&mut list, &search, &group, &codes, (&words, WORD), (&scales, true)).unwrap();
    list.run().unwrap();

    let base: Vec<f32> = device.read(&search.base, 0, n).unwrap();
    let picked: Vec<[u32; 4]> = device.read(&search.picked, 0, 2).unwrap();
    let scale_codes: Vec<u8> =
        base.iter().map(|&base| scale_code(base, f32::from_bits(picked[1][0]))).collect();
    let maximum = f16::from_f32(f32::from_bits(picked[1][2]));
    let scale = |&code: &u8| f16::from_f32(f32::from(u16::from(code) * u16::from(code)) * maximum.to_f32());
    Found {
        codes: device.read(&codes, 0, rows * n).unwrap(),
        errors: errors.read(rows).unwrap(),
        decoded: device
            .read::<u32>(&decoded, 0, k * n / 2)
            .unwrap()
            .into_iter()
            .map(bytemuck::cast)
            .collect(),
        sums: device.read(&sums, 4, n / 32).unwrap(),
        words: device.read(&words, (4 * WORD * n) as u64, word_rows * n).unwrap(),
        scale_words: device.read(&scales, (n / 2) as u64, n / 8).unwrap(),
        scales: scale_codes.iter().map(scale).collect(),
        scale_codes,
    }
}

/// An upper triangle [k, k] with a diagonal around 1.
pub(crate) fn triangle(numbers: &mut Numbers, k: usize) -> Vec<f32> {
    let mut u = vec![0.0; k * k];
    for i in 0..k {
        u[i * (k + 1)] = (0.7 + 0.6 * numbers.uniform()) as f32;
        for value in &mut u[i * k + i + 1..(i + 1) * k] {
            *value = (0.1 * numbers.normal()) as f32;
        }
    }
    u
}

fn check(device: &Device, rows: usize, n: usize, bits: u32, size: f64) {
    let k = FIRST + rows + 32;
    let mut numbers = Numbers((k * n + bits as usize) as u64);
    let w = weights(&mut numbers, k, n, size);
    let u = triangle(&mut numbers, k);
    let found = round_on_device(device, &w, n, &u, rows, bits);

    let mut wide: Vec<f64> = w.iter().map(|&value| f64::from(value)).collect();
    let u64s: Vec<f64> = u.iter().map(|&value| f64::from(value)).collect();
    let expected = round_group(&mut wide, n, &u64s, (FIRST, FIRST + rows), &found.scales, bits);
    let mut different = 0;
    for column in 0..n {
        let at = |row: usize| row * n + column;
        let scale = found.scales[column];
        // A value within rounding of the middle between two codes may go either way, and then all below it differ.
        if (0..rows).any(|row| found.codes[at(row)] != u32::from(expected.codes[at(row)])) {
            different += 1;
            continue;
        }
        for row in 0..rows {
            // Corrected up to 128 times by errors that are not much above a step of the scale or the weight itself.
            let value = f64::from(w[at(FIRST + row)].abs()) + expected.errors[at(row)].abs();
            let bound = 300.0 * 2.0_f64.powi(-24) * (value + 2.0 * scale.to_f64());
            let error = (f64::from(found.errors[at(row)]) - expected.errors[at(row)]).abs();
            assert!(error <= bound, "({row}, {column}): {error:e} above {bound:e}");
        }
    }
    assert!(different * 100 <= n, "{different} of {n} columns have other codes");
    for (at, &code) in found.codes.iter().enumerate() {
        let (row, column) = (at / n, at % n);
        let decoded = found.decoded[(column * k + FIRST + row) / 2][row % 2];
        let own = weight(code, bits as usize, found.scales[column]);
        assert_eq!(decoded.to_bits(), own.to_bits(), "({row}, {column})");
    }
    for (block, &sum) in found.sums.iter().enumerate() {
        let squares = |row: usize| found.errors[row * n + block * 32..][..32].iter();
        let expected: f64 =
            (0..rows).flat_map(squares).map(|&error| f64::from(error) * f64::from(error)).sum();
        // 128 + 32 roundings of positive terms.
        assert!((f64::from(sum) - expected).abs() <= 200.0 * 2.0_f64.powi(-24) * expected);
    }
    let codes: Vec<u8> = found.codes.iter().map(|&code| code as u8).collect();
    assert_eq!(found.words, fields(&codes, n, bits as usize));
    assert_eq!(found.scale_words, scale_words(&found.scale_codes));
}

#[test]
fn all_widths_and_shapes() {
    for (device, _) in devices() {
        for bits in [2, 3, 4, 5, 6, 8] {
            check(&device, 32, 96, bits, 0.1);
        }
        check(&device, 128, 160, 3, 0.1);
        check(&device, 96, 32, 5, 0.1);
        // Scales that are subnormal halves.
        check(&device, 64, 64, 4, 1e-5);
    }
}

#[test]
fn a_scale_of_zero_rounds_as_exllamav2_does() {
    let (k, n) = (96, 32);
    let mut numbers = Numbers(5);
    let u = triangle(&mut numbers, k);
    for (device, _) in devices() {
        for size in [0.0, 1e-9] {
            let w: Vec<f32> = (0..k * n).map(|at| size * ((at % 7) as f32 - 3.0)).collect();
            let found = round_on_device(&device, &w, n, &u, 32, 3);
            assert!(found.scales.iter().all(|scale| scale.to_f32() == 0.0));
            for column in 0..n {
                // Only the first row still has its own weight.
                let value = w[FIRST * n + column];
                let expected = round(f64::from(value), f16::ZERO, 3);
                assert_eq!(found.codes[column], expected, "{value}");
            }
        }
    }
}
