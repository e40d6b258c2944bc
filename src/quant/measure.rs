//! Stage 2: the error of each option of each block.

use std::sync::Arc;

use super::gptq::quantize;
use super::hessian::{DAMPING, PreparedHessian};
use super::measurement::{BlockMeasurement, CombinationMeasurement, LinearMeasurement, OptionMeasurement};
use super::options::BlockOptions;
use super::recipe::BlockKind;
use super::report::Reporter;
use super::scales::Rounding;
use super::source::Source;
use super::stream::Stream;
use super::transform::Site;
use crate::Result;
use crate::model::{Block, Linear};
use crate::packing::Layout;

/// One linear stored in each of its ways.
struct Candidates {
    measurement: LinearMeasurement,
    linears: Vec<Arc<Linear>>,
}

/// Measures a block on the rows before it; returns the result and the rows after the unquantized block.
///
/// # Errors
/// As the device reports; [`crate::Error::Numerical`] when something is not finite or no damping helps.
pub fn measure_block(
    source: &Source<'_>,
    block: &mut Block,
    stream: &Stream,
    reporter: &mut dyn Reporter,
) -> Result<(BlockMeasurement, Stream)> {
    let spec = block.spec().clone();
    let kind = BlockKind::from(spec.kind);
    let options = BlockOptions::of(kind);
    let mut sums = Vec::new();
    let reference = stream.collect(|sink| {
        sums = stream.accumulate(source, (block, block), 0..spec.groups.len(), sink)?;
        Ok(())
    })?;
    let mut candidates = Vec::new();
    for (group, sums) in spec.groups.iter().zip(sums) {
        let hessian = prepare(sums.hessian, stream.rows().len(), reporter)?;
        for linear in &group.linears {
            let recipes = &options.linears[candidates.len()];
            let site = Site { block: &spec, input: group.input, linear };
            candidates.push(candidates_of(source, site, recipes, &hessian, reporter)?);
        }
    }
    let shapes: Vec<_> = spec.linears().map(|linear| (linear.k, linear.n)).collect();
    // Few rows make several recipes one layout; each is quantized and tried once.
    let mut tried = Vec::new();
    let mut combinations: Vec<CombinationMeasurement> = Vec::new();
    for (index, choice) in options.combinations.iter().enumerate() {
        let stored = candidates.iter().zip(choice).map(|(candidate, &option)| &candidate.linears[option]);
        let stored: Vec<Arc<Linear>> = stored.cloned().collect();
        let same = tried.iter().position(|known: &Vec<Arc<Linear>>| {
            known.iter().zip(&stored).all(|(known, stored)| Arc::ptr_eq(known, stored))
        });
        tried.push(stored.clone());
        let mut next = stored.into_iter();
        for (group, linears) in spec.groups.iter().enumerate() {
            for (position, linear) in next.by_ref().take(linears.linears.len()).enumerate() {
                block.replace(group, position, linear);
            }
        }
        let rfn_error = match same {
            Some(same) => combinations[same].rfn_error,
            None => stream.error_through(source, block, &reference)?,
        };
        let bits = options.total_bits(index, &shapes)?;
        let weights: usize = shapes.iter().map(|(k, n)| k * n).sum();
        reporter.note(&format!(
            "-- {}: {:.4} bpw  rfn_error: {rfn_error:.6}",
            spec.name,
            bits as f64 / weights as f64
        ));
        combinations.push(CombinationMeasurement { options: choice.clone(), bits, rfn_error });
    }
    let linears = candidates.into_iter().map(|candidate| candidate.measurement).collect();
    Ok((BlockMeasurement { name: spec.name, kind, linears, combinations }, reference))
}

/// Factors a Hessian and says so when it took more damping than usual.
///
/// # Errors
/// As [`super::hessian::HessianAccumulator::finish`].
pub(super) fn prepare(
    hessian: super::hessian::HessianAccumulator,
    rows: usize,
    reporter: &mut dyn Reporter,
) -> Result<PreparedHessian> {
    let hessian = hessian.finish(rows, DAMPING)?;
    let damping = hessian.damping();
    if damping.attempts > 1 {
        let name = hessian.name();
        reporter.note(&format!(
            "-- {name}: the Hessian is ill-conditioned; damped {} times, by {:.3e} in all",
            damping.attempts, damping.amount
        ));
    }
    Ok(hessian)
}

fn candidates_of(
    source: &Source<'_>,
    site: Site<'_>,
    recipes: &[super::recipe::Recipe],
    hessian: &PreparedHessian,
    reporter: &mut dyn Reporter,
) -> Result<Candidates> {
    let spec = site.linear;
    reporter.note(&format!("-- Linear: {}", spec.name));
    let prepared = source.weights(site)?.prepare(hessian)?;
    let bias = source.bias(site)?;
    let mut options: Vec<OptionMeasurement> = Vec::new();
    let mut linears: Vec<Arc<Linear>> = Vec::new();
    let mut layouts: Vec<Layout> = Vec::new();
    for recipe in recipes {
        let layout = recipe.layout(spec.k)?;
        let bits = recipe.total_bits(spec.k, spec.n)?;
        let (rfn_error, stored) = match layouts.iter().position(|known| *known == layout) {
            Some(same) => (options[same].rfn_error, Arc::clone(&linears[same])),
            None => {
                let result = quantize(&prepared, hessian, &layout, bias.as_deref(), &Rounding::default())?;
                let known: Vec<_> =
                    linears.first().and_then(|linear| linear.permutation().cloned()).into_iter().collect();
                let stored = Arc::new(Linear::packed(source.device(), spec, &result.matrix, &known)?);
                (result.rfn_error, stored)
            }
        };
        let bpw = recipe.bits_per_weight(spec.k, spec.n)?;
        reporter.note(&format!("-- {recipe:<44} {bpw:>6.2} bpw  rfn_error: {rfn_error:.5}"));
        options.push(OptionMeasurement { recipe: recipe.clone(), bits, rfn_error });
        linears.push(stored);
        layouts.push(layout);
    }
    let measurement = LinearMeasurement { name: spec.name.clone(), shape: (spec.k, spec.n), options };
    Ok(Candidates { measurement, linears })
}
