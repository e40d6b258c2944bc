//! Cases of `swiglu`.

use super::case::boxed;
use super::compare::{ROUNDOFF, ULP};
use super::{Case, Comparison, Fault, Random, Shapes, poisoned, run_list};
use crate::gpu::Device;
use crate::ops::{self, Tensor};
use crate::{Result, reference};

/// The gated activation of [rows, cols].
pub struct Swiglu {
    /// Rows.
    pub rows: usize,
    /// Values in a row.
    pub cols: usize,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![Swiglu { rows: 3, cols: 577 }],
        // More than 65535 workgroups of 64 values: a folded grid.
        Shapes::Real => vec![Swiglu { rows: 161, cols: 28672 }],
    })
}

impl Case for Swiglu {
    fn kernel(&self, _: &Device) -> &'static str {
        "swiglu"
    }

    fn shape(&self) -> String {
        format!("{} x {}", self.rows, self.cols)
    }

    fn bytes(&self) -> u64 {
        12 * ((self.rows + 1) * self.cols) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, cols } = self;
        let mut gates = Random::new(seed, "gate").values(rows * cols);
        // Where e^-g overflows and where it vanishes.
        for (gate, extreme) in gates.iter_mut().skip(1).step_by(2).zip([-88.0, -100.0, 100.0, 0.0, -0.0, 1e4])
        {
            *gate = extreme;
        }
        let ups = Random::new(seed, "up").values(rows * cols);
        let mut uploaded = ups.clone();
        if fault == Fault::OneWrong {
            uploaded[0] += 0.01;
        }
        let gate = Tensor::upload(device, "gate", &gates, cols)?;
        let up = Tensor::upload(device, "up", &uploaded, cols)?;
        let out = poisoned(device, "out", rows, cols)?;
        run_list(device, "swiglu", |list| ops::swiglu::swiglu(list, &gate, &up, &out, rows))?;

        let expected = reference::swiglu::swiglu(&gates, &ups);
        let got = out.read(rows + 1)?;
        let mut comparison = Comparison::new();
        for (index, (&got, &expected)) in got.iter().zip(&expected).enumerate() {
            // WGSL's exponential errs by 3 + 2·|g| units in the last place and its quotient by 2.5; the sum and the
            // product round once each. Near g = -88 the exponential overflows: there the result is below 1e-36.
            let (gate, up) = (f64::from(gates[index]).abs(), f64::from(ups[index]).abs());
            let relative = (3.0 + 2.0 * gate + 2.5) * ULP + 2.0 * ROUNDOFF;
            comparison.value(got, expected, relative * expected.abs() + 2e-36 * up);
        }
        comparison.untouched(&got[rows * cols..]);
        Ok(comparison)
    }
}
