//! Cases of `column_peak` and `halve_columns`.

use half::f16;

use super::case::boxed;
use super::{Case, Comparison, Fault, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::Tensor;
use crate::ops::halve_columns::HalvedColumns;
use crate::{Result, reference};

/// The columns of [rows, cols] as halves.
pub struct HalveColumns {
    /// Rows.
    pub rows: usize,
    /// Columns; each has another size, among them zeros and the largest numbers.
    pub cols: usize,
    /// With a weight, a power of four, for each row.
    pub weighted: bool,
}

/// What columns are multiplied by, one after the other.
const SIZES: [f32; 6] = [1.0, 3e5, 0.0, 1e33, 1e-30, 2e-5];

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => {
            Vec::from([true, false].map(|weighted| HalveColumns { rows: 77, cols: 96, weighted }))
        }
        Shapes::Real => vec![HalveColumns { rows: 2048, cols: 28672, weighted: false }],
    })
}

impl Case for HalveColumns {
    fn kernel(&self, _: &Device) -> &'static str {
        // Both run in each case; the table has a line of either.
        if self.weighted { "halve_columns" } else { "column_peak" }
    }

    fn shape(&self) -> String {
        format!("{} x {}{}", self.rows, self.cols, if self.weighted { ", weighted" } else { "" })
    }

    fn bytes(&self) -> u64 {
        (8 * self.rows * self.cols + 8 * self.cols) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, cols, weighted } = self;
        let mut values = Random::new(seed, "x").values(rows * cols);
        for row in values.chunks_exact_mut(cols) {
            row.iter_mut().zip(SIZES.iter().cycle()).for_each(|(x, size)| *x *= size);
        }
        let mut uploaded = values.clone();
        if fault == Fault::OneWrong {
            uploaded[cols / 2] += 1.0;
        }
        // Their roots are exact.
        let weights: Vec<f32> = (0..rows).map(|row| [1.0, 4.0, 0.25, 0.0][row % 4]).collect();
        let x = Tensor::upload(device, "x", &uploaded, cols)?;
        let weights_buffer = weighted.then(|| device.upload("weights", &weights)).transpose()?;
        let mut made = None;
        run_list(device, "halve_columns", |list| {
            made = Some(HalvedColumns::record(list, &x, weights_buffer.as_ref(), rows)?);
            Ok(())
        })?;
        let made = made.expect("it was recorded");
        let padded = rows.next_multiple_of(8);
        let got: Vec<f16> = device.read(made.halves(), 0, 2 * cols * padded)?;
        let units: Vec<f32> = device.read(made.units(), 0, cols)?;
        let mut comparison = Comparison::new();
        for column in 0..cols {
            let root = |row: usize| if weighted { weights[row].sqrt() } else { 1.0 };
            let mut stored: Vec<f32> = (0..rows).map(|row| values[row * cols + column] * root(row)).collect();
            stored.resize(padded, 0.0);
            let expected = reference::halve::halve(&stored, 2);
            comparison.exact(units[column], expected.unit as f32);
            let got = got[2 * column * padded..][..2 * padded].chunks_exact(padded);
            for (got, expected) in got.zip(&expected.planes) {
                for (&got, &expected) in got.iter().zip(expected) {
                    // What is nothing may have either sign.
                    let zero = expected == f16::ZERO && got == f16::ZERO;
                    comparison.half(if zero { expected.to_bits() } else { got.to_bits() }, expected);
                }
            }
        }
        Ok(comparison)
    }
}
