//! Decoding of packed matrices, bit for bit.

use std::path::Path;

use exlay::formats::exl2::read_packed;
use exlay::formats::safetensors::Checkpoint;
use exlay::gpu::CommandList;
use exlay::ops::QuantMatrix;
use exlay::ops::dequantize::dequantize;
use exlay::packing::WIDTHS;
use exlay::selftest::{Dequantize, Packing};

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

/// Recorded layers, of groups of all sizes, with subnormal scales and padding: the bits of ExLlamaV2.
#[test]
fn recorded_layers_bit_for_bit() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/exl2-layers.safetensors");
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(file, directory.path().join("output.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let names: Vec<&str> = checkpoint.names().filter_map(|name| name.strip_suffix(".decoded")).collect();
    assert_eq!(names.len(), 14);
    for (device, checked) in devices() {
        for name in &names {
            let decoded = checkpoint.get(&format!("{name}.decoded")).unwrap();
            let &[k, columns] = decoded.shape else { panic!("two dimensions") };
            let matrix = read_packed(&checkpoint, name, k, columns).unwrap();
            let quant = QuantMatrix::upload(&device, name, &matrix, columns, &[]).unwrap();
            let [slab] = quant.slabs() else { panic!("one slab") };
            let out = device.alloc("out", 2 * (k * slab.columns) as u64).unwrap();
            let mut list = CommandList::new(&device, *name);
            dequantize(&mut list, &quant, slab, &out).unwrap();
            list.run().unwrap();
            let got: Vec<u16> = device.read(&out, 0, k * slab.columns).unwrap();
            let expected: Vec<u16> =
                decoded.bytes.chunks_exact(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]])).collect();
            // The device's rows are columns, in packed order.
            let order = quant.permutation().order();
            let differing = (0..k * columns)
                .filter(|at| {
                    let (row, column) = (at / columns, at % columns);
                    got[column * k + row] != expected[order[row] as usize * columns + column]
                })
                .count();
            assert_eq!(differing, 0, "{name}, checked: {checked}: of {} weights", k * columns);
        }
    }
}
