//! What is timed: an operation at a shape, put several times into one list with inputs of its own each time.

use std::collections::BTreeSet;

use exlay::gpu::{CommandList, Device};
use exlay::{Error, Result};

use crate::timing::{self, Timing};

/// The most copies of an operation in a list.
const MOST_SETS: u64 = 128;

/// Sizes of a decoder layer, and how much memory its timing goes through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    /// In words.
    pub(crate) name: &'static str,
    /// Values of a token's state.
    pub(crate) hidden: usize,
    /// Values inside the MLP.
    pub(crate) intermediate: usize,
    /// Heads of queries, and of keys and values.
    pub(crate) heads: usize,
    /// Values of a head.
    pub(crate) dim: usize,
    /// Rows of the embedding table.
    pub(crate) vocabulary: usize,
    /// Rows of a prompt.
    pub(crate) prompt: usize,
    /// Positions that the last row sees, whole pages of the cache.
    pub(crate) context: usize,
    /// Bytes that the inputs and outputs in a list should exceed, so that they do not come from a cache.
    pub(crate) rotated: u64,
}

impl Layer {
    /// A layer of Llama 2 7B; no card's last-level cache holds 256 MiB.
    pub(crate) const SEVEN_BILLION: Self = Self {
        name: "a layer of a 7B model",
        hidden: 4096,
        intermediate: 11008,
        heads: 32,
        dim: 128,
        vocabulary: 32000,
        prompt: 512,
        context: 2048,
        rotated: 256 << 20,
    };

    /// For processors, which arithmetic keeps busy rather than memory.
    pub(crate) const REDUCED: Self = Self {
        name: "reduced for a software adapter",
        hidden: 1024,
        intermediate: 2816,
        heads: 16,
        dim: 64,
        vocabulary: 4096,
        prompt: 64,
        context: 512,
        rotated: 8 << 20,
    };
}

/// Adds an operation to a list a number of times, each time with other inputs.
type Build = Box<dyn Fn(&mut CommandList, usize) -> Result<()>>;

/// An operation at a shape.
pub(crate) struct Entry {
    /// Stems of the shaders that it runs on this device.
    pub(crate) kernels: Vec<&'static str>,
    /// The shape in words.
    pub(crate) shape: String,
    /// Bytes that it must move: each input read once, each output written once. Scratch is not counted.
    pub(crate) bytes: u64,
    /// Multiplications and additions, where there are many.
    pub(crate) flops: Option<u64>,
    build: Build,
}

impl Entry {
    /// `bytes` and `flops` as in the fields of these names.
    pub(crate) fn new(
        kernels: &[&'static str],
        shape: String,
        bytes: usize,
        flops: Option<usize>,
        build: impl Fn(&mut CommandList, usize) -> Result<()> + 'static,
    ) -> Self {
        let (kernels, flops) = (kernels.to_vec(), flops.map(|flops| flops as u64));
        Self { kernels, shape, bytes: bytes as u64, flops, build: Box::new(build) }
    }

    /// The stems as one word.
    pub(crate) fn name(&self) -> String {
        self.kernels.join("+")
    }

    /// How often the operation is in its list.
    pub(crate) fn sets(&self, rotated: u64) -> usize {
        rotated.div_ceil(self.bytes).clamp(1, MOST_SETS) as usize
    }

    /// Times it.
    ///
    /// # Errors
    /// What the operation and the device report; [`Error::Shape`] when it ran other kernels than those it names.
    pub(crate) fn time(&self, device: &Device, rotated: u64, samples: usize) -> Result<Timing> {
        let sets = self.sets(rotated);
        let mut list = CommandList::new(device, self.name());
        // The list's bindings keep the buffers.
        (self.build)(&mut list, sets)?;
        let ran: BTreeSet<_> = list.kernels().filter_map(|label| label.split(' ').next()).collect();
        if ran != self.kernels.iter().copied().collect() {
            return Err(Error::shape(self.name(), format!("ran {ran:?} instead")));
        }
        timing::measure(&list, sets, samples)
    }
}
