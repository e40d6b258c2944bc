//! Two streams of hidden states through a model that is being quantized, and the weights of their tokens.

use exlay::gpu::{CommandList, Device, DeviceOptions};
use exlay::model::{Block, Role, head_spec};
use exlay::ops::Tensor;
use exlay::quant::accumulate::GroupSums;
use exlay::quant::hessian::HessianAccumulator;
use exlay::quant::job::{Inputs, Job};
use exlay::quant::options::BlockOptions;
use exlay::quant::quantize::{install, quantize_block};
use exlay::quant::recipe::{BlockKind, Recipe};
use exlay::quant::source::Source;
use exlay::quant::stream::Stream;
use exlay::quant::transform::Identity;

use crate::support;
use crate::transform::Silent;

/// Tokens of a row, in passes of 16.
const LENGTH: usize = 40;

fn open(device: &Device) -> Source<'static> {
    let model = support::path("tests/data/variants/attention-bias");
    Source::open(device, &model, (16, LENGTH), &Identity).unwrap()
}

fn tokens() -> Vec<Vec<u32>> {
    (0..3).map(|row| (0..LENGTH as u32).map(|at| (at * 37 + row * 101 + 5) % 331).collect()).collect()
}

fn run(source: &Source<'_>, block: &Block, rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut rows = rows.to_vec();
    let mut tap = |_: &mut CommandList, _: usize, _: &Tensor, _: usize| Ok(());
    let mut runner = source.runner(block, &mut tap);
    rows.iter_mut().for_each(|row| runner.run(row).unwrap());
    rows
}

/// A stream with a reference, and one without, taken through the first blocks, each stored in its smallest way.
fn quantized(source: &mut Source<'static>, blocks: usize) -> Stream {
    let mut both = Stream::embed(source, &tokens()).unwrap().with_reference(source).unwrap();
    let mut one = Stream::embed(source, &tokens()).unwrap();
    for index in 0..blocks {
        let original = source.block(index).unwrap();
        let options = BlockOptions::of(BlockKind::from(original.spec().kind));
        let recipes: Vec<&Recipe> = options.linears.iter().map(|recipes| &recipes[0]).collect();
        let reference = run(source, &original, both.reference().unwrap());
        let before = both.rows().to_vec();

        let quantize = |stream: &mut Stream| {
            let mut block = source.block(index).unwrap();
            quantize_block(source, &mut block, stream, &recipes, &mut Silent).unwrap()
        };
        let packed = quantize(&mut both);
        assert!(packed == quantize(&mut one), "a reference changes nothing by itself");
        let mut installed = original.clone();
        install(source, &mut installed, &packed).unwrap();

        let name = &original.spec().name;
        assert!(both.reference().unwrap() == reference, "{name}: the unquantized model's states");
        assert!(both.rows() == run(source, &installed, &before), "{name}: the quantized model's states");
        assert!(both.rows() == one.rows(), "{name}");
        assert!(both.rows() != both.reference().unwrap(), "{name}: the two differ");
    }
    both
}

#[test]
fn each_stream_has_the_states_of_its_model() {
    let device = support::device(DeviceOptions::default());
    let mut source = open(&device);
    let stream = quantized(&mut source, 3);

    let home = tempfile::tempdir().unwrap();
    let (mut job, _) = Job::open(home.path(), Inputs::new(), true).unwrap();
    stream.save(&mut job, "rows.state", 3).unwrap();
    let mut fresh = Stream::embed(&source, &tokens()).unwrap();
    assert_eq!(fresh.restore(&job, "rows.state").unwrap(), 0, "of two streams, not of one");
    let mut fresh = fresh.with_reference(&mut source).unwrap();
    assert_eq!(fresh.restore(&job, "rows.state").unwrap(), 3);
    assert!(fresh.rows() == stream.rows() && fresh.reference() == stream.reference());

    // Left over from another job, whose record was damaged.
    let other = home.path().join("other");
    let (other_job, _) = Job::open(&other, Inputs::new().with("--bits", 4), true).unwrap();
    std::fs::copy(home.path().join("rows.state"), other.join("rows.state")).unwrap();
    assert_eq!(fresh.restore(&other_job, "rows.state").unwrap(), 0);
}

/// The inputs of a block's groups, [tokens, k] of each row in turn.
fn inputs(source: &Source<'_>, block: &Block, rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut inputs = vec![Vec::new(); block.spec().groups.len()];
    let mut tap = |_: &mut CommandList, _: usize, _: &Tensor, _: usize| Ok(());
    let mut runner = source.runner(block, &mut tap);
    let hidden = source.config().hidden_size;
    for row in rows {
        for (pass, chunk) in row.chunks(16 * hidden).enumerate() {
            runner.pass(16 * pass, &mut chunk.to_vec()).unwrap();
            for (inputs, group) in inputs.iter_mut().zip(&block.spec().groups) {
                // Nothing after a group writes to its input.
                inputs.extend(source.scratch().tensor(group.input).read(chunk.len() / hidden).unwrap());
            }
        }
    }
    inputs
}

/// The symmetric part of Σ w·l·rᵀ over tokens, divided by the rows: [k, k].
fn sum(left: &[f32], right: &[f32], weights: &[f32], k: usize) -> Vec<f64> {
    let mut sum = vec![0.0; k * k];
    for ((left, right), &weight) in left.chunks(k).zip(right.chunks(k)).zip(weights) {
        for i in 0..k {
            for j in 0..k {
                let one = f64::from(left[i]) * f64::from(right[j]) + f64::from(right[i]) * f64::from(left[j]);
                sum[i * k + j] += 0.5 * f64::from(weight) * one / 3.0;
            }
        }
    }
    sum
}

fn values(sum: HessianAccumulator) -> Vec<f32> {
    sum.finish(3, 0.5).unwrap().hessian().read().unwrap()
}

/// 120 terms added in f32, each step off by 6e-8 of the sum of magnitudes: 7e-6, and room for a sum that is a third of that.
fn close(found: &[f32], expected: &[f64], what: &str) {
    let largest = expected.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    assert!(largest > 1e-3, "{what}: degenerate");
    let worst = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    assert!(worst <= 2e-5 * largest, "{what}: off by {worst} of {largest}");
}

#[test]
fn sums_have_both_inputs_and_the_weights() {
    let device = support::device(DeviceOptions::default());
    let mut source = open(&device);
    let stream = quantized(&mut source, 2);
    let weights: Vec<Vec<f32>> =
        (0..3).map(|row| (0..LENGTH).map(|at| ((at * 7 + row * 3) % 5) as f32 * 0.5).collect()).collect();
    let ones = vec![vec![1.0; LENGTH]; 3];
    let block = source.block(2).unwrap();
    let accumulate = |stream: &Stream| {
        stream.accumulate(&source, (&block, &block), 0..block.spec().groups.len(), &mut |_, _| {}).unwrap()
    };
    let own = inputs(&source, &block, stream.rows());
    let reference = inputs(&source, &block, stream.reference().unwrap());
    for (weights, stream) in [
        (ones.concat(), stream.clone()),
        (weights.concat(), stream.clone().with_weights(weights.clone()).unwrap()),
    ] {
        for (group, GroupSums { hessian, cross, .. }) in accumulate(&stream).into_iter().enumerate() {
            let k = block.spec().groups[group].linears[0].k;
            assert_ne!(own[group], reference[group]);
            close(&values(hessian), &sum(&own[group], &own[group], &weights, k), "own");
            close(&values(cross.unwrap()), &sum(&reference[group], &own[group], &weights, k), "cross");
        }
    }
    let weighted = stream.clone().with_weights(ones).unwrap();
    for (plain, weighted) in accumulate(&stream).into_iter().zip(accumulate(&weighted)) {
        assert!(values(plain.hessian) == values(weighted.hessian), "a weight of one changes no bit");
    }
    let one = Stream::embed(&source, &tokens()).unwrap();
    assert!(accumulate(&one).iter().all(|sums| sums.cross.is_none()), "nothing unless asked for");

    // The head, as if it followed here.
    let stream = stream.with_weights(weights.clone()).unwrap();
    let head = head_spec(source.config());
    let sums = stream.accumulate_head(&source, &head).unwrap();
    let norm = source.last_norm().unwrap().view().to_f32().unwrap();
    let eps = f64::from(source.config().rms_norm_eps);
    let normed = |rows: &[Vec<f32>]| -> Vec<f32> {
        let tokens = rows.iter().flat_map(|row| row.chunks(head.k));
        tokens
            .flat_map(|token| {
                let square: f64 = token.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
                let scale = 1.0 / (square / head.k as f64 + eps).sqrt();
                token
                    .iter()
                    .zip(&norm)
                    .map(move |(x, w)| (f64::from(*x) * scale) as f32 * w)
                    .collect::<Vec<_>>()
            })
            .collect()
    };
    let (own, reference) = (normed(stream.rows()), normed(stream.reference().unwrap()));
    let weights = weights.concat();
    close(&values(sums.hessian), &sum(&own, &own, &weights, head.k), "head");
    close(&values(sums.cross.unwrap()), &sum(&reference, &own, &weights, head.k), "head, cross");
    assert_eq!(source.scratch().tensor(Role::Normed).cols(), head.k);
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let device = support::device(DeviceOptions::default());
    let source = open(&device);
    let stream = Stream::embed(&source, &tokens()).unwrap();
    for weights in [
        vec![vec![1.0; LENGTH]; 2],
        vec![vec![1.0; LENGTH - 1]; 3],
        vec![vec![-1.0; LENGTH]; 3],
        vec![vec![f32::NAN; LENGTH]; 3],
    ] {
        assert!(stream.clone().with_weights(weights).is_err());
    }
}
