//! Each kernel against its oracle on the adapter at hand, at small and at real shapes.
//!
//! A [`Case`] is one kernel at one shape: it makes its inputs from a seed, poisons its outputs, runs the
//! operation and compares with the f64 oracle within a bound worked out from the operation's rounding steps.
//! The kernel tests run the same cases at awkward shapes. How a result is shown is the caller's affair.

mod attention;
mod attention_decode;
mod cache_write;
mod case;
mod cholesky;
mod column_product;
mod compare;
mod dequantize;
mod difference;
mod dot;
mod embed;
mod fused;
mod gather_rows;
mod group;
mod group_gemv;
mod halve;
mod halve_columns;
mod host_memory;
mod matmul;
mod matmul_tn;
mod output;
mod packed;
mod permute;
mod quant_matmul;
mod read_bandwidth;
mod reorder;
mod residual_norm;
mod rms_norm;
mod rope;
mod sample;
mod scale_loss;
mod score;
mod softmax;
mod swiglu;
mod swiglu_gather;
mod weight_error;

pub use attention::{Attention, Row};
pub use attention_decode::AttentionDecode;
pub use cache_write::CacheWrite;
pub use case::{Case, Fault, Shapes};
pub use cholesky::{CholeskyBlock, Factor, FactorStep};
pub use column_product::ColumnProduct;
pub use compare::Comparison;
pub use dequantize::Dequantize;
pub use difference::Difference;
pub use dot::Dot;
pub use embed::Embed;
pub use gather_rows::GatherRows;
pub use group::{Group, GroupStep};
pub use group_gemv::GroupGemv;
pub use halve::Halve;
pub use halve_columns::HalveColumns;
pub use matmul::Matmul;
pub use matmul_tn::MatmulTn;
pub use output::{POISON, poisoned, run_list};
pub use packed::Packing;
pub use permute::Permute;
pub use quant_matmul::QuantMatmul;
pub use read_bandwidth::ReadBandwidth;
pub use reorder::Reorder;
pub use residual_norm::ResidualNorm;
pub use rms_norm::RmsNorm;
pub use rope::Rope;
pub use sample::Sample;
pub use scale_loss::GroupLoss;
pub use score::Score;
pub use swiglu::Swiglu;
pub use swiglu_gather::SwigluGather;
pub use weight_error::WeightError;

pub use crate::random::Random;

use crate::gpu::Device;
use crate::{Error, Result};

/// Software adapters are spared cases that need more device memory than this, in bytes: they would take minutes.
const SOFTWARE_BYTES: u64 = 1 << 30;

/// And those of more products than this.
const SOFTWARE_PRODUCTS: u64 = 1 << 32;

/// What came of one case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every value lies within its bound.
    Passed,
    /// A value lies outside, is not a number, was not written, or was written where it should not be.
    Failed,
    /// Not run.
    Skipped {
        /// Device memory that it needs.
        bytes: u64,
        /// Why it cannot be had.
        reason: Lack,
    },
}

/// Why a case was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The device has not so much memory left, or binds too little of it at once.
    Device,
    /// The host cannot hold the inputs.
    Host,
    /// A processor that plays a card would take minutes.
    Software,
    /// The tier has no arithmetic of that kind.
    HalfPrecision,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passed => f.pad("passed"),
            Self::Failed => f.pad("failed"),
            Self::Skipped { bytes, reason } => f.pad(&match reason {
                Lack::Device => format!("skipped: needs {bytes} bytes"),
                Lack::Host => format!("skipped: needs {bytes} bytes of host memory too"),
                Lack::Software => format!("skipped: needs {bytes} bytes, and minutes on a software adapter"),
                Lack::HalfPrecision => "skipped: needs half-precision arithmetic".to_owned(),
            }),
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Stem of the shader.
    pub kernel: String,
    /// Name of the device's tier.
    pub tier: String,
    /// The case's shape.
    pub shape: String,
    /// Error of the value that comes closest to its bound or exceeds it the most; 0 when skipped.
    pub worst_error: f64,
    /// That value's bound.
    pub bound: f64,
    /// What came of it.
    pub verdict: Verdict,
}

/// All cases; a kernel's own file lists its shapes.
pub fn cases(shapes: Shapes) -> Vec<Box<dyn Case>> {
    let mut all: Vec<Box<dyn Case>> = Vec::new();
    all.extend(embed::cases(shapes));
    all.extend(rms_norm::cases(shapes));
    all.extend(permute::cases(shapes));
    all.extend(halve::cases(shapes));
    all.extend(halve_columns::cases(shapes));
    all.extend(matmul::cases(shapes));
    all.extend(quant_matmul::cases(shapes));
    all.extend(dequantize::cases(shapes));
    all.extend(reorder::cases(shapes));
    all.extend(rope::cases(shapes));
    all.extend(cache_write::cases(shapes));
    all.extend(attention::cases(shapes));
    all.extend(attention_decode::cases(shapes));
    all.extend(swiglu::cases(shapes));
    all.extend(group_gemv::cases(shapes));
    all.extend(residual_norm::cases(shapes));
    all.extend(swiglu_gather::cases(shapes));
    all.extend(matmul_tn::cases(shapes));
    all.extend(column_product::cases(shapes));
    all.extend(gather_rows::cases(shapes));
    all.extend(group::cases(shapes));
    all.extend(scale_loss::cases(shapes));
    all.extend(weight_error::cases(shapes));
    all.extend(cholesky::cases(shapes));
    all.extend(difference::cases(shapes));
    all.extend(dot::cases(shapes));
    all.extend(score::cases(shapes));
    all.extend(sample::cases(shapes));
    all.extend(read_bandwidth::cases(shapes));
    all
}

/// Runs all cases; `progress` is told what comes next.
///
/// # Errors
/// [`Error::Device`] when the device fails; a wrong result is no error but a verdict.
pub fn run(device: &Device, shapes: Shapes, progress: &mut dyn FnMut(&str)) -> Result<Vec<Outcome>> {
    cases(shapes)
        .iter()
        .enumerate()
        .map(|(index, case)| {
            progress(&format!("{} {}", case.kernel(device), case.shape()));
            outcome(device, &**case, index as u64, Fault::None)
        })
        .collect()
}

/// Runs one case.
///
/// # Errors
/// As [`run`].
pub fn outcome(device: &Device, case: &dyn Case, seed: u64, fault: Fault) -> Result<Outcome> {
    let (worst_error, bound, verdict) = match compare_or_lack(device, case, seed, fault)? {
        Ok(comparison) => {
            let verdict = if comparison.passed() { Verdict::Passed } else { Verdict::Failed };
            (comparison.worst_error(), comparison.bound(), verdict)
        }
        Err(reason) => (0.0, 0.0, Verdict::Skipped { bytes: case.bytes(), reason }),
    };
    Ok(Outcome {
        kernel: case.kernel(device).to_owned(),
        tier: device.tier().to_string(),
        shape: case.shape(),
        worst_error,
        bound,
        verdict,
    })
}

fn compare_or_lack(
    device: &Device,
    case: &dyn Case,
    seed: u64,
    fault: Fault,
) -> Result<std::result::Result<Comparison, Lack>> {
    if !device.capabilities().allow(case.arithmetic()) {
        return Ok(Err(Lack::HalfPrecision));
    }
    if device.software() && (case.bytes() > SOFTWARE_BYTES || case.products() > SOFTWARE_PRODUCTS) {
        return Ok(Err(Lack::Software));
    }
    if host_memory::available().is_some_and(|bytes| bytes < case.host_bytes()) {
        return Ok(Err(Lack::Host));
    }
    match case.run(device, seed, fault) {
        Err(Error::OutOfMemory { .. }) => Ok(Err(Lack::Device)),
        Err(Error::Shape { operation, .. }) if operation == "allocation" => Ok(Err(Lack::Device)),
        result => result.map(Ok),
    }
}
