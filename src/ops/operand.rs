//! The left side of products, in the form and order that their kernels take; linears that share an input share it.

use super::coop_tile::Tile;
use super::halve::{Halves, halve};
use super::matmul::GEMV_ROWS;
use super::permute::permute;
use super::{Permutation, Tensor};
use crate::gpu::{Buffer, CommandList, Device};
use crate::{Error, Result};

/// Room for an operand.
pub struct OperandRoom {
    values: Buffer,
    units: Buffer,
}

impl OperandRoom {
    /// Room for [rows, cols].
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn new(device: &Device, rows: usize, cols: usize) -> Result<Self> {
        let values = device.alloc("operand", (4 * rows * cols) as u64)?;
        Ok(Self { values, units: device.alloc("units", 4 * rows as u64)? })
    }

    /// Memory that is free for the time of the products: of as many bytes as the rows have in single precision, and four a row.
    pub fn over(values: &Buffer, units: &Buffer) -> Self {
        Self { values: values.clone(), units: units.clone() }
    }
}

/// Rows [rows, k] of a product.
pub struct Operand {
    pub(super) values: Buffer,
    pub(super) rows: usize,
    pub(super) k: usize,
    /// Halves, and a unit for each row; `None` in single precision.
    pub(super) halves: Option<(Halves, Buffer)>,
}

impl Operand {
    /// Rows as they are, in single precision.
    pub fn single(x: &Tensor) -> Self {
        Self { values: x.buffer().clone(), rows: x.rows(), k: x.cols(), halves: None }
    }

    /// The first `rows` rows of x with columns in `order`: for matrix units where the device has some and the rows are many.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the shapes differ or the room is too small; as [`CommandList::dispatch`].
    pub fn prepare(
        list: &mut CommandList,
        x: &Tensor,
        order: Option<&Permutation>,
        room: &OperandRoom,
        rows: usize,
    ) -> Result<Self> {
        let halves = Halves::of(list.device());
        Self::prepare_as(list, x, order, room, rows, halves)
    }

    /// The same with these halves, should matrix units take them.
    ///
    /// # Errors
    /// As [`Operand::prepare`].
    pub fn prepare_as(
        list: &mut CommandList,
        x: &Tensor,
        order: Option<&Permutation>,
        room: &OperandRoom,
        rows: usize,
        halves: Halves,
    ) -> Result<Self> {
        let k = x.cols();
        if on_matrix_units(list.device(), rows, k) {
            halve(list, x, order, &room.values, &room.units, rows, halves)?;
            let halves = Some((halves, room.units.clone()));
            return Ok(Self { values: room.values.clone(), rows, k, halves });
        }
        let Some(order) = order else { return Ok(Self::single(x)) };
        let gathered = Tensor::over(&room.values, rows, k)?;
        permute(list, x, order, &gathered, rows)?;
        Ok(Self::single(&gathered))
    }

    /// Refuses unless this is `rows` rows (or more, in single precision) of `k` values.
    pub(super) fn expect(&self, operation: &str, rows: usize, k: usize) -> Result<()> {
        let enough = if self.halves.is_some() { self.rows == rows } else { self.rows >= rows };
        if !enough || self.k != k {
            let message = format!("the left side is [{}, {}], needed is [{rows}, {k}]", self.rows, self.k);
            return Err(Error::shape(operation, message));
        }
        Ok(())
    }
}

/// Whether a product of so many rows and inputs runs on matrix units: they are read 16 bytes at a time.
pub fn on_matrix_units(device: &Device, rows: usize, k: usize) -> bool {
    rows > GEMV_ROWS && k.is_multiple_of(8) && !Tile::all(device.capabilities()).is_empty()
}
