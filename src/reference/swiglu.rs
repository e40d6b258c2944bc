//! Oracle of the gated activation of a Llama MLP.

use super::Real;

/// `silu(gate) · up`, element by element, with `silu(g) = g / (1 + exp(-g))`.
pub fn swiglu<G: Real, U: Real>(gate: &[G], up: &[U]) -> Vec<f64> {
    assert_eq!(gate.len(), up.len(), "one gate per element");
    gate.iter()
        .zip(up)
        .map(|(gate, up)| {
            let gate = gate.to_f64();
            gate / (1.0 + (-gate).exp()) * up.to_f64()
        })
        .collect()
}
