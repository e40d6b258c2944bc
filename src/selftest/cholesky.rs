//! Cases of the steps of a Hessian's factor: `symmetrize`, `unit_diagonal`, `cholesky_block`, `turn_factor`.

use super::case::boxed;
use super::compare::{ROUNDOFF, ULP};
use super::output::POISON;
use super::{Case, Comparison, Fault, Random, Shapes, poisoned, run_list};
use crate::gpu::Device;
use crate::ops::cholesky_block::{BLOCK, DiagonalBlock, cholesky_block};
use crate::ops::symmetrize::symmetrize;
use crate::ops::turn_factor::turn_factor;
use crate::ops::unit_diagonal::unit_diagonal;
use crate::ops::{TallMatrix, Tensor};
use crate::{Result, reference};

/// One of the steps that go element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactorStep {
    /// The mirrored half.
    Symmetrize,
    /// Another order, ones on the diagonal.
    UnitDiagonal,
    /// A lower triangle turned.
    TurnFactor,
}

/// A step on a matrix [k, k].
pub struct Factor {
    /// Which.
    pub step: FactorStep,
    /// Rows and columns.
    pub k: usize,
}

/// A block of `size` rows and columns.
pub struct CholeskyBlock {
    /// At most 64.
    pub size: usize,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let steps = [FactorStep::Symmetrize, FactorStep::UnitDiagonal, FactorStep::TurnFactor];
    let k = match shapes {
        Shapes::Small => 97,
        Shapes::Real => 4096,
    };
    let mut all = boxed(steps.map(|step| Factor { step, k }));
    all.extend(boxed(match shapes {
        Shapes::Small => vec![CholeskyBlock { size: 36 }, CholeskyBlock { size: 64 }],
        Shapes::Real => vec![CholeskyBlock { size: 64 }],
    }));
    all
}

impl Case for Factor {
    fn kernel(&self, _: &Device) -> &'static str {
        match self.step {
            FactorStep::Symmetrize => "symmetrize",
            FactorStep::UnitDiagonal => "unit_diagonal",
            FactorStep::TurnFactor => "turn_factor",
        }
    }

    fn shape(&self) -> String {
        format!("{0} x {0}", self.k)
    }

    fn bytes(&self) -> u64 {
        8 * (self.k * (self.k + 1)) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { step, k } = self;
        let kernel = self.kernel(device);
        let values = Random::new(seed, "x").values(k * k);
        let scale = Random::new(seed, "scale").values(k);
        let mut uploaded = values.clone();
        if fault == Fault::OneWrong {
            match step {
                FactorStep::TurnFactor => uploaded[k * (k - 1)] += 1.0,
                // Whichever of the two the order puts above the diagonal.
                _ => [k / 2, k / 2 * k].into_iter().for_each(|at| uploaded[at] += 1.0),
            }
        }
        let x = TallMatrix::upload(device, "x", &uploaded, k)?;
        let scales = device.upload("scale", &scale)?;
        let mut comparison = Comparison::new();
        match step {
            FactorStep::Symmetrize => {
                let diagonal = poisoned(device, "diagonal", 1, k)?;
                let bad = device.alloc("bad", 4)?;
                run_list(device, kernel, |list| symmetrize(list, &x, 0.3, diagonal.buffer(), &bad))?;
                let expected = reference::cholesky::symmetrize(&values, k, 0.3);
                for (got, &expected) in x.read()?.into_iter().zip(&expected) {
                    comparison.value(got, expected, ROUNDOFF * expected.abs());
                }
                let diagonal = diagonal.read(2)?;
                for (at, &got) in diagonal[..k].iter().enumerate() {
                    let expected = expected[at * (k + 1)];
                    comparison.value(got, expected, ROUNDOFF * expected.abs());
                }
                comparison.untouched(&diagonal[k..]);
                comparison.real(f64::from(device.read::<u32>(&bad, 0, 1)?[0]), 0.0, 0.0);
            }
            FactorStep::UnitDiagonal => {
                let order: Vec<u32> = Random::new(seed, "order").permutation(k);
                let out = TallMatrix::upload(device, "out", &vec![f32::from_bits(POISON); k * k], k)?;
                let order_buffer = device.upload("order", &order)?;
                run_list(device, kernel, |list| unit_diagonal(list, &x, &order_buffer, &scales, &out))?;
                for (at, got) in out.read()?.into_iter().enumerate() {
                    if at % k < at / k {
                        comparison.untouched(&[got]);
                        continue;
                    }
                    let expected =
                        reference::cholesky::unit_diagonal(&values, &order, &scale, (at / k, at % k));
                    comparison.value(got, expected, 2.0 * ROUNDOFF * expected.abs());
                }
            }
            FactorStep::TurnFactor => {
                run_list(device, kernel, |list| turn_factor(list, &x, &scales))?;
                for (at, got) in x.read()?.into_iter().enumerate() {
                    let expected = reference::cholesky::turned(&values, &scale, (at / k, at % k));
                    comparison.value(got, expected, ROUNDOFF * expected.abs());
                }
            }
        }
        Ok(comparison)
    }
}

impl Case for CholeskyBlock {
    fn kernel(&self, _: &Device) -> &'static str {
        "cholesky_block"
    }

    fn shape(&self) -> String {
        format!("{0} x {0}", self.size)
    }

    fn bytes(&self) -> u64 {
        (8 * BLOCK * (BLOCK + 8)) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { size } = self;
        // A block of correlations: Gram matrix of `size` vectors of 2·size values, scaled to a diagonal near 1.
        let x = Random::new(seed, "x").values(2 * size * size);
        let row = |i: usize| &x[i * 2 * size..][..2 * size];
        let product = |i: usize, j: usize| -> f64 {
            row(i).iter().zip(row(j)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let pitch = size + 3;
        let mut values = vec![f32::from_bits(POISON); (size + 1) * pitch];
        let mut matrix = vec![0.0; size * size];
        for i in 0..size {
            for j in i..size {
                let value = (product(i, j) / (product(i, i) * product(j, j)).sqrt()) as f32;
                values[i * pitch + 2 + j] = value;
                (matrix[i * size + j], matrix[j * size + i]) = (f64::from(value), f64::from(value));
            }
        }
        let clean = values.clone();
        if fault == Fault::OneWrong {
            values[2 + size / 2] += 0.1;
        }
        let device_values = Tensor::upload(device, "matrix", &values, pitch)?;
        let inverse = poisoned(device, "inverse", BLOCK, BLOCK)?;
        let pivots = poisoned(device, "pivots", 1, size + 2)?;
        run_list(device, self.kernel(device), |list| {
            let block = DiagonalBlock { matrix: &device_values, row: 0, col: 2, size };
            cholesky_block(list, &block, &inverse, pivots.buffer())
        })?;

        let mut comparison = Comparison::new();
        let lower = reference::cholesky::lower_factor(&matrix, size)
            .ok_or_else(|| crate::Error::shape("cholesky_block", "a case without a factor"))?;
        let expected = reference::cholesky::lower_inverse(&lower, size);
        let bounds = bounds(&lower, &expected, size);
        let got = inverse.read(BLOCK + 1)?;
        for (at, &got) in got[..BLOCK * BLOCK].iter().enumerate() {
            let (column, row) = (at / BLOCK, at % BLOCK);
            if row < size && column <= row {
                comparison.value(got, expected[row * size + column], bounds[row * size + column]);
            } else {
                comparison.exact(got, 0.0);
            }
        }
        comparison.untouched(&got[BLOCK * BLOCK..]);
        let got = pivots.read(2)?;
        for i in 0..size {
            let root = lower[i * (size + 1)];
            // The pivot is 1 / inverse[i, i]².
            let bound = 2.0 * root.powi(3) * bounds[i * (size + 1)];
            comparison.value(got[2 + i], root * root, bound);
        }
        comparison.untouched(&[&got[..2], &got[size + 2..]].concat());
        for (at, got) in device_values.read(size + 1)?.into_iter().enumerate() {
            let (row, column) = (at / pitch, at % pitch);
            if row < size && (2..size + 2).contains(&column) {
                comparison.exact(got, if row + 2 == column { 1.0 } else { 0.0 });
            } else {
                comparison.exact(got, clean[at]);
            }
        }
        Ok(comparison)
    }
}

/// Rounding makes L·Lᵀ + E of L·Lᵀ, |E| ≤ steps·|L|·|Lᵀ|, and so L⁻¹ err by Φ(L⁻¹·E·L⁻ᵀ)·L⁻¹ to first order, Φ the lower half;
/// substitution adds steps·|L⁻¹|·|L|·|L⁻¹|, which is no more.
fn bounds(lower: &[f64], inverse: &[f64], k: usize) -> Vec<f64> {
    // A subtraction, two products and a reciprocal a step; a root.
    let steps = 2.0 * (k + 8) as f64 * ULP;
    let size = |values: &[f64]| values.iter().map(|value| value.abs()).collect::<Vec<_>>();
    let times = |a: &[f64], b: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (0..k * k).map(|at| (0..k).map(|r| a[at / k * k + r] * b(r, at % k)).sum()).collect()
    };
    let (lower, inverse) = (size(lower), size(inverse));
    let left = times(&inverse, &|r, c| lower[r * k + c]);
    let both = times(&left, &|r, c| left[c * k + r]);
    let bounds = times(&both, &|r, c| inverse[r * k + c]);
    bounds.into_iter().map(|bound| 2.0 * steps * bound).collect()
}
