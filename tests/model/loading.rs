//! Weights from files: what lies on the device is what the file says, and how fast it gets there.

use std::time::Instant;

use exlay::formats::exl2::{lend_packed, write_packed};
use exlay::formats::safetensors::{Checkpoint, ShardWriter};
use exlay::gpu::{DeviceOptions, Rows};
use exlay::packing::{Group, Layout, PackedMatrix};

use super::support;

/// A matrix of running numbers.
fn matrix(k: usize, n: usize) -> PackedMatrix {
    let layout = Layout::new(vec![Group { bits: 2, rows: k }]).expect("a legal layout");
    let words = (0..(layout.word_rows() * n) as u32).collect();
    let scales = (0..(n / 8) as u32).collect();
    let invperm = (0..k as u32).collect();
    PackedMatrix::new(n, layout, words, scales, vec![half::f16::ONE], invperm, None).expect("parts that fit")
}

#[test]
fn parts_of_rows_arrive_as_they_are() {
    let device = support::device(DeviceOptions::default());
    // Above and below a staging buffer and a thread's share, and with nothing to cut.
    for (rows, width, first, columns) in
        [(700, 30_000, 4000, 20_000), (3, 64, 32, 32), (1, 40_000_000, 0, 40_000_000), (512, 512, 4, 4)]
    {
        let table: Vec<u8> =
            (0..rows * width).map(|at: usize| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let expected: Vec<u8> =
            table.chunks(width).flat_map(|row| &row[first..first + columns]).copied().collect();
        let buffer = device.alloc("rows", expected.len() as u64 + 8).unwrap();
        let part = Rows { bytes: &table, stride: width, first, width: columns };
        device.write_rows(&buffer, 4, &part).unwrap();
        let found: Vec<u8> = device.read(&buffer, 0, expected.len() + 8).unwrap();
        assert!(found[4..expected.len() + 4] == expected[..], "{rows} rows of {width}");
        assert!(found[..4] == [0; 4] && found[expected.len() + 4..] == [0; 4]);
        assert!(device.write_rows(&buffer, 12, &part).unwrap_err().to_string().contains("`rows`"));
    }
}

/// Rates depend on the machine; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn rate_of_words_from_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(directory.path(), 1 << 40).unwrap();
    for layer in 0..6 {
        write_packed(&mut writer, &format!("layer{layer}"), &matrix(8192, 28_672)).unwrap();
    }
    writer.finish().unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let device = support::device(DeviceOptions::default());
    let buffer = device.alloc("words", 2 << 26).unwrap();
    for round in 0..3 {
        let started = Instant::now();
        let mut bytes = 0;
        for layer in 0..6 {
            let matrix = lend_packed(&checkpoint, &format!("layer{layer}"), 8192, 28_672).unwrap();
            let words = matrix.q_weight.bytes();
            for first in (0..4 * 28_672).step_by(4 * 4096) {
                let part = Rows { bytes: words, stride: 4 * 28_672, first, width: 4 * 4096 };
                device.write_rows(&buffer, 0, &part).unwrap();
            }
            bytes += words.len();
        }
        device.wait("words").unwrap();
        let rate = bytes as f64 / 1e9 / started.elapsed().as_secs_f64();
        println!("round {round}: {:.0} MB at {rate:.2} GB/s", bytes as f64 / 1e6);
    }
}
