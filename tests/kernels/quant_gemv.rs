//! Products with packed matrices.

use exlay::packing::WIDTHS;
use exlay::selftest::{Packing, QuantMatmul};

use crate::support::check;

#[test]
fn every_width_alone() {
    for (index, bits) in WIDTHS.into_iter().enumerate() {
        let groups = vec![(bits, 64), (bits, 32), (bits, 96)];
        check(&QuantMatmul { rows: 1 + index, packing: Packing { groups, n: 33, bias: false }, add: false });
    }
}

#[test]
fn mixed_widths_padding_bias_and_residual() {
    for (rows, k, n, group_rows) in [(1, 32, 1, 32), (2, 224, 31, 32), (8, 608, 64, 64), (3, 1184, 97, 128)] {
        let packing = Packing::mixed(k, n, &WIDTHS, group_rows, rows != 2);
        check(&QuantMatmul { rows, packing, add: rows % 2 == 1 });
    }
}

#[test]
fn many_rows_go_through_halves() {
    for (rows, k, n) in [(9, 32, 1), (64, 224, 33), (65, 608, 160)] {
        let packing = Packing::mixed(k, n, &WIDTHS, 64, true);
        check(&QuantMatmul { rows, packing, add: rows % 2 == 1 });
    }
}
