//! Cases of `score`.

use super::case::boxed;
use super::compare::{ROUNDOFF, ULP};
use super::{Case, Comparison, Fault, Random, Shapes, run_list};
use crate::gpu::Device;
use crate::ops::Tensor;
use crate::ops::score::{NO_TARGET, RowScores, score};
use crate::reference::score as oracle;
use crate::{Error, Result};

/// Two sets of logits [rows, cols] which differ by about `apart`; the last row has no target.
pub struct Score {
    /// Rows.
    pub rows: usize,
    /// Values in a row.
    pub cols: usize,
    /// Size of the differences.
    pub apart: f32,
}

pub(super) fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let of = |rows, cols, apart| Score { rows, cols, apart };
    boxed(match shapes {
        Shapes::Small => {
            vec![of(3, 577, 0.01), of(3, 130, 3.0), of(5, 301, 0.3), of(3, 1030, 30.0), of(1, 1, 1.0)]
        }
        Shapes::Real => vec![of(513, 49152, 0.01), of(64, 128256, 1.0)],
    })
}

/// The device's errors at most, of a row.
struct Bounds {
    likelihood: f64,
    divergence: f64,
}

impl Score {
    fn bounds(&self, model: &[f32], reference: &[f32], expected: oracle::Score) -> Bounds {
        let top = |row: &[f32]| row.iter().fold(f32::MIN, |top, &value| top.max(value));
        let (model_top, reference_top) = (top(model), top(reference));
        // A sum goes through a rounding for each of a lane's values and eight levels.
        let sums = (self.cols.div_ceil(256) + 8) as f64 * ROUNDOFF;
        // WGSL's logarithm errs by 2^-21 near 1 and by 3 units in the last place elsewhere.
        let log = |value: f64| 2.0_f64.powi(-21) + 3.0 * ULP * value.abs();

        // The exponential of x errs by 3 + 2·|x| units in the last place, and x by half of one: the sum by their mean.
        let (mut mass, mut distance) = (0.0, 0.0);
        for &value in model {
            let x = f64::from(model_top) - f64::from(value);
            mass += (-x).exp();
            distance += (-x).exp() * x;
        }
        let log_sum = sums + (3.0 + 2.5 * distance / mass) * ULP + log(mass.ln());
        let below_top = (expected.negative_log_likelihood - mass.ln()).abs();
        let likelihood = log_sum + (below_top + expected.negative_log_likelihood) * ROUNDOFF;

        // Every term of the divergence is positive: exponentials twice in a quotient, of the farthest value that counts for
        // anything, the series and the logarithm by a few units.
        let range = |row: &[f32], top: f32| {
            row.iter().fold(0.0_f64, |most, &value| most.max(f64::from(top - value))).min(88.0)
        };
        let range = range(reference, reference_top).max(range(model, model_top));
        let steps = 2.0 * sums + (2.0 * (3.0 + 2.5 * range) + 16.0) * ULP;
        let largest =
            reference.iter().zip(model).fold(0.0_f64, |most, (r, m)| most.max(f64::from((r - m).abs())));
        // The mean difference errs by so much of the largest, which moves a term by its square and by what it is; where the
        // divergence is large, it moves it by that itself.
        let mean = steps * largest;
        let small = steps * expected.divergence + mean * mean + 4.0 * ROUNDOFF * ROUNDOFF;
        let large = mean + 2.0 * (log_sum + log((self.cols as f64).ln())) + steps * expected.divergence;
        // Near 4 the kernel may go either way.
        let divergence = if expected.divergence > 3.9 { small.max(large) } else { small };
        Bounds { likelihood, divergence }
    }
}

impl Case for Score {
    fn kernel(&self, _: &Device) -> &'static str {
        "score"
    }

    fn shape(&self) -> String {
        format!("{} x {}, {} apart", self.rows, self.cols, self.apart)
    }

    fn bytes(&self) -> u64 {
        8 * ((self.rows + 1) * self.cols) as u64
    }

    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison> {
        let &Self { rows, cols, apart } = self;
        // Bell-shaped, without the far ones.
        let near = |value: f32| if value.abs() > 3.5 { value / 16.0 } else { value };
        let values = |name: &str| Random::new(seed, name).values(rows * cols).into_iter().map(near);
        let mut reference: Vec<f32> = values("reference").map(|value| 4.0 * value).collect();
        let mut model: Vec<f32> =
            reference.iter().zip(values("model")).map(|(logit, other)| logit + apart * other).collect();
        // The first row's highest logit twice: the lower token decides.
        let (low, high) = (cols / 3, cols - 1);
        (reference[high], reference[low]) = (149.0, 150.5);
        (model[high], model[low]) = (150.0, 150.0);
        let mut targets: Vec<u32> =
            (0..rows as u64).map(|row| Random::new(seed, "targets").below(row, cols) as u32).collect();
        targets[rows - 1] = NO_TARGET;
        let mut uploaded = model.clone();
        if fault == Fault::OneWrong {
            uploaded[(rows - 1) * cols] += 100.0;
            // A row of one value has one distribution, whatever the value.
            if cols == 1 {
                uploaded[0] = f32::NAN;
            }
        }
        let (model_tensor, reference_tensor) = (
            Tensor::upload(device, "model", &uploaded, cols)?,
            Tensor::upload(device, "reference", &reference, cols)?,
        );
        // A row before and one after stay as they are.
        let to = RowScores::new(device, rows + 2)?;
        to.set_targets(&[&[NO_TARGET], &targets[..]].concat())?;
        run_list(device, "score", |list| {
            score(list, &model_tensor, Some(&reference_tensor), rows, (&to, 1))
        })?;

        let got = to.read(rows + 2)?;
        let mut comparison = Comparison::new();
        let same = |comparison: &mut Comparison, same: bool| {
            comparison.value(if same { 0.0 } else { f32::NAN }, 0.0, 0.0);
        };
        for outside in [got[0], got[rows + 1]] {
            same(&mut comparison, outside == bytemuck::Zeroable::zeroed());
        }
        for (row, got) in got[1..=rows].iter().enumerate() {
            let (model, reference) = (&model[row * cols..][..cols], &reference[row * cols..][..cols]);
            let target = (targets[row] != NO_TARGET).then_some(targets[row] as usize);
            let expected = oracle::score(model, Some(reference), target)
                .map_err(|error| Error::shape("score", format!("inputs of the case: {error}")))?;
            let bounds = self.bounds(model, reference, expected);
            same(&mut comparison, got.not_finite().is_none());
            same(&mut comparison, got.agrees == u32::from(expected.agrees));
            comparison.value(
                got.negative_log_likelihood,
                expected.negative_log_likelihood,
                bounds.likelihood,
            );
            comparison.value(got.divergence, expected.divergence, bounds.divergence);
        }
        Ok(comparison)
    }
}
