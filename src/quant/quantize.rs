//! Stage 4: each block stored with its chosen recipes, on rows that come from the blocks already stored and, where the
//! method says so, fitted to what the unquantized model makes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::accumulate::GroupSums;
use super::correction::Correction;
use super::gptq::quantize;
use super::hessian::PreparedHessian;
use super::measure::prepare;
use super::measurement::BlockMeasurement;
use super::method::Method;
use super::options::head_recipe;
use super::recipe::Recipe;
use super::report::Reporter;
use super::source::Source;
use super::stream::Stream;
use super::transform::Site;
use super::weights::FloatWeights;
use crate::Result;
use crate::model::{Block, BlockSpec, GroupSpec, Linear, head_spec};
use crate::packing::PackedMatrix;

/// Packed linears by name.
pub type PackedBlock = BTreeMap<String, PackedMatrix>;

/// Rows on which a block is compared with the unquantized one: they come back to the host, and the number is only told.
const ERROR_ROWS: usize = 2;

/// Quantizes a block group by group, the rows running through the block anew before each group, so that a group's Hessian
/// is of inputs as the quantized groups before it make them. Returns the packed linears; the block holds them too, and the
/// rows are those after it.
///
/// # Errors
/// As the device reports; [`crate::Error::Numerical`] when something is not finite or no damping helps.
pub fn quantize_block(
    source: &Source<'_>,
    block: &mut Block,
    stream: &mut Stream,
    chosen: &[&Recipe],
    method: Method,
    reporter: &mut dyn Reporter,
) -> Result<PackedBlock> {
    let spec = block.spec().clone();
    let mut packed = PackedBlock::new();
    let mut recipes = chosen.iter();
    let mut original = block.clone();
    let rows = stream.rows().rows();
    let unquantized = stream.made_by(source, &original, ERROR_ROWS)?;
    for (index, group) in spec.groups.iter().enumerate() {
        let sums = stream.accumulate(source, (block, &original), index..index + 1, method)?;
        if index + 1 == spec.groups.len() {
            // Nothing runs through the unquantized block any more.
            original = block.clone();
        }
        for GroupSums { hessian, lack } in sums {
            let mut hessian = prepare(&group.linears[0].name, hessian, rows, method, reporter)?;
            let correction = lack.as_ref().map(|lack| Correction { lack, rows });
            let weighed = weighed(source, &spec, group, &mut hessian)?;
            let mut known = Vec::new();
            let linears = group.linears.iter().zip(weighed).zip(recipes.by_ref());
            for (position, ((linear, weights), recipe)) in linears.enumerate() {
                let site = Site { block: &spec, input: group.input, linear };
                let prepared = weights.prepare(&hessian, correction)?;
                let bias = source.bias(site)?;
                let result =
                    quantize(&prepared, &hessian, &recipe.layout(linear.k)?, bias.as_deref(), method.scales)?;
                let bpw = recipe.bits_per_weight(linear.k, linear.n)?;
                let error = result.rfn_error;
                reporter.note(&format!("-- {}: {recipe}, {bpw:.2} bpw  rfn_error: {error:.5}", linear.name));
                let loaded = Linear::packed(source.device(), linear, &result.matrix, &known)?;
                known.extend(loaded.permutation().cloned());
                block.replace(index, position, Arc::new(loaded));
                packed.insert(linear.name.clone(), result.matrix);
            }
        }
    }
    // The last group's sums took the reference through the block.
    stream.advance_rows(source, block)?;
    reporter.note(&format!(
        "-- {}: module rfn_error: {:.6} on {} rows",
        spec.name,
        stream.error_to(&unquantized)?,
        unquantized.len()
    ));
    Ok(packed)
}

/// The weights of a group's linears on the device; what only they needed of the Hessian is forgotten.
///
/// # Errors
/// As the files and the device report.
pub(super) fn weighed(
    source: &Source<'_>,
    block: &BlockSpec,
    group: &GroupSpec,
    hessian: &mut PreparedHessian,
) -> Result<Vec<FloatWeights>> {
    let of = |linear| source.weights(Site { block, input: group.input, linear })?.weighed(hessian);
    let weighed = group.linears.iter().map(of).collect::<Result<_>>()?;
    hessian.forget();
    Ok(weighed)
}

/// Puts packed linears into a block loaded from the source.
///
/// # Errors
/// As [`Linear::packed`]; [`crate::Error::Shape`] when a linear is not among them.
pub fn install(source: &Source<'_>, block: &mut Block, packed: &PackedBlock) -> Result<()> {
    let spec = block.spec().clone();
    for (index, group) in spec.groups.iter().enumerate() {
        let mut known = Vec::new();
        for (position, linear) in group.linears.iter().enumerate() {
            let matrix = packed.get(&linear.name).ok_or_else(|| {
                crate::Error::shape(&linear.name, "is not in the stored block; delete the job (--no-resume)")
            })?;
            let loaded = Linear::packed(source.device(), linear, matrix, &known)?;
            known.extend(loaded.permutation().cloned());
            block.replace(index, position, Arc::new(loaded));
        }
    }
    Ok(())
}

/// The recipes that an allocation chose for a block: the numbers of its linears' options.
pub fn chosen_recipes<'a>(block: &'a BlockMeasurement, choice: &[usize]) -> Vec<&'a Recipe> {
    choice.iter().zip(&block.linears).map(|(&option, linear)| &linear.options[option].recipe).collect()
}

/// Quantizes the head on the rows after the last block.
///
/// # Errors
/// As [`quantize_block`].
pub fn quantize_head(
    source: &Source<'_>,
    stream: &Stream,
    bits: u32,
    method: Method,
    reporter: &mut dyn Reporter,
) -> Result<PackedBlock> {
    let spec = head_spec(source.config());
    let recipe = head_recipe(bits)?;
    let GroupSums { hessian, lack } = stream.accumulate_head(source, &spec, method)?;
    let rows = stream.rows().rows();
    let mut hessian = prepare(&spec.name, hessian, rows, method, reporter)?;
    let correction = lack.as_ref().map(|lack| Correction { lack, rows });
    let weights = source.head_weights()?.weighed(&hessian)?;
    hessian.forget();
    let prepared = weights.prepare(&hessian, correction)?;
    let result = quantize(&prepared, &hessian, &recipe.layout(spec.k)?, None, method.scales)?;
    let bpw = recipe.bits_per_weight(spec.k, spec.n)?;
    reporter.note(&format!("-- {}: {recipe}, {bpw:.2} bpw  rfn_error: {:.5}", spec.name, result.rfn_error));
    Ok(PackedBlock::from([(spec.name, result.matrix)]))
}
