//! What rounding a linear in some way costs, without packing anything; several may be on their way while the host records the
//! next.

use super::gptq::{Rounding, relative_error};
use super::hessian::PreparedHessian;
use super::scales::ScaleRule;
use super::stages;
use super::weights::PreparedWeights;
use crate::Result;
use crate::gpu::{CommandList, Readback};
use crate::ops::weight_error::weight_error;
use crate::packing::{BLOCK_ROWS, Layout};

/// A rounding that runs.
pub struct Trial<'a> {
    weights: &'a PreparedWeights,
    hessian: &'a PreparedHessian,
    /// Kept until it has run: the buffers are the device's until then, but count as free when they are dropped.
    _rounding: Rounding<'a>,
    results: Readback,
    /// How many of the results are sums of errors; the others are pairs of a sum of squares and a largest difference.
    sums: usize,
}

impl<'a> Trial<'a> {
    /// Starts the rounding that [`super::gptq::quantize`] would do; does not wait.
    ///
    /// # Errors
    /// As [`super::gptq::quantize`].
    pub fn start(
        weights: &'a PreparedWeights,
        hessian: &'a PreparedHessian,
        layout: &Layout,
        rule: ScaleRule,
    ) -> Result<Self> {
        let _stage = hessian.factor().device().stage(stages::ROUNDING)?;
        let mut rounding = Rounding::record(weights, hessian, layout, rule, false)?;
        let Rounding { list, slabs, sums: (sums, count), .. } = &mut rounding;
        let device = list.device().clone();
        let tiles = |columns: usize| weights.k / BLOCK_ROWS * (columns / BLOCK_ROWS);
        let parts: usize = slabs.iter().map(|slab| tiles(slab.original.cols())).sum();
        let bytes = 4 * (*count + 2 * parts) as u64;
        let together = device.alloc("errors of a trial", bytes)?;
        let mismatches = device.alloc("mismatches", 4)?;
        list.copy(sums, 0, &together, 0, 4 * *count as u64)?;
        let mut at = 4 * *count as u64;
        for slab in slabs {
            let bytes = 8 * tiles(slab.original.cols()) as u64;
            let parts = device.alloc("weight errors", bytes)?;
            weight_error(list, slab.original, &slab.decoded, &slab.decoded, &parts, &mismatches)?;
            list.copy(&parts, 0, &together, at, bytes)?;
            at += bytes;
        }
        let mut results = Readback::new(&device, "errors of a trial", bytes, 1)?;
        // A list of its own, as only lists that are run are metered.
        list.run()?;
        CommandList::new(&device, "errors of a trial").run_and_read(&mut results, &together, 0, bytes)?;
        let sums = *count;
        Ok(Self { weights, hessian, _rounding: rounding, results, sums })
    }

    /// The error that [`super::gptq::quantize`] would report; waits for this trial and none that began later.
    ///
    /// # Errors
    /// As [`super::gptq::quantize`].
    pub fn error(mut self) -> Result<f64> {
        let results: Vec<f32> = self.results.wait()?;
        let (sums, parts) = results.split_at(self.sums);
        let weight_squared = parts.chunks_exact(2).map(|part| f64::from(part[0])).sum();
        relative_error(sums, self.weights, self.hessian, weight_squared)
    }
}
