//! Cases of `dot`.

use super::case::boxed;
use super::compare::ROUNDOFF;
use super::output::POISON;
use super::{Case, Comparison, Fault, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::Tensor;
use crate::ops::dot::{MOST_PARTS, dot};
use crate::{Result, reference};

/// The scalar product of [rows, cols] with rows further down in another matrix.
pub struct Dot {
    /// Rows.
    pub rows: usize,
    /// Values in a row.
    pub cols: usize,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![Dot { rows: 3, cols: 85 }],
        Shapes::Real => vec![Dot { rows: 2048, cols: 8192 }],
    })
}

impl Case for Dot {
    fn kernel(&self, _: &Device) -> &'static str {
        "dot"
    }

    fn shape(&self) -> String {
        format!("{} x {}", self.rows, self.cols)
    }

    fn bytes(&self) -> u64 {
        8 * ((self.rows + 1) * self.cols) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, cols } = self;
        let count = rows * cols;
        let x = Random::new(seed, "x").values(count);
        let y = Random::new(seed, "y").values(count + cols);
        let mut uploaded = x.clone();
        if fault == Fault::OneWrong {
            uploaded[count / 2] += 100.0;
        }
        let (x_tensor, y_tensor) =
            (Tensor::upload(device, "x", &uploaded, cols)?, Tensor::upload(device, "y", &y, cols)?);
        // A sum before and one behind those written.
        let parts = device.upload("parts", &[POISON; MOST_PARTS + 2])?;
        let mut used = 0;
        run_list(device, "dot", |list| {
            used = dot(list, &x_tensor, (&y_tensor, 1), rows, (&parts, 1))?;
            Ok(())
        })?;

        let got: Vec<f32> = device.read(&parts, 0, MOST_PARTS + 2)?;
        let mut comparison = Comparison::new();
        comparison.untouched(&got[..1]);
        comparison.untouched(&got[1 + used..]);
        let sum: f64 = got[1..=used].iter().map(|&part| f64::from(part)).sum();
        let expected = reference::dot::dot(&x, &y[cols..]);
        let size: f64 = x.iter().zip(&y[cols..]).map(|(x, y)| (f64::from(*x) * f64::from(*y)).abs()).sum();
        // A product, the additions of a lane, eight levels of 256 lanes; the host adds in double precision, and the
        // comparison takes a value in single precision.
        let steps = (1 + count.div_ceil(256 * used) + 8) as f64;
        comparison.value(sum as f32, expected, steps * ROUNDOFF * size + ROUNDOFF * expected.abs());
        Ok(comparison)
    }
}
