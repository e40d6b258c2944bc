//! The product of a group of packed matrices, and what stands between two such products.

use exlay::gpu::Arithmetic;
use exlay::packing::WIDTHS;
use exlay::selftest::{GroupGemv, Packing, ResidualNorm, SwigluGather};

use crate::support::check;

#[test]
fn every_width_alone() {
    for bits in WIDTHS {
        for form in Arithmetic::ALL {
            let groups = vec![(bits, 64), (bits, 32), (bits, 96), (bits, 96)];
            let members = vec![Packing { groups, n: 33, bias: false }];
            check(&GroupGemv { rows: 1, form, members, one_order: true, norm: false });
        }
    }
}

#[test]
fn groups_of_mixed_widths_orders_and_rows() {
    for (rows, form) in [
        (1, Arithmetic::Fixed),
        (2, Arithmetic::Single),
        (4, Arithmetic::Fixed),
        (8, Arithmetic::Single),
        (8, Arithmetic::Fixed),
        (1, Arithmetic::Pairs),
        (2, Arithmetic::Pairs),
        (8, Arithmetic::Pairs),
    ] {
        let part = |n, widths: &[u32], group_rows| Packing::mixed(1184, n, widths, group_rows, n == 97);
        let members = vec![part(200, &WIDTHS, 64), part(97, &[6, 5], 128), part(31, &[4, 2], 96)];
        check(&GroupGemv { rows, form, members, one_order: rows % 4 == 0, norm: rows != 2 });
    }
}

#[test]
fn one_block_and_many_columns() {
    for form in Arithmetic::ALL {
        let members = vec![Packing::mixed(32, 300, &[3], 32, true)];
        check(&GroupGemv { rows: 1, form, members, one_order: true, norm: true });
    }
}

#[test]
fn residual_norms() {
    for form in Arithmetic::ALL {
        for (rows, cols, sums, copies) in
            [(1, 32, 0, 1), (2, 96, 1, 2), (3, 288, 2, 3), (8, 1184, 8, 1), (1, 608, 16, 2)]
        {
            check(&ResidualNorm { rows, cols, sums, copies, form });
        }
    }
}

#[test]
fn gated_activations() {
    for form in Arithmetic::ALL {
        for (rows, cols, sums) in [(1, 32, 1), (2, 96, 2), (8, 1184, 4), (3, 608, 16)] {
            check(&SwigluGather { rows, cols, sums, form });
        }
    }
}
