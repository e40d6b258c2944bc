//! Scalar products, gathered rows, the check of a packed matrix, matrices cut by rows.

use exlay::gpu::CommandList;
use exlay::ops::dot::{MOST_PARTS, dot};
use exlay::ops::gather_rows::gather_rows;
use exlay::ops::weight_error::weight_error;
use exlay::ops::{TallMatrix, Tensor};
use exlay::reference;
use half::f16;

use crate::quant_numbers::Numbers;
use crate::support::{adapter, devices};

#[test]
fn dot_products() {
    for (device, _) in devices() {
        for (rows, cols, y_row) in [(1, 1, 0), (3, 85, 2), (40, 2000, 1)] {
            let mut numbers = Numbers(rows as u64);
            let x = numbers.normals(rows * cols, 1.0);
            let y = numbers.normals((y_row + rows) * cols, 1.0);
            let parts = device.alloc("parts", (4 * MOST_PARTS + 4) as u64).unwrap();
            let upload = |values: &[f32]| Tensor::upload(&device, "x", values, cols).unwrap();
            let mut list = CommandList::new(&device, "test");
            let used = dot(&mut list, &upload(&x), (&upload(&y), y_row), rows, (&parts, 1)).unwrap();
            list.run().unwrap();
            let found: f64 = device.read::<f32>(&parts, 4, used).unwrap().into_iter().map(f64::from).sum();
            let y = &y[y_row * cols..];
            let expected = reference::dot::dot(&x, y);
            let magnitude: f64 = x.iter().zip(y).map(|(x, y)| f64::from((x * y).abs())).sum();
            // Two roundings a term of at most two, and a tree of eight levels.
            assert!(
                (found - expected).abs() <= 14.0 * 2.0_f64.powi(-24) * magnitude,
                "{found}, expected {expected}"
            );
        }
    }
}

#[test]
fn gathered_rows() {
    for (device, _) in devices() {
        for (rows, cols) in [(1, 1), (5, 33), (96, 160)] {
            let mut numbers = Numbers(rows as u64);
            let x = numbers.normals(rows * cols, 1.0);
            let order: Vec<u32> = (0..rows + 2).map(|_| (numbers.next() % rows as u64) as u32).collect();
            let out = Tensor::zeros(&device, "out", rows + 2, cols).unwrap();
            let mut list = CommandList::new(&device, "test");
            let x_device = Tensor::upload(&device, "x", &x, cols).unwrap();
            gather_rows(&mut list, &x_device, &device.upload("order", &order).unwrap(), &out).unwrap();
            list.run().unwrap();
            let found: Vec<f64> = out.read(rows + 2).unwrap().into_iter().map(f64::from).collect();
            assert_eq!(found, reference::embed::embed(&x, cols, &order));
        }
    }
}

#[test]
fn weight_errors_and_planted_mismatches() {
    for (device, _) in devices() {
        for (k, n) in [(32, 32), (96, 64), (64, 160)] {
            let mut numbers = Numbers((k * n) as u64);
            let weights = numbers.normals(k * n, 1.0);
            let decoded: Vec<f16> = numbers.normals(k * n, 1.0).into_iter().map(f16::from_f32).collect();
            let mut own = decoded.clone();
            for (planted, at) in [(0, 0), (1, k * n - 1), (2, k * n / 2 + 5)] {
                if planted > 0 {
                    own[at] = f16::from_bits(own[at].to_bits() ^ 1);
                }
                let halves = |values: &[f16]| {
                    device.upload("halves", bytemuck::cast_slice::<f16, u32>(values)).unwrap()
                };
                let tiles = k / 32 * (n / 32);
                let parts = device.alloc("parts", 8 * tiles as u64).unwrap();
                let mismatches = device.alloc("mismatches", 4).unwrap();
                let mut list = CommandList::new(&device, "test");
                let w = Tensor::upload(&device, "w", &weights, n).unwrap();
                weight_error(&mut list, &w, &halves(&decoded), &halves(&own), &parts, &mismatches).unwrap();
                list.run().unwrap();
                assert_eq!(device.read::<u32>(&mismatches, 0, 1).unwrap(), [planted]);
                for (tile, [sum, largest]) in
                    device.read::<[f32; 2]>(&parts, 0, tiles).unwrap().into_iter().enumerate()
                {
                    let first = (tile / (n / 32) * 32, tile % (n / 32) * 32);
                    let expected = reference::weight_error::tile(&weights, &decoded, n, first);
                    // Roundings: three a term, ten in adding 1024 of them.
                    assert!((f64::from(sum) - expected.0).abs() <= 14.0 * 2.0_f64.powi(-24) * expected.0);
                    assert!((f64::from(largest) - expected.1).abs() <= 2.0_f64.powi(-24) * expected.1);
                }
            }
        }
    }
}

#[test]
fn tall_matrices_are_cut_by_rows() {
    let (adapter, options) = (adapter(), exlay::gpu::DeviceOptions::default());
    let options = exlay::gpu::DeviceOptions { binding_limit: Some(64 * 1024), ..options };
    let device = exlay::gpu::Device::open(&adapter, options).unwrap();
    let values = Numbers(1).normals(200 * 100, 1.0);
    let matrix = TallMatrix::upload(&device, "m", &values, 100).unwrap();
    assert_eq!((matrix.rows(), matrix.cols(), matrix.slab_rows()), (200, 100, 160));
    assert_eq!(
        matrix.slabs().map(|(first, slab)| (first, slab.rows())).collect::<Vec<_>>(),
        [(0, 160), (160, 40)]
    );
    assert_eq!(matrix.find(161).1, 1);
    assert_eq!(matrix.read().unwrap(), values);
    assert!(TallMatrix::zeros(&device, "m", 32, 1000).is_err());
}
