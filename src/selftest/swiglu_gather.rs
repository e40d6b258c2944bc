//! Cases of `swiglu_gather`.

use super::case::boxed;
use super::compare::{ROUNDOFF, ULP};
use super::{Case, Comparison, Fault, Random, Shapes, fused, run_list};
use crate::gpu::{Arithmetic, Device};
use crate::ops::activation::{Activation, Partial};
use crate::ops::residual_norm::Left;
use crate::ops::swiglu_gather::swiglu_gather;
use crate::{Result, reference};

/// The gated activation of [rows, cols] between two products.
pub struct SwigluGather {
    /// Rows.
    pub rows: usize,
    /// Values in a row, a multiple of 32.
    pub cols: usize,
    /// Parts that the product of gate and up left.
    pub sums: usize,
    /// Arithmetic of the activation.
    pub form: Arithmetic,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let case = |rows, cols, sums, form| SwigluGather { rows, cols, sums, form };
    boxed(match shapes {
        Shapes::Small => Arithmetic::ALL.map(|form| case(3, 608, 2, form)),
        Shapes::Real => Arithmetic::ALL.map(|form| case(8, 28672, 4, form)),
    })
}

impl Case for SwigluGather {
    fn kernel(&self, _: &Device) -> &'static str {
        "swiglu_gather"
    }

    fn shape(&self) -> String {
        format!("{} x {}, {} parts, {}", self.rows, self.cols, self.sums, self.form)
    }

    fn bytes(&self) -> u64 {
        4 * (self.rows * self.cols * (2 * self.sums + 1)) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, cols, sums, form } = self;
        let (up, columns) = (cols + 32, 2 * cols + 32);
        let left = fused::split(seed, &Random::new(seed, "left").values(rows * columns), sums);
        let mut seen = left.clone();
        if fault == Fault::OneWrong {
            seen[up] += 1.0;
        }
        let (group, orders) = fused::orders(device, cols, 1, seed)?;
        let partial = Partial::new(device, left.len())?;
        device.write(partial.buffer(), 0, &seen)?;
        let x = Activation::new(device, form, rows * form.row_words(cols))?;
        run_list(device, "swiglu_gather", |list| {
            swiglu_gather(list, Left { partial: &partial, sums, columns }, up, &group, &x, rows)
        })?;
        let mut comparison = Comparison::new();
        for row in 0..rows {
            let value = |i: usize| {
                let terms = (0..sums).map(|part| f64::from(left[(part * rows + row) * columns + i]));
                terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
            };
            fused::compare(&mut comparison, &x, cols, row, |i| {
                let feature = orders[0][i] as usize;
                let ((gate, gate_size), (up, up_size)) = (value(feature), value(up + feature));
                let expected = reference::swiglu::swiglu(&[gate], &[up])[0];
                // As in `swiglu`; and the four levels of each tree, silu's slope being at most 1.1.
                let relative = (3.0 + 2.0 * gate.abs() + 2.5) * ULP + 2.0 * ROUNDOFF;
                let trees = 4.0 * ROUNDOFF * (1.1 * gate_size * up.abs() + gate.abs() * up_size);
                (expected, relative * expected.abs() + trees + 2e-36 * up.abs())
            })?;
        }
        Ok(comparison)
    }
}
