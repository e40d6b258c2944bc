//! Cases of `rms_norm`.

use super::case::boxed;
use super::compare::ROUNDOFF;
use super::{Case, Comparison, Fault, Random, Shapes, poisoned, run_list};
use crate::gpu::Device;
use crate::ops::{self, Tensor};
use crate::{Result, reference};

/// A norm of [rows, cols].
pub struct RmsNorm {
    /// Rows.
    pub rows: usize,
    /// Values in a row.
    pub cols: usize,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![RmsNorm { rows: 3, cols: 577 }],
        Shapes::Real => vec![RmsNorm { rows: 513, cols: 8192 }],
    })
}

impl Case for RmsNorm {
    fn kernel(&self, _: &Device) -> &'static str {
        "rms_norm"
    }

    fn shape(&self) -> String {
        format!("{} x {}", self.rows, self.cols)
    }

    fn bytes(&self) -> u64 {
        8 * ((self.rows + 1) * self.cols) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, cols } = self;
        let eps = 1e-5;
        let values = Random::new(seed, "x").values(rows * cols);
        let weight = Random::new(seed, "weight").values(cols);
        let mut uploaded = weight.clone();
        if fault == Fault::OneWrong {
            uploaded[cols / 2] *= 1.01;
        }
        let x = Tensor::upload(device, "x", &values, cols)?;
        let weight_tensor = Tensor::upload(device, "weight", &uploaded, cols)?;
        let out = poisoned(device, "out", rows, cols)?;
        run_list(device, "rms_norm", |list| {
            ops::rms_norm::rms_norm(list, &x, &weight_tensor, &out, rows, eps)
        })?;

        // A lane squares and adds cols / 256 values, up to 255 more additions join the lanes in whatever order; all are
        // positive, so the sum's relative error is at most that many roundings, and the root halves it. Division,
        // root and reciprocal (2.5, 2 + 2.5 and 2.5 units in the last place by WGSL's table) and two products follow.
        let steps = (cols.div_ceil(256) + 1 + 255) as f64 / 2.0 + 24.0;
        let expected = reference::rms_norm::rms_norm(&values, &weight, eps, cols);
        let got = out.read(rows + 1)?;
        let mut comparison = Comparison::new();
        for (&got, &expected) in got.iter().zip(&expected) {
            comparison.value(got, expected, steps * ROUNDOFF * expected.abs());
        }
        comparison.untouched(&got[rows * cols..]);
        Ok(comparison)
    }
}
