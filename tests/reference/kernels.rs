//! The oracles of the float kernels against hand-made sums.

use exlay::reference::matmul::{columns, matmul};
use exlay::reference::{attention, embed, matmul_tn, permute, rms_norm, rope, swiglu};
use half::f16;

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "element {at}: {found}, expected {expected}");
    }
}

#[test]
fn lookups_copy_the_named_elements() {
    let table = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    assert_eq!(embed::embed(&table, 2, &[2, 0, 2]), [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
    assert_eq!(permute::permute(&table, 3, &[2, 0, 1]), [3.0, 1.0, 2.0, 6.0, 4.0, 5.0]);
    assert_eq!(permute::inverse(&[2, 0, 1]), [1, 2, 0]);
}

#[test]
fn rms_norm_divides_by_the_root_of_the_mean_square() {
    // Mean square of 3, 4, 0, 0 is 6.25, so eps = 2.75 makes the root 3.
    let y = rms_norm::rms_norm(&[3.0_f32, 4.0, 0.0, 0.0], &[1.0_f32, 3.0, 1.0, 1.0], 2.75, 4);
    assert_close(&y, &[1.0, 4.0, 0.0, 0.0], 1e-15);
}

#[test]
fn rope_turns_each_pair_by_its_own_angle() {
    let quarter = std::f64::consts::FRAC_PI_2;
    // Pairs are (0, 2) and (1, 3); at position 1 the first turns by a quarter, the second by half a turn.
    let x = [1.0_f32, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0];
    let y = rope::rope(&x, 1, &[0, 1], &[quarter, 2.0 * quarter], 0.5);
    assert_close(&y, &[0.5, 1.0, 1.5, 2.0, -1.5, -1.0, 0.5, -2.0], 1e-12);
}

#[test]
fn attention_weighs_the_visible_values() {
    // Two heads on one key/value head of dimension 1; scores are 0 for the first head, ln 3 · position for the second.
    let query = [0.0_f64, 3.0_f64.ln()];
    let keys = [0.0, 1.0, 2.0, 9.0].map(f16::from_f32);
    let values = [4.0, 8.0, 1.0, 7.0].map(f16::from_f32);
    let y = attention::attention(&query, &keys, &values, 2, 1, 2, None);
    assert_close(&y, &[13.0 / 3.0, (4.0 + 3.0 * 8.0 + 9.0) / 13.0], 1e-12);
    let windowed = attention::attention(&query, &keys, &values, 2, 1, 2, Some(2));
    assert_close(&windowed, &[4.5, (3.0 * 8.0 + 9.0) / 12.0], 1e-12);
    let last = attention::attention(&query, &keys, &values, 2, 1, 1, Some(1));
    assert_close(&last, &[8.0, 8.0], 1e-12);
}

#[test]
fn attention_scales_scores_and_groups_heads() {
    // dim 4, so scores are halved; three query heads read key/value head 0, three read head 1.
    let mut query = vec![0.0_f64; 6 * 4];
    for head in 0..6 {
        query[head * 4] = 2.0 * 2.0_f64.ln();
    }
    let mut keys = vec![0.0_f64; 2 * 2 * 4];
    keys[4] = 1.0;
    let values: Vec<f64> = (0..16).map(f64::from).collect();
    let y = attention::attention(&query, &keys, &values, 6, 2, 1, None);
    // Head 0 weighs its two rows 1 : 2, head 1 has equal scores.
    for head in 0..3 {
        assert_close(&y[head * 4..head * 4 + 4], &[8.0 / 3.0, 11.0 / 3.0, 14.0 / 3.0, 17.0 / 3.0], 1e-12);
        assert_close(&y[(3 + head) * 4..(3 + head) * 4 + 4], &[10.0, 11.0, 12.0, 13.0], 1e-12);
    }
}

#[test]
fn swiglu_gates() {
    let y = swiglu::swiglu(&[0.0_f32, 30.0, 1.0, -1.0], &[5.0_f32, 2.0, 2.0, 1.0]);
    let e = std::f64::consts::E;
    assert_close(&y, &[0.0, 60.0, 2.0 * e / (e + 1.0), -1.0 / (1.0 + e)], 1e-10);
}

#[test]
fn products_match_hand_sums() {
    let x = [1.0_f32, 2.0, 3.0, -1.0, 0.0, 2.0];
    let w = [1.0_f32, 0.0, 1.0, 2.0, -1.0, 0.5];
    assert_eq!(matmul(&x, &w, 3, None, None), [4.0, 1.5, 1.0, -1.0]);
    let y = matmul(&x, &w, 3, Some(&[10.0, 20.0]), Some(&[100.0, 200.0, 300.0, 400.0]));
    assert_eq!(y, [114.0, 221.5, 311.0, 419.0]);
    assert_eq!(columns(&x, &w, 3, &[1]), [1.5, -1.0]);
    // Rows of A: (1, 2, 3) and (-1, 0, 2); of B: (1, 2) and (3, 4); row weights 1 and 10.
    let c = matmul_tn::matmul_tn(
        &x,
        &[1.0_f32, 2.0, 3.0, 4.0],
        Some(&[1.0, 10.0]),
        (3, 2),
        (2.0, 3.0),
        &[1.0; 6],
    );
    assert_eq!(c, [-55.0, -73.0, 7.0, 11.0, 129.0, 175.0]);
}
