//! Shared by the cases of the kernels between products: groups that give an order, activations read back.

use super::{Comparison, Packing, Random};
use crate::gpu::{Arithmetic, Device};
use crate::ops::activation::Activation;
use crate::ops::{GroupMember, QuantGroup};
use crate::packing::PackedMatrix;
use crate::reference::{fixed, pairs, permute};
use crate::{Error, Result};

/// A group of one small matrix for each order of an input of `k` values, and the orders.
///
/// # Errors
/// As [`QuantGroup::upload`].
pub(super) fn orders(
    device: &Device,
    k: usize,
    copies: usize,
    seed: u64,
) -> Result<(QuantGroup, Vec<Vec<u32>>)> {
    let packing = Packing { groups: vec![(2, k)], n: 32, bias: false };
    let matrices: Vec<PackedMatrix> =
        (0..copies as u64).map(|copy| packing.matrix(seed + 1000 * copy)).collect::<Result<_>>()?;
    let lent: Vec<_> = matrices.iter().map(PackedMatrix::lend).collect();
    let members: Vec<_> = lent.iter().map(|matrix| GroupMember { label: "member", matrix, n: 32 }).collect();
    let (group, _) = QuantGroup::upload(device, "group", &members)?;
    let orders = matrices.iter().map(|matrix| permute::inverse(&matrix.q_invperm)).collect();
    Ok((group, orders))
}

/// An activation [copies, rows, row words] in `form` of `values(copy, row)` in packed order.
///
/// # Errors
/// As [`Activation::new`].
pub(super) fn upload(
    device: &Device,
    form: Arithmetic,
    shape: [usize; 3],
    values: impl Fn(usize, usize) -> Vec<f32>,
) -> Result<Activation> {
    let [copies, rows, k] = shape;
    let activation = Activation::new(device, form, copies * rows * form.row_words(k))?;
    let mut words = Vec::new();
    for copy in 0..copies {
        for row in 0..rows {
            let values = values(copy, row);
            match form {
                Arithmetic::Single => words.extend(values.iter().map(|value| value.to_bits())),
                Arithmetic::Fixed => words.extend(fixed::encode(&values)),
                Arithmetic::Pairs => words.extend(pairs::encode(&values)),
            }
        }
    }
    device.write(activation.buffer(), 0, &words)?;
    Ok(activation)
}

/// The values `[k]` of a row of an activation, and by how much the form itself may have changed each.
///
/// # Errors
/// As [`Device::read`]; [`Error::Shape`] where a block's sum is not that of its integers.
pub(super) fn row(activation: &Activation, k: usize, row: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let (buffer, words) = (activation.buffer(), activation.form().row_words(k));
    let stored: Vec<u32> = buffer.device().read(buffer, 4 * (row * words) as u64, words)?;
    match activation.form() {
        Arithmetic::Single => {
            Ok((stored.into_iter().map(|bits| f64::from(f32::from_bits(bits))).collect(), vec![0.0; k]))
        }
        Arithmetic::Fixed => {
            let decoded = fixed::decode(&stored, k);
            if !decoded.sums_agree {
                return Err(Error::shape("selftest", "a block's sum is not that of its integers"));
            }
            // Half a step, and what the reciprocal of the step and the product with it round: two units in the last
            // place of a number up to 32639.
            let slack = decoded.steps.iter().flat_map(|step| [0.51 * step; 32]).collect();
            Ok((decoded.values, slack))
        }
        Arithmetic::Pairs => {
            let decoded = pairs::decode(&stored, k);
            let slack = decoded.units.iter().flat_map(|&unit| [pairs::slack(unit); 32]).collect();
            Ok((decoded.values, slack))
        }
    }
}

/// Compares a row of an activation with what it should be, each value within a bound and what its form costs.
///
/// # Errors
/// As [`row`].
pub(super) fn compare(
    comparison: &mut Comparison,
    activation: &Activation,
    k: usize,
    index: usize,
    expected: impl Fn(usize) -> (f64, f64),
) -> Result<()> {
    let (values, slack) = row(activation, k, index)?;
    for (i, (&value, slack)) in values.iter().zip(slack).enumerate() {
        let (expected, bound) = expected(i);
        comparison.real(value, expected, bound + slack);
    }
    Ok(())
}

/// Sums of a product, f32 [sums, rows, columns], of which the binary tree is near `values`.
pub(super) fn split(seed: u64, values: &[f32], sums: usize) -> Vec<f32> {
    let random = Random::new(seed, "parts");
    let mut parts = vec![0.0; sums * values.len()];
    for (i, &value) in values.iter().enumerate() {
        let mut rest = value;
        for part in 1..sums {
            let own = random.value((part * values.len() + i) as u64);
            parts[part * values.len() + i] = own;
            rest -= own;
        }
        if sums > 0 {
            parts[i] = rest;
        }
    }
    parts
}
