//! Rows of logits scored: awkward shapes, each score by itself, what is not finite, and what is far apart.

use exlay::gpu::{CommandList, Device};
use exlay::ops::Tensor;
use exlay::ops::score::{NO_TARGET, RowScore, RowScores, Whose, score};
use exlay::reference::score as oracle;
use exlay::selftest::Score;

use crate::support::{check, devices};

#[test]
fn scores_match_the_oracle() {
    for (rows, cols, apart) in
        [(3, 577, 0.01), (4, 256, 1.0), (3, 2, 0.5), (2, 1031, 4.0), (3, 300, 40.0), (2, 5000, 0.0001)]
    {
        check(&Score { rows, cols, apart });
    }
}

fn scored(device: &Device, model: &[f32], reference: Option<&[f32]>, target: u32) -> RowScore {
    let upload = |row: &[f32]| Tensor::upload(device, "logits", row, row.len()).unwrap();
    let (model, reference) = (upload(model), reference.map(upload));
    let to = RowScores::new(device, 1).unwrap();
    to.set_targets(&[target]).unwrap();
    let mut list = CommandList::new(device, "scores");
    score(&mut list, &model, reference.as_ref(), 1, (&to, 0)).unwrap();
    list.run().unwrap();
    to.read(1).unwrap()[0]
}

/// Logits of up to 10 of 700 tokens, without equal ones.
fn logits() -> Vec<f32> {
    (0..700).map(|i| (i * 211 % 701) as f32 / 70.0).collect()
}

#[test]
fn each_score_notices_what_it_is_about() {
    for (device, _) in devices() {
        let (model, reference) = (logits(), logits());
        let plain = scored(&device, &model, Some(&reference), 17);
        assert_eq!((plain.divergence, plain.agrees, plain.not_finite()), (0.0, 1, None), "equal rows");
        let target = scored(&device, &model, Some(&reference), 18);
        // The two logits differ, and with them the likelihoods.
        let apart = f64::from(target.negative_log_likelihood) - f64::from(plain.negative_log_likelihood);
        assert!((apart - f64::from(model[17] - model[18])).abs() < 2e-6, "{apart}");
        for none in [700, NO_TARGET] {
            assert_eq!(scored(&device, &model, Some(&reference), none).negative_log_likelihood, 0.0);
        }

        let best = (0..700).max_by(|&a, &b| model[a].total_cmp(&model[b])).unwrap();
        let mut other = reference.clone();
        other[best] = 0.0;
        let moved = scored(&device, &model, Some(&other), 17);
        assert_eq!(moved.agrees, 0);
        assert_eq!(moved.negative_log_likelihood, plain.negative_log_likelihood, "the model's alone");
        let expected = oracle::score(&model, Some(&other), None).unwrap().divergence;
        assert!((f64::from(moved.divergence) - expected).abs() < 1e-5 * expected, "{moved:?} {expected}");
        // Divergence is not symmetric.
        let turned = oracle::score(&other, Some(&model), None).unwrap().divergence;
        assert!((turned - expected).abs() > 0.1 * expected);

        assert_eq!(scored(&device, &model, None, 17), plain, "alone as beside itself");
    }
}

#[test]
fn the_lowest_of_equal_logits_is_the_highest() {
    for (device, _) in devices() {
        let mut row = logits();
        let best = |at: &[usize]| {
            let mut row = row.clone();
            at.iter().for_each(|&token| row[token] = 11.0);
            row
        };
        // Lanes of different groups and of the same one.
        for equals in [[3, 259], [3, 4], [300, 699]] {
            let agrees = |token: usize| scored(&device, &best(&equals), Some(&best(&[token])), 0).agrees;
            assert_eq!((agrees(equals[0]), agrees(equals[1])), (1, 0), "{equals:?}");
        }
        row.fill(-1.0);
        (row[5], row[600]) = (-0.0, 0.0);
        let mut one = row.clone();
        one[5] = 1.0;
        assert_eq!(scored(&device, &row, Some(&one), 0).agrees, 1, "the two zeros are equal");
    }
}

#[test]
fn the_first_logit_that_is_not_finite_is_told() {
    for (device, _) in devices() {
        let good = logits();
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for token in [0, 255, 256, 699] {
                let mut row = good.clone();
                row[token] = bad;
                row[699] = bad;
                let found = |model: &[f32], reference: &[f32]| {
                    scored(&device, model, Some(reference), 17).not_finite()
                };
                let token = token as u32;
                assert_eq!(found(&row, &good), Some((Whose::Model, token)));
                assert_eq!(found(&good, &row), Some((Whose::Reference, token)));
                assert_eq!(found(&row, &row), Some((Whose::Model, token)), "the model's first");
                assert_eq!(scored(&device, &row, None, 17).not_finite(), Some((Whose::Model, token)));
            }
        }
    }
}

/// Divergences beyond what the exponential of a difference holds.
#[test]
fn far_apart_rows_keep_their_divergence() {
    for (device, _) in devices() {
        for far in [20.0, 90.0, 250.0, 1e4_f32] {
            let mut model = logits();
            let reference = logits();
            model[7] += far;
            let expected = oracle::score(&model, Some(&reference), None).unwrap().divergence;
            let found = scored(&device, &model, Some(&reference), NO_TARGET).divergence;
            // What has been added and subtracted is as large as the distance.
            let bound = 1e-6 * f64::from(far) + 1e-5 * expected;
            assert!((f64::from(found) - expected).abs() < bound, "{far}: {found}, {expected}");
        }
        // A token of probability e^-86 is the model's favourite by e^87: divergences of 1.3, of which both factors matter.
        let mut reference = vec![-200.0_f32; 300];
        let mut model = reference.clone();
        (reference[0], model[0]) = (0.0, 0.0);
        (reference[100], model[100]) = (-86.0, 1.0);
        let expected = oracle::score(&model, Some(&reference), None).unwrap().divergence;
        let found = scored(&device, &model, Some(&reference), NO_TARGET).divergence;
        assert!((f64::from(found) - expected).abs() < 1e-4, "{found}, {expected}");
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let (device, _) = devices().next().unwrap();
    let logits = |rows: usize, cols: usize| Tensor::zeros(&device, "logits", rows, cols).unwrap();
    let to = RowScores::new(&device, 4).unwrap();
    let mut list = CommandList::new(&device, "scores");
    for (model, reference, rows, first) in [
        (logits(2, 5), Some(logits(2, 6)), 2, 0),
        (logits(2, 6), Some(logits(1, 6)), 2, 0),
        (logits(2, 6), None, 3, 0),
        (logits(2, 6), None, 2, 3),
    ] {
        assert!(score(&mut list, &model, reference.as_ref(), rows, (&to, first)).is_err());
    }
    assert!(to.set_targets(&[0; 5]).is_err());
    assert!(list.is_empty());
}
