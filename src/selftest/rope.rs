//! Cases of `rope`.

use super::case::boxed;
use super::compare::ROUNDOFF;
use super::output::POISON;
use super::{Case, Comparison, Fault, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::rope::RopeTable;
use crate::ops::{self, Tensor};
use crate::{Result, reference};

/// The rotation of [rows, heads · dim]; every fifth row is not in use.
pub struct Rope {
    /// Rows.
    pub rows: usize,
    /// Heads.
    pub heads: usize,
    /// Values in a head, an even number.
    pub dim: usize,
    /// Positions are below this.
    pub context: usize,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![Rope { rows: 6, heads: 3, dim: 64, context: 300 }],
        // More than 65535 workgroups of 64 pairs: a folded grid.
        Shapes::Real => vec![Rope { rows: 1030, heads: 64, dim: 128, context: 8192 }],
    })
}

impl Case for Rope {
    fn kernel(&self, _: &Device) -> &'static str {
        "rope"
    }

    fn shape(&self) -> String {
        format!("{} x {} heads of {}, {} positions", self.rows, self.heads, self.dim, self.context)
    }

    fn bytes(&self) -> u64 {
        (4 * (self.rows + 1) * self.heads * self.dim + 4 * self.context * self.dim) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, heads, dim, context } = self;
        let cols = heads * dim;
        let mut values = Random::new(seed, "x").values(rows * cols);
        let draw = Random::new(seed, "position");
        let positions: Vec<u32> = (0..rows)
            .map(|row| match row % 5 {
                3 => u32::MAX,
                1 => (context - 1) as u32,
                _ => draw.below(row as u64, context) as u32,
            })
            .collect();
        let frequencies: Vec<f64> =
            (0..dim / 2).map(|i| 10_000_f64.powf(-2.0 * i as f64 / dim as f64)).collect();
        let expected = reference::rope::rope(&values, heads, &positions, &frequencies, 1.0);
        let original = values.clone();
        if fault == Fault::OneWrong {
            values[0] += 0.01;
        }
        values.extend(std::iter::repeat_n(f32::from_bits(POISON), cols));
        let x = Tensor::upload(device, "x", &values, cols)?;
        let position_buffer = device.upload("positions", &positions)?;
        let table = RopeTable::new(device, &frequencies, 1.0, context)?;
        run_list(device, "rope", |list| ops::rope::rope(list, &x, &position_buffer, &table, rows))?;

        let got = x.read(rows + 1)?;
        let mut comparison = Comparison::new();
        for (index, (&got, &expected)) in got.iter().zip(&expected).enumerate() {
            if positions[index / cols] == u32::MAX {
                comparison.exact(got, original[index]);
                continue;
            }
            // Cosine and sine are rounded on the host, the two products and their sum here: three roundings of
            // |a·c| + |b·s|, at most |a| + |b|.
            let (i, head) = (index % dim, index / dim * dim);
            let pair = [i % (dim / 2), i % (dim / 2) + dim / 2].map(|i| f64::from(original[head + i]).abs());
            comparison.value(got, expected, 3.0 * ROUNDOFF * (pair[0] + pair[1]));
        }
        comparison.untouched(&got[rows * cols..]);
        Ok(comparison)
    }
}
