//! Scores of rows against statistics worked out by hand.

use super::*;
use crate::ops::score::RowScore;
use bytemuck::Zeroable;

/// Rows that give the predicted token probability `p`, with the same divergence each.
fn rows(ps: &[f32], divergence: f32) -> Vec<RowScore> {
    ps.iter().map(|p| RowScore::new(-p.ln(), divergence, true)).collect()
}

/// Logarithms below 4 in single precision are off by 2^-23 at most; each figure is at most 16 times such.
const TOLERANCE: f64 = 2e-6;

fn assert_near(got: f64, want: f64) {
    assert!((got - want).abs() < TOLERANCE, "{got}, expected {want}");
}

#[test]
fn perplexity_of_one_window_by_hand() {
    let mut scores = Scores::new(3, false);
    scores.begin_window(&[0, 1, 2]).unwrap();
    // The last row predicts nothing.
    scores.push(&rows(&[0.25, 0.75, 1.0], 0.0)).unwrap();
    let summary = scores.summary().unwrap();
    assert_near(summary.perplexity.mean, 1.0 / (0.25_f64 * 0.75).sqrt());
    assert_eq!((summary.tokens, summary.windows), (3, 1));
    assert_eq!(summary.perplexity.standard_error, None);
    assert_eq!((summary.kl_divergence, summary.top1_agreement), (None, None));
}

#[test]
fn divergence_and_agreement_are_means_of_all_rows() {
    let mut scores = Scores::new(2, true);
    scores.begin_window(&[0, 1, 0, 1]).unwrap();
    let row = |divergence, agrees| RowScore::new(0.0, divergence, agrees);
    scores.push(&[row(0.5, false), row(0.25, true), row(0.0, true), row(2.25, true)]).unwrap();
    let summary = scores.summary().unwrap();
    assert_eq!(summary.kl_divergence.unwrap().mean, 0.75);
    assert_eq!(summary.top1_agreement.unwrap().mean, 0.75);
}

#[test]
fn standard_errors_over_windows_by_hand() {
    let mut scores = Scores::new(2, true);
    // Negative log likelihoods ln 2, ln 4, ln 8, and as many divergences.
    for (p, divergence) in [(0.5, 1.0), (0.25, 2.0), (0.125, 4.0)] {
        scores.begin_window(&[0, 1]).unwrap();
        scores.push(&rows(&[p, 1.0], divergence)).unwrap();
    }
    let summary = scores.summary().unwrap();
    assert_near(summary.perplexity.mean, 4.0);
    // Deviation of (1, 2, 3) ln 2 is ln 2; the perplexity's error is 4 times as large.
    assert_near(summary.perplexity.standard_error.unwrap(), 4.0 * 2_f64.ln() / 3_f64.sqrt());
    assert_near(summary.kl_divergence.unwrap().mean, 7.0 / 3.0);
    // Residuals (-4, -1, 5) / 3: variance (16 + 1 + 25) / 9 / 2 = 7 / 3.
    assert_near(summary.kl_divergence.unwrap().standard_error.unwrap(), (7.0_f64 / 3.0 / 3.0).sqrt());
}

#[test]
fn windows_of_different_length_are_weighted_by_their_tokens() {
    let mut scores = Scores::new(2, false);
    for (tokens, ps) in [(&[0, 1][..], &[0.5, 1.0][..]), (&[0, 1, 1, 1][..], &[0.25, 0.25, 0.25, 1.0][..])] {
        scores.begin_window(tokens).unwrap();
        scores.push(&rows(ps, 0.0)).unwrap();
    }
    // (1 · ln 2 + 3 · ln 4) / 4 = 1.75 ln 2; residuals ∓0.75 ln 2, so √(2 · 2 · 0.75²) / 4 = 0.375.
    let perplexity = scores.summary().unwrap().perplexity;
    assert_near(perplexity.mean, 2_f64.powf(1.75));
    assert_near(perplexity.standard_error.unwrap(), perplexity.mean * 0.375 * 2_f64.ln());
}

#[test]
fn chunks_change_no_bit() {
    let all: Vec<RowScore> =
        (0..7).map(|i| RowScore::new((i * 7919 % 1009) as f32 / 50.0, 0.1 * i as f32, i % 3 == 0)).collect();
    let run = |chunk: usize| {
        let mut scores = Scores::new(37, true);
        scores.begin_window(&[3; 7]).unwrap();
        all.chunks(chunk).for_each(|rows| scores.push(rows).unwrap());
        scores.summary().unwrap()
    };
    assert_eq!(run(7), run(3));
    assert_eq!(run(7), run(1));
}

#[test]
fn misuse_is_refused() {
    let mut scores = Scores::new(3, false);
    assert!(scores.summary().is_err(), "nothing scored");
    assert!(scores.begin_window(&[]).is_err());
    assert!(scores.begin_window(&[0, 3]).is_err(), "token outside the vocabulary");
    scores.begin_window(&[0, 1]).unwrap();
    assert!(scores.push(&rows(&[0.5; 3], 0.0)).is_err(), "three rows for two tokens");
    scores.push(&rows(&[0.5], 0.0)).unwrap();
    assert!(scores.begin_window(&[0]).is_err(), "the last window is not complete");
    assert!(scores.summary().is_err());
}

#[test]
fn what_is_not_finite_names_the_place() {
    let mut scores = Scores::new(2, true);
    scores.begin_window(&[0, 1, 0]).unwrap();
    scores.push(&rows(&[0.5], 0.0)).unwrap();
    // A row that the device has not written is refused as well.
    let of_reference: RowScore = bytemuck::cast([0, 0, 0, (1_u32 << 31) | 7]);
    for (bad, named) in [
        (of_reference, "logits of the reference: token 7 of position 1 in window 0 is not finite"),
        (RowScore::zeroed(), "logits of the model: token 0 of position 1 in window 0 is not finite"),
        (
            RowScore::new(f32::INFINITY, 0.0, true),
            "logits of the model: position 1 in window 0: too far apart",
        ),
        (
            RowScore::new(0.0, f32::NAN, true),
            "the model beside the reference: position 1 in window 0: too far",
        ),
    ] {
        let error = scores.push(&[bad]).unwrap_err();
        assert!(matches!(error, Error::Numerical { .. }));
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn rows_predict_the_next_token_and_the_last_nothing() {
    let tokens = [5, 6, 7, 8, 9];
    assert_eq!(targets(&tokens, 0, 2), [6, 7]);
    assert_eq!(targets(&tokens, 3, 2), [9, NO_TARGET]);
}

#[test]
fn text_is_cut_into_consecutive_windows() {
    let tokens: Vec<u32> = (0..10).collect();
    let cut = |length, count| windows(&tokens, length, count).map(<[u32]>::to_vec).collect::<Vec<_>>();
    assert_eq!(cut(4, 9), [[0, 1, 2, 3], [4, 5, 6, 7]]);
    assert_eq!(cut(4, 1), [[0, 1, 2, 3]]);
    assert_eq!(cut(11, 3), std::slice::from_ref(&tokens), "a short text is one window");
    assert_eq!(windows(&[], 4, 2).count(), 0);
    assert_eq!(cut(0, 2).len(), 2, "a length of zero does not panic");
}
