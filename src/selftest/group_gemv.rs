//! Cases of `group_gemv`.

use super::case::boxed;
use super::compare::ROUNDOFF;
use super::packed::{flip_code, view};
use super::quant_matmul::heaviest_row;
use super::{Case, Comparison, Fault, POISON, Packing, Random, Shapes, fused, run_list};
use crate::Result;
use crate::gpu::{Arithmetic, Device};
use crate::ops::activation::Partial;
use crate::ops::group_gemv::group_gemv;
use crate::ops::group_geometry::sums;
use crate::ops::{GroupMember, QuantGroup, RowNorm};
use crate::packing::PackedMatrix;
use crate::reference::dequantize::column_unrounded;
use crate::reference::{fixed, matmul, pairs, permute};

/// Columns of each member that the oracle works out.
const SAMPLES: usize = 64;

/// Roundings of a product with a low half: its own, and those of the additions that it is part of, sixteen at most. All
/// else that halves compute is exact.
const HALF_STEPS: f64 = 17.0;
const HALF_ROUNDOFF: f64 = 1.0 / 2048.0;

/// Values behind the result that must stay as they are.
const GUARD: usize = 64;

/// A product of `rows` rows (1, 2, 4 or 8) with packed matrices that share their input.
pub struct GroupGemv {
    /// Rows.
    pub rows: usize,
    /// Arithmetic of the input.
    pub form: Arithmetic,
    /// The members, of one k.
    pub members: Vec<Packing>,
    /// All members take the input in one order.
    pub one_order: bool,
    /// The product divides by the root mean square of its input's rows.
    pub norm: bool,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let all = [8, 6, 5, 4, 3, 2];
    let case = |rows, form, members, one_order, norm| GroupGemv { rows, form, members, one_order, norm };
    let both = |make: &dyn Fn(Arithmetic) -> GroupGemv| Arithmetic::ALL.map(make);
    boxed(match shapes {
        Shapes::Small => both(&|form| {
            let members = vec![
                Packing::mixed(32 * 19, 160, &all, 64, true),
                Packing::mixed(32 * 19, 33, &[5, 3], 96, false),
                Packing::mixed(32 * 19, 32, &[6, 2], 32, false),
            ];
            case(2, form, members, false, true)
        })
        .into_iter()
        .chain(both(&|form| case(1, form, vec![Packing::mixed(32 * 19, 131, &all, 64, true)], true, false)))
        .collect::<Vec<_>>(),
        Shapes::Real => both(&|form| {
            let part = |n| Packing::mixed(8192, n, &[4, 3, 2], 64, false);
            case(1, form, vec![part(8192), part(1024), part(1024)], false, true)
        })
        .into_iter()
        .chain(both(&|form| {
            case(8, form, vec![Packing::mixed(28672, 8192, &[6, 4, 2], 128, false)], true, false)
        }))
        // Past 4 GiB of codes: several sheets.
        .chain([case(
            1,
            Arithmetic::Fixed,
            vec![Packing::mixed(28672, 172_032, &[8, 6], 128, false)],
            true,
            false,
        )])
        .collect(),
    })
}

impl GroupGemv {
    fn k(&self) -> usize {
        self.members[0].k()
    }

    fn matrices(&self, seed: u64) -> Result<Vec<PackedMatrix>> {
        let mut matrices: Vec<PackedMatrix> = Vec::new();
        for (index, packing) in (0..).zip(&self.members) {
            let mut matrix = packing.matrix(seed + 1000 * index)?;
            if self.one_order
                && let Some(first) = matrices.first()
            {
                matrix.q_invperm.clone_from(&first.q_invperm);
            }
            matrices.push(matrix);
        }
        Ok(matrices)
    }
}

impl Case for GroupGemv {
    fn kernel(&self, _: &Device) -> &'static str {
        "group_gemv"
    }

    fn shape(&self) -> String {
        let members: Vec<String> = self.members.iter().map(Packing::words).collect();
        format!("{} x {}, {}", self.rows, members.join(" | "), self.form)
    }

    fn bytes(&self) -> u64 {
        self.members.iter().map(Packing::bytes).sum()
    }

    fn arithmetic(&self) -> Arithmetic {
        self.form
    }

    fn products(&self) -> u64 {
        self.members.iter().map(|packing| (self.rows * packing.k() * packing.n) as u64).sum()
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, form, norm, .. } = self;
        let k = self.k();
        let values = Random::new(seed, "x").values(rows * k);
        let mut matrices = self.matrices(seed)?;
        let wrong = heaviest_row(&matrices[0], &values[..k]);
        if fault == Fault::OneWrong {
            flip_code(&mut matrices[0], wrong, 0);
        }
        let lent: Vec<_> = matrices.iter().map(PackedMatrix::lend).collect();
        let members: Vec<GroupMember<'_>> = lent
            .iter()
            .zip(&self.members)
            .map(|(matrix, packing)| GroupMember { label: "member", matrix, n: packing.n })
            .collect();
        let (group, _) = QuantGroup::upload(device, "group", &members)?;
        if fault == Fault::OneWrong {
            flip_code(&mut matrices[0], wrong, 0);
        }
        let orders: Vec<Vec<u32>> =
            matrices.iter().map(|matrix| permute::inverse(&matrix.q_invperm)).collect();
        let packed_row = |member: usize, row: usize| -> Vec<f32> {
            orders[member].iter().map(|&feature| values[row * k + feature as usize]).collect()
        };
        let x = fused::upload(device, form, [group.copies(), rows, k], packed_row)?;
        let squares: Vec<f64> =
            values.chunks_exact(k).map(|row| row.iter().map(|&x| f64::from(x).powi(2)).sum()).collect();
        let row_norm = RowNorm::new(device, rows, k, 1e-5)?;
        let parts = RowNorm::parts(k);
        let spread: Vec<f32> =
            squares.iter().flat_map(|sum| vec![(sum / parts as f64) as f32; parts]).collect();
        device.write(row_norm.squares(), 0, &spread)?;
        let columns = group.columns();
        let sums = sums(device, k, columns);
        let out = Partial::new(device, sums * rows * columns + GUARD)?;
        device.write(out.buffer(), 0, &vec![POISON; sums * rows * columns + GUARD])?;
        run_list(device, "group_gemv", |list| {
            group_gemv(list, &x, &group, norm.then_some(&row_norm), &out, rows)
        })?;
        let got: Vec<f32> = device.read(out.buffer(), 0, sums * rows * columns + GUARD)?;
        let mut comparison = Comparison::new();
        comparison.finite(&got[..sums * rows * columns]);
        comparison.untouched(&got[sums * rows * columns..]);
        let mut first = 0;
        for (index, matrix) in matrices.iter().enumerate() {
            let q_groups = matrix.layout.q_groups();
            let edges = [127, 128, matrix.n - 32];
            for column in Random::new(seed, "columns").sample(self.members[index].n, SAMPLES, &edges) {
                let weights = column_unrounded(view(matrix, &q_groups), column);
                let bias = matrix.bias.as_ref().map_or(0.0, |bias| bias[column].to_f64());
                for row in 0..rows {
                    let x = packed_row(index, row);
                    let (x, low) = match form {
                        Arithmetic::Single => (x.into_iter().map(f64::from).collect(), vec![0.0; k]),
                        Arithmetic::Fixed => (fixed::decode(&fixed::encode(&x), k).values, vec![0.0; k]),
                        Arithmetic::Pairs => {
                            let decoded = pairs::decode(&pairs::encode(&x), k);
                            (decoded.values, decoded.low)
                        }
                    };
                    let scale =
                        if norm { 1.0 / (squares[row] / k as f64 + f64::from(1e-5_f32)).sqrt() } else { 1.0 };
                    let expected = matmul::element(&x, &weights) * scale + bias;
                    let magnitude = matmul::magnitude(&x, &weights) * scale + bias.abs();
                    let total: f64 = (0..sums)
                        .map(|part| f64::from(got[(part * rows + row) * columns + first + column]))
                        .sum();
                    // A product and 32 additions in a block (none in fixed point, but a conversion and the step), the
                    // scale twice; the blocks of a slice, of which there are at least as many as parts; eight levels of
                    // the tree; the norm's parts, quotient, root and reciprocal; the bias.
                    let steps = 36 + k / 32 / sums.max(1) + 8 + parts + 16 + 1;
                    let halves = HALF_STEPS * HALF_ROUNDOFF * matmul::magnitude(&low, &weights) * scale;
                    comparison.real(total, expected, steps as f64 * ROUNDOFF * magnitude + halves);
                }
            }
            first += matrix.n;
        }
        Ok(comparison)
    }
}
