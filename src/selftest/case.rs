//! What a kernel's file gives to the selftest and to the kernel tests.

use super::Comparison;
use crate::Result;
use crate::gpu::{Arithmetic, Device};

/// Which shapes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shapes {
    /// A second or two on a processor.
    Small,
    /// Those of large models: 28672 rows, folded grids, weights past 4 GiB.
    Real,
}

/// Whether to make one input of the device differ from the oracle's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Both see the same.
    None,
    /// One weight (or, without weights, one input) is wrong; the comparison must notice.
    OneWrong,
}

/// One kernel at one shape.
pub trait Case: Send + Sync {
    /// Stem of the shader that this shape exercises on this device.
    fn kernel(&self, device: &Device) -> &'static str;

    /// The shape in words, without line breaks.
    fn shape(&self) -> String;

    /// Device memory that it takes, in bytes.
    fn bytes(&self) -> u64;

    /// Host memory that it takes, in bytes.
    fn host_bytes(&self) -> u64 {
        2 * self.bytes()
    }

    /// Multiplications with weights, which are what takes time.
    fn products(&self) -> u64 {
        0
    }

    /// How its kernel computes, which the device may not be able to.
    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Single
    }

    /// Runs it with inputs made from `seed`.
    ///
    /// # Errors
    /// What the operation and the device report.
    fn run(&self, device: &Device, seed: u64, fault: Fault) -> Result<Comparison>;
}

/// Boxes cases for a list.
pub(super) fn boxed<C: Case + 'static>(cases: impl IntoIterator<Item = C>) -> Vec<Box<dyn Case>> {
    cases.into_iter().map(|case| Box::new(case) as Box<dyn Case>).collect()
}
