//! Rotary frequencies. The expected values are those of transformers' formulas, evaluated in f64 by a
//! transcription in Python.

use exlay::formats::rope::{Rope, RopeScaling};

/// Both sides are f64; the formulas round a few times in another order.
const RELATIVE: f64 = 1e-11;

#[track_caller]
fn check(theta: f64, scaling: RopeScaling, head_dim: usize, skip: usize, expected: &[f64], attention: f64) {
    let (found, factor) = Rope { theta, scaling }.inverse_frequencies(head_dim, 256);
    assert_eq!(found.len(), head_dim / 2);
    for (pair, (found, expected)) in found[skip..].iter().zip(expected).enumerate() {
        let difference = (found / expected - 1.0).abs();
        assert!(difference < RELATIVE, "pair {}: {found:e}, expected {expected:e}", pair + skip);
    }
    assert!((factor / attention - 1.0).abs() < RELATIVE, "{factor}, expected {attention}");
}

#[test]
fn default_and_linear() {
    let powers: Vec<f64> = (0..8).map(|pair| 10_f64.powf(-0.5 * f64::from(pair))).collect();
    check(10_000.0, RopeScaling::Default, 16, 0, &powers, 1.0);
    let quarters: Vec<f64> = powers.iter().map(|power| power / 4.0).collect();
    check(10_000.0, RopeScaling::Linear { factor: 4.0 }, 16, 0, &quarters, 1.0);
}

#[test]
fn llama3() {
    let scaling = |original_max_position_embeddings| RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings,
    };
    let small = [
        1.000000000000e+00,
        7.940300917921e-02,
        4.700753866358e-03,
        9.115830921521e-04,
        1.767766952966e-04,
        3.428102195953e-05,
        6.647869871181e-06,
        1.289173172152e-06,
    ];
    check(500_000.0, scaling(64.0), 16, 0, &small, 1.0);
    // Llama 3.1 8B, where all three ranges meet.
    let large = [
        3.942276030117e-03,
        3.211445994753e-03,
        2.166570763503e-03,
        1.371893567761e-03,
        8.567514129196e-04,
        5.248461609930e-04,
        3.126937503841e-04,
        1.785078127680e-04,
        9.556212353965e-05,
        7.784655273932e-05,
        6.341514345778e-05,
        5.165906874819e-05,
        4.208236768726e-05,
    ];
    check(500_000.0, scaling(8192.0), 128, 27, &large, 1.0);
}

#[test]
fn yarn() {
    let plain = |factor, original| RopeScaling::Yarn {
        factor,
        original_max_position_embeddings: original,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: None,
        mscale: None,
        mscale_all_dim: None,
        truncate: true,
    };
    let tail =
        [7.905694150421e-03, 2.500000000000e-03, 7.905694150421e-04, 2.500000000000e-04, 7.905694150421e-05];
    let small = [&[1.0, 2.371708245126e-01, 5.000000000000e-02][..], &tail].concat();
    check(10_000.0, plain(4.0, 64.0), 16, 0, &small, 1.138629436112);

    let mut untruncated = plain(4.0, 64.0);
    if let RopeScaling::Yarn { truncate, .. } = &mut untruncated {
        *truncate = false;
    }
    let small = [&[1.0, 1.985835201537e-01, 2.559524589192e-02][..], &tail].concat();
    check(10_000.0, untruncated, 16, 0, &small, 1.138629436112);

    let mut weighted = plain(40.0, 4096.0);
    if let RopeScaling::Yarn { mscale, mscale_all_dim, .. } = &mut weighted {
        (*mscale, *mscale_all_dim) = (Some(0.707), Some(1.0));
    }
    let tail = [2.500000000000e-05, 4.445698525097e-06, 7.905694150421e-07, 1.405853312976e-07];
    let large = [&[1.0, 1.778279410039e-01, 2.134537420614e-02, 1.968194638166e-03][..], &tail].concat();
    check(1e6, weighted, 16, 0, &large, 0.921042355316);

    let mut given = plain(40.0, 4096.0);
    if let RopeScaling::Yarn { beta_fast, beta_slow, attention_factor, .. } = &mut given {
        (*beta_fast, *beta_slow, *attention_factor) = (16.0, 2.0, Some(1.25));
    }
    let large = [&[1.0, 1.778279410039e-01, 3.162277660168e-02, 2.881999291601e-03][..], &tail].concat();
    check(1e6, given, 16, 0, &large, 1.25);
}
