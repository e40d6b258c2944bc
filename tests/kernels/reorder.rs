//! Packed words into the device's order.

use exlay::packing::WIDTHS;
use exlay::selftest::{Packing, Reorder};

use crate::support::check;

#[test]
fn every_width_alone_and_all_together() {
    for bits in WIDTHS {
        check(&Reorder { packing: Packing { groups: vec![(bits, 96), (bits, 32)], n: 33, bias: false } });
    }
    check(&Reorder { packing: Packing::mixed(1184, 97, &WIDTHS, 64, false) });
}
