//! U, upper triangular, with (H + damping·I)⁻¹ = Uᵀ·U, for a Hessian H on a device.
//!
//! It is worked out on the device in single precision ([`device`]), judged ([`doubt`]), and where that is not good enough, or
//! the device is a processor, on the host in double precision ([`host`]).

pub mod device;
pub mod doubt;
pub mod host;

use self::device::Attempt;
use self::doubt::Doubt;
use crate::Result;
use crate::gpu::Device;
use crate::ops::TallMatrix;

/// The least damping.
const DAMPING_FLOOR: f64 = 1e-5;

/// How often a Hessian that has no factor gets the damping added once more.
const ATTEMPTS: u32 = 10;

/// What a Hessian needed to be factored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Damping {
    /// Added to the diagonal in all.
    pub amount: f64,
    /// 1 unless the matrix was ill-conditioned: the damping was added so many times.
    pub attempts: u32,
}

/// Where a factor is worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactoredOn {
    /// On the device in single precision.
    Device,
    /// On the host in double precision.
    Host,
}

impl FactoredOn {
    /// The place for a device: the one place where that is decided. A software adapter is the same processor as the host,
    /// and slower than compiled code even in double precision: on two busy cores 0.05 s against 0.01 s at k = 128, 0.76 against
    /// 0.24 at 576, 7.6 against 0.86 at 1536 (lavapipe, 2026-11-24).
    pub fn choose(device: &Device) -> Self {
        if device.software() { Self::Host } else { Self::Device }
    }
}

/// A mean of products, [k, k], whole, with what a factor of it depends on.
pub(super) struct Moments<'a> {
    /// A linear's, for messages.
    pub(super) name: &'a str,
    /// Features in their own order.
    pub(super) matrix: &'a TallMatrix,
    /// Its diagonal.
    pub(super) diagonal: &'a [f32],
    /// The feature of each packed row.
    pub(super) order: &'a [u32],
}

/// A factor and how it was come by.
pub(super) struct Factored {
    /// U [k, k], features in packed order.
    pub(super) factor: TallMatrix,
    /// What is in it.
    pub(super) damping: Damping,
    /// Where.
    pub(super) on: FactoredOn,
    /// Why the device's was not taken.
    pub(super) doubt: Option<Doubt>,
}

impl Moments<'_> {
    /// Factors the matrix with `damping` times the diagonal's mean, at least 1e-5, added to its diagonal; again, up to ten times
    /// in all, while there is no factor. Where the device's factor is in doubt, the host begins anew.
    ///
    /// # Errors
    /// [`crate::Error::Numerical`] when no damping helps; as the device reports.
    pub(super) fn factor(&self, damping: f64, on: FactoredOn) -> Result<Factored> {
        let k = self.order.len();
        let mean = self.diagonal.iter().map(|&value| f64::from(value)).sum::<f64>() / k as f64;
        let step = (damping * mean).max(DAMPING_FLOOR);
        // Products on the device take columns in fours.
        let on = if k.is_multiple_of(4) { on } else { FactoredOn::Host };
        let doubt = match on {
            FactoredOn::Device => match self.on_device(step)? {
                Ok((factor, damping)) => return Ok(Factored { factor, damping, on, doubt: None }),
                Err(doubt) => Some(doubt),
            },
            FactoredOn::Host => None,
        };
        let device = self.matrix.device();
        let (values, damping) = {
            let values = self.matrix.read()?;
            host::factor(self.name, &values, self.order, step)?
        };
        let factor = TallMatrix::upload(device, &format!("{}.factor", self.name), &values, k)?;
        Ok(Factored { factor, damping, on: FactoredOn::Host, doubt })
    }

    fn on_device(&self, step: f64) -> Result<std::result::Result<(TallMatrix, Damping), Doubt>> {
        let mut attempt = Attempt::new(self)?;
        for attempts in 1..=ATTEMPTS {
            let amount = step * f64::from(attempts);
            let Some(pivots) = attempt.run(self, amount)? else { continue };
            match doubt::of_pivots(&pivots) {
                Ok(worst) => {
                    let factor = attempt.finish()?;
                    let worst = pivots.len() - 1 - worst;
                    let doubt = doubt::of_residual(self.residual(&factor, amount, worst)?);
                    return Ok(match doubt {
                        Some(doubt) => Err(doubt),
                        None => Ok((factor, Damping { amount, attempts })),
                    });
                }
                Err(Some(doubt)) => return Ok(Err(doubt)),
                Err(None) => {}
            }
        }
        Ok(Err(Doubt::Indefinite { attempts: ATTEMPTS }))
    }
}
