//! Names of the stages that a conversion is metered in ([`crate::gpu::Device::stage`]), and what those of a few layers say of a
//! model with more.

use serde::Serialize;

use crate::gpu::StageTime;

/// Rows of tokens through the embedding.
pub const EMBEDDING: &str = "embedding";
/// All about the head.
pub const HEAD: &str = "head";
/// The files of the result.
pub const WRITING: &str = "writing";

/// All about measuring a layer.
pub(super) const MEASURING: Layered = Layered { name: "measuring", first: "measuring the first layer" };
/// All about quantizing a layer.
pub(super) const QUANTIZING: Layered = Layered { name: "quantizing", first: "quantizing the first layer" };
const LAYERED: [Layered; 2] = [MEASURING, QUANTIZING];

/// Weights to the device: as a block in halves, and in single precision in the Hessian's order.
pub(super) const LOADING: &str = "weights";
/// Rows through a block.
pub(super) const FORWARD: &str = "forward";
/// The same with the sums of products of inputs.
pub(super) const SUMS: &str = "forward and sums";
/// Factors of Hessians.
pub(super) const FACTORING: &str = "factors";
/// What linears are fitted to.
pub(super) const CORRECTION: &str = "correction";
/// The search for scales, and rounding with feedback.
pub(super) const ROUNDING: &str = "scales and rounding";
/// Packed words to the host, back, decoded and compared.
pub(super) const PACKING: &str = "packing and check";
/// The whole model with one linear changed.
pub(super) const PROBING: &str = "probes";
/// Hidden states written to the working directory.
pub(super) const SNAPSHOT: &str = "snapshots";
/// A block's part of the files.
pub(super) const BLOCK_FILES: &str = "files of blocks";
/// What is in none of these.
const OTHER: &str = "other";

/// A stage that is entered for each layer; the first is told apart, as kernels are built in it.
#[derive(Clone, Copy)]
pub(super) struct Layered {
    name: &'static str,
    first: &'static str,
}

impl Layered {
    /// The stage's name for a layer.
    pub(super) fn of(self, layer: usize) -> &'static str {
        if layer == 0 { self.first } else { self.name }
    }
}

/// What a stage took, and would take of the whole model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// The part of the conversion.
    pub part: &'static str,
    /// The stage.
    pub stage: &'static str,
    /// Seconds measured.
    pub seconds: f64,
    /// Of these, seconds in which the device worked on lists, where it has a clock.
    pub busy: Option<f64>,
    /// Most bytes of device memory held in it.
    pub peak: u64,
    /// Seconds for all layers: the first counts once, each other one as the mean of those that were measured after the
    /// first, or as the first where there is no other. Files count as if all of them grew with the layers; everything else counts once.
    pub whole: f64,
}

/// The stages of a conversion of `layers` layers, for a model of `all` of them.
pub fn extrapolate(stages: &[StageTime], layers: usize, all: usize) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    for time in stages.iter().filter(|time| time.seconds > 0.0) {
        let (part, factor) = part(time.path.first().copied().unwrap_or(OTHER), layers, all);
        let stage = if time.path.len() > 1 { time.path[time.path.len() - 1] } else { OTHER };
        let whole = time.seconds * factor;
        match shares.iter_mut().find(|share| (share.part, share.stage) == (part, stage)) {
            Some(share) => {
                share.seconds += time.seconds;
                share.busy = share.busy.zip(time.busy).map(|(one, other)| one + other);
                share.peak = share.peak.max(time.peak);
                share.whole += whole;
            }
            None => {
                let StageTime { seconds, busy, peak, .. } = *time;
                shares.push(Share { part, stage, seconds, busy, peak, whole });
            }
        }
    }
    shares
}

/// The part that a stage belongs to, and how often what was measured of it counts.
fn part(outermost: &'static str, layers: usize, all: usize) -> (&'static str, f64) {
    for Layered { name, first } in LAYERED {
        if outermost == first {
            return (name, if layers > 1 { 1.0 } else { all as f64 });
        }
        if outermost == name {
            return (name, (all - 1) as f64 / layers.saturating_sub(1).max(1) as f64);
        }
    }
    (outermost, if outermost == WRITING { all as f64 / layers.max(1) as f64 } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(path: &[&'static str], seconds: f64, busy: f64) -> StageTime {
        StageTime { path: path.to_vec(), seconds, busy: Some(busy), peak: (10.0 * seconds) as u64 }
    }

    #[test]
    fn a_first_layer_counts_once_and_the_others_as_their_mean() {
        let stages = [
            time(&[EMBEDDING], 1.0, 0.0),
            time(&[MEASURING.of(0), SUMS], 5.0, 4.0),
            time(&[MEASURING.of(1), SUMS], 6.0, 3.0),
            time(&[HEAD], 7.0, 7.0),
            time(&[WRITING], 2.0, 0.0),
        ];
        let whole = |layers, all| -> Vec<f64> {
            extrapolate(&stages, layers, all).iter().map(|share| share.whole).collect()
        };
        assert_eq!(whole(3, 9), [1.0, 5.0 + 3.0 * 8.0, 7.0, 6.0]);
        assert_eq!(whole(3, 3), [1.0, 11.0, 7.0, 2.0], "nothing is left to be told from others");
        let shares = extrapolate(&stages, 3, 9);
        assert_eq!((shares[1].part, shares[1].stage), ("measuring", SUMS));
        assert_eq!((shares[1].seconds, shares[1].busy, shares[1].peak), (11.0, Some(7.0), 60));
        let single = extrapolate(&stages[1..2], 1, 9);
        assert_eq!(single[0].whole, 45.0);
    }
}
