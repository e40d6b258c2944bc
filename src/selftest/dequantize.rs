//! Cases of `dequantize`.

use super::case::boxed;
use super::output::POISON;
use super::packed::{flip_code, view};
use super::{Case, Comparison, Fault, Packing, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::{self, QuantMatrix};
use crate::packing::PackedMatrix;
use crate::{Result, reference};

/// Columns that the oracle decodes.
const SAMPLES: usize = 64;

/// Words behind each output that must stay as they are, where a binding has room for them.
const GUARD: usize = 32;

/// The decoding of a whole packed matrix.
pub struct Dequantize {
    /// Its shape.
    pub packing: Packing,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let packings = match shapes {
        Shapes::Small => vec![Packing::mixed(32 * 19, 160, &[8, 6, 5, 4, 3, 2], 64, false)],
        Shapes::Real => vec![
            Packing::mixed(8192, 28672, &[6, 4, 3], 128, false),
            Packing::mixed(28672, 8192, &[8, 5, 2], 128, false),
        ],
    };
    boxed(packings.into_iter().map(|packing| Dequantize { packing }))
}

impl Dequantize {
    /// Compares a given matrix. `oracle` is what it should be when `matrix` is to be seen as wrong.
    ///
    /// # Errors
    /// As [`Case::run`].
    pub fn check(
        device: &Device,
        matrix: &PackedMatrix,
        oracle: &PackedMatrix,
        seed: u64,
    ) -> Result<Comparison> {
        let k = matrix.k;
        let quant = QuantMatrix::upload(device, "matrix", matrix, matrix.n, &[])?;
        let edges: Vec<usize> =
            quant.slabs().iter().flat_map(|slab| [slab.first, slab.first + slab.columns - 1]).collect();
        let chosen = Random::new(seed, "columns").sample(matrix.n, SAMPLES, &edges);
        let q_groups = oracle.layout.q_groups();
        let packed = view(oracle, &q_groups);
        let mut comparison = Comparison::new();
        for slab in quant.slabs() {
            let words = slab.columns * k / 2;
            let guard = GUARD.min(device.max_slab_bytes() as usize / 4 - words);
            let out = device.upload("out", &vec![POISON; words + guard])?;
            run_list(device, "dequantize", |list| ops::dequantize::dequantize(list, &quant, slab, &out))?;
            for &column in
                chosen.iter().filter(|&&column| (slab.first..slab.first + slab.columns).contains(&column))
            {
                let offset = 2 * ((column - slab.first) * k) as u64;
                let got: Vec<u16> = device.read(&out, offset, k)?;
                let expected = reference::dequantize::column(packed, column);
                for (&got, &expected) in got.iter().zip(&expected) {
                    comparison.half(got, expected);
                }
            }
            let guard: Vec<f32> = device.read(&out, 4 * words as u64, guard)?;
            comparison.untouched(&guard);
        }
        Ok(comparison)
    }
}

impl Case for Dequantize {
    fn kernel(&self, _: &Device) -> &'static str {
        "dequantize"
    }

    fn shape(&self) -> String {
        self.packing.words()
    }

    fn bytes(&self) -> u64 {
        self.packing.bytes() + 2 * (self.packing.k() * self.packing.n) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let oracle = self.packing.matrix(seed)?;
        let mut matrix = oracle.clone();
        if fault == Fault::OneWrong {
            flip_code(&mut matrix, 0, 0);
        }
        Self::check(device, &matrix, &oracle, seed)
    }
}
