//! What a linear's float weights are on their way into the quantizer: as they are stored. Transforms of weights (rotations)
//! belong here; norms and the embedding do not pass here yet.

use half::f16;

use super::weights::FloatWeights;
use crate::Result;
use crate::model::{LinearSpec, Role, Streamed, head_weight};

/// The weights of a linear, on the device.
///
/// # Errors
/// As the file reports; [`crate::Error::Numerical`] when a weight is not finite.
pub(super) fn weights(model: &Streamed, spec: &LinearSpec) -> Result<FloatWeights> {
    let checkpoint = model.checkpoint();
    let name = match spec.output {
        Role::Logits => head_weight(checkpoint, model.config()),
        _ => format!("{}.weight", spec.name),
    };
    let view = checkpoint.get(&name)?;
    view.expect_shape(&[spec.n, spec.k])?;
    FloatWeights::upload(model.device(), &spec.name, &view.to_f32()?, (spec.n, spec.k))
}

/// The bias of a linear, where it has one.
///
/// # Errors
/// As the file reports.
pub(super) fn bias(model: &Streamed, spec: &LinearSpec) -> Result<Option<Vec<f16>>> {
    if !spec.bias {
        return Ok(None);
    }
    let view = model.checkpoint().get(&format!("{}.bias", spec.name))?;
    view.expect_shape(&[spec.n])?;
    view.to_f16().map(Some)
}
