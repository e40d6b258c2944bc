//! Cases of `gather_rows`.

use super::case::boxed;
use super::{Case, Comparison, Fault, Random, Shapes, poisoned, run_list};
use crate::gpu::Device;
use crate::ops::Tensor;
use crate::ops::gather_rows::gather_rows;
use crate::{Result, reference};

/// `rows` rows, some of them twice, out of as many.
pub struct GatherRows {
    /// Rows.
    pub rows: usize,
    /// Values in a row.
    pub cols: usize,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![GatherRows { rows: 5, cols: 33 }],
        // More than 65535 workgroups of 64 values: a folded grid.
        Shapes::Real => vec![GatherRows { rows: 513, cols: 8192 }],
    })
}

impl Case for GatherRows {
    fn kernel(&self, _: &Device) -> &'static str {
        "gather_rows"
    }

    fn shape(&self) -> String {
        format!("{} x {}", self.rows, self.cols)
    }

    fn bytes(&self) -> u64 {
        8 * ((self.rows + 1) * self.cols) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, cols } = self;
        let values = Random::new(seed, "x").values(rows * cols);
        let draw = Random::new(seed, "order");
        let mut order: Vec<u32> = (0..rows as u64).map(|row| draw.below(row, rows) as u32).collect();
        order[rows / 2] = 0;
        let mut uploaded = values.clone();
        if fault == Fault::OneWrong {
            uploaded[cols / 2] += 1.0;
        }
        let x = Tensor::upload(device, "x", &uploaded, cols)?;
        let out = poisoned(device, "out", rows, cols)?;
        let order_buffer = device.upload("order", &order)?;
        let used = out.view(rows, cols)?;
        run_list(device, "gather_rows", |list| gather_rows(list, &x, &order_buffer, &used))?;

        let got = out.read(rows + 1)?;
        let mut comparison = Comparison::new();
        for (&got, expected) in got.iter().zip(reference::embed::embed(&values, cols, &order)) {
            comparison.exact(got, expected as f32);
        }
        comparison.untouched(&got[rows * cols..]);
        Ok(comparison)
    }
}
