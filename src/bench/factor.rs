//! The kernels of a Hessian's factor, on a matrix of the layer's hidden size.

use crate::Result;
use crate::gpu::CommandList;
use crate::ops::cholesky_block::{BLOCK, DiagonalBlock, cholesky_block};
use crate::ops::symmetrize::symmetrize;
use crate::ops::turn_factor::turn_factor;
use crate::ops::unit_diagonal::unit_diagonal;
use crate::ops::{TallMatrix, Tensor};
use crate::selftest::Random;

use super::entry::Entry;

/// All of them.
pub(super) fn entries(k: usize) -> Vec<Entry> {
    vec![whole(k), scaled(k), turned(k), block()]
}

fn random(list: &CommandList, name: &str, set: usize, k: usize) -> Result<TallMatrix> {
    TallMatrix::upload(list.device(), name, &Random::new(set as u64, name).values(k * k), k)
}

fn whole(k: usize) -> Entry {
    Entry::new(&["symmetrize"], format!("{k} x {k}"), 6 * k * k, None, move |list, sets| {
        for set in 0..sets {
            let device = list.device().clone();
            let (diagonal, bad) = (device.alloc("diagonal", 4 * k as u64)?, device.alloc("bad", 4)?);
            let h = random(list, "h", set, k)?;
            symmetrize(list, &h, 1.0, &diagonal, &bad)?;
        }
        Ok(())
    })
}

fn scaled(k: usize) -> Entry {
    Entry::new(&["unit_diagonal"], format!("{k} x {k}"), 4 * k * k, None, move |list, sets| {
        for set in 0..sets {
            let device = list.device().clone();
            let order = device.upload("order", &Random::new(set as u64, "order").permutation(k))?;
            let scale = device.upload("scale", &vec![1.0_f32; k])?;
            let h = random(list, "h", set, k)?;
            unit_diagonal(list, &h, &order, &scale, &TallMatrix::zeros(&device, "out", k, k)?)?;
        }
        Ok(())
    })
}

fn turned(k: usize) -> Entry {
    Entry::new(&["turn_factor"], format!("{k} x {k}"), 6 * k * k, None, move |list, sets| {
        for set in 0..sets {
            let scale = list.device().upload("scale", &vec![1.0_f32; k])?;
            let x = random(list, "x", set, k)?;
            turn_factor(list, &x, &scale)?;
        }
        Ok(())
    })
}

/// One block; what it takes is a lower limit for 64 rows of a factor.
fn block() -> Entry {
    let (bytes, flops) = (10 * BLOCK * BLOCK, 2 * BLOCK * BLOCK * BLOCK / 3);
    Entry::new(&["cholesky_block"], format!("{BLOCK} x {BLOCK}"), bytes, Some(flops), move |list, sets| {
        for _ in 0..sets {
            let device = list.device().clone();
            let values: Vec<f32> =
                (0..BLOCK * BLOCK).map(|at| if at % (BLOCK + 1) == 0 { 1.0 } else { 0.01 }).collect();
            let matrix = Tensor::upload(&device, "matrix", &values, BLOCK)?;
            let inverse = Tensor::zeros(&device, "inverse", BLOCK, BLOCK)?;
            let pivots = device.alloc("pivots", 4 * BLOCK as u64)?;
            let block = DiagonalBlock { matrix: &matrix, row: 0, col: 0, size: BLOCK };
            cholesky_block(list, &block, &inverse, &pivots)?;
        }
        Ok(())
    })
}
