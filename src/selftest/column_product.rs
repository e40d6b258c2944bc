//! Cases of products over the rows of two activations.

use super::case::boxed;
use super::compare::ROUNDOFF;
use super::{Case, Comparison, Fault, POISON, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::Tensor;
use crate::ops::column_product::{Columns, in_halves};
use crate::{Result, reference};

/// Rows and columns of C that the oracle works out.
const SAMPLES: usize = 48;

/// C + Aᵀ·B over the `rows` rows of two activations, or C + Aᵀ·A above the diagonal.
pub struct ColumnProduct {
    /// Rows summed over.
    pub rows: usize,
    /// Rows of C, a multiple of four.
    pub m: usize,
    /// Columns of C, a multiple of four.
    pub n: usize,
    /// Whether both sides are A, and only what lies above the diagonal is of interest.
    pub upper: bool,
    /// The column of both sides that C begins with, a multiple of four.
    pub first: usize,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let case = |rows, m, n, upper, first| ColumnProduct { rows, m, n, upper, first };
    boxed(match shapes {
        Shapes::Small => vec![case(77, 64, 160, false, 32), case(40, 192, 192, true, 0)],
        Shapes::Real => vec![case(2048, 4096, 4096, true, 0), case(512, 8192, 28672, false, 64)],
    })
}

impl Case for ColumnProduct {
    fn kernel(&self, device: &Device) -> &'static str {
        match (in_halves(device), device.capabilities().subgroup) {
            (true, _) => "matmul_coop",
            (false, Some((8, 8))) => "matmul_tn_subgroup",
            (false, _) => "matmul_tn",
        }
    }

    fn shape(&self) -> String {
        let upper = if self.upper { ", upper" } else { "" };
        format!("columns: {} x [{}, {}]{upper}", self.rows, self.m, self.n)
    }

    fn bytes(&self) -> u64 {
        (8 * self.rows * (self.m + self.first + self.n) + 4 * (self.m + 1) * self.n) as u64
    }

    fn products(&self) -> u64 {
        (3 * self.rows * self.m * self.n) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, m, n, upper, first } = self;
        let a_cols = first + if upper { m.max(n) } else { m };
        let b_cols = if upper { a_cols } else { first + n };
        let columns = |name: &str, cols: usize| {
            let mut values = Random::new(seed, name).values(rows * cols);
            for row in values.chunks_exact_mut(cols) {
                row.iter_mut().zip([1.0, 1e5, 1e-5].iter().cycle()).for_each(|(x, size)| *x *= size);
            }
            values
        };
        let a = columns("a", a_cols);
        let b = if upper { a.clone() } else { columns("b", b_cols) };
        let before = Random::new(seed, "c").values(m * n);
        let mut uploaded = a.clone();
        if fault == Fault::OneWrong {
            uploaded[first] = -uploaded[first];
        }
        let mut c = before.clone();
        c.resize((m + 1) * n, f32::from_bits(POISON));
        let a_tensor = Tensor::upload(device, "a", &uploaded, a_cols)?;
        let b_tensor = Tensor::upload(device, "b", &b, b_cols)?;
        let c_tensor = Tensor::upload(device, "c", &c, n)?;
        let outputs = c_tensor.view(m, n)?;
        run_list(device, self.kernel(device), |list| {
            let left = Columns::record(list, &a_tensor, None, rows)?;
            let other = match upper {
                true => None,
                false => Some(Columns::record(list, &b_tensor, None, rows)?),
            };
            let right = other.as_ref().unwrap_or(&left);
            Columns::add_product(list, (&left, first), (right, first), &outputs, upper)
        })?;

        let got = c_tensor.read(m + 1)?;
        let mut comparison = Comparison::new();
        comparison.finite(&got[..m * n]);
        comparison.untouched(&got[m * n..]);
        let absolute = |values: &[f32]| values.iter().map(|value| value.abs()).collect::<Vec<_>>();
        let (a_size, b_size) = (absolute(&a), absolute(&b));
        let element = reference::matmul_tn::element::<f32, f32>;
        for i in Random::new(seed, "rows").sample(m, SAMPLES, &[63, 64]) {
            for j in Random::new(seed, "columns").sample(n, SAMPLES, &[127, 128]) {
                if upper && j < i {
                    continue;
                }
                let held = f64::from(before[i * n + j]);
                let at = (first + i, first + j);
                let sum = element(&a, &b, None, (a_cols, b_cols), at);
                let size = element(&a_size, &b_size, None, (a_cols, b_cols), at);
                // In single precision two roundings a row and an addition. On matrix units products of halves are exact, but
                // additions may cut where others round, in three planes; each value, and the product of both second halves, is
                // a part of 2^-22.
                let steps = if in_halves(device) { 2 * 3 * rows + 12 } else { 2 * rows + 2 };
                comparison.value(got[i * n + j], sum + held, steps as f64 * ROUNDOFF * (size + held.abs()));
            }
        }
        Ok(comparison)
    }
}
