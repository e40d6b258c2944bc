//! The product over rows in all its windows and flags.

use exlay::gpu::{CommandList, Device};
use exlay::ops::Tensor;
use exlay::ops::matmul_tn::{Product, Window, matmul_tn};
use exlay::reference::matmul_tn::matmul_tn as oracle;

use crate::quant_numbers::Numbers;
use crate::support::devices;

struct Case {
    rows: usize,
    m: usize,
    n: usize,
    /// (row, column) of the windows in A, B and C.
    at: [(usize, usize); 3],
    factors: (f32, f32),
    weighted: bool,
    upper: bool,
}

/// Columns `first..first + count` of `rows` rows from `row` on.
fn window(values: &[f32], cols: usize, (row, first): (usize, usize), rows: usize, count: usize) -> Vec<f32> {
    (row..row + rows).flat_map(|row| &values[row * cols + first..][..count]).copied().collect()
}

fn check(device: &Device, case: &Case, seed: u64) {
    let &Case { rows, m, n, at: [a_at, b_at, c_at], factors: (alpha, beta), weighted, upper } = case;
    let mut numbers = Numbers(seed);
    let mut matrix = |rows: usize, cols: usize| numbers.normals(rows * cols, 1.0);
    // Something beside the windows on every side.
    let (a_cols, b_cols, c_cols) = (a_at.1 + m + 4, b_at.1 + n + 8, c_at.1 + n + 4);
    let a = matrix(a_at.0 + rows + 1, a_cols);
    let b = matrix(b_at.0 + rows + 2, b_cols);
    let mut c = matrix(c_at.0 + m + 1, c_cols);
    let weights = matrix(1, a_at.0 + rows);
    let before = window(&c, c_cols, c_at, m, n);
    if beta == 0.0 {
        // What is not read does no harm.
        c.fill(f32::NAN);
    }
    let upload = |label: &str, values: &[f32], cols| Tensor::upload(device, label, values, cols).unwrap();
    let (a_device, b_device, c_device) =
        (upload("a", &a, a_cols), upload("b", &b, b_cols), upload("c", &c, c_cols));
    let weights_device = device.upload("weights", &weights).unwrap();
    let mut list = CommandList::new(device, "test");
    let product = Product {
        a: Window { matrix: &a_device, row: a_at.0, col: a_at.1 },
        b: Window { matrix: &b_device, row: b_at.0, col: b_at.1 },
        c: Window { matrix: &c_device, row: c_at.0, col: c_at.1 },
        rows,
        m,
        n,
        alpha,
        beta,
        weights: weighted.then_some(&weights_device),
        upper,
    };
    matmul_tn(&mut list, &product).unwrap();
    list.run().unwrap();
    let found = c_device.read(c_device.rows()).unwrap();

    let (a, b) = (window(&a, a_cols, a_at, rows, m), window(&b, b_cols, b_at, rows, n));
    let used = weighted.then_some(&weights[a_at.0..]);
    let expected = oracle(&a, &b, used, (m, n), (f64::from(alpha), f64::from(beta)), &before);
    let absolute = |values: &[f32]| values.iter().map(|value| value.abs()).collect::<Vec<_>>();
    let magnitude = oracle(
        &absolute(&a),
        &absolute(&b),
        used.map(absolute).as_deref(),
        (m, n),
        (f64::from(alpha.abs()), f64::from(beta.abs())),
        &absolute(&before),
    );
    for row in 0..c_device.rows() {
        for column in 0..c_cols {
            let value = found[row * c_cols + column];
            let inside = (c_at.0..c_at.0 + m).contains(&row) && (c_at.1..c_at.1 + n).contains(&column);
            let (i, j) = (row.wrapping_sub(c_at.0), column.wrapping_sub(c_at.1));
            let untouched = value.to_bits() == c[row * c_cols + column].to_bits();
            if !inside {
                assert!(untouched, "({row}, {column}) is not an output");
                continue;
            }
            if upper && untouched && b_at.1 + j < a_at.1 + i {
                continue;
            }
            // Each sum has `rows` products of two roundings, and a few roundings at the end.
            let bound = (2 * rows + 4) as f64 * 2.0_f64.powi(-24) * magnitude[i * n + j];
            let error = (f64::from(value) - expected[i * n + j]).abs();
            assert!(error <= bound, "({i}, {j}): {value}, expected {}", expected[i * n + j]);
        }
    }
}

#[test]
fn all_windows_and_flags() {
    let none = [(0, 0); 3];
    let cases = [
        Case { rows: 1, m: 4, n: 4, at: none, factors: (1.0, 0.0), weighted: false, upper: false },
        Case { rows: 37, m: 68, n: 132, at: none, factors: (1.0, 1.0), weighted: true, upper: false },
        Case {
            rows: 32,
            m: 100,
            n: 64,
            at: [(5, 8), (0, 0), (3, 0)],
            factors: (-1.0, 1.0),
            weighted: false,
            upper: false,
        },
        Case {
            rows: 96,
            m: 64,
            n: 36,
            at: [(1, 0), (2, 4), (0, 12)],
            factors: (0.5, -2.0),
            weighted: true,
            upper: false,
        },
        Case { rows: 20, m: 160, n: 160, at: none, factors: (1.0, 1.0), weighted: false, upper: true },
        Case {
            rows: 20,
            m: 96,
            n: 256,
            at: [(0, 128), (0, 0), (0, 0)],
            factors: (1.0, 0.0),
            weighted: true,
            upper: true,
        },
    ];
    for (device, _) in devices() {
        for (seed, case) in cases.iter().enumerate() {
            check(&device, case, seed as u64);
        }
    }
}

#[test]
fn windows_outside_are_refused() {
    let (device, _) = devices().next().unwrap();
    let tensor = |rows, cols| Tensor::zeros(&device, "x", rows, cols).unwrap();
    let (a, c) = (tensor(8, 32), tensor(32, 32));
    let good = Product {
        a: Window::whole(&a),
        b: Window::whole(&a),
        c: Window::whole(&c),
        rows: 8,
        m: 32,
        n: 32,
        alpha: 1.0,
        beta: 0.0,
        weights: None,
        upper: false,
    };
    let mut list = CommandList::new(&device, "test");
    matmul_tn(&mut list, &good).unwrap();
    for bad in [
        Product { rows: 9, ..good },
        Product { m: 36, ..good },
        Product { m: 30, ..good },
        Product { a: Window { matrix: &a, row: 1, col: 0 }, ..good },
        Product { a: Window { matrix: &a, row: 0, col: 2 }, m: 28, ..good },
        Product { c: Window { matrix: &a, row: 0, col: 0 }, ..good },
    ] {
        assert!(matmul_tn(&mut list, &bad).is_err());
    }
}
