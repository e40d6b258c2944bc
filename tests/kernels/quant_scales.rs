//! The search for the scales of a group.

use exlay::gpu::{CommandList, Device};
use exlay::ops::Tensor;
use exlay::ops::scale_search::{GroupRows, ScaleSearch, column_max, scale_error, scale_pick};
use exlay::reference::scale_search::{self as oracle, STEPS, multiplier};
use half::f16;

use crate::quant_numbers::Numbers;
use crate::support::devices;

/// Weights whose columns differ in size a lot, so that all scale codes occur.
pub(crate) fn weights(numbers: &mut Numbers, rows: usize, cols: usize, scale: f64) -> Vec<f32> {
    let sizes: Vec<f64> = (0..cols).map(|_| scale * numbers.uniform().powi(3)).collect();
    (0..rows * cols).map(|at| (numbers.normal() * sizes[at % cols]) as f32).collect()
}

/// One group in a matrix of two groups, the columns in slabs of the given widths.
fn check(device: &Device, rows: usize, widths: &[usize], bits: u32, scale: f64) {
    let cols: usize = widths.iter().sum();
    let mut numbers = Numbers((rows * cols + bits as usize) as u64);
    let above = 32;
    let group = weights(&mut numbers, rows, cols, scale);
    let mut search = ScaleSearch::new(device, widths, 2, rows).unwrap();
    let mut slabs = Vec::new();
    let mut first = 0;
    for &width in widths {
        let mut values = vec![1e6; above * width];
        values.extend(group.chunks_exact(cols).flat_map(|row| &row[first..first + width]));
        slabs.push((first, Tensor::upload(device, "w", &values, width).unwrap()));
        first += width;
    }
    let part = |(column, weights)| GroupRows { weights, column, first: above, rows, group: 1, bits };
    let parts: Vec<GroupRows<'_>> = slabs.iter().map(|(column, tensor)| part((*column, tensor))).collect();
    let mut list = CommandList::new(device, "test");
    parts.iter().for_each(|rows| column_max(&mut list, &search, rows).unwrap());
    parts.iter().for_each(|rows| scale_error(&mut list, &mut search, rows).unwrap());
    scale_pick(&mut list, &mut search, 1).unwrap();
    list.run().unwrap();

    let expected = oracle::scale_search(&group, cols, bits);
    let base: Vec<f32> = device.read(&search.base, 0, cols).unwrap();
    for (found, expected) in base.iter().zip(&expected.base) {
        // WGSL divides to 2.5 units in the last place.
        assert!((found - expected).abs() <= 3e-7 * expected, "{found}, expected {expected}");
    }
    let picked: Vec<[u32; 4]> = device.read(&search.picked, 0, 2).unwrap();
    let largest = f32::from_bits(picked[1][0]);
    assert!((largest - expected.largest).abs() <= 3e-7 * expected.largest);

    let count: usize = widths.iter().map(|width| (width / 32 * (rows / 32)).min(512)).sum();
    let parts: Vec<f32> = device.read(&search.parts, 0, count * STEPS).unwrap();
    let mut errors = [0.0; STEPS];
    for (at, &part) in parts.iter().enumerate() {
        errors[at % STEPS] += f64::from(part);
    }
    let unit = f64::from(expected.largest).powf(3.5);
    for (step, (found, expected)) in errors.iter().zip(&expected.errors).enumerate() {
        // About 20 roundings a term: those of w / largest and of the scale shift errors by 2^-23 of a weight, which is
        // up to 2^bits of the errors, times 3.5; the sums of at most 2^14 terms of one sign add little.
        let bound = (10 << bits) as f64 * 2.0_f64.powi(-23) * 3.5 * expected;
        assert!(
            (found * unit - expected).abs() <= bound,
            "step {step}: {}, expected {expected}",
            found * unit
        );
    }

    let best = picked[1][3] as usize;
    assert!(best < STEPS);
    let least = expected.errors[expected.best];
    assert!(expected.errors[best] <= least * (1.0 + 1e-4), "picked {best}, expected {}", expected.best);
    let scale_max = f16::from_bits(picked[1][1] as u16);
    assert_eq!(scale_max, f16::from_f32(largest * multiplier(best)));
    let maximum = f16::from_f32(scale_max.to_f32() / 256.0);
    assert_eq!(f32::from_bits(picked[1][2]), maximum.to_f32());
}

#[test]
fn all_widths_and_shapes() {
    for (device, _) in devices() {
        for bits in [2, 3, 4, 5, 6, 8] {
            check(&device, 32, &[32], bits, 0.1);
        }
        check(&device, 128, &[160], 4, 0.1);
        check(&device, 96, &[128, 64], 3, 0.1);
        // Scales that are subnormal halves, and large ones.
        check(&device, 64, &[96], 6, 1e-5);
        check(&device, 64, &[96], 2, 3e4);
    }
}

#[test]
fn more_tiles_than_partial_sums() {
    let (device, _) = devices().next().unwrap();
    check(&device, 128, &[4128, 32], 4, 0.1);
}

#[test]
fn zeros_give_a_scale_of_zero() {
    for (device, _) in devices() {
        let weights = Tensor::zeros(&device, "w", 32, 64).unwrap();
        let mut search = ScaleSearch::new(&device, &[64], 1, 32).unwrap();
        let rows = GroupRows { weights: &weights, column: 0, first: 0, rows: 32, group: 0, bits: 4 };
        let mut list = CommandList::new(&device, "test");
        column_max(&mut list, &search, &rows).unwrap();
        scale_error(&mut list, &mut search, &rows).unwrap();
        scale_pick(&mut list, &mut search, 0).unwrap();
        list.run().unwrap();
        let picked: Vec<[u32; 4]> = device.read(&search.picked, 0, 1).unwrap();
        // The first of 97 equal errors.
        assert_eq!(picked[0][1..], [0, 0, 0]);
    }
}

#[test]
fn rows_outside_are_refused() {
    let (device, _) = devices().next().unwrap();
    let weights = Tensor::zeros(&device, "w", 64, 64).unwrap();
    let search = ScaleSearch::new(&device, &[64], 1, 32).unwrap();
    let good = GroupRows { weights: &weights, column: 0, first: 32, rows: 32, group: 0, bits: 4 };
    let mut list = CommandList::new(&device, "test");
    column_max(&mut list, &search, &good).unwrap();
    for bad in [
        GroupRows { first: 33, ..good },
        GroupRows { rows: 16, ..good },
        GroupRows { column: 32, ..good },
        GroupRows { group: 1, ..good },
        GroupRows { bits: 9, ..good },
    ] {
        assert!(column_max(&mut list, &search, &bad).is_err());
    }
}
