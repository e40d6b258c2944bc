//! Memory read and nearly nothing done with it; see `shaders/read_bandwidth.wgsl`.

use crate::gpu::{Buffer, CommandList, Variant, flat_grid};
use crate::{Error, Result};

/// Lanes of a workgroup.
pub const LANES: usize = 256;

/// Vectors of four words that a lane reads.
pub const LOADS: usize = 16;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    vectors: u32,
    workgroups: u32,
}

pub(super) fn variant() -> Variant {
    Variant::new("read_bandwidth").constant("WG", LANES as u32).constant("LOADS", LOADS as u32)
}

/// Bytes of output for `bytes` of input: a word for each lane.
pub fn out_bytes(bytes: u64) -> u64 {
    4 * (LANES as u64) * bytes.div_ceil(16 * (LANES * LOADS) as u64)
}

/// Reads the first `bytes` (a multiple of 16) of `data` once; each lane leaves the xor of its words in `out`.
///
/// # Errors
/// [`Error::Shape`] when `bytes` is no such multiple or exceeds `data`, or `out` is smaller than [`out_bytes`].
pub fn read_bandwidth(list: &mut CommandList, data: &Buffer, bytes: u64, out: &Buffer) -> Result<()> {
    if !bytes.is_multiple_of(16) || bytes > data.bytes() || out_bytes(bytes) > out.bytes() {
        let message = format!("{bytes} bytes of {} into {}", data.bytes(), out.bytes());
        return Err(Error::shape("read_bandwidth", message));
    }
    let workgroups = bytes.div_ceil(16 * (LANES * LOADS) as u64);
    let kernel = list.device().kernel(&variant())?;
    let params = Params { vectors: (bytes / 16) as u32, workgroups: workgroups as u32 };
    let grid = flat_grid(list.device(), workgroups);
    list.dispatch(&kernel, &[data, out], &params, grid)
}
