//! Scores against values worked out by hand.

use super::*;

fn chunk(values: &[f32], columns: usize) -> Logits<'_> {
    Logits { values, columns }
}

/// Rows of logits that are the logarithms of probabilities, up to a constant of each row.
fn log_rows(rows: &[&[f64]]) -> Vec<f32> {
    let shifts = [0.0, 7.5, -31.0].iter().cycle();
    rows.iter().zip(shifts).flat_map(|(row, s)| row.iter().map(move |p| (p.ln() + s) as f32)).collect()
}

/// f32 logits up to 32 are off by 2^-20 at most; each figure is a sum of at most three such.
const TOLERANCE: f64 = 3e-6;

fn assert_near(got: f64, want: f64) {
    assert!((got - want).abs() < TOLERANCE, "{got}, expected {want}");
}

#[test]
fn perplexity_of_one_window_by_hand() {
    let logits = log_rows(&[&[0.5, 0.25, 0.25], &[0.125, 0.125, 0.75], &[0.2, 0.2, 0.6]]);
    let mut scores = Scores::new(3, false);
    scores.begin_window(&[0, 1, 2]).unwrap();
    scores.push(chunk(&logits, 3), None).unwrap();
    let summary = scores.summary().unwrap();
    // Row 0 predicts token 1 (0.25), row 1 predicts token 2 (0.75), row 2 predicts nothing.
    assert_near(summary.perplexity.mean, 1.0 / (0.25_f64 * 0.75).sqrt());
    assert_eq!((summary.tokens, summary.windows), (3, 1));
    assert_eq!(summary.perplexity.standard_error, None);
    assert_eq!((summary.kl_divergence, summary.top1_agreement), (None, None));
}

#[test]
fn divergence_and_agreement_by_hand() {
    let model = log_rows(&[&[0.5, 0.5], &[0.25, 0.75]]);
    let reference = log_rows(&[&[0.25, 0.75], &[0.125, 0.875]]);
    let mut scores = Scores::new(2, true);
    scores.begin_window(&[0, 1]).unwrap();
    scores.push(chunk(&model, 2), Some(chunk(&reference, 2))).unwrap();
    let summary = scores.summary().unwrap();
    let first = 0.25 * (0.25_f64 / 0.5).ln() + 0.75 * (0.75_f64 / 0.5).ln();
    let second = 0.125 * (0.125_f64 / 0.25).ln() + 0.875 * (0.875_f64 / 0.75).ln();
    assert_near(summary.kl_divergence.unwrap().mean, (first + second) / 2.0);
    // Row 0 of the model is a tie, taken as token 0, beside token 1; row 1 agrees.
    assert_near(summary.top1_agreement.unwrap().mean, 0.5);
}

#[test]
fn a_model_does_not_diverge_from_itself() {
    let logits: Vec<f32> = (0..5 * 37).map(|i| ((i * 7919) % 101) as f32 / 3.0 - 20.0).collect();
    let mut scores = Scores::new(37, true);
    scores.begin_window(&[1, 2, 3, 4, 5]).unwrap();
    scores.push(chunk(&logits, 37), Some(chunk(&logits, 37))).unwrap();
    let summary = scores.summary().unwrap();
    assert_eq!(summary.kl_divergence.unwrap().mean, 0.0);
    assert_eq!(summary.top1_agreement.unwrap().mean, 1.0);
}

#[test]
fn standard_errors_over_windows_by_hand() {
    let mut scores = Scores::new(2, true);
    let even = log_rows(&[&[0.5, 0.5], &[0.5, 0.5]]);
    // Negative log likelihoods ln 2, ln 4, ln 8 of token 1 and divergences of the fair coin.
    for p in [0.5, 0.25, 0.125] {
        let model = log_rows(&[&[1.0 - p, p], &[1.0 - p, p]]);
        scores.begin_window(&[0, 1]).unwrap();
        scores.push(chunk(&model, 2), Some(chunk(&even, 2))).unwrap();
    }
    let summary = scores.summary().unwrap();
    assert_near(summary.perplexity.mean, 4.0);
    // Deviation of (1, 2, 3) ln 2 is ln 2; the perplexity's error is 4 times as large.
    assert_near(summary.perplexity.standard_error.unwrap(), 4.0 * 2_f64.ln() / 3_f64.sqrt());
    let kl: Vec<f64> =
        [0.5_f64, 0.25, 0.125].iter().map(|p| -2_f64.ln() - 0.5 * (p * (1.0 - p)).ln()).collect();
    let mean = kl.iter().sum::<f64>() / 3.0;
    let variance = kl.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2.0;
    assert_near(summary.kl_divergence.unwrap().mean, mean);
    assert_near(summary.kl_divergence.unwrap().standard_error.unwrap(), (variance / 3.0).sqrt());
}

#[test]
fn windows_of_different_length_are_weighted_by_their_tokens() {
    let mut scores = Scores::new(2, false);
    for (tokens, p) in [(&[0, 1][..], 0.5), (&[0, 1, 1, 1][..], 0.25)] {
        let row: &[f64] = &[1.0 - p, p];
        let logits = log_rows(&vec![row; tokens.len()]);
        scores.begin_window(tokens).unwrap();
        scores.push(chunk(&logits, 2), None).unwrap();
    }
    // (1 · ln 2 + 3 · ln 4) / 4 = 1.75 ln 2; residuals ∓0.75 ln 2, so √(2 · 2 · 0.75²) / 4 = 0.375.
    let perplexity = scores.summary().unwrap().perplexity;
    assert_near(perplexity.mean, 2_f64.powf(1.75));
    assert_near(perplexity.standard_error.unwrap(), perplexity.mean * 0.375 * 2_f64.ln());
}

#[test]
fn chunks_and_padding_change_no_bit() {
    let (rows, vocabulary) = (7, 37);
    let value = |i: usize, salt: usize| ((i * 7919 + salt) % 1009) as f32 / 50.0 - 10.0;
    let tokens: Vec<u32> = (0..rows as u32).map(|i| i * 5 % 37).collect();
    let run = |columns: usize, chunk_rows: usize, threads: usize| {
        let table = |salt| -> Vec<f32> {
            let at = |row, column| {
                if column < vocabulary { value(row * vocabulary + column, salt) } else { 1e4 }
            };
            (0..rows).flat_map(|row| (0..columns).map(move |column| at(row, column))).collect()
        };
        let (model, reference) = (table(1), table(77));
        let mut scores = Scores::new(vocabulary, true);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            scores.begin_window(&tokens).unwrap();
            let size = chunk_rows * columns;
            for (model, reference) in model.chunks(size).zip(reference.chunks(size)) {
                scores.push(chunk(model, columns), Some(chunk(reference, columns))).unwrap();
            }
            scores.summary().unwrap()
        })
    };
    let whole = run(37, 7, 1);
    assert!(whole.kl_divergence.unwrap().mean > 1.0, "the two tables differ");
    assert_eq!(whole, run(64, 7, 3));
    assert_eq!(whole, run(37, 3, 2));
    assert_eq!(whole, run(38, 1, 1));
}

#[test]
fn misuse_is_refused() {
    let mut scores = Scores::new(3, false);
    assert!(scores.summary().is_err(), "nothing scored");
    assert!(scores.begin_window(&[]).is_err());
    assert!(scores.begin_window(&[0, 3]).is_err(), "token outside the vocabulary");
    scores.begin_window(&[0, 1]).unwrap();
    assert!(scores.push(chunk(&[0.0; 4], 2), None).is_err(), "fewer columns than the vocabulary");
    assert!(scores.push(chunk(&[0.0; 7], 3), None).is_err(), "half a row");
    assert!(scores.push(chunk(&[0.0; 9], 3), None).is_err(), "three rows for two tokens");
    assert!(scores.push(chunk(&[0.0; 3], 3), Some(chunk(&[0.0; 3], 3))).is_err(), "no reference expected");
    scores.push(chunk(&[0.0; 3], 3), None).unwrap();
    assert!(scores.begin_window(&[0]).is_err(), "the last window is not complete");
    assert!(scores.summary().is_err());
}

#[test]
fn logits_that_are_not_finite_name_the_place() {
    let mut scores = Scores::new(2, true);
    scores.begin_window(&[0, 1, 0]).unwrap();
    let good = [0.0; 6];
    let bad = [0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0];
    let error = scores.push(chunk(&bad, 2), Some(chunk(&good, 2))).unwrap_err();
    assert!(matches!(error, Error::Numerical { .. }));
    assert!(error.to_string().contains("the model: token 1 of position 1 in window 0"), "{error}");
    let error = scores.push(chunk(&good, 2), Some(chunk(&bad, 2))).unwrap_err();
    assert!(error.to_string().contains("the reference"), "{error}");
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
