//! Two streams of hidden states through a model that is being quantized, and the weights of their tokens.

use exlay::gpu::{Device, DeviceOptions};
use exlay::model::{Block, Role, head_spec};
use exlay::quant::accumulate::Lack;
use exlay::quant::hessian::PreparedHessian;
use exlay::quant::job::{Inputs, Job};
use exlay::quant::method::Method;
use exlay::quant::quantize::{install, quantize_block};
use exlay::quant::recipe::Recipe;
use exlay::quant::report::Reporter;
use exlay::quant::rows::RowsRoom;
use exlay::quant::source::Source;
use exlay::quant::stream::Stream;
use exlay::quant::sums::ProductSum;
use exlay::quant::transform::{Identity, Site};

use crate::support;
use crate::transform::Silent;

/// Tokens of a row, in passes of 16.
const LENGTH: usize = 40;

pub(crate) fn open(device: &Device) -> Source<'static> {
    let model = support::path("tests/data/variants/attention-bias");
    let mut source = Source::open(device, &model, (16, LENGTH), &Identity).unwrap();
    source.make_room_for_reference().unwrap();
    source
}

pub(crate) fn tokens() -> Vec<Vec<u32>> {
    (0..3).map(|row| (0..LENGTH as u32).map(|at| (at * 37 + row * 101 + 5) % 331).collect()).collect()
}

fn run(source: &Source<'_>, block: &Block, rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut rows = rows.to_vec();
    let mut runner = source.untapped(block);
    rows.iter_mut().for_each(|row| runner.run(row).unwrap());
    rows
}

/// The rows of a stream and of its reference.
fn states(stream: &Stream) -> [Vec<Vec<f32>>; 2] {
    [stream.rows(), stream.reference().unwrap()].map(|rows| rows.read().unwrap())
}

/// A stream with a reference, and one without, taken through the first blocks, each stored with few bits and uncorrected.
pub(crate) fn quantized(source: &Source<'_>, blocks: usize) -> Stream {
    let mut both = Stream::embed(source, &tokens()).unwrap().with_reference().unwrap();
    let mut one = Stream::embed(source, &tokens()).unwrap();
    let recipe: Recipe = "0.1:3b/0.9:2b 64g s4".parse().unwrap();
    for index in 0..blocks {
        let original = source.block(index).unwrap();
        let recipes = vec![&recipe; original.spec().linears().count()];
        let [before, reference] = states(&both);
        let reference = run(source, &original, &reference);

        let quantize = |stream: &mut Stream| {
            let mut block = source.block(index).unwrap();
            quantize_block(source, &mut block, stream, &recipes, Method::exl2(), &mut Silent).unwrap()
        };
        let packed = quantize(&mut both);
        assert!(packed == quantize(&mut one), "a reference changes nothing by itself");
        let mut installed = original.clone();
        install(source, &mut installed, &packed).unwrap();

        let name = &original.spec().name;
        let [own, unquantized] = states(&both);
        assert!(unquantized == reference, "{name}: the unquantized model's states");
        assert!(own == run(source, &installed, &before), "{name}: the quantized model's states");
        assert!(own == one.rows().read().unwrap(), "{name}");
        assert!(own != unquantized, "{name}: the two differ");
    }
    both
}

/// Keeps what is told.
#[derive(Default)]
struct Told(Vec<String>);

impl Reporter for Told {
    fn note(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }
    fn progress(&mut self, _: &str, _: usize, _: usize) {}
}

#[test]
fn the_error_of_a_module_is_told() {
    let device = support::device(DeviceOptions::default());
    let source = open(&device);
    let mut stream = Stream::embed(&source, &tokens()).unwrap();
    let before = stream.rows().read().unwrap();
    let original = source.block(0).unwrap();
    let recipe: Recipe = "1:3b 64g s4".parse().unwrap();
    let recipes = vec![&recipe; original.spec().linears().count()];
    let (mut block, mut told) = (original.clone(), Told::default());
    quantize_block(&source, &mut block, &mut stream, &recipes, Method::exl2(), &mut told).unwrap();
    let after = stream.rows().read().unwrap();
    let errors = run(&source, &original, &before[..2]).into_iter().zip(&after).map(|(expected, found)| {
        let squares = |value: &dyn Fn(usize) -> f64| (0..found.len()).map(|i| value(i).powi(2)).sum::<f64>();
        let difference = squares(&|i| f64::from(found[i]) - f64::from(expected[i]));
        (difference / squares(&|i| f64::from(expected[i]))).sqrt()
    });
    let expected = errors.sum::<f64>() / 2.0;
    assert!(expected > 1e-3, "{expected}: nothing to see");
    let line = format!("-- {}: module rfn_error: {expected:.6} on 2 rows", original.spec().name);
    assert!(told.0.contains(&line), "{line}: {:?}", told.0);
}

#[test]
fn rows_on_the_host_are_those_on_the_device() {
    let device = support::device(DeviceOptions::default());
    let mut source = open(&device);
    let expected = states(&quantized(&source, 2));
    let home = tempfile::tempdir().unwrap();
    let row = (4 * 2 * LENGTH * source.config().hidden_size) as u64;
    // All on the host; some of it on the device, on the host and in a file; all in a file.
    for (device, host) in [(0, u64::MAX), (row, row), (row / 2, 0), (0, 0)] {
        source.set_rows_room(RowsRoom { device, host, directory: home.path().to_path_buf() });
        assert!(states(&quantized(&source, 2)) == expected, "{device} {host}");
    }
    let stream = quantized(&source, 2);
    #[cfg(unix)]
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "a killed process leaves nothing");
    let (mut job, _) = Job::open(home.path(), Inputs::new(), true).unwrap();
    stream.save(&mut job, "rows.state", 2).unwrap();
    let mut fresh = Stream::embed(&source, &tokens()).unwrap().with_reference().unwrap();
    assert_eq!(fresh.restore(&job, "rows.state", 2).unwrap(), 2);
    assert!(states(&fresh) == expected);
}

#[test]
fn each_stream_has_the_states_of_its_model() {
    let device = support::device(DeviceOptions::default());
    let source = open(&device);
    let stream = quantized(&source, 3);

    let home = tempfile::tempdir().unwrap();
    let (mut job, _) = Job::open(home.path(), Inputs::new(), true).unwrap();
    stream.save(&mut job, "rows.state", 3).unwrap();
    let mut fresh = Stream::embed(&source, &tokens()).unwrap();
    let embedded = fresh.rows().read().unwrap();
    assert_eq!(fresh.restore(&job, "rows.state", 3).unwrap(), 0, "of two streams, not of one");
    let mut fresh = fresh.with_reference().unwrap();
    assert_eq!(fresh.restore(&job, "rows.state", 2).unwrap(), 0, "of a later block");
    assert!(states(&fresh) == [embedded.clone(), embedded]);
    assert_eq!(fresh.restore(&job, "rows.state", 3).unwrap(), 3);
    assert!(states(&fresh) == states(&stream));

    // Left over from another job, whose record was damaged.
    let other = home.path().join("other");
    let (other_job, _) = Job::open(&other, Inputs::new().with("--bits", 4), true).unwrap();
    std::fs::copy(home.path().join("rows.state"), other.join("rows.state")).unwrap();
    assert_eq!(fresh.restore(&other_job, "rows.state", 3).unwrap(), 0);
}

/// The inputs of a block's groups, [tokens, k] of each row in turn.
fn inputs(source: &Source<'_>, block: &Block, rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut inputs = vec![Vec::new(); block.spec().groups.len()];
    let mut runner = source.untapped(block);
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

/// Σ w·lᵀ·r over tokens: [k, n].
fn sum(left: &[f32], right: &[f32], weights: &[f32], (k, n): (usize, usize)) -> Vec<f64> {
    let mut sum = vec![0.0; k * n];
    for ((left, right), &weight) in left.chunks(k).zip(right.chunks(n)).zip(weights) {
        for i in 0..k {
            for j in 0..n {
                sum[i * n + j] += f64::from(weight) * f64::from(left[i]) * f64::from(right[j]);
            }
        }
    }
    sum
}

/// The whole of a Hessian's sum.
fn hessian(sum: ProductSum) -> Vec<f32> {
    PreparedHessian::of_sum("test", sum, 1, 0.5).unwrap().hessian().unwrap().read().unwrap()
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
    let source = open(&device);
    let mut stream = quantized(&source, 2);
    let weights: Vec<Vec<f32>> =
        (0..3).map(|row| (0..LENGTH).map(|at| ((at * 7 + row * 3) % 5) as f32 * 0.5).collect()).collect();
    let ones = vec![vec![1.0; LENGTH]; 3];
    let method = Method { asymmetry: 0.75, residual: 0.25, ..Method::default() };
    let block = source.block(2).unwrap();
    let groups = 0..block.spec().groups.len();
    let home = tempfile::tempdir().unwrap();
    let (mut job, _) = Job::open(home.path(), Inputs::new(), true).unwrap();
    stream.save(&mut job, "rows.state", 2).unwrap();
    let after = states(&stream)[1]
        .iter()
        .map(|row| run(&source, &block, std::slice::from_ref(row)).remove(0))
        .collect::<Vec<_>>();
    let accumulate = |stream: &mut Stream| {
        let sums = stream.accumulate(&source, (&block, &block), groups.clone(), method).unwrap();
        if stream.reference().is_some() {
            assert!(states(stream)[1] == after, "the reference is after the block");
            stream.restore(&job, "rows.state", 2).unwrap();
        }
        sums
    };
    let [own, reference] = states(&stream);
    let lost: Vec<f32> = reference.concat().iter().zip(own.concat()).map(|(r, x)| r - x).collect();
    let (own_inputs, reference_inputs) = (inputs(&source, &block, &own), inputs(&source, &block, &reference));
    let plain = accumulate(&mut stream);
    for weighted in [None, Some(weights.clone())] {
        if let Some(weights) = weighted.clone() {
            stream = stream.with_weights(weights).unwrap();
        }
        let weights = weighted.unwrap_or_else(|| ones.clone()).concat();
        for (group, sums) in accumulate(&mut stream).into_iter().enumerate() {
            let linear = &block.spec().groups[group].linears[0];
            let k = linear.k;
            let (own, reference) = (&own_inputs[group], &reference_inputs[group]);
            assert_ne!(own, reference);
            close(&hessian(sums.hessian), &sum(own, own, &weights, (k, k)), "own");
            let missing: Vec<f32> = reference.iter().zip(own).map(|(r, x)| 0.75 * (r - x)).collect();
            match sums.lack.unwrap() {
                Lack::Inputs(inputs) => {
                    assert_ne!(linear.output, Role::Residual);
                    let expected = sum(&missing, own, &weights, (k, k));
                    close(&inputs.matrix().read().unwrap(), &expected, "inputs");
                }
                Lack::Outputs(outputs) => {
                    assert_eq!((linear.output, outputs.len()), (Role::Residual, 1));
                    let weight = weight_of(&source, &block, group);
                    let lack: Vec<f32> = missing
                        .chunks(k)
                        .zip(lost.chunks(linear.n))
                        .flat_map(|(missing, lost)| {
                            let output = |(lost, weight): (&f32, &[f32])| {
                                let product: f64 =
                                    missing.iter().zip(weight).map(|(a, b)| f64::from(a * b)).sum();
                                (product + 0.25 * f64::from(*lost)) as f32
                            };
                            lost.iter().zip(weight.chunks(k)).map(output).collect::<Vec<_>>()
                        })
                        .collect();
                    let expected = sum(own, &lack, &weights, (k, linear.n));
                    close(&outputs[0].matrix().read().unwrap(), &expected, "outputs");
                }
            }
        }
    }
    stream = stream.with_weights(ones).unwrap();
    for (plain, weighted) in plain.into_iter().zip(accumulate(&mut stream)) {
        assert!(hessian(plain.hessian) == hessian(weighted.hessian), "a weight of one changes no bit");
    }
    let mut one = Stream::embed(&source, &tokens()).unwrap();
    assert!(accumulate(&mut one).iter().all(|sums| sums.lack.is_none()), "nothing unless asked for");
    // What a method makes no use of is not summed.
    for (asymmetry, residual, expected) in
        [(0.0, 0.25, [false, true]), (0.0, 0.0, [false; 2]), (0.75, 0.0, [true; 2])]
    {
        let method = Method { asymmetry, residual, ..method };
        let sums = stream.accumulate(&source, (&block, &block), groups.clone(), method).unwrap();
        let lack: Vec<bool> = sums.iter().map(|sums| sums.lack.is_some()).collect();
        assert_eq!(lack, expected, "{asymmetry} {residual}");
        stream.restore(&job, "rows.state", 2).unwrap();
    }

    // The head, as if it followed here.
    stream = stream.with_weights(weights.clone()).unwrap();
    let head = head_spec(source.config());
    let sums = stream.accumulate_head(&source, &head, method).unwrap();
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
    let (own, reference) = (normed(&own), normed(&reference));
    let (weights, k) = (weights.concat(), head.k);
    close(&hessian(sums.hessian), &sum(&own, &own, &weights, (k, k)), "head");
    let Some(Lack::Inputs(inputs)) = sums.lack else { panic!("the head has no residual") };
    let missing: Vec<f32> = reference.iter().zip(&own).map(|(r, x)| 0.75 * (r - x)).collect();
    close(&inputs.matrix().read().unwrap(), &sum(&missing, &own, &weights, (k, k)), "head, inputs");
    assert_eq!(source.scratch().tensor(Role::Normed).cols(), head.k);
}

/// The weight [n, k] of a group's first linear.
fn weight_of(source: &Source<'_>, block: &Block, group: usize) -> Vec<f32> {
    let spec = block.spec();
    let linear = &spec.groups[group].linears[0];
    let site = Site { block: spec, input: spec.groups[group].input, linear };
    let weights = source.weights(site).unwrap();
    let unit: Vec<f32> =
        (0..linear.k * linear.k).map(|at| if at / linear.k == at % linear.k { 1.0 } else { 0.0 }).collect();
    let plain = PreparedHessian::new(source.device(), "unit", &unit, 0.1).unwrap();
    let ordered = weights.prepare(&plain, None).unwrap().read().unwrap();
    let columns = ordered.len() / linear.k;
    (0..linear.n)
        .flat_map(|n| (0..linear.k).map(move |k| (n, k)))
        .map(|(n, k)| ordered[k * columns + n])
        .collect()
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let device = support::device(DeviceOptions::default());
    let source = open(&device);
    for weights in [
        vec![vec![1.0; LENGTH]; 2],
        vec![vec![1.0; LENGTH - 1]; 3],
        vec![vec![-1.0; LENGTH]; 3],
        vec![vec![f32::NAN; LENGTH]; 3],
    ] {
        assert!(Stream::embed(&source, &tokens()).unwrap().with_weights(weights).is_err());
    }
}
