//! Cases of `permute`.

use super::case::boxed;
use super::{Case, Comparison, Fault, Packing, Random, Shapes, poisoned, run_list};
use crate::gpu::Device;
use crate::ops::{self, QuantMatrix, Tensor};
use crate::{Result, reference};

/// A gather of [rows, cols]; cols is a multiple of 32, as packed matrices are the only source of an order.
pub struct Permute {
    /// Rows.
    pub rows: usize,
    /// Values in a row.
    pub cols: usize,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![Permute { rows: 3, cols: 224 }],
        // More than 65535 workgroups of 64 values: a folded grid.
        Shapes::Real => vec![Permute { rows: 513, cols: 8192 }],
    })
}

impl Case for Permute {
    fn kernel(&self, _: &Device) -> &'static str {
        "permute"
    }

    fn shape(&self) -> String {
        format!("{} x {}", self.rows, self.cols)
    }

    fn bytes(&self) -> u64 {
        8 * ((self.rows + 1) * self.cols) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, cols } = self;
        let matrix = Packing { groups: vec![(2, cols)], n: 32, bias: false }.matrix(seed)?;
        let values = Random::new(seed, "x").values(rows * cols);
        let mut uploaded = values.clone();
        if fault == Fault::OneWrong {
            uploaded[cols / 2] += 1.0;
        }
        let x = Tensor::upload(device, "x", &uploaded, cols)?;
        let out = poisoned(device, "out", rows, cols)?;
        let quant = QuantMatrix::upload(device, "matrix", &matrix, 32, &[])?;
        run_list(device, "permute", |list| ops::permute::permute(list, &x, quant.permutation(), &out, rows))?;

        // Packed row i multiplies input feature order[i], and q_invperm[order[i]] = i.
        let order = reference::permute::inverse(&matrix.q_invperm);
        let expected = reference::permute::permute(&values, cols, &order);
        let got = out.read(rows + 1)?;
        let mut comparison = Comparison::new();
        for (&got, &expected) in got.iter().zip(&expected) {
            comparison.exact(got, expected as f32);
        }
        comparison.untouched(&got[rows * cols..]);
        Ok(comparison)
    }
}
