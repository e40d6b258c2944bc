//! Cases of products with packed weights: `quant_gemv` for a few rows, `dequantize` and a dense product for more.

use super::case::boxed;
use super::matmul;
use super::packed::{flip_code, view};
use super::{Case, Comparison, Fault, Packing, Random, Shapes, poisoned, run_list};
use crate::gpu::Device;
use crate::ops::matmul::{GEMV_ROWS, Store};
use crate::ops::{self, Operand, OperandRoom, QuantMatrix, Tensor};
use crate::packing::PackedMatrix;
use crate::reference::dequantize::{column, column_unrounded};
use crate::{Result, reference};

/// Columns that the oracle works out.
const SAMPLES: usize = 64;

/// A product of `rows` rows, gathered first, with a packed matrix.
pub struct QuantMatmul {
    /// Rows.
    pub rows: usize,
    /// The matrix's shape.
    pub packing: Packing,
    /// Adds to what the output holds.
    pub add: bool,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let case = |rows, packing, add| QuantMatmul { rows, packing, add };
    let all = [8, 6, 5, 4, 3, 2];
    boxed(match shapes {
        Shapes::Small => vec![
            case(1, Packing::mixed(32 * 19, 131, &all, 64, true), false),
            case(7, Packing::mixed(32 * 5, 64, &[5, 3], 32, false), true),
            case(33, Packing::mixed(32 * 19, 131, &all, 64, true), true),
        ],
        Shapes::Real => vec![
            case(1, Packing::mixed(8192, 28672, &[6, 4, 3], 128, true), false),
            case(2, Packing::mixed(28672, 8192, &[8, 5, 2], 128, false), true),
            case(33, Packing::mixed(4096, 4096, &[4, 3], 128, false), false),
            case(129, Packing::mixed(8192, 28672, &[5, 3], 128, false), false),
            // Past 4 GiB of codes.
            case(1, Packing::mixed(28672, 172_032, &[8, 6], 128, false), false),
        ],
    })
}

impl Case for QuantMatmul {
    fn kernel(&self, _: &Device) -> &'static str {
        if self.rows <= GEMV_ROWS { "quant_gemv" } else { "dequantize" }
    }

    fn shape(&self) -> String {
        let how = if self.rows <= GEMV_ROWS { "" } else { " and product" };
        format!("{} x {}{how}", self.rows, self.packing.words())
    }

    fn bytes(&self) -> u64 {
        let scratch = if self.rows <= GEMV_ROWS { 0 } else { 2 * self.packing.k() * self.packing.n };
        self.packing.bytes() + (scratch + 8 * self.rows * (self.packing.k() + self.packing.n)) as u64
    }

    fn products(&self) -> u64 {
        (self.rows * self.packing.k() * self.packing.n) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, add, ref packing } = self;
        let (k, n) = (packing.k(), packing.n);
        let mut matrix = packing.matrix(seed)?;
        let values = Random::new(seed, "x").values(rows * k);
        if fault == Fault::OneWrong {
            let row = heaviest_row(&matrix, &values[..k]);
            flip_code(&mut matrix, row, 0);
        }
        let quant = QuantMatrix::upload(device, "matrix", &matrix, n, &[])?;
        if fault == Fault::OneWrong {
            let row = heaviest_row(&matrix, &values[..k]);
            flip_code(&mut matrix, row, 0);
        }
        let x = Tensor::upload(device, "x", &values, k)?;
        let residual = Random::new(seed, "residual").values(rows * n);
        let scratch_bytes =
            if rows > GEMV_ROWS { ops::decode_bytes(device, quant.k(), quant.n()) } else { 0 };
        let scratch = device.alloc("scratch", scratch_bytes)?;
        let room = OperandRoom::new(device, rows, k)?;
        let store = if add { Store::Add } else { Store::Set };
        let edges: Vec<usize> =
            quant.slabs().iter().flat_map(|slab| [slab.first, slab.first + slab.columns - 1]).collect();
        let chosen = Random::new(seed, "columns").sample(n, SAMPLES, &edges);
        let q_groups = matrix.layout.q_groups();
        let packed = view(&matrix, &q_groups);
        let mut comparison = Comparison::new();
        for &halves in matmul::forms(device, rows, k) {
            let y = poisoned(device, "y", rows, n)?;
            if add {
                y.write(&residual)?;
            }
            run_list(device, self.kernel(device), |list| {
                let x = Operand::prepare_as(list, &x, Some(quant.permutation()), &room, rows, halves)?;
                ops::quant_matmul::quant_matmul(list, &x, &quant, &y, &scratch, rows, store)
            })?;
            let got = y.read(rows + 1)?;
            comparison.finite(&got[..rows * n]);
            comparison.untouched(&got[rows * n..]);
            let rows_seen: Vec<_> =
                values.chunks_exact(k).map(|row| matmul::seen(device, rows, row, halves)).collect();
            for &output in &chosen {
                let weights: Vec<f64> = if rows <= GEMV_ROWS {
                    column_unrounded(packed, output)
                } else {
                    column(packed, output).into_iter().map(f64::from).collect()
                };
                let weights: Vec<f64> = matrix.q_invperm.iter().map(|&row| weights[row as usize]).collect();
                for (row, x_row) in rows_seen.iter().enumerate() {
                    let bias = matrix.bias.as_ref().map_or(0.0, |bias| bias[output].to_f64());
                    let before = if add { f64::from(residual[row * n + output]) } else { 0.0 };
                    let expected = reference::matmul::element(x_row, &weights) + bias + before;
                    let magnitude = reference::matmul::magnitude(x_row, &weights) + bias.abs() + before.abs();
                    let bound = if rows <= GEMV_ROWS {
                        // A product, up to 32 additions within a block, the scale (an exact number), additions of the
                        // blocks of a slice, of 8 slices, the bias and the residual.
                        let steps = 1 + 32 + 1 + k.div_ceil(256) + 8 + 2;
                        steps as f64 * super::compare::ROUNDOFF * magnitude
                    } else {
                        matmul::bound(device, rows, k, halves, magnitude)
                    };
                    comparison.value(got[row * n + output], expected, bound);
                }
            }
        }
        Ok(comparison)
    }
}

/// The packed row whose code weighs most in the first output of an activation.
pub(super) fn heaviest_row(matrix: &PackedMatrix, x: &[f32]) -> usize {
    let q_groups = matrix.layout.q_groups();
    let packed = view(matrix, &q_groups);
    let order = reference::permute::inverse(&matrix.q_invperm);
    let (mut heaviest, mut weight) = (0, 0.0);
    for (group, span) in packed.spans().iter().enumerate() {
        let scale = f64::from(packed.scale_code(group, 0)).powi(2) * matrix.q_scale_max[group].to_f64();
        for row in span.first_row..span.first_row + span.rows {
            let product = f64::from(x[order[row] as usize]).abs() * scale * f64::from(1_u32 << span.bits);
            if product > weight {
                (heaviest, weight) = (row, product);
            }
        }
    }
    heaviest
}
