//! How linears are fitted and rounded: what each technique is, and its part by default.

use super::scales::ScaleRule;
use crate::{Error, Result};

/// Damping of ExLlamaV2 0.3.2, as a part of the mean of the Hessian's diagonal.
pub const EXL2_DAMPING: f64 = 0.12;

/// Damping by default, ExLlamaV3's: little takes less from the feedback, and what it lets through is seen when factoring.
pub const DAMPING: f64 = 0.025;

/// Techniques of the converter; each can be turned off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Method {
    /// Part of the correction of a linear's weights for what quantization before it has done to its inputs: it is fitted to
    /// the unquantized model's outputs from the quantized model's inputs. 0 is off (asymmetric calibration: GPTAQ; the part:
    /// MARR).
    pub asymmetry: f32,
    /// Part of what the residual stream has lost so far that the linears which add to it are fitted to restore. 0 is off.
    pub residual: f32,
    /// Damping of Hessians, as a part of the mean of their diagonal.
    pub damping: f64,
    /// How the scales of groups are found.
    pub scales: ScaleRule,
}

impl Default for Method {
    /// Half of each correction. Of the asymmetry 0.5 was best of 0, 0.25, 0.5 and 1 on SmolLM2-135M-Instruct at 3 bits, in an
    /// experiment outside this project; of the residual no other part was tried.
    fn default() -> Self {
        Self { asymmetry: 0.5, residual: 0.5, damping: DAMPING, scales: ScaleRule::Searched }
    }
}

impl Method {
    /// The techniques of ExLlamaV2 0.3.2.
    pub fn exl2() -> Self {
        Self { asymmetry: 0.0, residual: 0.0, damping: EXL2_DAMPING, scales: ScaleRule::Exl2 }
    }

    /// Whether the states of the unquantized model are needed beside the quantized ones.
    pub fn paired(&self) -> bool {
        self.asymmetry != 0.0 || self.residual != 0.0
    }

    /// Refuses parts outside 0 to 1 and damping that is not above 0.
    ///
    /// # Errors
    /// [`Error::Argument`] with the flag.
    pub fn check(&self) -> Result<()> {
        for (flag, part) in [("--asymmetry", self.asymmetry), ("--residual", self.residual)] {
            if !(0.0..=1.0).contains(&part) {
                return Err(Error::argument(flag, format!("{part}; it is a part between 0 and 1")));
            }
        }
        if !(self.damping > 0.0 && self.damping <= 1.0) {
            let message =
                format!("{}; it is a part of the diagonal's mean, above 0 and at most 1", self.damping);
            return Err(Error::argument("--damping", message));
        }
        Ok(())
    }
}
