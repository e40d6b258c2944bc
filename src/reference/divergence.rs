//! Oracle of the divergence between rows of logits.

/// `Σ p·(ln p − ln q)` in nats with p and q the softmax of `x` and `y`, for each row of `cols` values.
pub fn divergence(x: &[f32], y: &[f32], cols: usize) -> Vec<f64> {
    let logs = |row: &[f32]| -> Vec<f64> {
        let top = row.iter().fold(f64::NEG_INFINITY, |top, &value| top.max(f64::from(value)));
        let sum: f64 = row.iter().map(|&value| (f64::from(value) - top).exp()).sum();
        row.iter().map(|&value| f64::from(value) - top - sum.ln()).collect()
    };
    let row =
        |(x, y): (&[f32], &[f32])| logs(x).iter().zip(logs(y)).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
    x.chunks(cols).zip(y.chunks(cols)).map(row).collect()
}
