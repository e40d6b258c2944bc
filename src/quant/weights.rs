//! Float weights of one linear on the device, as the quantizer wants them: transposed, padded, cut by columns.

use rayon::prelude::*;

use super::correction::Correction;
use super::hessian::PreparedHessian;
use super::stages;
use crate::gpu::{Buffer, CommandList, Device};
use crate::ops::dot::{MOST_PARTS, dot};
use crate::ops::gather_rows::gather_rows;
use crate::ops::matmul_tn::{Product, Window, matmul_tn};
use crate::ops::{Tensor, slab_columns};
use crate::packing::padded_columns;
use crate::{Error, Result};

/// Columns of a slab are a multiple of this, except in the last one.
const SLAB_COLUMNS: usize = 128;

/// Values of H·W that are held at a time.
const PANEL_VALUES: usize = 1 << 24;

/// Weights [k, columns] in the order of the input features; `columns` is the outputs padded with zeros to a multiple of 32.
pub struct FloatWeights {
    name: String,
    k: usize,
    outputs: usize,
    slabs: Vec<Tensor>,
    energy: Option<f64>,
}

impl FloatWeights {
    /// From a Hugging Face weight [outputs, k].
    ///
    /// # Errors
    /// [`Error::Shape`] when the length is not outputs · k, [`Error::Numerical`] when a weight is not finite; as
    /// [`Device::upload`].
    pub fn upload<T: Copy + Into<f32> + Sync>(
        device: &Device,
        name: &str,
        values: &[T],
        (outputs, k): (usize, usize),
    ) -> Result<Self> {
        if outputs == 0 || k == 0 || values.len() != outputs * k {
            return Err(Error::shape(name, format!("{} weights for [{outputs}, {k}]", values.len())));
        }
        if let Some(at) = values.par_iter().position_any(|&value| !value.into().is_finite()) {
            let (row, column, value) = (at / k, at % k, values[at].into());
            let message =
                format!("the weight at ({row}, {column}) is {value}; get an undamaged copy of the model");
            return Err(Error::Numerical { place: name.to_owned(), message });
        }
        let mut first = 0;
        let upload = |width: usize| {
            let transposed = transpose(&values[first * k..outputs.min(first + width) * k], k, width);
            first += width;
            Tensor::upload(device, &format!("{name}.weights"), &transposed, width)
        };
        let slabs = column_slabs(device, name, k, outputs)?.into_iter().map(upload).collect::<Result<_>>()?;
        Ok(Self { name: name.to_owned(), k, outputs, slabs, energy: None })
    }

    /// The same with tr(WᵀHW) measured, for which nothing else needs H itself.
    ///
    /// # Errors
    /// [`Error::Shape`] when the Hessian is of another size; as [`CommandList::run`].
    pub fn weighed(self, hessian: &PreparedHessian) -> Result<Self> {
        self.expect(hessian)?;
        let device = self.slabs[0].device().clone();
        let mut list = CommandList::new(&device, format!("{}: energy", self.name));
        let parts_buffer = self.record_energy(&mut list, hessian)?;
        list.run()?;
        let parts: Vec<f32> = device.read(&parts_buffer, 0, parts_buffer.bytes() as usize / 4)?;
        let energy = parts.iter().map(|&part| f64::from(part)).sum();
        Ok(Self { energy: Some(energy), ..self })
    }

    /// Puts the rows into the Hessian's order and adds what `correction` says to them. tr(WᵀHW) is that of the weights without
    /// it, and measured now if it was not before.
    ///
    /// # Errors
    /// As [`FloatWeights::weighed`].
    pub fn prepare(
        self,
        hessian: &PreparedHessian,
        correction: Option<Correction<'_>>,
    ) -> Result<PreparedWeights> {
        self.expect(hessian)?;
        let device = self.slabs[0].device().clone();
        let _stage = device.stage(if correction.is_some() { stages::CORRECTION } else { stages::LOADING })?;
        let Some(energy) = self.energy else { return self.weighed(hessian)?.prepare(hessian, correction) };
        let mut slabs = Vec::with_capacity(self.slabs.len());
        for slab in self.slabs {
            let ordered = Tensor::zeros(&device, &format!("{}.ordered", self.name), self.k, slab.cols())?;
            let mut list = CommandList::new(&device, format!("{}: rows in order", self.name));
            gather_rows(&mut list, &slab, hessian.order_buffer(), &ordered)?;
            list.run()?;
            drop(list);
            if let Some(correction) = correction {
                correction.apply(hessian, slabs.len(), &slab, &ordered)?;
            }
            slabs.push(ordered);
        }
        Ok(PreparedWeights { name: self.name, k: self.k, outputs: self.outputs, slabs, energy })
    }

    fn expect(&self, hessian: &PreparedHessian) -> Result<()> {
        if hessian.k() == self.k {
            return Ok(());
        }
        let message =
            format!("{} inputs, but the Hessian of `{}` has {}", self.k, hessian.name(), hessian.k());
        Err(Error::shape(&self.name, message))
    }

    /// Partial sums of tr(Wᵀ·(H·W)), a panel of rows of H·W at a time.
    fn record_energy(&self, list: &mut CommandList, hessian: &PreparedHessian) -> Result<Buffer> {
        let device = list.device().clone();
        let most = PANEL_VALUES.min((device.max_slab_bytes() / 4) as usize);
        let panel_rows = |columns: usize| (most / columns / 4 * 4).clamp(4, self.k.next_multiple_of(4));
        let panels = |slab: &Tensor| self.k.div_ceil(panel_rows(slab.cols()));
        let count: usize = self.slabs.iter().map(panels).sum();
        let parts = device.alloc("energy", (4 * MOST_PARTS * count) as u64)?;
        let mut part = 0;
        for slab in &self.slabs {
            let rows = panel_rows(slab.cols());
            let panel = Tensor::zeros(&device, "panel of H·W", rows, slab.cols())?;
            for first in (0..self.k).step_by(rows) {
                let rows = rows.min(self.k - first);
                for (row, h) in hessian.hessian()?.slabs() {
                    let product = Product {
                        a: Window { matrix: h, row: 0, col: first },
                        b: Window { matrix: slab, row, col: 0 },
                        c: Window::whole(&panel),
                        rows: h.rows(),
                        m: rows,
                        n: slab.cols(),
                        alpha: 1.0,
                        beta: if row == 0 { 0.0 } else { 1.0 },
                        weights: None,
                        upper: false,
                    };
                    matmul_tn(list, &product)?;
                }
                part += dot(list, &panel, (slab, first), rows, (&parts, part))?;
            }
        }
        Ok(parts)
    }
}

/// Widths of the slabs in which the columns of a linear [k, outputs] are quantized.
///
/// # Errors
/// [`Error::Shape`] when the adapter cannot bind the least slab.
pub(super) fn column_slabs(device: &Device, name: &str, k: usize, outputs: usize) -> Result<Vec<usize>> {
    let columns = padded_columns(outputs);
    let floats = (device.max_slab_bytes() / (4 * k as u64)) as usize / SLAB_COLUMNS * SLAB_COLUMNS;
    // What is quantized together is decoded together to be checked.
    let most = floats.min(slab_columns(device, k));
    if most == 0 {
        let message = format!("{SLAB_COLUMNS} columns of {k} weights exceed a binding of this adapter");
        return Err(Error::shape(name, message));
    }
    Ok((0..columns).step_by(most).map(|first| most.min(columns - first)).collect())
}

/// `values` [rows, k] to [k, width], the columns that have no row being zero.
fn transpose<T: Copy + Into<f32> + Sync>(values: &[T], k: usize, width: usize) -> Vec<f32> {
    const ROWS: usize = 64;
    let mut out = vec![0.0; k * width];
    out.par_chunks_mut(ROWS * width).enumerate().for_each(|(chunk, out)| {
        for (column, row) in values.chunks_exact(k).enumerate() {
            for (out, &value) in out.chunks_exact_mut(width).zip(&row[chunk * ROWS..]) {
                out[column] = value.into();
            }
        }
    });
    out
}

/// Weights [k, columns] in the order of a Hessian.
pub struct PreparedWeights {
    pub(super) name: String,
    pub(super) k: usize,
    pub(super) outputs: usize,
    pub(super) slabs: Vec<Tensor>,
    pub(super) energy: f64,
}

impl PreparedWeights {
    /// The linear's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The weights [k, columns] in the Hessian's order, columns padded to a multiple of 32; waits for the device.
    ///
    /// # Errors
    /// As the device reports.
    pub fn read(&self) -> Result<Vec<f32>> {
        let slabs = self.slabs.iter().map(|slab| slab.read(self.k)).collect::<Result<Vec<_>>>()?;
        let row = |row: usize| {
            let parts = slabs.iter().zip(&self.slabs);
            parts.flat_map(move |(values, slab)| values[row * slab.cols()..][..slab.cols()].iter().copied())
        };
        Ok((0..self.k).flat_map(row).collect())
    }

    /// Output features, without padding.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// tr(WᵀHW), H without damping.
    pub fn energy(&self) -> f64 {
        self.energy
    }
}
