//! Stage 2: what each way to store each linear costs the model.
//!
//! A linear is stored in each of its ways on the inputs that the unquantized model makes, which tells its own error. With a
//! few of them the model is run to its end ([`super::probe`]), which tells what they do to its output; for the others
//! that follows from their error.

use std::collections::VecDeque;
use std::sync::Arc;

use super::gptq::quantize;
use super::hessian::PreparedHessian;
use super::measurement::{BlockMeasurement, LinearMeasurement, OptionMeasurement};
use super::method::Method;
use super::options::{linear_recipes, probed};
use super::probe::Probe;
use super::quantize::weighed;
use super::report::Reporter;
use super::scales::ScaleRule;
use super::source::Source;
use super::stages;
use super::stream::Stream;
use super::sums::ProductSum;
use super::transform::Site;
use super::trial::Trial;
use super::weights::FloatWeights;
use crate::Result;
use crate::model::{Block, Linear};
use crate::packing::Layout;

/// What a block is measured with.
pub struct Measuring<'a> {
    /// The model.
    pub source: &'a Source<'a>,
    /// The whole of it, to be probed; without, only the linears' own errors are measured.
    pub probe: Option<&'a Probe<'a>>,
    /// How linears are rounded.
    pub method: Method,
}

/// Measures block `index` on the rows before it, which the unquantized model made.
///
/// # Errors
/// As the device reports; [`crate::Error::Numerical`] when something is not finite or no damping helps.
pub fn measure_block(
    measuring: &Measuring<'_>,
    (index, block): (usize, &Block),
    stream: &mut Stream,
    reporter: &mut dyn Reporter,
) -> Result<BlockMeasurement> {
    let Measuring { source, probe, method } = *measuring;
    let spec = block.spec().clone();
    let sums = stream.accumulate(source, (block, block), 0..spec.groups.len(), method)?;
    let mut linears = Vec::new();
    for (group, (specs, sums)) in spec.groups.iter().zip(sums).enumerate() {
        let rows = stream.rows().rows();
        let mut hessian = prepare(&specs.linears[0].name, sums.hessian, rows, method, reporter)?;
        let weighed = weighed(source, &spec, specs, &mut hessian)?;
        for (position, (linear, weights)) in specs.linears.iter().zip(weighed).enumerate() {
            let site = Site { block: &spec, input: specs.input, linear };
            let tried = try_all(source, (site, weights), &hessian, probe.is_some(), reporter)?;
            let mut damages = Vec::new();
            for (option, stored) in tried.probed {
                let Some(probe) = probe else { break };
                let mut changed = block.clone();
                changed.replace(group, position, stored);
                let recipe = &tried.options[option].recipe;
                let damage =
                    probe.divergence(stream, index, &changed, &format!("{} as {recipe}", linear.name))?;
                damages.push((tried.options[option].rfn_error, damage));
            }
            let options = with_damage(tried.options, &damages);
            for OptionMeasurement { recipe, rfn_error, damage, .. } in &options {
                let bpw = recipe.bits_per_weight(linear.k, linear.n)?;
                reporter.note(&format!(
                    "-- {recipe:<44} {bpw:>6.2} bpw  rfn_error: {rfn_error:.5}  damage: {damage:.3e}"
                ));
            }
            linears.push(LinearMeasurement {
                name: linear.name.clone(),
                shape: (linear.k, linear.n),
                options,
            });
        }
    }
    Ok(BlockMeasurement { name: spec.name, linears })
}

/// Factors a Hessian and says so when it took more damping than usual or the device's factor was not good enough.
///
/// # Errors
/// As [`PreparedHessian::of_sum`].
pub(super) fn prepare(
    name: &str,
    sum: ProductSum,
    rows: usize,
    method: Method,
    reporter: &mut dyn Reporter,
) -> Result<PreparedHessian> {
    let hessian = {
        let _stage = sum.matrix().device().clone().stage(stages::FACTORING)?;
        PreparedHessian::of_sum(name, sum, rows, method.damping)?
    };
    let damping = hessian.damping();
    if damping.attempts > 1 {
        reporter.note(&format!(
            "-- {name}: the Hessian is ill-conditioned; damped {} times, by {:.3e} in all",
            damping.attempts, damping.amount
        ));
    }
    if let Some(doubt) = hessian.doubt() {
        reporter
            .note(&format!("-- {name}: the Hessian is factored on the host in double precision: {doubt}"));
    }
    Ok(hessian)
}

/// A linear stored in all ways; the damage is not known yet.
struct Tried {
    options: Vec<OptionMeasurement>,
    /// Those to probe with, and the linear that they make.
    probed: Vec<(usize, Arc<Linear>)>,
}

/// Trials that run while the host records the next ...
const AT_ONCE: usize = 2;

/// ... of linears of at most so many weights: larger ones keep the device busy, and each trial holds as much as the weights.
const SMALL: usize = 1 << 22;

impl Tried {
    /// Takes the results of the oldest trials until so many are left.
    fn finish(&mut self, running: &mut VecDeque<(usize, Trial<'_>)>, left: usize) -> Result<()> {
        while running.len() > left {
            let Some((index, trial)) = running.pop_front() else { break };
            self.options[index].rfn_error = trial.error()?;
        }
        Ok(())
    }
}

fn try_all(
    source: &Source<'_>,
    (site, weights): (Site<'_>, FloatWeights),
    hessian: &PreparedHessian,
    probing: bool,
    reporter: &mut dyn Reporter,
) -> Result<Tried> {
    let spec = site.linear;
    reporter.note(&format!("-- Linear: {}", spec.name));
    let prepared = weights.prepare(hessian, None)?;
    let bias = source.bias(site)?;
    let recipes = linear_recipes();
    let to_probe: Vec<Layout> = probed()
        .into_iter()
        .filter(|_| probing)
        .map(|index| recipes[index].layout(spec.k))
        .collect::<Result<_>>()?;
    let mut tried = Tried { options: Vec::new(), probed: Vec::new() };
    let mut layouts: Vec<Layout> = Vec::new();
    let mut running: VecDeque<(usize, Trial<'_>)> = VecDeque::new();
    for recipe in recipes {
        // Few rows make several recipes one layout, which is stored once, and probed if one of them is.
        let layout = recipe.layout(spec.k)?;
        if layouts.contains(&layout) {
            continue;
        }
        let bits = recipe.total_bits(spec.k, spec.n)?;
        // Searched scales lower the squared errors of all widths (by 7 to 18 %, tests/kernels/quant_gptq.rs) and take longer: what is
        // compared here is one width with another.
        let rule = ScaleRule::Exl2;
        let index = tried.options.len();
        let rfn_error = if to_probe.contains(&layout) {
            let result = quantize(&prepared, hessian, &layout, bias.as_deref(), rule)?;
            let stored = Linear::packed(source.device(), spec, &result.matrix, &[])?;
            tried.probed.push((index, Arc::new(stored)));
            result.rfn_error
        } else {
            running.push_back((index, Trial::start(&prepared, hessian, &layout, rule)?));
            0.0
        };
        tried.options.push(OptionMeasurement { recipe, bits, rfn_error, damage: 0.0 });
        layouts.push(layout);
        tried.finish(&mut running, if spec.k * spec.n <= SMALL { AT_ONCE } else { 0 })?;
    }
    tried.finish(&mut running, 0)?;
    for option in &mut tried.options {
        option.damage = option.rfn_error * option.rfn_error;
    }
    Ok(tried)
}

/// Options with the damage that follows from (own error, damage) of those that were probed: between two of them on the line
/// through both in logarithms, beyond them in proportion to the squared error, as a small error's divergence grows.
fn with_damage(mut options: Vec<OptionMeasurement>, probed: &[(f64, f64)]) -> Vec<OptionMeasurement> {
    let log = |(error, damage): (f64, f64)| (2.0 * error.max(LEAST).ln(), damage.max(LEAST).ln());
    let mut points: Vec<(f64, f64)> = probed.iter().map(|&point| log(point)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (Some(&first), Some(&last)) = (points.first(), points.last()) else { return options };
    for option in &mut options {
        let (x, _) = log((option.rfn_error, 0.0));
        let between =
            points.windows(2).find(|pair| pair[0].0 < pair[1].0 && (pair[0].0..=pair[1].0).contains(&x));
        let y = match between {
            Some(pair) => pair[0].1 + (x - pair[0].0) / (pair[1].0 - pair[0].0) * (pair[1].1 - pair[0].1),
            None if x < first.0 => first.1 + x - first.0,
            None => last.1 + x - last.0,
        };
        option.damage = y.exp();
    }
    options
}

/// Stands for an error of 0, of which there is no logarithm.
const LEAST: f64 = 1e-12;

#[cfg(test)]
mod tests {
    use super::*;

    fn options(errors: &[f64]) -> Vec<OptionMeasurement> {
        let option = |&rfn_error: &f64| OptionMeasurement {
            recipe: "1:4b 128g s4".parse().unwrap(),
            bits: 1,
            rfn_error,
            damage: rfn_error * rfn_error,
        };
        errors.iter().map(option).collect()
    }

    #[test]
    fn damage_between_and_beyond_the_probes() {
        let found = with_damage(options(&[0.4, 0.2, 0.1, 0.05]), &[(0.2, 0.8), (0.1, 0.1)]);
        let expected = [3.2, 0.8, 0.1, 0.025];
        for (option, expected) in found.iter().zip(expected) {
            assert!((option.damage / expected - 1.0).abs() < 1e-9, "{} for {expected}", option.damage);
        }
        let between = with_damage(options(&[0.02_f64.sqrt()]), &[(0.2, 0.8), (0.1, 0.1)])[0].damage;
        assert!((between / 0.08_f64.sqrt() - 1.0).abs() < 1e-9, "{between}");
        assert!((with_damage(options(&[0.3]), &[])[0].damage - 0.09).abs() < 1e-12);
    }
}
