//! What is timed: an operation at a shape, put several times into one list with inputs of its own each time.

use std::collections::BTreeSet;

use super::timing::{self, Timing};
use crate::gpu::{Clock, CommandList, Device};
use crate::model::Shape;
use crate::selftest::{self, Case, Fault, Verdict};
use crate::{Error, Result};

/// The most copies of an operation in a list.
const MOST_SETS: u64 = 128;

/// Multiplications and additions a byte with which an operation waits for no memory; products of prompts have half of it.
const ARITHMETIC: u64 = 1 << 10;

/// Sizes of a decoder layer, and how much memory its timing goes through.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// Of the model.
    pub(super) name: &'static str,
    /// Values of a token's state.
    pub(super) hidden: usize,
    /// Values inside the MLP.
    pub(super) intermediate: usize,
    /// Heads of queries.
    pub(super) heads: usize,
    /// Heads of keys and values.
    pub(super) kv_heads: usize,
    /// Values of a head.
    pub(super) dim: usize,
    /// Rows of the embedding table.
    pub(super) vocabulary: usize,
    /// Rows of a prompt.
    pub(super) prompt: usize,
    /// Positions that the last row sees, whole pages of the cache.
    pub(super) context: usize,
    /// Bytes that the inputs and outputs in a list should exceed, so that they do not come from a cache.
    pub(super) rotated: u64,
}

impl Layer {
    /// A layer of a model; no card's last-level cache holds 512 MiB.
    pub fn of(shape: Shape) -> Self {
        let config = shape.config();
        Self {
            name: shape.name(),
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            dim: config.head_dim,
            vocabulary: config.vocab_size,
            prompt: 512,
            context: 2048,
            rotated: 512 << 20,
        }
    }

    /// For processors, which arithmetic keeps busy rather than memory.
    pub fn reduced() -> Self {
        Self {
            name: "reduced",
            hidden: 1024,
            intermediate: 2816,
            heads: 16,
            kv_heads: 16,
            dim: 64,
            vocabulary: 4096,
            prompt: 64,
            context: 512,
            rotated: 8 << 20,
        }
    }

    /// Name of the model that it is of.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Input and output features of its linears, each pair once.
    pub(super) fn linears(&self) -> Vec<(usize, usize)> {
        let (hidden, inner) = (self.hidden, self.intermediate);
        let (queries, keys) = (self.heads * self.dim, self.kv_heads * self.dim);
        let mut all =
            vec![(hidden, queries), (hidden, keys), (queries, hidden), (hidden, inner), (inner, hidden)];
        let mut known = BTreeSet::new();
        all.retain(|&shape| known.insert(shape));
        all
    }
}

/// Adds an operation to a list a number of times, each time with other inputs.
type Build = Box<dyn Fn(&mut CommandList, usize) -> Result<()>>;

/// An operation at a shape.
pub(super) struct Entry {
    /// Stems of the shaders that it runs on this device.
    pub(super) kernels: Vec<&'static str>,
    /// The shape in words.
    pub(super) shape: String,
    /// Bytes that it must move: each input read once, each output written once. Scratch is not counted.
    pub(super) bytes: u64,
    /// Multiplications and additions, where there are many.
    pub(super) flops: Option<u64>,
    build: Build,
    case: Option<Box<dyn Case>>,
}

impl Entry {
    /// `bytes` and `flops` as in the fields of these names.
    pub(super) fn new(
        kernels: &[&'static str],
        shape: String,
        bytes: usize,
        flops: Option<usize>,
        build: impl Fn(&mut CommandList, usize) -> Result<()> + 'static,
    ) -> Self {
        let (kernels, flops) = (kernels.to_vec(), flops.map(|flops| flops as u64));
        Self { kernels, shape, bytes: bytes as u64, flops, build: Box::new(build), case: None }
    }

    /// Has it verified at its own shape too, before it is timed.
    #[must_use]
    pub(super) fn verified_by(mut self, case: impl Case + 'static) -> Self {
        self.case = Some(Box::new(case));
        self
    }

    /// Runs the case at this shape, if there is one and the device has room for it.
    ///
    /// # Errors
    /// Why it may not be timed.
    pub(super) fn verify(&self, device: &Device) -> std::result::Result<(), String> {
        let Some(case) = &self.case else { return Ok(()) };
        check(device, &**case, 1)
    }

    /// The stems as one word.
    pub(super) fn name(&self) -> String {
        self.kernels.join("+")
    }

    /// How often the operation is in its list: once when arithmetic hides where its inputs come from.
    pub(super) fn sets(&self, rotated: u64) -> usize {
        if self.flops.is_some_and(|flops| flops / self.bytes >= ARITHMETIC) {
            return 1;
        }
        rotated.div_ceil(self.bytes).clamp(1, MOST_SETS) as usize
    }

    /// Times it.
    ///
    /// # Errors
    /// What the operation and the device report; [`Error::Shape`] when it ran other kernels than those it names.
    pub(super) fn time(&self, device: &Device, clock: Clock, rotated: u64, samples: usize) -> Result<Timing> {
        let sets = self.sets(rotated);
        let mut list = CommandList::new(device, self.name());
        // The list's bindings keep the buffers.
        (self.build)(&mut list, sets)?;
        let ran: BTreeSet<_> = list.kernels().filter_map(|label| label.split(' ').next()).collect();
        if ran != self.kernels.iter().copied().collect() {
            return Err(Error::shape(self.name(), format!("ran {ran:?} instead")));
        }
        timing::measure(&list, clock, sets, samples)
    }
}

/// Runs a case; one that the device has no room for, or a processor no time, is not held against the kernel.
///
/// # Errors
/// What it found.
pub(super) fn check(device: &Device, case: &dyn Case, seed: u64) -> std::result::Result<(), String> {
    let outcome = selftest::outcome(device, case, seed, Fault::None).map_err(|error| error.to_string())?;
    match outcome.verdict {
        Verdict::Passed | Verdict::Skipped { .. } => Ok(()),
        Verdict::Failed => Err(format!(
            "{} {}: error {:.2e}, bound {:.2e}",
            outcome.kernel, outcome.shape, outcome.worst_error, outcome.bound
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{DeviceOptions, select};
    use crate::ops::Tensor;
    use crate::ops::swiglu::swiglu;
    use crate::selftest::{Comparison, Swiglu};

    fn device() -> Device {
        let name = std::env::var("EXLAY_TEST_ADAPTER").ok();
        Device::open(&select(name.as_deref()).unwrap(), DeviceOptions::default()).unwrap()
    }

    fn entry(kernel: &'static str) -> Entry {
        Entry::new(&[kernel], "1 x 64".to_owned(), 768, None, |list, sets| {
            let x = Tensor::zeros(list.device(), "x", 1, 64)?;
            let y = Tensor::zeros(list.device(), "y", 1, 64)?;
            (0..sets).try_for_each(|_| swiglu(list, &x, &x, &y, 1))
        })
    }

    /// A product that a kernel got wrong.
    struct Wrong;

    impl Case for Wrong {
        fn kernel(&self, _: &Device) -> &'static str {
            "swiglu"
        }

        fn shape(&self) -> String {
            "1 x 64".to_owned()
        }

        fn bytes(&self) -> u64 {
            0
        }

        fn run(&self, _: &Device, _: u64, _: Fault) -> Result<Comparison> {
            let mut comparison = Comparison::new();
            comparison.value(1.0, 1.5, 0.25);
            Ok(comparison)
        }
    }

    #[test]
    fn what_is_wrong_is_not_verified() {
        let device = device();
        let message = entry("swiglu").verified_by(Wrong).verify(&device).unwrap_err();
        assert_eq!(message, "swiglu 1 x 64: error 5.00e-1, bound 2.50e-1");
        let right = Swiglu { rows: 1, cols: 64 };
        assert_eq!(entry("swiglu").verified_by(right).verify(&device), Ok(()));
    }

    #[test]
    fn only_what_is_named_is_timed() {
        let device = device();
        let clock = device.clock().unwrap();
        let timing = entry("swiglu").time(&device, clock, 7680, 2).unwrap();
        assert_eq!((timing.sets, timing.microseconds.samples.len()), (10, 2));
        assert!(timing.microseconds.least > 0.0);
        assert!(entry("rope").time(&device, clock, 7680, 2).is_err());
    }
}
