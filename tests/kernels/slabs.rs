//! Matrices cut into slabs give the bits of matrices in one piece.

use exlay::gpu::{CommandList, Device, DeviceOptions, Tier};
use exlay::ops::matmul::{Store, matmul};
use exlay::ops::quant_matmul::quant_matmul;
use exlay::ops::{DenseMatrix, Operand, OperandRoom, QuantMatrix, Tensor, decode_bytes, embed};
use exlay::packing::WIDTHS;
use exlay::selftest::{Case, Embed, Fault, Matmul, Packing, QuantMatmul, Random, Verdict, outcome};

use crate::support::{device, open, tiers};

const LIMIT: u64 = 65536;

fn narrow(tier: Tier) -> Device {
    open(DeviceOptions { tier: Some(tier), binding_limit: Some(LIMIT), ..Default::default() })
}

fn bits(values: Vec<f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

fn run(device: &Device, build: impl FnOnce(&mut CommandList) -> exlay::Result<()>) {
    let mut list = CommandList::new(device, "test");
    build(&mut list).unwrap();
    list.run().unwrap();
}

/// Outputs of a product with [560, 128] and the number of slabs.
fn dense(device: &Device, rows: usize) -> (Vec<u32>, usize) {
    let (n, k) = (560, 128);
    let weights = Random::new(5, "weights");
    let bias = Random::new(5, "bias").values(n);
    let upload =
        |range: std::ops::Range<usize>| Ok(weights.weights((range.start * k) as u64..(range.end * k) as u64));
    let matrix = DenseMatrix::upload(device, "w", n, k, upload, Some(&bias)).unwrap();
    let x = Tensor::upload(device, "x", &Random::new(5, "x").values(rows * k), k).unwrap();
    let y = Tensor::upload(device, "y", &Random::new(5, "y").values(rows * n), n).unwrap();
    let room = OperandRoom::new(device, rows, k).unwrap();
    run(device, |list| {
        let x = Operand::prepare(list, &x, None, &room, rows)?;
        matmul(list, &x, &matrix, &y, rows, Store::Add)
    });
    (bits(y.read(rows).unwrap()), matrix.slabs().len())
}

#[test]
fn dense_products() {
    for &tier in tiers() {
        for rows in [1, 8, 9, 29] {
            let (whole, one) = dense(&device(tier, false), rows);
            let (cut, several) = dense(&narrow(tier), rows);
            assert_eq!((one, several), (1, 3));
            assert!(whole == cut, "{tier}, {rows} rows");
        }
    }
}

fn packed(device: &Device, rows: usize) -> (Vec<u32>, usize) {
    let packing = Packing::mixed(224, 301, &WIDTHS, 32, true);
    let matrix = packing.matrix(6).unwrap();
    let quant = QuantMatrix::upload(device, "w", &matrix, packing.n, &[]).unwrap();
    let x = Tensor::upload(device, "x", &Random::new(6, "x").values(rows * 224), 224).unwrap();
    let y = Tensor::upload(device, "y", &Random::new(6, "y").values(rows * packing.n), packing.n).unwrap();
    let scratch = device.alloc("scratch", decode_bytes(device, quant.k(), quant.n())).unwrap();
    let room = OperandRoom::new(device, rows, 224).unwrap();
    run(device, |list| {
        let x = Operand::prepare(list, &x, None, &room, rows)?;
        quant_matmul(list, &x, &quant, &y, &scratch, rows, Store::Add)
    });
    (bits(y.read(rows).unwrap()), quant.slabs().len())
}

#[test]
fn packed_products() {
    for &tier in tiers() {
        for rows in [1, 8, 9, 33] {
            let (whole, one) = packed(&device(tier, false), rows);
            let (cut, several) = packed(&narrow(tier), rows);
            assert_eq!((one, several), (1, 3));
            assert!(whole == cut, "{tier}, {rows} rows");
        }
    }
}

fn lookup(device: &Device) -> (Vec<u32>, usize) {
    let (n, k) = (560, 128);
    let weights = Random::new(7, "table");
    let upload =
        |range: std::ops::Range<usize>| Ok(weights.weights((range.start * k) as u64..(range.end * k) as u64));
    let table = DenseMatrix::upload(device, "table", n, k, upload, None).unwrap();
    let tokens = device.upload("tokens", &[559_u32, 0, 255, 256, 511, 512, 300]).unwrap();
    let out = Tensor::zeros(device, "out", 7, k).unwrap();
    run(device, |list| embed::embed(list, &table, &tokens, &out, 7));
    (bits(out.read(7).unwrap()), table.slabs().len())
}

#[test]
fn lookups() {
    let (whole, one) = lookup(&device(Tier::Plain, false));
    let (cut, several) = lookup(&narrow(Tier::Plain));
    assert_eq!((one, several), (1, 3));
    assert!(whole == cut);
}

/// The cases' own comparison, which looks at both sides of each cut.
#[test]
fn cases_pass_in_slabs() {
    let cases: [Box<dyn Case>; 4] = [
        Box::new(Embed { vocabulary: 1301, cols: 98, rows: 40 }),
        Box::new(Matmul { rows: 2, n: 1301, k: 98, bias: true, add: true }),
        Box::new(Matmul { rows: 12, n: 1001, k: 98, bias: true, add: false }),
        Box::new(QuantMatmul { rows: 3, packing: Packing::mixed(224, 801, &WIDTHS, 64, true), add: false }),
    ];
    for &tier in tiers() {
        let device = narrow(tier);
        for case in &cases {
            let outcome = outcome(&device, &**case, 8, Fault::None).unwrap();
            assert_eq!(outcome.verdict, Verdict::Passed, "{outcome:?}");
        }
    }
}

#[test]
fn a_row_that_exceeds_a_binding_is_refused() {
    let device = open(DeviceOptions { binding_limit: Some(4096), ..Default::default() });
    let row = DenseMatrix::upload(&device, "w", 2, 4096, |_| Ok(Vec::new()), None);
    assert!(row.is_err());
    let matrix = Packing::mixed(224, 32, &WIDTHS, 32, false).matrix(1).unwrap();
    assert!(QuantMatrix::upload(&device, "w", &matrix, 32, &[]).is_err());
}
