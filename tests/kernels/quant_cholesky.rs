//! The steps of a Hessian's factor at awkward sizes.

use exlay::selftest::{CholeskyBlock, Factor, FactorStep};

use crate::support::check;

#[test]
fn elementwise_steps() {
    for k in [32, 33, 96, 160] {
        for step in [FactorStep::Symmetrize, FactorStep::UnitDiagonal, FactorStep::TurnFactor] {
            check(&Factor { step, k });
        }
    }
}

#[test]
fn blocks_on_the_diagonal() {
    for size in [4, 5, 32, 63, 64] {
        check(&CholeskyBlock { size });
    }
}
