//! The product of a group of packed matrices, and what stands between two such products.

use exlay::gpu::{Arithmetic, CommandList};
use exlay::ops::activation::{Activation, Partial};
use exlay::ops::group_gemv::group_gemv;
use exlay::ops::group_geometry::{choices, split};
use exlay::ops::residual_norm::{Left, residual_norm};
use exlay::ops::{GroupMember, QuantGroup, RowNorm, Tensor};
use exlay::packing::{PackedMatrix, WIDTHS};
use exlay::selftest::{GroupGemv, Packing, ResidualNorm, SwigluGather};

use crate::support::{check, device, tiers};

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

/// Sums added as a consumer adds them.
fn tree(parts: &[Vec<f32>], at: usize) -> f32 {
    match parts {
        [one] => one[at],
        several => {
            let (first, second) = several.split_at(several.len() / 2);
            tree(first, at) + tree(second, at)
        }
    }
}

/// How slices are shared out among workgroups changes no bit, with a norm and a bias in the product.
#[test]
fn geometries_give_the_same_bits() {
    let device = device(tiers()[0], false);
    let (rows, k) = (2, 1184);
    let packings = [Packing::mixed(k, 200, &WIDTHS, 64, true), Packing::mixed(k, 32, &[4, 2], 96, false)];
    let mut matrices: Vec<PackedMatrix> =
        (1..).zip(&packings).map(|(seed, packing)| packing.matrix(seed).unwrap()).collect();
    matrices[1].q_invperm = matrices[0].q_invperm.clone();
    let lent: Vec<_> = matrices.iter().map(PackedMatrix::lend).collect();
    let members: Vec<_> = lent
        .iter()
        .zip(&packings)
        .map(|(matrix, packing)| GroupMember { label: "member", matrix, n: packing.n })
        .collect();
    let (group, _) = QuantGroup::upload(&device, "group", &members).unwrap();
    let columns = group.columns();
    let values: Vec<f32> = (0..rows * k).map(|i| ((i * 37 % 101) as f32 - 50.0) / 23.0).collect();
    let hidden = Tensor::upload(&device, "hidden", &values, k).unwrap();
    let weight = Tensor::upload(&device, "weight", &vec![1.0; k], k).unwrap();
    let next = Tensor::zeros(&device, "next", rows, k).unwrap();
    let choices = choices(&device, k, columns);
    assert!(choices.len() > 1, "{choices:?}");
    for form in Arithmetic::ALL.into_iter().filter(|&form| device.capabilities().allow(form)) {
        let mut first: Option<Vec<u32>> = None;
        for &of_workgroup in &choices {
            device.geometry().set([k, columns], Some(of_workgroup));
            let sums = split(&device, k, columns).slices / of_workgroup;
            let nothing = Partial::new(&device, 1).unwrap();
            let left = Left { partial: &nothing, sums: 0, columns: k };
            let x = Activation::new(&device, form, rows * form.row_words(k)).unwrap();
            let norm = RowNorm::new(&device, rows, k, 1e-5).unwrap();
            let out = Partial::new(&device, sums * rows * columns).unwrap();
            let mut list = CommandList::new(&device, "a product");
            residual_norm(&mut list, &hidden, left, &weight, &next, &group, &norm, &x, rows).unwrap();
            group_gemv(&mut list, &x, &group, Some(&norm), &out, rows).unwrap();
            list.run().unwrap();
            let found: Vec<f32> = device.read(out.buffer(), 0, sums * rows * columns).unwrap();
            let parts: Vec<Vec<f32>> = found.chunks(rows * columns).map(<[f32]>::to_vec).collect();
            let bits: Vec<u32> = (0..rows * columns).map(|at| tree(&parts, at).to_bits()).collect();
            assert!(bits.iter().any(|&bits| bits != 0));
            assert!(
                first.get_or_insert_with(|| bits.clone()) == &bits,
                "{form}, {of_workgroup} of a workgroup"
            );
        }
    }
    device.geometry().set([k, columns], None);
}
