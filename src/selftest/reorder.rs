//! Cases of `reorder`.

use super::case::boxed;
use super::output::POISON;
use super::packed::flip_code;
use super::{Case, Comparison, Fault, Packing, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops;
use crate::{Result, reference};

/// Words behind the matrix that must stay as they are.
const GUARD: usize = 64;

/// The words of a packed matrix put into the device's order.
pub struct Reorder {
    /// Its shape.
    pub packing: Packing,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let packing = match shapes {
        Shapes::Small => Packing::mixed(32 * 19, 160, &[8, 6, 5, 4, 3, 2], 64, false),
        Shapes::Real => Packing::mixed(28672, 8192, &[8, 6, 5, 4, 3, 2], 128, false),
    };
    boxed([Reorder { packing }])
}

impl Case for Reorder {
    fn kernel(&self, _: &Device) -> &'static str {
        "reorder"
    }

    fn shape(&self) -> String {
        self.packing.words()
    }

    fn bytes(&self) -> u64 {
        self.packing.bytes()
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let oracle = self.packing.matrix(seed)?;
        let mut seen = oracle.clone();
        if fault == Fault::OneWrong {
            flip_code(&mut seen, Random::new(seed, "row").below(0, oracle.k), 0);
        }
        let (columns, layout) = (oracle.n, &oracle.layout);
        let mut words = seen.q_weight.clone();
        words.extend([POISON; GUARD]);
        let words = device.upload("words", &words)?;
        let blocks = device.upload("blocks", &ops::block_table(layout))?;
        run_list(device, "reorder", |list| ops::reorder::reorder(list, layout, &blocks, &words, columns))?;
        let mut comparison = Comparison::new();
        let mut at = 0;
        for group in layout.groups() {
            let count = group.rows / 32 * group.bits as usize * columns;
            let expected =
                reference::reorder::reorder(&oracle.q_weight[at..at + count], columns, group.bits as usize);
            let got: Vec<u32> = device.read(&words, 4 * at as u64, count)?;
            for (got, expected) in got.into_iter().zip(expected) {
                comparison.exact(f32::from_bits(got), f32::from_bits(expected));
            }
            at += count;
        }
        comparison.untouched(&device.read::<f32>(&words, 4 * at as u64, GUARD)?);
        Ok(comparison)
    }
}
