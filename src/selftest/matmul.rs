//! Cases of dense products: `gemv` for a few rows, `matmul`, `matmul_subgroup` or `matmul_coop` for more.

use half::f16;

use super::case::boxed;
use super::compare::ROUNDOFF;
use super::{Case, Comparison, Fault, Random, Shapes, poisoned, run_list};
use crate::gpu::Device;
use crate::ops::halve::Halves;
use crate::ops::matmul::{GEMV_ROWS, Store};
use crate::ops::{self, DenseMatrix, Operand, OperandRoom, Tensor, on_matrix_units};
use crate::{Result, reference};

/// Outputs that the oracle works out.
const SAMPLES: usize = 64;

/// A product of [rows, k] with [n, k].
pub struct Matmul {
    /// Rows.
    pub rows: usize,
    /// Outputs.
    pub n: usize,
    /// Inputs, an even number.
    pub k: usize,
    /// With a bias.
    pub bias: bool,
    /// Adds to what the output holds.
    pub add: bool,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let case = |rows, n, k, bias, add| Matmul { rows, n, k, bias, add };
    boxed(match shapes {
        Shapes::Small => vec![
            case(1, 77, 130, true, false),
            case(8, 33, 578, false, true),
            case(33, 67, 130, true, true),
            case(33, 80, 112, true, true),
        ],
        Shapes::Real => vec![
            case(1, 8192, 28672, false, true),
            // More than 65535 workgroups: a folded grid.
            case(3, 28672, 8192, true, false),
            case(33, 28672, 1024, true, false),
            case(129, 28672, 8192, false, true),
            // Past 4 GiB of weights.
            case(1, 270_336, 8192, false, false),
            case(33, 270_336, 8192, false, false),
        ],
    })
}

/// What a product sees of a row: on matrix units its halves.
pub(super) fn seen(device: &Device, rows: usize, row: &[f32], halves: Halves) -> Vec<f64> {
    if on_matrix_units(device, rows, row.len()) {
        reference::halve::halve(row, halves.planes()).values()
    } else {
        row.iter().copied().map(f64::from).collect()
    }
}

/// The forms of a product: on matrix units those of its left side.
pub(super) fn forms(device: &Device, rows: usize, k: usize) -> &'static [Halves] {
    if on_matrix_units(device, rows, k) { &Halves::ALL } else { &[Halves::One] }
}

/// Bound of an output's error: `magnitude` is Σ |x·w| with what is added to it.
pub(super) fn bound(device: &Device, rows: usize, k: usize, halves: Halves, magnitude: f64) -> f64 {
    let steps = if rows <= GEMV_ROWS {
        // A product, the sum of a pair, the additions of a lane, up to 63 of the lanes in whatever order, bias, residual.
        2 + k.div_ceil(128) + 63 + 2
    } else if on_matrix_units(device, rows, k) {
        // Products of halves are exact, units are powers of two; matrix units may cut where others round (2 roundings) in each
        // addition, of which there are k a plane; bias and residual.
        2 * halves.planes() * k + 2
    } else {
        // A product, k additions in order, bias and residual.
        1 + k + 2
    };
    steps as f64 * ROUNDOFF * magnitude
}

/// Sizes of rows, row after row: the second is past what a half holds.
const SIZES: [f32; 3] = [1.0, 131_072.0, 1.0 / 2048.0];

/// Activations [rows, k] of all [`SIZES`].
fn activations(seed: u64, rows: usize, k: usize) -> Vec<f32> {
    let mut values = Random::new(seed, "x").values(rows * k);
    for (row, size) in values.chunks_exact_mut(k).zip(SIZES.iter().cycle()) {
        row.iter_mut().for_each(|x| *x *= size);
    }
    values
}

impl Case for Matmul {
    fn kernel(&self, device: &Device) -> &'static str {
        match (self.rows <= GEMV_ROWS, on_matrix_units(device, self.rows, self.k)) {
            (true, _) => "gemv",
            (false, true) => "matmul_coop",
            (false, false) if device.capabilities().subgroup == Some((8, 8)) => "matmul_subgroup",
            (false, false) => "matmul",
        }
    }

    fn shape(&self) -> String {
        let bias = if self.bias { ", bias" } else { "" };
        let add = if self.add { ", added" } else { "" };
        format!("{} x [{}, {}]{bias}{add}", self.rows, self.n, self.k)
    }

    fn bytes(&self) -> u64 {
        (2 * self.n * self.k + 4 * (self.rows + 1) * (self.n + self.k)) as u64
    }

    fn products(&self) -> u64 {
        (self.rows * self.n * self.k) as u64
    }

    fn host_bytes(&self) -> u64 {
        // A slab at a time.
        self.bytes().min(3 << 30)
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, n, k, bias, add } = self;
        let values = activations(seed, rows, k);
        let random = Random::new(seed, "weights");
        let bias = bias.then(|| Random::new(seed, "bias").values(n));
        let wrong = (fault == Fault::OneWrong).then(|| heaviest(&values[..k], &random.weights(0..k as u64)));
        let weights = DenseMatrix::upload(
            device,
            "weights",
            n,
            k,
            |range| {
                let mut halves = random.weights((range.start * k) as u64..(range.end * k) as u64);
                if let (0, Some(at)) = (range.start, wrong) {
                    halves[at] = -halves[at];
                }
                Ok(halves)
            },
            bias.as_deref(),
        )?;
        let x = Tensor::upload(device, "x", &values, k)?;
        let residual = Random::new(seed, "residual").values(if add { rows * n } else { 0 });
        let store = if add { Store::Add } else { Store::Set };
        let room = OperandRoom::new(device, rows, k)?;
        let edges: Vec<usize> =
            weights.slabs().iter().flat_map(|slab| [slab.first, slab.first + slab.rows - 1]).collect();
        let outputs = Random::new(seed, "outputs").sample(n, SAMPLES, &edges);
        let mut comparison = Comparison::new();
        for &halves in forms(device, rows, k) {
            let y = poisoned(device, "y", rows, n)?;
            y.write(&residual)?;
            run_list(device, self.kernel(device), |list| {
                let x = Operand::prepare_as(list, &x, None, &room, rows, halves)?;
                ops::matmul::matmul(list, &x, &weights, &y, rows, store)
            })?;
            let got = y.read(rows + 1)?;
            comparison.finite(&got[..rows * n]);
            comparison.untouched(&got[rows * n..]);
            let rows_seen: Vec<_> =
                values.chunks_exact(k).map(|row| seen(device, rows, row, halves)).collect();
            for &output in &outputs {
                let w_row = random.weights((output * k) as u64..((output + 1) * k) as u64);
                for (row, x_row) in rows_seen.iter().enumerate() {
                    let bias = bias.as_ref().map_or(0.0, |bias| f64::from(bias[output]));
                    let before = if add { f64::from(residual[row * n + output]) } else { 0.0 };
                    let expected = reference::matmul::element(x_row, &w_row) + bias + before;
                    let magnitude = reference::matmul::magnitude(x_row, &w_row) + bias.abs() + before.abs();
                    let bound = bound(device, rows, k, halves, magnitude);
                    comparison.value(got[row * n + output], expected, bound);
                }
            }
        }
        Ok(comparison)
    }
}

/// Where a row of weights contributes most to an output.
fn heaviest(x: &[f32], w: &[f16]) -> usize {
    let product = |i: usize| (f64::from(x[i]) * w[i].to_f64()).abs();
    (0..x.len()).max_by(|&a, &b| product(a).total_cmp(&product(b))).expect("k is above 0")
}
