//! Every kernel at the shapes of models: verified, then timed.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Entry, check};
use super::report::{KernelReport, Record};
use super::timing::bandwidth;
use super::{Layer, decode, forward, fused, products, quantizer};
use crate::gpu::{Arithmetic, Device};
use crate::selftest::{self, Case, Shapes};
use crate::{Error, Result};

/// What to time.
#[derive(Clone, Debug)]
pub struct KernelPlan {
    /// Layers of models.
    pub layers: Vec<Layer>,
    /// Only operations whose kernels and shape, as the table has them, contain one of these; all if there are none.
    pub filters: Vec<String>,
    /// Few rows in this arithmetic only; in each that the device has if there is none.
    pub arithmetic: Option<Arithmetic>,
    /// Samples of each.
    pub samples: usize,
    /// Driver, for the report.
    pub driver: String,
}

/// All operations of the layers, those that several have once; with the models that have them.
fn entries(device: &Device, plan: &KernelPlan) -> Vec<(Vec<&'static str>, u64, Entry)> {
    let mut all: Vec<(Vec<&'static str>, u64, Entry)> = Vec::new();
    let has = |form: &Arithmetic| {
        device.capabilities().allow(*form) && plan.arithmetic.is_none_or(|wanted| wanted == *form)
    };
    let forms: Vec<_> = Arithmetic::ALL.into_iter().filter(has).collect();
    for &layer in &plan.layers {
        let mut of_layer = products::entries(device, layer);
        of_layer.extend(fused::entries(&forms, layer));
        of_layer.extend(forward::entries(device, layer));
        of_layer.extend(decode::entries(device, layer));
        of_layer.extend(fused::widths(&forms, layer));
        of_layer.extend(quantizer::entries(device, layer));
        for entry in of_layer {
            let known = |(_, _, other): &&mut (_, _, Entry)| {
                (other.name(), &other.shape) == (entry.name(), &entry.shape)
            };
            match all.iter_mut().find(known) {
                Some((models, ..)) if models.contains(&layer.name()) => {}
                Some((models, ..)) => models.push(layer.name()),
                None => all.push((vec![layer.name()], layer.rotated, entry)),
            }
        }
    }
    all
}

/// Verifies and times what `plan` names; `progress` is told what comes next. A kernel that is wrong is not timed, and its
/// record says why.
///
/// # Errors
/// [`Error::Argument`] when the filter leaves nothing; [`Error::Device`] when the device fails.
pub fn time_kernels(
    device: &Device,
    plan: &KernelPlan,
    progress: &mut dyn FnMut(&str),
) -> Result<KernelReport> {
    let mut entries = entries(device, plan);
    if !plan.filters.is_empty() {
        let all: BTreeSet<_> = entries.iter().flat_map(|(_, _, entry)| entry.kernels.clone()).collect();
        entries.retain(|(_, _, entry)| {
            let words = format!("{} {}", entry.name(), entry.shape);
            plan.filters.iter().any(|filter| words.contains(filter.as_str()))
        });
        if entries.is_empty() {
            let (names, filters) = (all.into_iter().collect::<Vec<_>>(), plan.filters.join("` or `"));
            let message = format!(
                "no kernel in use on this adapter or shape has `{filters}` in its name; try {}",
                names.join(", ")
            );
            return Err(Error::argument("--filter", message));
        }
    }
    let clock = device.clock()?;
    progress("memory bandwidth");
    let bandwidth = bandwidth(device, plan.samples)?;
    let read = bandwidth.read_gb_per_s.median;
    let cases = selftest::cases(Shapes::Small);
    let mut verified: BTreeMap<&str, std::result::Result<(), String>> = BTreeMap::new();
    let mut records = Vec::with_capacity(entries.len());
    for (models, rotated, entry) in &entries {
        progress(&format!("{} {}", entry.name(), entry.shape));
        for &kernel in &entry.kernels {
            verified.entry(kernel).or_insert_with(|| verify(device, kernel, &cases));
        }
        let passed = entry.kernels.iter().try_for_each(|kernel| verified[kernel].clone());
        let passed = passed.and_then(|()| entry.verify(device));
        let timing = passed.and_then(|()| {
            entry.time(device, clock, *rotated, plan.samples).map_err(|error| error.to_string())
        });
        records.push(Record::new(models, entry, timing, read));
    }
    Ok(KernelReport::new(device, &plan.driver, clock, bandwidth, records))
}

/// Runs the small cases of a kernel.
///
/// # Errors
/// Why it may not be timed.
fn verify(device: &Device, kernel: &str, cases: &[Box<dyn Case>]) -> std::result::Result<(), String> {
    let own: Vec<_> = cases.iter().enumerate().filter(|(_, case)| case.kernel(device) == kernel).collect();
    if own.is_empty() {
        return Err(format!("{kernel} has no case in the selftest"));
    }
    own.into_iter().try_for_each(|(seed, case)| check(device, &**case, seed as u64))
}
