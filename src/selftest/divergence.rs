//! Cases of `divergence`.

use super::case::boxed;
use super::compare::{ROUNDOFF, ULP};
use super::{Case, Comparison, Fault, Random, Shapes, poisoned, run_list};
use crate::gpu::Device;
use crate::ops::{self, Tensor};
use crate::{Result, reference};

/// Two sets of logits [rows, cols] which differ by about `apart`.
pub struct Divergence {
    /// Rows.
    pub rows: usize,
    /// Values in a row.
    pub cols: usize,
    /// Size of the differences.
    pub apart: f32,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let of = |rows, cols, apart| Divergence { rows, cols, apart };
    boxed(match shapes {
        Shapes::Small => vec![of(3, 577, 0.01), of(2, 130, 3.0), of(1, 1, 1.0)],
        Shapes::Real => vec![of(513, 49152, 0.01), of(64, 128256, 1.0)],
    })
}

impl Case for Divergence {
    fn kernel(&self, _: &Device) -> &'static str {
        "divergence"
    }

    fn shape(&self) -> String {
        format!("{} x {}, {} apart", self.rows, self.cols, self.apart)
    }

    fn bytes(&self) -> u64 {
        8 * ((self.rows + 1) * self.cols) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, cols, apart } = self;
        let values = |name: &str| Random::new(seed, name).values(rows * cols);
        // Logits of up to 16.
        let x: Vec<f32> = values("x").iter().map(|value| 8.0 * value).collect();
        let y: Vec<f32> = x.iter().zip(values("y")).map(|(x, other)| x + apart * other).collect();
        let mut uploaded = y.clone();
        if fault == Fault::OneWrong {
            uploaded[(rows - 1) * cols] += 100.0;
            // A row of one value has one distribution, whatever the value.
            if cols == 1 {
                uploaded[0] = f32::NAN;
            }
        }
        let (x_tensor, y_tensor) =
            (Tensor::upload(device, "x", &x, cols)?, Tensor::upload(device, "y", &uploaded, cols)?);
        let out = poisoned(device, "out", rows + 1, 1)?;
        run_list(device, "divergence", |list| {
            ops::divergence::divergence(list, &x_tensor, &y_tensor, rows, (out.buffer(), 1))
        })?;

        let got = out.read(rows + 2)?;
        let expected = reference::divergence::divergence(&x, &y, cols);
        let largest = x.iter().zip(&y).fold(0.0_f64, |most, (x, y)| most.max(f64::from((x - y).abs())));
        let mut comparison = Comparison::new();
        comparison.untouched(&got[..1]);
        comparison.untouched(&got[rows + 1..]);
        for (&got, &expected) in got[1..=rows].iter().zip(&expected) {
            // Every term is positive: the exponential errs by 3 + 2·|x| units in the last place by WGSL's table, twice in a
            // quotient, the sums by a rounding for each of a lane's values and eight levels, the series and the logarithm by a few.
            let steps =
                2.0 * (cols.div_ceil(256) + 8) as f64 * ROUNDOFF + (2.0 * (3.0 + 2.0 * 32.0) + 16.0) * ULP;
            // The mean difference errs by so much of the largest, which moves a term by its square and by what it is.
            let mean = steps * largest;
            comparison.value(got, expected, steps * expected + mean * mean + 4.0 * ROUNDOFF * ROUNDOFF);
        }
        Ok(comparison)
    }
}
