//! What rows of logits say about a text, and beside those of a reference; see `shaders/score.wgsl`.
//!
//! A row is scored in single precision: by the roundings of its exponentials and of its sums a likelihood is off by 1e-6
//! nats or two and a divergence by about 1e-6 of itself; `selftest` bounds both. Of many rows the errors cancel in a mean,
//! and equal inputs give equal bits.

use super::{Tensor, with_reduce};
use crate::gpu::{Buffer, Capabilities, CommandList, Device, Variant};
use crate::{Error, Result};

/// In the place of a row's target: none.
pub const NO_TARGET: u32 = u32::MAX;

/// [`RowScore::bad`] of a row whose logits are all finite.
const ALL_FINITE: u32 = u32::MAX;

/// Added to a token in [`RowScore::bad`] that is the reference's.
const REFERENCE: u32 = 1 << 31;

/// The scores of a row; the shader has the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct RowScore {
    /// `-ln softmax(model)[target]` in nats, 0 without a target.
    pub negative_log_likelihood: f32,
    /// KL divergence in nats of the model's distribution from the reference's, 0 without a reference.
    pub divergence: f32,
    /// 1 where both have the highest logit at the same token, the lowest of equals, or without a reference; else 0.
    pub agrees: u32,
    /// What [`RowScore::not_finite`] reads.
    bad: u32,
}

/// Whose logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The model's.
    Model,
    /// The reference's.
    Reference,
}

impl RowScore {
    /// Scores of a row of finite logits.
    pub fn new(negative_log_likelihood: f32, divergence: f32, agrees: bool) -> Self {
        Self { negative_log_likelihood, divergence, agrees: u32::from(agrees), bad: ALL_FINITE }
    }

    /// The first logit that is not finite: whose it is, the model's before the reference's, and its token. The other scores
    /// say nothing then.
    pub fn not_finite(&self) -> Option<(Whose, u32)> {
        let whose = if self.bad & REFERENCE == 0 { Whose::Model } else { Whose::Reference };
        (self.bad != ALL_FINITE).then_some((whose, self.bad & !REFERENCE))
    }
}

/// Targets and scores of some rows on the device.
pub struct RowScores {
    targets: Buffer,
    scores: Buffer,
    rows: usize,
}

impl RowScores {
    /// Room for `rows` rows, at first without targets.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn new(device: &Device, rows: usize) -> Result<Self> {
        Ok(Self {
            targets: device.upload("targets", &vec![NO_TARGET; rows])?,
            scores: device.alloc("scores", (rows * size_of::<RowScore>()) as u64)?,
            rows,
        })
    }

    /// Sets the first rows' targets: a token or [`NO_TARGET`].
    ///
    /// # Errors
    /// As [`Device::write`].
    pub fn set_targets(&self, targets: &[u32]) -> Result<()> {
        self.targets.device().write(&self.targets, 0, targets)
    }

    /// Waits and reads the scores of the first `rows` rows.
    ///
    /// # Errors
    /// As [`Device::read`].
    pub fn read(&self, rows: usize) -> Result<Vec<RowScore>> {
        self.scores.device().read(&self.scores, 0, rows)
    }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    cols: u32,
    first: u32,
}

pub(super) fn variant(capabilities: &Capabilities) -> Variant {
    with_reduce(Variant::new("score").constant("WG", 256), capabilities)
}

/// Scores the first `rows` rows of the model's logits, beside the reference's if there is one, as rows `first..` of `to`.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ or `to` has no such rows; as [`CommandList::dispatch`].
pub fn score(
    list: &mut CommandList,
    model: &Tensor,
    reference: Option<&Tensor>,
    rows: usize,
    (to, first): (&RowScores, usize),
) -> Result<()> {
    let reference = reference.unwrap_or(model);
    reference.expect("score", rows, model.cols())?;
    model.expect("score", rows, reference.cols())?;
    if first + rows > to.rows || model.cols() >= REFERENCE as usize {
        let message = format!("rows {first} to {} of {} for {} tokens", first + rows, to.rows, model.cols());
        return Err(Error::shape("score", message));
    }
    let kernel = list.device().kernel(&variant(list.device().capabilities()))?;
    let params = Params { cols: model.cols() as u32, first: first as u32 };
    let buffers = [model.buffer(), reference.buffer(), &to.targets, &to.scores];
    list.dispatch(&kernel, &buffers, &params, [rows as u32, 1, 1])
}
