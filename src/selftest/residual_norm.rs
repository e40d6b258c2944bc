//! Cases of `residual_norm`.

use super::case::boxed;
use super::compare::ROUNDOFF;
use super::{Case, Comparison, Fault, Random, Shapes, fused, poisoned, run_list};
use crate::Result;
use crate::gpu::{Arithmetic, Device};
use crate::ops::activation::{Activation, Partial};
use crate::ops::residual_norm::{Left, residual_norm};
use crate::ops::{RowNorm, Tensor};

/// Residual and norm of [rows, cols] towards a group that takes its input in `copies` orders.
pub struct ResidualNorm {
    /// Rows.
    pub rows: usize,
    /// Values in a row, a multiple of 32.
    pub cols: usize,
    /// Parts that the last product left; 0: there was none.
    pub sums: usize,
    /// Orders.
    pub copies: usize,
    /// Arithmetic of the activation.
    pub form: Arithmetic,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let case = |rows, cols, sums, copies, form| ResidualNorm { rows, cols, sums, copies, form };
    boxed(match shapes {
        Shapes::Small => Arithmetic::ALL.map(|form| case(3, 608, 4, 2, form)),
        Shapes::Real => Arithmetic::ALL.map(|form| case(8, 8192, 16, 3, form)),
    })
}

impl Case for ResidualNorm {
    fn kernel(&self, _: &Device) -> &'static str {
        "residual_norm"
    }

    fn shape(&self) -> String {
        format!("{} x {}, {} parts, {} orders, {}", self.rows, self.cols, self.sums, self.copies, self.form)
    }

    fn bytes(&self) -> u64 {
        4 * (self.rows * self.cols * (self.sums + 2 + self.copies)) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, cols, sums, copies, form } = self;
        let columns = cols + 32;
        let hidden = Random::new(seed, "hidden").values(rows * cols);
        let weight = Random::new(seed, "weight").values(cols);
        let left = fused::split(seed, &Random::new(seed, "left").values(rows * columns), sums);
        let (group, orders) = fused::orders(device, cols, copies, seed)?;
        let partial = Partial::new(device, left.len().max(1))?;
        device.write(partial.buffer(), 0, &left)?;
        let mut seen = weight.clone();
        if fault == Fault::OneWrong {
            seen[cols / 2] += 0.1;
        }
        let weights = Tensor::upload(device, "weight", &seen, cols)?;
        let before = Tensor::upload(device, "hidden", &hidden, cols)?;
        let next = poisoned(device, "next", rows, cols)?;
        let norm = RowNorm::new(device, rows, cols, 1e-5)?;
        let x = Activation::new(device, form, copies * rows * form.row_words(cols))?;
        run_list(device, "residual_norm", |list| {
            let left = Left { partial: &partial, sums, columns };
            residual_norm(list, &before, left, &weights, &next, &group, &norm, &x, rows)
        })?;
        let mut comparison = Comparison::new();
        let (got, parts) = (next.read(rows + 1)?, RowNorm::parts(cols));
        comparison.untouched(&got[rows * cols..]);
        let squares: Vec<f32> = device.read(norm.squares(), 0, rows * parts)?;
        for row in 0..rows {
            // Values and the magnitudes that the additions of hidden and parts round at: five levels.
            let value = |i: usize| {
                let terms = (0..sums).map(|part| f64::from(left[(part * rows + row) * columns + i]));
                let own = f64::from(hidden[row * cols + i]);
                let (sum, size) =
                    terms.fold((own, own.abs()), |(sum, size), term| (sum + term, size + term.abs()));
                (sum, 5.0 * ROUNDOFF * size)
            };
            let mut total = (0.0, 0.0);
            for i in 0..cols {
                let (expected, bound) = value(i);
                comparison.value(got[row * cols + i], expected, bound);
                let square = expected * expected;
                total = (total.0 + square, total.1 + 2.0 * bound * expected.abs() + 70.0 * ROUNDOFF * square);
            }
            let sum: f64 = squares[row * parts..(row + 1) * parts].iter().copied().map(f64::from).sum();
            comparison.real(sum, total.0, total.1);
            for (copy, order) in orders.iter().enumerate() {
                fused::compare(&mut comparison, &x, cols, copy * rows + row, |i| {
                    let feature = order[i] as usize;
                    let (next, bound) = value(feature);
                    let weight = f64::from(weight[feature]);
                    (next * weight, (bound + 2.0 * ROUNDOFF * next.abs()) * weight.abs())
                })?;
            }
        }
        Ok(comparison)
    }
}
