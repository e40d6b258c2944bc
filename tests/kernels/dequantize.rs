use std::path::Path;

use exlay::formats::exl2::read_packed;
use exlay::formats::safetensors::Checkpoint;
use exlay::packing::WIDTHS;
use exlay::reference;
use exlay::selftest::{Dequantize, Packing};
use half::f16;

use crate::support::{check, devices};

#[test]
fn every_width_alone() {
    for bits in WIDTHS {
        let groups = vec![(bits, 64), (bits, 32), (bits, 96)];
        check(&Dequantize { packing: Packing { groups, n: 64, bias: false } });
    }
}

#[test]
fn mixed_widths() {
    for (k, n, group_rows) in [(32, 32, 32), (224, 96, 32), (608, 160, 64), (1184, 288, 128)] {
        check(&Dequantize { packing: Packing::mixed(k, n, &WIDTHS, group_rows, false) });
    }
}
