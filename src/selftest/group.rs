//! Cases of the kernels that quantize one group: `column_max`, `scale_error`, `scale_pick`, `gptq_group`, `pack`.
//! Each needs what those before it leave, so all run, and the case compares what one of them wrote.

use half::f16;

use super::case::boxed;
use super::compare::{ROUNDOFF, ULP};
use super::output::POISON;
use super::{Case, Comparison, Fault, Random, Shapes, poisoned, run_list};
use crate::gpu::{Buffer, Device};
use crate::ops::Tensor;
use crate::ops::gptq_group::{Rounded, gptq_group};
use crate::ops::pack::pack;
use crate::ops::scale_search::{GroupRows, ScaleSearch, column_max, scale_error, scale_pick};
use crate::reference::scale_search::{self as oracle, STEPS, multiplier, scale_code};
use crate::{Result, reference};

/// Rows above the group.
pub(super) const FIRST: usize = 32;

/// Rows below it.
const BELOW: usize = 32;

/// Partial sums of the errors at most (see `ops::scale_search`).
const MOST_PARTS: usize = 512;

/// Which of the five kernels a case compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupStep {
    /// `column_max`.
    ColumnMax,
    /// `scale_error`.
    ScaleError,
    /// `scale_pick`.
    ScalePick,
    /// `gptq_group`.
    GptqGroup,
    /// `pack`.
    Pack,
}

impl GroupStep {
    /// All, in the order in which they run.
    pub const ALL: [Self; 5] =
        [Self::ColumnMax, Self::ScaleError, Self::ScalePick, Self::GptqGroup, Self::Pack];
}

/// A group of [rows, columns] within a matrix of more rows.
pub struct Group {
    /// The kernel.
    pub step: GroupStep,
    /// Rows, a multiple of 32 and at most 128.
    pub rows: usize,
    /// Columns, a multiple of 32.
    pub columns: usize,
    /// Width of a code.
    pub bits: u32,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    boxed(GroupStep::ALL.map(|step| match shapes {
        Shapes::Small => Group { step, rows: 64, columns: 96, bits: 4 },
        // More tiles than partial sums; the oracle of the errors is slow, so it gets fewer columns.
        Shapes::Real => match step {
            GroupStep::ScaleError | GroupStep::ScalePick => Group { step, rows: 128, columns: 4128, bits: 3 },
            _ => Group { step, rows: 128, columns: 28672, bits: 3 },
        },
    }))
}

/// What runs on the device.
struct Work {
    weights: Tensor,
    factor: Tensor,
    search: ScaleSearch,
    codes: Buffer,
    errors: Tensor,
    decoded: Buffer,
    sums: Buffer,
    words: Buffer,
    scales: Buffer,
}

impl Group {
    pub(super) fn k(&self) -> usize {
        FIRST + self.rows + BELOW
    }

    fn word_rows(&self) -> usize {
        self.rows / 32 * self.bits as usize
    }

    /// Weights [k, columns] whose columns differ in size a lot, so that all scale codes occur.
    pub(super) fn weights(&self, seed: u64) -> Vec<f32> {
        let (values, sizes) = (Random::new(seed, "weights"), Random::new(seed, "sizes"));
        let unit = |column: usize| (sizes.bits(column as u64) >> 40) as f32 / (1 << 24) as f32;
        let sizes: Vec<f32> = (0..self.columns).map(|column| 0.02 + 0.1 * unit(column).powi(3)).collect();
        (0..self.k() * self.columns).map(|at| sizes[at % self.columns] * values.value(at as u64)).collect()
    }

    /// An upper triangle [k, k] with a diagonal around 1.
    pub(super) fn factor(&self, seed: u64) -> Vec<f32> {
        let (k, random) = (self.k(), Random::new(seed, "factor"));
        (0..k * k)
            .map(|at| match (at / k).cmp(&(at % k)) {
                std::cmp::Ordering::Less => 0.05 * random.value(at as u64),
                std::cmp::Ordering::Equal => {
                    0.7 + 0.6 * (random.bits(at as u64) >> 40) as f32 / (1 << 24) as f32
                }
                std::cmp::Ordering::Greater => 0.0,
            })
            .collect()
    }

    fn work(&self, device: &Device, weights: &[f32], factor: &[f32]) -> Result<Work> {
        let &Self { rows, columns: n, .. } = self;
        let poison = |label: &str, words: usize| device.upload(label, &vec![POISON; words]);
        Ok(Work {
            weights: Tensor::upload(device, "w", weights, n)?,
            factor: Tensor::upload(device, "u", &factor[FIRST * self.k()..], self.k())?,
            search: ScaleSearch::new(device, &[n], 2, rows)?,
            codes: poison("codes", rows * n)?,
            errors: poisoned(device, "errors", rows, n)?,
            decoded: poison("decoded", n * self.k() / 2)?,
            sums: poison("sums", n / 32 + 2)?,
            words: poison("words", (self.word_rows() + 2) * n)?,
            scales: poison("scales", 2 * n / 8)?,
        })
    }

    fn rows_of<'a>(&self, weights: &'a Tensor) -> GroupRows<'a> {
        GroupRows { weights, column: 0, first: FIRST, rows: self.rows, group: 1, bits: self.bits }
    }

    fn compare_scales(&self, device: &Device, search: &ScaleSearch, group: &[f32]) -> Result<Comparison> {
        let &Self { rows, columns, bits, .. } = self;
        let mut comparison = Comparison::new();
        if self.step == GroupStep::ColumnMax {
            let base: Vec<f32> = device.read(&search.base, 0, columns)?;
            for (&got, expected) in base.iter().zip(oracle::base_scales(group, columns, bits)) {
                // A quotient, and the oracle's own rounding.
                let expected = f64::from(expected);
                comparison.value(got, expected, (2.5 * ULP + 2.0 * ROUNDOFF) * expected);
            }
            return Ok(comparison);
        }
        let expected = oracle::scale_search(group, columns, bits);
        if self.step == GroupStep::ScaleError {
            let count = (columns / 32 * (rows / 32)).min(MOST_PARTS);
            let parts: Vec<f32> = device.read(&search.parts, 0, count * STEPS)?;
            let unit = f64::from(expected.largest).powf(3.5);
            for (step, &expected) in expected.errors.iter().enumerate() {
                let sum: f64 = parts.iter().skip(step).step_by(STEPS).map(|&part| f64::from(part)).sum();
                // About 20 roundings a term; those of w / largest and of the scale shift an error by a unit in the
                // last place of the weight, which is up to 2^bits of the errors, and count 3.5 times.
                let bound = (10 << bits) as f64 * ULP * 3.5 * expected;
                comparison.value((sum * unit) as f32, expected, bound);
            }
            let codes: Vec<u32> = device.read(&search.codes, 0, columns)?;
            for (&code, expected) in codes.iter().zip(self.scales(device, search)?.0) {
                comparison.exact(code as f32, f32::from(expected));
            }
            return Ok(comparison);
        }
        let [_, picked]: [[u32; 4]; 2] =
            device.read::<[u32; 4]>(&search.picked, 0, 2)?.try_into().unwrap_or_default();
        let (largest, best) = (f32::from_bits(picked[0]), picked[3] as usize);
        let wanted = f64::from(expected.largest);
        comparison.value(largest, wanted, (2.5 * ULP + 2.0 * ROUNDOFF) * wanted);
        // Where two errors are nearly equal, either may be picked.
        let error = expected.errors.get(best).copied().unwrap_or(f64::NAN);
        let least = expected.errors[expected.best];
        comparison.value((error / least) as f32, 1.0, 2.0 * (10 << bits) as f64 * ULP * 3.5);
        let scale_max = f16::from_f32(largest * multiplier(best.min(STEPS - 1)));
        comparison.half(picked[1] as u16, scale_max);
        let maximum = reference::dequantize::group_maximum(scale_max);
        comparison.exact(f32::from_bits(picked[2]), maximum.to_f32());
        Ok(comparison)
    }

    /// Codes of the scales, `[columns]`, as the device's own bases and its largest give them, and the scales.
    fn scales(&self, device: &Device, search: &ScaleSearch) -> Result<(Vec<u8>, Vec<f16>)> {
        let base: Vec<f32> = device.read(&search.base, 0, self.columns)?;
        let picked: Vec<[u32; 4]> = device.read(&search.picked, 0, 2)?;
        let largest = f32::from_bits(picked[1][0]);
        let maximum = f16::from_f32(f32::from_bits(picked[1][2]));
        let codes: Vec<u8> = base.iter().map(|&base| scale_code(base, largest)).collect();
        let scales =
            codes.iter().map(|&code| reference::dequantize::scale(u32::from(code), maximum)).collect();
        Ok((codes, scales))
    }

    /// Follows the device's codes in double precision: each must be the nearest to the weight as corrected for the
    /// codes above it, and its error must be right.
    fn compare_rounding(
        &self,
        device: &Device,
        work: &Work,
        weights: &[f32],
        factor: &[f32],
    ) -> Result<Comparison> {
        let &Self { rows, columns: n, bits, .. } = self;
        let k = self.k();
        let codes: Vec<u32> = device.read(&work.codes, 0, rows * n)?;
        let errors = work.errors.read(rows + 1)?;
        let decoded: Vec<u16> = device.read(&work.decoded, 0, n * k)?;
        let sums: Vec<f32> = device.read(&work.sums, 0, n / 32 + 2)?;
        let (_, scales) = self.scales(device, &work.search)?;
        let (zero, poison) = (f64::from(1_u32 << (bits - 1)), [POISON as u16, (POISON >> 16) as u16]);
        let mut comparison = Comparison::new();
        comparison.untouched(&errors[rows * n..]);
        comparison.untouched(&[sums[0], sums[n / 32 + 1]]);
        let row_of = |row: usize| &factor[(FIRST + row) * k + FIRST..(FIRST + row) * k + FIRST + rows];
        for column in 0..n {
            let scale = scales[column];
            let own = |row: usize| f64::from(weights[(FIRST + row) * n + column]);
            let mut values: Vec<f64> = (0..rows).map(own).collect();
            let mut sizes: Vec<f64> = values.iter().map(|value| value.abs()).collect();
            let mut bounds = vec![0.0_f64; rows];
            for row in 0..rows {
                let code = codes[row * n + column];
                let ideal = (values[row] / scale.to_f64() + zero).clamp(0.0, 2.0 * zero - 1.0);
                let excess = ((f64::from(code) - ideal).abs() - 0.5).max(0.0);
                // The weight's own error, and a quotient of up to 2^bits.
                let code_bound = bounds[row] / scale.to_f64() + 2.0 * zero * (2.5 * ULP + ROUNDOFF);
                comparison.value(excess as f32, 0.0, code_bound);
                let half =
                    reference::dequantize::weight(code.min((2.0 * zero) as u32 - 1), bits as usize, scale);
                comparison.half(decoded[column * k + FIRST + row], half);

                let diagonal = f64::from(row_of(row)[row]);
                let difference = values[row] - half.to_f64();
                let error = difference / diagonal;
                let bound = (bounds[row] + ROUNDOFF * difference.abs()) / diagonal + 2.5 * ULP * error.abs();
                comparison.value(errors[row * n + column], error, bound);
                for later in row + 1..rows {
                    let u = f64::from(row_of(row)[later]);
                    values[later] -= u * error;
                    sizes[later] += (u * error).abs();
                    // The error's own, a product, and a subtraction from what has come together.
                    bounds[later] += u.abs() * bound + ROUNDOFF * ((u * error).abs() + sizes[later]);
                }
            }
            let outside = (0..FIRST).chain(FIRST + rows..k);
            for row in outside {
                comparison.half(decoded[column * k + row], f16::from_bits(poison[row % 2]));
            }
        }
        for (block, &sum) in sums[1..=n / 32].iter().enumerate() {
            let squares = (0..rows).flat_map(|row| &errors[row * n + block * 32..][..32]);
            let expected: f64 = squares.map(|&error| f64::from(error) * f64::from(error)).sum();
            // A square, additions of a lane's rows and columns, of the lanes.
            comparison.value(sum, expected, (1 + 4 * rows + 32) as f64 * ROUNDOFF * expected);
        }
        Ok(comparison)
    }

    /// Packs codes that are on the device; with a fault one of them is not what the oracle packs.
    fn compare_packing(&self, device: &Device, work: &Work, fault: Fault) -> Result<Comparison> {
        let &Self { rows, columns: n, bits, .. } = self;
        let codes: Vec<u32> = device.read(&work.codes, 0, rows * n)?;
        if fault == Fault::OneWrong {
            let at = rows * n / 2;
            device.write(&work.codes, 4 * at as u64, &[codes[at] ^ 1])?;
        }
        run_list(device, "pack", |list| {
            let group = self.rows_of(&work.weights);
            pack(list, &work.search, &group, &work.codes, (&work.words, 1), (&work.scales, true))
        })?;
        let mut comparison = Comparison::new();
        let got: Vec<f32> = device.read(&work.words, 0, (self.word_rows() + 2) * n)?;
        comparison.untouched(&got[..n]);
        comparison.untouched(&got[(1 + self.word_rows()) * n..]);
        let codes: Vec<u8> = codes.iter().map(|&code| code as u8).collect();
        let words = reference::pack::fields(&codes, n, bits as usize);
        for (&got, word) in got[n..].iter().zip(words) {
            comparison.exact(got, f32::from_bits(word));
        }
        let scales: Vec<f32> = device.read(&work.scales, 0, 2 * n / 8)?;
        comparison.untouched(&scales[..n / 8]);
        let (scale_codes, _) = self.scales(device, &work.search)?;
        for (&got, word) in scales[n / 8..].iter().zip(reference::pack::scale_words(&scale_codes)) {
            comparison.exact(got, f32::from_bits(word));
        }
        Ok(comparison)
    }
}

impl Case for Group {
    fn kernel(&self, _: &Device) -> &'static str {
        match self.step {
            GroupStep::ColumnMax => "column_max",
            GroupStep::ScaleError => "scale_error",
            GroupStep::ScalePick => "scale_pick",
            GroupStep::GptqGroup => "gptq_group",
            GroupStep::Pack => "pack",
        }
    }

    fn shape(&self) -> String {
        format!("[{}, {}] {}b", self.rows, self.columns, self.bits)
    }

    fn bytes(&self) -> u64 {
        let outputs = 9 * self.rows + 2 * self.k() + 4 * self.word_rows();
        ((4 * self.k() + outputs) * self.columns + 4 * self.k() * self.k()) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let n = self.columns;
        let weights = self.weights(seed);
        let factor = self.factor(seed);
        let group = &weights[FIRST * n..(FIRST + self.rows) * n];
        let mut uploaded = weights.clone();
        if fault == Fault::OneWrong && self.step != GroupStep::Pack {
            let largest = |&a: &usize, &b: &usize| group[a].abs().total_cmp(&group[b].abs());
            let at = (0..group.len()).max_by(largest).expect("a group has weights");
            uploaded[FIRST * n + at] *= 1.5;
        }
        let mut work = self.work(device, &uploaded, &factor)?;
        run_list(device, "gptq_group", |list| {
            let rows = self.rows_of(&work.weights);
            column_max(list, &work.search, &rows)?;
            scale_error(list, &mut work.search, &rows)?;
            scale_pick(list, &mut work.search, 1)?;
            let out = Rounded {
                codes: &work.codes,
                errors: &work.errors,
                decoded: &work.decoded,
                sums: &work.sums,
                sum: 1,
            };
            gptq_group(list, &work.search, &rows, (&work.factor, 0), &out)
        })?;
        match self.step {
            GroupStep::GptqGroup => self.compare_rounding(device, &work, &weights, &factor),
            GroupStep::Pack => self.compare_packing(device, &work, fault),
            _ => self.compare_scales(device, &work.search, group),
        }
    }
}
