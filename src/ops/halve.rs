//! Rows as halves for matrix units; see `shaders/halve.wgsl`.

use super::{Permutation, Tensor, with_reduce};
use crate::gpu::{Buffer, Capabilities, CommandList, Device, Variant};
use crate::{Error, Result};

/// How a row stands in halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halves {
    /// One half a value: to 2^-11 of it, or to 2^-39 of the row's largest.
    One,
    /// Two halves a value, what the second leaves being 2^-11 of that: nearly single precision for twice the products.
    Two,
}

impl Halves {
    /// Both.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    /// What products of prompts use: two where the user asked for single precision.
    pub fn of(device: &Device) -> Self {
        if device.asked_for_single() { Self::Two } else { Self::One }
    }

    /// Halves a value.
    pub fn planes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    cols: u32,
}

fn variant(capabilities: &Capabilities, halves: Halves, ordered: bool) -> Variant {
    let variant = Variant::new("halve").constant("WG", 256);
    let variant = variant.constant("ORDERED", u32::from(ordered));
    with_reduce(variant.constant("TWO", u32::from(halves == Halves::Two)), capabilities)
}

pub(super) fn variants(capabilities: &Capabilities) -> Vec<Variant> {
    let both = |halves| [false, true].map(|ordered| variant(capabilities, halves, ordered));
    Halves::ALL.into_iter().flat_map(both).collect()
}

/// The first `rows` rows of x [rows, cols], columns in `order`, as halves in `out` [rows, planes, cols] with a unit for each row
/// in `units`.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ or there is too little room; as [`CommandList::dispatch`].
pub fn halve(
    list: &mut CommandList,
    x: &Tensor,
    order: Option<&Permutation>,
    out: &Buffer,
    units: &Buffer,
    rows: usize,
    halves: Halves,
) -> Result<()> {
    let cols = x.cols();
    x.expect("halve", rows, order.map_or(cols, |order| order.order().len()))?;
    let needed = (2 * halves.planes() * rows * cols) as u64;
    if !cols.is_multiple_of(2) || out.bytes() < needed || units.bytes() < 4 * rows as u64 {
        let room = format!("{} and {} bytes", out.bytes(), units.bytes());
        return Err(Error::shape("halve", format!("{halves:?} of [{rows}, {cols}] into {room}")));
    }
    let kernel = list.device().kernel(&variant(list.device().capabilities(), halves, order.is_some()))?;
    let buffers = [x.buffer(), order.map_or(x.buffer(), Permutation::buffer), out, units];
    let params = Params { cols: cols as u32 };
    list.dispatch(&kernel, &buffers, &params, [rows as u32, 1, 1])
}
