//! Cases of `read_bandwidth`.

use super::case::boxed;
use super::output::POISON;
use super::{Case, Comparison, Fault, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::read_bandwidth::{LANES, LOADS, out_bytes, read_bandwidth};
use crate::{Result, reference};

/// So many vectors of four words, read.
pub struct ReadBandwidth {
    /// Vectors.
    pub vectors: usize,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![ReadBandwidth { vectors: 2 * LANES * LOADS + 5 * LANES + 3 }],
        Shapes::Real => vec![ReadBandwidth { vectors: (64 << 20) / 16 }],
    })
}

impl Case for ReadBandwidth {
    fn kernel(&self, _: &Device) -> &'static str {
        "read_bandwidth"
    }

    fn shape(&self) -> String {
        format!("{} x 16 bytes", self.vectors)
    }

    fn bytes(&self) -> u64 {
        let bytes = 16 * self.vectors as u64;
        bytes + out_bytes(bytes)
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let words = Random::new(seed, "words").words(4 * self.vectors);
        let mut uploaded = words.clone();
        if fault == Fault::OneWrong {
            uploaded[2 * self.vectors] ^= 1;
        }
        let data = device.upload("data", &uploaded)?;
        let bytes = 16 * self.vectors as u64;
        let lanes = (out_bytes(bytes) / 4) as usize;
        // A word behind those written.
        let out = device.upload("out", &vec![POISON; lanes + 1])?;
        run_list(device, "read_bandwidth", |list| read_bandwidth(list, &data, bytes, &out))?;
        let got: Vec<f32> = device.read(&out, 0, lanes + 1)?;
        let expected = reference::read_bandwidth::read_bandwidth(&words, LANES, LOADS);
        let mut comparison = Comparison::new();
        comparison.untouched(&got[lanes..]);
        for (&got, &expected) in got.iter().zip(&expected) {
            comparison.exact(got, f32::from_bits(expected));
        }
        Ok(comparison)
    }
}
