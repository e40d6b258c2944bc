//! Cases of `matmul_tn` and its form for subgroups of eight.

use super::case::boxed;
use super::compare::ROUNDOFF;
use super::output::POISON;
use super::{Case, Comparison, Fault, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::Tensor;
use crate::ops::matmul_tn::{Product, Window, matmul_tn};
use crate::{Result, reference};

/// Rows and columns of C that the oracle works out.
const SAMPLES: usize = 48;

/// A product over `rows` rows of [rows, m] and [rows, n].
pub struct MatmulTn {
    /// Rows summed over.
    pub rows: usize,
    /// Rows of C, a multiple of four.
    pub m: usize,
    /// Columns of C, a multiple of four.
    pub n: usize,
    /// With a weight for each row.
    pub weighted: bool,
    /// Adds to what C holds.
    pub add: bool,
    /// Only what lies above the diagonal is of interest.
    pub upper: bool,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let case = |rows, m, n, weighted, add, upper| MatmulTn { rows, m, n, weighted, add, upper };
    boxed(match shapes {
        Shapes::Small => vec![case(33, 68, 132, true, true, false), case(16, 160, 160, false, false, true)],
        Shapes::Real => {
            vec![case(40, 4096, 4096, false, true, true), case(512, 8192, 28672, true, true, false)]
        }
    })
}

impl Case for MatmulTn {
    fn kernel(&self, device: &Device) -> &'static str {
        if device.capabilities().subgroup == Some((8, 8)) { "matmul_tn_subgroup" } else { "matmul_tn" }
    }

    fn shape(&self) -> String {
        let flags = [(self.weighted, ", weighted"), (self.add, ", added"), (self.upper, ", upper")];
        let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        format!("{} x [{}, {}]{flags}", self.rows, self.m, self.n)
    }

    fn bytes(&self) -> u64 {
        4 * (self.rows * (self.m + self.n + 1) + (self.m + 1) * self.n) as u64
    }

    fn products(&self) -> u64 {
        (self.rows * self.m * self.n) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, m, n, weighted, add, upper } = self;
        let (alpha, beta) = (0.5, if add { -2.0 } else { 0.0 });
        let a = Random::new(seed, "a").values(rows * m);
        let b = Random::new(seed, "b").values(rows * n);
        let weights = weighted.then(|| Random::new(seed, "weights").values(rows));
        let before = if add { Random::new(seed, "c").values(m * n) } else { Vec::new() };
        let mut uploaded = a.clone();
        if fault == Fault::OneWrong {
            uploaded[0] += 1.0;
        }
        // Without `add` what C holds is not read, so poison does no harm.
        let mut c = before.clone();
        c.resize((m + 1) * n, f32::from_bits(POISON));
        let (a_tensor, b_tensor) =
            (Tensor::upload(device, "a", &uploaded, m)?, Tensor::upload(device, "b", &b, n)?);
        let c_tensor = Tensor::upload(device, "c", &c, n)?;
        let weight_buffer = weights.as_ref().map(|values| device.upload("weights", values)).transpose()?;
        run_list(device, self.kernel(device), |list| {
            let (a, b) = (Window::whole(&a_tensor), Window::whole(&b_tensor));
            let (c, weights) = (Window::whole(&c_tensor), weight_buffer.as_ref());
            matmul_tn(list, &Product { a, b, c, rows, m, n, alpha, beta, weights, upper })
        })?;

        let got = c_tensor.read(m + 1)?;
        let mut comparison = Comparison::new();
        if !upper {
            comparison.finite(&got[..m * n]);
        }
        comparison.untouched(&got[m * n..]);
        let absolute = |values: &[f32]| values.iter().map(|value| value.abs()).collect::<Vec<_>>();
        let (a_size, b_size, w_size) = (absolute(&a), absolute(&b), weights.as_deref().map(absolute));
        let element = reference::matmul_tn::element::<f32, f32>;
        for i in Random::new(seed, "rows").sample(m, SAMPLES, &[15, 16]) {
            for j in Random::new(seed, "columns").sample(n, SAMPLES, &[127, 128]) {
                if upper && j < i {
                    continue;
                }
                let held = if add { f64::from(beta) * f64::from(before[i * n + j]) } else { 0.0 };
                let sum = element(&a, &b, weights.as_deref(), (m, n), (i, j));
                let size = element(&a_size, &b_size, w_size.as_deref(), (m, n), (i, j));
                // Two products and an addition a row, two factors and an addition at the end.
                let steps = (rows + 2 + 3) as f64;
                let bound = steps * ROUNDOFF * (f64::from(alpha) * size + held.abs());
                comparison.value(got[i * n + j], f64::from(alpha) * sum + held, bound);
            }
        }
        Ok(comparison)
    }
}
