//! Cases of the search for a group's scales by what rounding costs: `scale_loss` and `scale_choose`.

use half::f16;
use rayon::prelude::*;

use super::case::boxed;
use super::compare::{ROUNDOFF, ULP};
use super::group::{FIRST, Group, GroupStep};
use super::output::POISON;
use super::{Case, Comparison, Fault, Shapes, run_list};
use crate::Result;
use crate::gpu::Device;
use crate::ops::Tensor;
use crate::ops::scale_loss::{LossSearch, TRIED, scale_choose, scale_loss};
use crate::ops::scale_search::{GroupRows, ScaleSearch, column_max};
use crate::reference::dequantize::group_maximum;
use crate::reference::scale_loss::{nearest, scales};

/// Ways of rounding that are followed where values lie near the middle of two codes.
const MOST_WAYS: usize = 1 << 12;

/// The search for the scales of [rows, columns] within a matrix of more rows and columns.
pub struct GroupLoss {
    /// `scale_choose`, not `scale_loss`.
    pub choose: bool,
    /// Rows, a multiple of 32 and at most 128.
    pub rows: usize,
    /// Columns, a multiple of 32.
    pub columns: usize,
    /// Width of a code.
    pub bits: u32,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed([false, true].map(|choose| match shapes {
        Shapes::Small => GroupLoss { choose, rows: 64, columns: 96, bits: 4 },
        // The oracle of the losses is slow, so it gets fewer columns.
        Shapes::Real => GroupLoss { choose, rows: 128, columns: if choose { 28672 } else { 576 }, bits: 3 },
    }))
}

/// What one way of rounding a column costs, and how far single precision may be from it.
struct Way {
    loss: f64,
    bound: f64,
}

/// A column being rounded: weights as corrected so far, what has come together in each, how wrong single precision may be.
#[derive(Clone)]
struct Column {
    row: usize,
    values: Vec<f64>,
    sizes: Vec<f64>,
    bounds: Vec<f64>,
    loss: f64,
    bound: f64,
}

impl Column {
    fn new(weights: Vec<f64>) -> Self {
        let sizes = weights.iter().map(|weight| weight.abs()).collect();
        let bounds = vec![0.0; weights.len()];
        Self { row: 0, values: weights, sizes, bounds, loss: 0.0, bound: 0.0 }
    }

    /// The values that single precision may round the next row to: one, or two where it lies near their middle.
    fn next(&self, s: f16, bits: u32) -> [Option<f64>; 2] {
        let (value, step) = (self.values[self.row], s.to_f64());
        if step == 0.0 {
            return [Some(0.0), None];
        }
        let quotient = value / step;
        // The weight's own error; a reciprocal and a product.
        let bound = self.bounds[self.row] / step + (2.5 * ULP + 2.0 * ROUNDOFF) * quotient.abs();
        let near = |quotient: f64| nearest(quotient * step, s, bits);
        let [low, high] = [near(quotient - bound), near(quotient + bound)];
        [Some(low), (high > low).then_some(high)]
    }

    /// The next row is rounded to `decoded`.
    fn round(&mut self, u: &[f64], decoded: f64) {
        let (row, rows) = (self.row, self.values.len());
        let line = &u[row * rows..(row + 1) * rows];
        let difference = self.values[row] - decoded;
        let error = difference / line[row];
        let bound =
            (self.bounds[row] + ROUNDOFF * difference.abs()) / line[row].abs() + 2.5 * ULP * error.abs();
        let later = self.values.iter_mut().zip(&mut self.sizes).zip(&mut self.bounds).zip(line);
        for (((value, size), own), &u) in later.skip(row + 1) {
            let change = u * error;
            *value -= change;
            *size += change.abs();
            // The error's own, a product, and a subtraction from what has come together.
            *own += u.abs() * bound + ROUNDOFF * (change.abs() + *size);
        }
        self.loss += error * error;
        self.bound += (2.0 * error.abs() + bound) * bound;
        self.row += 1;
    }

    /// Rounds all rows, in every way that single precision may take, up to a limit.
    fn ways(self, u: &[f64], s: f16, bits: u32) -> Vec<Way> {
        let rows = self.values.len();
        let (mut open, mut ways) = (vec![self], Vec::new());
        while let Some(mut column) = open.pop() {
            while column.row < rows {
                let [decoded, other] = column.next(s, bits);
                if let Some(other) = other.filter(|_| open.len() + ways.len() < MOST_WAYS) {
                    let mut branch = column.clone();
                    branch.round(u, other);
                    open.push(branch);
                }
                column.round(u, decoded.unwrap_or_default());
            }
            // A square, additions of eight rows and of the eights.
            let bound = column.bound + (4 + rows / 8) as f64 * ROUNDOFF * (column.loss + column.bound);
            ways.push(Way { loss: column.loss, bound });
        }
        ways
    }
}

impl GroupLoss {
    fn group(&self) -> Group {
        Group { step: GroupStep::ColumnMax, rows: self.rows, columns: self.columns, bits: self.bits }
    }

    /// U of the group's rows, [rows, rows].
    fn triangle(&self, factor: &[f32]) -> Vec<f64> {
        let k = self.group().k();
        let rows = factor.chunks_exact(k).skip(FIRST).take(self.rows);
        rows.flat_map(|row| row[FIRST..FIRST + self.rows].iter().map(|&u| f64::from(u))).collect()
    }

    /// The least loss of a column is that of its code, and no other code's is less.
    fn compare_column(
        &self,
        weights: &[f64],
        u: &[f64],
        largest: f32,
        (loss, code): (f32, u32),
    ) -> Comparison {
        let mut comparison = Comparison::new();
        let Some(own) = (code as usize).checked_sub(1).filter(|&code| code < 16) else {
            comparison.finite(&[f32::NAN]);
            return comparison;
        };
        for (index, s) in scales(largest).into_iter().enumerate() {
            let ways = Column::new(weights.to_vec()).ways(u, s, self.bits);
            if index == own {
                let ratio = |way: &Way| (f64::from(loss) - way.loss).abs() / way.bound;
                if let Some(way) = ways.iter().min_by(|a, b| ratio(a).total_cmp(&ratio(b))) {
                    comparison.value(loss, way.loss, way.bound);
                }
            } else if let Some(worst) =
                ways.iter().max_by(|a, b| (a.loss + a.bound).total_cmp(&(b.loss + b.bound)))
            {
                comparison.value((f64::from(loss) - worst.loss).max(0.0) as f32, 0.0, worst.bound);
            }
        }
        comparison
    }

    fn compare_losses(
        &self,
        weights: &[f32],
        u: &[f64],
        largest: &[f32],
        found: &[(f32, u32)],
    ) -> Comparison {
        let (rows, n) = (self.rows, self.columns);
        let columns = (0..n).into_par_iter().map(|column| {
            let own: Vec<f64> = (0..rows).map(|row| f64::from(weights[(FIRST + row) * n + column])).collect();
            let mut comparison = Comparison::new();
            for (tried, &largest) in largest.iter().enumerate() {
                comparison.merge(&self.compare_column(&own, u, largest, found[tried * n + column]));
            }
            comparison
        });
        let mut comparison = Comparison::new();
        columns.collect::<Vec<_>>().iter().for_each(|column| comparison.merge(column));
        comparison
    }

    /// Chooses from losses that are on the device; with a fault the best maximum's is not what the oracle sees.
    fn compare_choice(
        &self,
        device: &Device,
        search: &ScaleSearch,
        losses: &LossSearch,
        largest: &[f32],
        found: &[(f32, u32)],
        fault: Fault,
    ) -> Result<Comparison> {
        let n = self.columns;
        let totals: Vec<f64> = found
            .chunks_exact(n)
            .map(|columns| columns.iter().map(|&(loss, _)| f64::from(loss)).sum())
            .collect();
        let least = totals.iter().copied().fold(f64::INFINITY, f64::min);
        if fault == Fault::OneWrong {
            let best = totals.iter().position(|&total| total == least).unwrap_or_default();
            device.write(&losses.losses, 4 * (best * n) as u64, &[2.0 * least as f32])?;
        }
        run_list(device, "scale_choose", |list| scale_choose(list, search, losses, 1, self.bits))?;
        let mut comparison = Comparison::new();
        let picked: Vec<[u32; 4]> = device.read(&search.picked, 0, 2)?;
        let (picked, best) = (picked[1], picked[1][3] as usize);
        // A lane's additions, of four, of 16 lanes, of 16 sixteenths; where two are nearly equal, either may be chosen.
        let steps = (n.div_ceil(1024) + 3 + 32) as f64;
        let total = totals.get(best).copied().unwrap_or(f64::NAN);
        comparison.value((total / least) as f32, 1.0, (2.0 * steps + 1.0) * ROUNDOFF);
        let scale_max = f16::from_f32(largest[best.min(TRIED - 1)]);
        comparison.half(picked[1] as u16, scale_max);
        comparison.exact(f32::from_bits(picked[2]), group_maximum(scale_max).to_f32());
        let codes: Vec<u32> = device.read(&search.codes, 0, n)?;
        for (&code, &(_, expected)) in codes.iter().zip(&found[best.min(TRIED - 1) * n..]) {
            comparison.exact(code as f32, expected as f32);
        }
        Ok(comparison)
    }
}

impl Case for GroupLoss {
    fn kernel(&self, _: &Device) -> &'static str {
        if self.choose { "scale_choose" } else { "scale_loss" }
    }

    fn shape(&self) -> String {
        self.group().shape()
    }

    fn bytes(&self) -> u64 {
        let k = self.group().k();
        (4 * k * (self.columns + k) + 8 * (TRIED + 1) * self.columns) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let (rows, n, bits) = (self.rows, self.columns, self.bits);
        let group = self.group();
        let (weights, factor) = (group.weights(seed), group.factor(seed));
        let mut uploaded = weights.clone();
        if fault == Fault::OneWrong && !self.choose {
            uploaded[(FIRST + rows / 2) * n + n / 2] += 0.5;
        }
        let weights_device = Tensor::upload(device, "w", &uploaded, n)?;
        let factor_device = Tensor::upload(device, "u", &factor, group.k())?;
        let (search, losses) = (ScaleSearch::new(device, &[n], 2, rows)?, LossSearch::new(device, n)?);
        device.write(&losses.losses, 0, &vec![POISON; TRIED * n])?;
        device.write(&losses.best, 0, &vec![POISON; TRIED * n])?;
        device.write(&search.codes, 0, &vec![POISON; n])?;
        let part = GroupRows { weights: &weights_device, column: 0, first: FIRST, rows, group: 1, bits };
        run_list(device, "scale_loss", |list| {
            column_max(list, &search, &part)?;
            scale_loss(list, &search, &losses, &part, (&factor_device, FIRST))
        })?;
        let base: Vec<f32> = device.read(&search.base, 0, n)?;
        let most = base.iter().copied().fold(0.0, f32::max);
        let multipliers: Vec<f32> =
            device.read(&losses.multipliers, 4 * (TRIED * (bits as usize - 2)) as u64, TRIED)?;
        let largest: Vec<f32> = multipliers.iter().map(|multiplier| most * multiplier).collect();
        let sums: Vec<f32> = device.read(&losses.losses, 0, TRIED * n)?;
        let best: Vec<u32> = device.read(&losses.best, 0, TRIED * n)?;
        let found: Vec<(f32, u32)> = sums.into_iter().zip(best).collect();
        if self.choose {
            return self.compare_choice(device, &search, &losses, &largest, &found, fault);
        }
        Ok(self.compare_losses(&weights, &self.triangle(&factor), &largest, &found))
    }
}
