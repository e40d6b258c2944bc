//! Cases of `weight_error`.

use half::f16;

use super::case::boxed;
use super::compare::ROUNDOFF;
use super::output::POISON;
use super::{Case, Comparison, Fault, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::Tensor;
use crate::ops::weight_error::weight_error;
use crate::{Result, reference};

/// Planted pairs of halves that differ.
const DIFFERING: usize = 3;

/// The comparison of [k, n] weights with decoded ones; k and n are multiples of 32.
pub struct WeightError {
    /// Rows.
    pub k: usize,
    /// Columns.
    pub n: usize,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![WeightError { k: 96, n: 160 }],
        Shapes::Real => vec![WeightError { k: 4096, n: 4096 }],
    })
}

impl Case for WeightError {
    fn kernel(&self, _: &Device) -> &'static str {
        "weight_error"
    }

    fn shape(&self) -> String {
        format!("[{}, {}]", self.k, self.n)
    }

    fn bytes(&self) -> u64 {
        8 * (self.k * self.n) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { k, n } = self;
        let weights = Random::new(seed, "weights").values(k * n);
        let decoded = Random::new(seed, "decoded").weights(0..(k * n) as u64);
        let mut own = decoded.clone();
        for index in 0..DIFFERING {
            let at = k * n / DIFFERING * index + 2 * index;
            own[at] = f16::from_bits(own[at].to_bits() ^ 1);
        }
        let mut uploaded = weights.clone();
        if fault == Fault::OneWrong {
            uploaded[k * n / 2] += 1.0;
        }
        let w = Tensor::upload(device, "w", &uploaded, n)?;
        let (decoded_buffer, own_buffer) = (device.upload("decoded", &decoded)?, device.upload("own", &own)?);
        let tiles = k / 32 * (n / 32);
        let parts = device.upload("parts", &vec![POISON; 2 * tiles + 2])?;
        let mismatches = device.upload("mismatches", &[5_u32])?;
        run_list(device, "weight_error", |list| {
            weight_error(list, &w, &decoded_buffer, &own_buffer, &parts, &mismatches)
        })?;

        let got: Vec<f32> = device.read(&parts, 0, 2 * tiles + 2)?;
        let mut comparison = Comparison::new();
        comparison.untouched(&got[2 * tiles..]);
        let counted: Vec<u32> = device.read(&mismatches, 0, 1)?;
        comparison.value(counted[0] as f32, (5 + DIFFERING) as f64, 0.0);
        for (tile, got) in got[..2 * tiles].chunks_exact(2).enumerate() {
            let first = (tile / (n / 32) * 32, tile % (n / 32) * 32);
            let (sum, largest) = reference::weight_error::tile(&weights, &decoded, n, first);
            // A difference (which counts twice in its square), a square, the sum of a pair, one of two such, eight
            // levels of 256 lanes.
            comparison.value(got[0], sum, (2 + 1 + 1 + 2 + 8) as f64 * ROUNDOFF * sum);
            comparison.value(got[1], largest, ROUNDOFF * largest);
        }
        Ok(comparison)
    }
}
