//! Outputs that show what a kernel did not write or should not have written.

use crate::gpu::{CommandList, Device};
use crate::ops::Tensor;
use crate::{Error, Result};

/// Not a number in single precision, nor is either of its halves in half precision.
pub const POISON: u32 = 0x7fc0_7e5a;

/// [rows + 1, cols] of [`POISON`]; the last row is there to stay as it is.
///
/// # Errors
/// As [`Tensor::upload`].
pub fn poisoned(device: &Device, label: &str, rows: usize, cols: usize) -> Result<Tensor> {
    Tensor::upload(device, label, &vec![f32::from_bits(POISON); (rows + 1) * cols], cols)
}

/// Builds a list and runs it. `kernel` must be among what it runs, so that a table names what it tested.
///
/// # Errors
/// What `build` and the device report; [`Error::Shape`] when `kernel` is not in the list.
pub fn run_list(
    device: &Device,
    kernel: &str,
    build: impl FnOnce(&mut CommandList) -> Result<()>,
) -> Result<()> {
    let mut list = CommandList::new(device, format!("selftest of {kernel}"));
    build(&mut list)?;
    if !list.kernels().any(|label| label.split(' ').next() == Some(kernel)) {
        let ran: Vec<_> = list.kernels().collect();
        return Err(Error::shape(kernel, format!("this case ran {ran:?} instead")));
    }
    list.run()
}
