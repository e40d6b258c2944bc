//! Cases of `subtract`.

use super::case::boxed;
use super::{Case, Comparison, Fault, POISON, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::{self, Tensor};
use crate::{Result, reference};

/// The difference of two of [rows, cols].
pub struct Subtract {
    /// Rows.
    pub rows: usize,
    /// Values in a row.
    pub cols: usize,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![Subtract { rows: 3, cols: 577 }],
        // More than 65535 workgroups of 64 values: a folded grid.
        Shapes::Real => vec![Subtract { rows: 161, cols: 28672 }],
    })
}

impl Case for Subtract {
    fn kernel(&self, _: &Device) -> &'static str {
        "subtract"
    }

    fn shape(&self) -> String {
        format!("{} x {}", self.rows, self.cols)
    }

    fn bytes(&self) -> u64 {
        8 * ((self.rows + 1) * self.cols) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, cols } = self;
        let from = Random::new(seed, "from").values(rows * cols);
        let less = Random::new(seed, "less").values(rows * cols);
        let mut uploaded = from.clone();
        if fault == Fault::OneWrong {
            uploaded[cols / 2] += 0.01;
        }
        uploaded.resize((rows + 1) * cols, f32::from_bits(POISON));
        let (x, y) =
            (Tensor::upload(device, "from", &uploaded, cols)?, Tensor::upload(device, "less", &less, cols)?);
        run_list(device, "subtract", |list| ops::subtract::subtract(list, &x, &y, rows))?;
        let got = x.read(rows + 1)?;
        let mut comparison = Comparison::new();
        let expected = reference::subtract::subtract(&from, &less);
        got.iter().zip(&expected).for_each(|(&got, &expected)| comparison.exact(got, expected));
        comparison.untouched(&got[rows * cols..]);
        Ok(comparison)
    }
}
