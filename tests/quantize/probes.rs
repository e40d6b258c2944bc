//! What a change of one linear does to the whole model, as the converter measures it.

use exlay::gpu::{CommandList, DeviceOptions};
use exlay::model::Block;
use exlay::ops::Tensor;
use exlay::ops::matmul::Store;
use exlay::ops::rms_norm::rms_norm;
use exlay::quant::measure::{Measuring, measure_block};
use exlay::quant::method::Method;
use exlay::quant::probe::Probe;
use exlay::quant::quantize::quantize_block;
use exlay::quant::recipe::Recipe;
use exlay::quant::stream::Stream;

use crate::streams::{open, tokens};
use crate::support;
use crate::transform::Silent;

/// A probe says what comparing all logits says, and tells one block from another.
#[test]
fn a_probe_is_the_divergence_of_the_whole_model() {
    let device = support::device(DeviceOptions::default());
    let source = open(&device);
    let blocks: Vec<Block> = (0..source.blocks().len()).map(|index| source.block(index).unwrap()).collect();
    let mut stream = Stream::embed(&source, &tokens()).unwrap();
    let probe = Probe::new(&source, &blocks, &stream, 2).unwrap();
    let index = 1;
    stream.advance(&source, &blocks[0], &blocks[0]).unwrap();
    assert_eq!(probe.divergence(&stream, index, &blocks[index], "nothing").unwrap(), 0.0);

    // The down projection without any error feedback worth its name: two bits.
    let recipe: Recipe = "1:2b 64g s4".parse().unwrap();
    let packed = {
        let mut other = Stream::embed(&source, &tokens()).unwrap();
        other.advance(&source, &blocks[0], &blocks[0]).unwrap();
        let recipes = vec![&recipe; blocks[index].spec().linears().count()];
        let mut block = blocks[index].clone();
        quantize_block(&source, &mut block, &mut other, &recipes, Method::exl2(), &mut Silent).unwrap();
        block
    };
    let found = probe.divergence(&stream, index, &packed, "two bits").unwrap();

    let head = source.head().unwrap();
    let norm = source.upload("norm", &source.last_norm().unwrap()).unwrap();
    let vocabulary = source.config().vocab_size;
    let hidden = source.config().hidden_size;
    let logits = |changed: &Block| -> Vec<f32> {
        let mut all = Vec::new();
        for row in &stream.rows().read().unwrap()[..2] {
            // The first pass of a row, every fourth token from its last on.
            let mut states = row[..16 * hidden].to_vec();
            source.untapped(changed).run(&mut states).unwrap();
            for block in &blocks[index + 1..] {
                source.untapped(block).run(&mut states).unwrap();
            }
            let picked: Vec<f32> = [15, 11, 7, 3]
                .iter()
                .flat_map(|&token| states[token * hidden..][..hidden].to_vec())
                .collect();
            let x = Tensor::upload(&device, "states", &picked, hidden).unwrap();
            let normed = Tensor::zeros(&device, "normed", 4, hidden).unwrap();
            let out = Tensor::zeros(&device, "logits", 4, vocabulary).unwrap();
            let mut list = CommandList::new(&device, "test");
            rms_norm(&mut list, &x, &norm, &normed, 4, source.config().rms_norm_eps).unwrap();
            head.record(&mut list, source.scratch(), &normed, &[&out], 4, Store::Set).unwrap();
            list.run().unwrap();
            all.extend(out.read(4).unwrap());
        }
        all
    };
    let (expected, changed) = (logits(&blocks[index]), logits(&packed));
    let divergence = support::kl_divergence(&expected, &changed, vocabulary);
    assert!(divergence > 1e-4, "{divergence}: nothing to see");
    // Single precision, row by row.
    assert!((found / divergence - 1.0).abs() < 1e-4, "{found} where all logits give {divergence}");
    assert!(probe.divergence(&stream, index + 1, &packed, "a block too late").unwrap() != found);
}

/// Each option's damage comes from the probes, or from its own error without them.
#[test]
fn every_linear_is_probed() {
    let device = support::device(DeviceOptions::default());
    let source = open(&device);
    let blocks: Vec<Block> = (0..source.blocks().len()).map(|index| source.block(index).unwrap()).collect();
    let mut stream = Stream::embed(&source, &tokens()).unwrap();
    let probe = Probe::new(&source, &blocks, &stream, 1).unwrap();
    let measure = |probe, stream: &mut Stream| {
        let measuring = Measuring { source: &source, probe, method: Method::exl2() };
        measure_block(&measuring, (0, &blocks[0]), stream, &mut Silent).unwrap()
    };
    let (probed, alone) = (measure(Some(&probe), &mut stream), measure(None, &mut stream));
    for (probed, alone) in probed.linears.iter().zip(&alone.linears) {
        for (option, other) in probed.options.iter().zip(&alone.options) {
            assert_eq!(option.rfn_error, other.rfn_error);
            assert_eq!(other.damage, other.rfn_error * other.rfn_error);
            assert!(option.damage != other.damage, "{} {}", probed.name, option.recipe);
        }
    }
}
