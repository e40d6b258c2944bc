//! Cases of `difference`.

use super::case::boxed;
use super::compare::ROUNDOFF;
use super::{Case, Comparison, Fault, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::{self, Tensor};
use crate::{Result, reference};

/// The difference of two [rows, cols], times a factor.
pub struct Difference {
    /// Rows.
    pub rows: usize,
    /// Values in a row.
    pub cols: usize,
    /// The factor.
    pub factor: f32,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![Difference { rows: 3, cols: 577, factor: 0.5 }],
        // More than 65535 workgroups of 64 values: a folded grid.
        Shapes::Real => vec![Difference { rows: 161, cols: 28672, factor: 0.3 }],
    })
}

impl Case for Difference {
    fn kernel(&self, _: &Device) -> &'static str {
        "difference"
    }

    fn shape(&self) -> String {
        format!("{} x {}, times {}", self.rows, self.cols, self.factor)
    }

    fn bytes(&self) -> u64 {
        8 * ((self.rows + 1) * self.cols) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, cols, factor } = self;
        // A row more than is asked for, which stays as it is.
        let before = Random::new(seed, "y").values((rows + 1) * cols);
        let x: Vec<f32> = Random::new(seed, "x").values(rows * cols);
        let mut uploaded = x.clone();
        if fault == Fault::OneWrong {
            uploaded[cols / 2] += 0.01;
        }
        let y = Tensor::upload(device, "y", &before, cols)?;
        let x_device = Tensor::upload(device, "x", &uploaded, cols)?;
        run_list(device, "difference", |list| {
            ops::difference::difference(list, &y, &x_device, rows, factor)
        })?;

        let expected = reference::difference::difference(&before[..rows * cols], &x, f64::from(factor));
        let got = y.read(rows + 1)?;
        let mut comparison = Comparison::new();
        for (&got, &expected) in got.iter().zip(&expected) {
            // The difference rounds once and the product once.
            comparison.value(got, expected, 2.5 * ROUNDOFF * expected.abs() + f64::from(f32::MIN_POSITIVE));
        }
        for (&got, &before) in got[rows * cols..].iter().zip(&before[rows * cols..]) {
            comparison.exact(got, before);
        }
        Ok(comparison)
    }
}
