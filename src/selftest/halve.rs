//! Cases of `halve`.

use half::f16;

use super::case::boxed;
use super::{Case, Comparison, Fault, POISON, Packing, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::halve::Halves;
use crate::ops::{self, QuantMatrix, Tensor};
use crate::{Result, reference};

/// Rows [rows, cols] as halves, all of them in one list: in order and in a packed matrix's, with one and two halves a value.
pub struct Halve {
    /// Rows; each has another size, among them zeros and the largest numbers; the least that is no zero is a normal number, as
    /// devices may flush others.
    pub rows: usize,
    /// Values in a row, a multiple of 32.
    pub cols: usize,
}

/// What rows are multiplied by, row after row.
const SIZES: [f32; 6] = [1.0, 3e5, 0.0, 1e33, 1e-30, 2e-5];

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(match shapes {
        Shapes::Small => vec![Halve { rows: 9, cols: 608 }],
        Shapes::Real => vec![Halve { rows: 2048, cols: 28672 }],
    })
}

impl Halve {
    fn compare(
        &self,
        device: &Device,
        (uploaded, values): (&[f32], &[f32]),
        matrix: Option<&QuantMatrix>,
        halves: Halves,
    ) -> Result<Comparison> {
        let &Self { rows, cols } = self;
        let planes = halves.planes();
        let x = Tensor::upload(device, "x", uploaded, cols)?;
        let words = planes * rows * cols / 2;
        let out = device.upload("out", &vec![POISON; words + 1])?;
        let units = device.upload("units", &vec![POISON; rows + 1])?;
        let order = matrix.map(|matrix| &**matrix.permutation());
        run_list(device, "halve", |list| ops::halve::halve(list, &x, order, &out, &units, rows, halves))?;

        let got: Vec<f16> = device.read(&out, 0, 2 * words)?;
        let got_units: Vec<f32> = device.read(&units, 0, rows)?;
        let mut comparison = Comparison::new();
        for (row, stored) in values.chunks_exact(cols).enumerate() {
            let ordered: Vec<f32> = match order {
                Some(order) => order.order().iter().map(|&from| stored[from as usize]).collect(),
                None => stored.to_vec(),
            };
            let expected = reference::halve::halve(&ordered, planes);
            comparison.exact(got_units[row], expected.unit as f32);
            for (plane, expected) in expected.planes.iter().enumerate() {
                let got = &got[(row * planes + plane) * cols..][..cols];
                for (got, &expected) in got.iter().zip(expected) {
                    // What is nothing may have either sign.
                    let zero = expected == f16::ZERO && *got == f16::ZERO;
                    comparison.half(if zero { expected.to_bits() } else { got.to_bits() }, expected);
                }
            }
        }
        comparison.untouched(&device.read(&out, 4 * words as u64, 1)?);
        comparison.untouched(&device.read(&units, 4 * rows as u64, 1)?);
        Ok(comparison)
    }
}

impl Case for Halve {
    fn kernel(&self, _: &Device) -> &'static str {
        "halve"
    }

    fn shape(&self) -> String {
        format!("{} x {}", self.rows, self.cols)
    }

    fn bytes(&self) -> u64 {
        (8 * self.rows * self.cols + 8 * self.rows) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, cols } = self;
        let mut values = Random::new(seed, "x").values(rows * cols);
        for (row, size) in values.chunks_exact_mut(cols).zip(SIZES.iter().cycle()) {
            row.iter_mut().for_each(|x| *x *= size);
        }
        let mut uploaded = values.clone();
        if fault == Fault::OneWrong {
            uploaded[cols / 2] += 1.0;
        }
        let matrix = Packing { groups: vec![(2, cols)], n: 32, bias: false }.matrix(seed)?;
        let matrix = QuantMatrix::upload(device, "matrix", &matrix, 32, &[])?;
        let mut comparison = Comparison::new();
        for halves in Halves::ALL {
            for order in [None, Some(&matrix)] {
                comparison.merge(&self.compare(device, (&uploaded, &values), order, halves)?);
            }
        }
        Ok(comparison)
    }
}
