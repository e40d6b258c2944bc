//! Whole linears through the quantizer, against the oracle and against ExLlamaV2; Hessians; refusals.

use std::path::Path;

use exlay::gpu::{CommandList, Device, DeviceOptions};
use exlay::ops::Tensor;
use exlay::packing::{Group, Layout};
use exlay::quant::gptq::{Quantized, quantize};
use exlay::quant::hessian::{FactoredOn, PreparedHessian};
use exlay::quant::method::EXL2_DAMPING;
use exlay::quant::scales::ScaleRule;
use exlay::quant::sums::{ProductSum, Tokens};
use exlay::quant::weights::FloatWeights;
use exlay::reference;
use half::f16;
use safetensors::SafeTensors;

use crate::quant_numbers::Numbers;
use crate::support::{adapter, devices};

/// A linear with correlated inputs of very different sizes.
struct Problem {
    k: usize,
    n: usize,
    /// [n, k], as Hugging Face has it.
    weights: Vec<f32>,
    inputs: Vec<f32>,
}

impl Problem {
    fn new(k: usize, n: usize, tokens: usize, seed: u64) -> Self {
        let mut numbers = Numbers(seed);
        let sizes: Vec<f64> = (0..k).map(|_| 0.1 + numbers.uniform().powi(4) * 3.0).collect();
        let mut inputs = Vec::with_capacity(tokens * k);
        for _ in 0..tokens {
            let common = numbers.normal();
            inputs.extend(sizes.iter().map(|size| (size * (numbers.normal() + common)) as f32));
        }
        Self { k, n, weights: numbers.normals(n * k, 0.05), inputs }
    }

    fn hessian(&self) -> Vec<f32> {
        let zeros = vec![0.0; self.k * self.k];
        let sum = reference::matmul_tn::matmul_tn(
            &self.inputs,
            &self.inputs,
            None,
            (self.k, self.k),
            (0.25, 0.0),
            &zeros,
        );
        sum.into_iter().map(|value| value as f32).collect()
    }

    fn transposed(&self) -> Vec<f32> {
        (0..self.k * self.n).map(|at| self.weights[at % self.n * self.k + at / self.n]).collect()
    }

    fn quantize(&self, device: &Device, hessian: &[f32], groups: &[(u32, usize)]) -> Quantized {
        self.quantize_by(ScaleRule::Exl2, device, hessian, groups)
    }

    fn quantize_by(
        &self,
        scales: ScaleRule,
        device: &Device,
        hessian: &[f32],
        groups: &[(u32, usize)],
    ) -> Quantized {
        let hessian = PreparedHessian::new(device, "test", hessian, EXL2_DAMPING).unwrap();
        self.quantize_with(scales, device, &hessian, groups)
    }

    fn quantize_with(
        &self,
        scales: ScaleRule,
        device: &Device,
        hessian: &PreparedHessian,
        groups: &[(u32, usize)],
    ) -> Quantized {
        let weights = FloatWeights::upload(device, "test", &self.weights, (self.n, self.k)).unwrap();
        let weights = weights.prepare(hessian, None).unwrap();
        quantize(&weights, hessian, &layout(groups), None, scales).unwrap()
    }

    /// √(tr ΔᵀHΔ / tr WᵀHW) in double precision.
    fn relative_error(&self, hessian: &[f32], decoded: &[f16], columns: usize) -> f64 {
        let w = self.transposed();
        let energy = |value: &dyn Fn(usize, usize) -> f64| {
            let mut sum = 0.0;
            for column in 0..self.n {
                let v: Vec<f64> = (0..self.k).map(|row| value(row, column)).collect();
                for (i, line) in hessian.chunks_exact(self.k).enumerate() {
                    sum += v[i] * line.iter().zip(&v).map(|(&h, v)| f64::from(h) * v).sum::<f64>();
                }
            }
            sum
        };
        let weight = |row: usize, column: usize| f64::from(w[row * self.n + column]);
        let own = energy(&|row, column| weight(row, column) - decoded[row * columns + column].to_f64());
        (own / energy(&weight)).sqrt()
    }
}

fn layout(groups: &[(u32, usize)]) -> Layout {
    Layout::new(groups.iter().map(|&(bits, rows)| Group { bits, rows }).collect()).unwrap()
}

/// The same groups without error feedback: each weight to the nearest of its scale.
fn nearest(problem: &Problem, groups: &[(u32, usize)]) -> Vec<f16> {
    let w = problem.transposed();
    let mut decoded = Vec::with_capacity(w.len());
    let mut first = 0;
    for &(bits, rows) in groups {
        let group = &w[first * problem.n..][..rows * problem.n];
        let found = reference::scale_search::scale_search(group, problem.n, bits);
        for (at, &value) in group.iter().enumerate() {
            let scale = found.scales[at % problem.n];
            let code = reference::gptq::round(f64::from(value), scale, bits);
            decoded.push(reference::dequantize::weight(code, bits as usize, scale));
        }
        first += rows;
    }
    decoded
}

fn check(k: usize, n: usize, groups: &[(u32, usize)]) {
    let problem = Problem::new(k, n, 3 * k, (k + n) as u64);
    let hessian = problem.hessian();
    let weights = problem.transposed();
    let wide: Vec<f64> = hessian.iter().map(|&value| f64::from(value)).collect();
    let expected = reference::gptq::gptq(&weights, n, &wide, groups, EXL2_DAMPING).unwrap();
    let best = problem.relative_error(&hessian, &expected.decoded, n);
    let rough = problem.relative_error(&hessian, &nearest(&problem, groups), n);
    for (device, _) in devices() {
        let found = problem.quantize(&device, &hessian, groups);
        let columns = found.matrix.n;
        assert_eq!(columns, n.next_multiple_of(32));
        assert_eq!(found.matrix.layout, layout(groups));
        let decoded = found.matrix.dequantize();
        let at = |at: usize| decoded[at / n * columns + at % n];
        assert!(decoded.chunks_exact(columns).all(|row| row[n..].iter().all(|value| value.to_f32() == 0.0)));
        for (row, &feature) in expected.permutation.iter().enumerate() {
            assert_eq!(found.matrix.q_invperm[feature as usize] as usize, row);
        }

        let differing = (0..k * n).filter(|&i| at(i).to_bits() != expected.decoded[i].to_bits()).count();
        // A value within single precision of the middle of two codes goes either way, and so may what follows in its
        // column: about one weight in 10^5 is so near, and k / 2 follow it.
        assert!(differing as f64 <= 0.01 * (k * n) as f64, "{differing} of {} weights differ", k * n);
        let own = problem.relative_error(&hessian, &decoded, columns);
        assert!((found.rfn_error - own).abs() <= 1e-4 * own, "said {}, is {own}", found.rfn_error);
        assert!((own - best).abs() <= 1e-3 * best, "{own}, the oracle has {best}");
        assert!(own < 0.95 * rough, "{own}, without feedback {rough}");
        let error = |i: usize| (f64::from(weights[i]) - at(i).to_f64()).abs();
        let largest = (0..k * n).map(error).fold(0.0, f64::max);
        assert!((f64::from(found.max_error) - largest).abs() <= 1e-6 * largest);
    }
}

#[test]
fn whole_linears_match_the_oracle() {
    check(96, 64, &[(4, 32), (3, 64)]);
    check(416, 72, &[(6, 32), (4, 128), (3, 128), (2, 128)]);
    // A group larger than one dispatch rounds.
    check(256, 40, &[(8, 32), (5, 64), (4, 160)]);
}

#[test]
fn slabs_change_nothing() {
    let (device, _) = devices().next().unwrap();
    let problem = Problem::new(256, 320, 512, 3);
    let hessian = problem.hessian();
    let groups = [(5, 32), (4, 128), (3, 96)];
    // Bindings of 128 columns of W, and of 160 rows of H and U, which cut the second group.
    let options =
        DeviceOptions { tier: Some(device.tier()), binding_limit: Some(160 * 1024), ..Default::default() };
    // Decoded in less room than the float weights have, as on cards that bind far more than is decoded at a time.
    let decoding =
        DeviceOptions { tier: Some(device.tier()), decode_limit: Some(64 * 1024), ..Default::default() };
    let adapter = adapter();
    // Where a device factors H is cut by its slabs, which changes roundings; what comes after is what this is about.
    let factored = |device: &Device| {
        PreparedHessian::new_on(FactoredOn::Host, device, "test", &hessian, EXL2_DAMPING).unwrap()
    };
    for rule in [ScaleRule::Exl2, ScaleRule::Searched] {
        let whole = problem.quantize_with(rule, &device, &factored(&device), &groups);
        for options in [&options, &decoding] {
            let small = Device::open(&adapter, options.clone()).unwrap();
            let cut = problem.quantize_with(rule, &small, &factored(&small), &groups);
            assert!(cut.matrix == whole.matrix, "{rule:?}");
            assert!((cut.rfn_error - whole.rfn_error).abs() <= 1e-6 * whole.rfn_error);
        }
    }
}

/// What searched scales save of the squared error, and that the packed matrix has just that error.
#[test]
fn searched_scales_lose_less() {
    for (device, checked) in devices() {
        if checked {
            continue;
        }
        let problem = Problem::new(320, 96, 960, 7);
        let hessian = problem.hessian();
        // A group larger than what is scored, too.
        for (bits, rows, most) in
            [(2, 64, 0.9), (3, 64, 0.86), (4, 128, 0.88), (4, 160, 0.88), (6, 32, 0.96), (8, 32, 0.96)]
        {
            let groups = vec![(bits, rows); 320 / rows];
            let groups: Vec<_> =
                groups.into_iter().chain([(bits, 320 % rows)].into_iter().filter(|g| g.1 > 0)).collect();
            let [old, new] = [ScaleRule::Exl2, ScaleRule::Searched]
                .map(|rule| problem.quantize_by(rule, &device, &hessian, &groups));
            let own = problem.relative_error(&hessian, &new.matrix.dequantize(), 96);
            assert!((new.rfn_error - own).abs() <= 1e-4 * own, "said {}, is {own}", new.rfn_error);
            let ratio = (new.rfn_error / old.rfn_error).powi(2);
            println!("{bits} bits, {rows} rows: {ratio:.4} of the squared error");
            assert!(ratio <= most, "{bits} bits, {rows} rows: {ratio:.4} of the squared error");
        }
    }
}

#[test]
fn hessians_accumulate() {
    for (device, _) in devices() {
        let (k, tokens) = (160, 70);
        let mut numbers = Numbers(9);
        let (left, right) = (numbers.normals(tokens * k, 1.0), numbers.normals(tokens * k, 1.0));
        let weights: Vec<f32> = (0..tokens).map(|_| numbers.uniform() as f32).collect();
        let tensor = |values: &[f32]| Tensor::upload(&device, "x", values, k).unwrap();
        let (left_device, right_device) = (tensor(&left), tensor(&right));
        let weights_device = device.upload("weights", &weights).unwrap();
        let own = ProductSum::symmetric(&device, "layer", k).unwrap();
        let other = ProductSum::zeros(&device, "other", (k, k)).unwrap();
        let mut list = CommandList::new(&device, "test");
        let all = Tokens { rows: tokens, weights: None };
        let mut columns = |tokens: Tokens<'_>, x| tokens.columns(&mut list, x).unwrap();
        let (left_all, right_all) = (columns(all, &left_device), columns(all, &right_device));
        let few = columns(Tokens { rows: 33, weights: Some(&weights_device) }, &right_device);
        let weighted = Tokens { rows: tokens, weights: Some(&weights_device) };
        let [left_weighted, right_weighted] = [&left_device, &right_device].map(|x| columns(weighted, x));
        own.add(&mut list, &left_all, &left_all).unwrap();
        own.add(&mut list, &few, &few).unwrap();
        other.add(&mut list, &left_weighted, &right_weighted).unwrap();
        assert!(own.add(&mut list, &left_all, &right_all).is_err());
        assert!(other.add(&mut list, &left_all, &few).is_err());
        list.run().unwrap();
        let other = other.matrix().read().unwrap();
        let found = PreparedHessian::of_sum("layer", own, 4, 5.0).unwrap();
        let product = |a: &[f32], b: &[f32], rows: usize, weights: Option<&[f32]>| {
            let zeros = vec![0.0; k * k];
            reference::matmul_tn::matmul_tn(
                &a[..rows * k],
                &b[..rows * k],
                weights,
                (k, k),
                (1.0, 0.0),
                &zeros,
            )
        };
        let first = product(&left, &left, tokens, None);
        let second = product(&right, &right, 33, Some(&weights));
        let third = product(&left, &right, tokens, Some(&weights));
        let upper = |at: usize| (at / k).min(at % k) * k + (at / k).max(at % k);
        let expected = (0..k * k).map(|at| (first[upper(at)] + second[upper(at)]) / 4.0);
        let found_all = found.hessian().unwrap().read().unwrap().into_iter().chain(other);
        for (value, expected) in found_all.zip(expected.chain(third.iter().copied())) {
            // About 300 roundings of sums of random sign that reach about 70.
            assert!((f64::from(value) - expected).abs() <= 1e-5 * 70.0, "{value}, expected {expected}");
        }
        assert_eq!(found.damping().attempts, 1);
    }
}

#[test]
fn bad_numbers_are_named() {
    let (device, _) = devices().next().unwrap();
    let name = "model.layers.7.mlp.down_proj";
    let sum = ProductSum::symmetric(&device, name, 32).unwrap();
    let x = Tensor::upload(&device, "x", &[f32::INFINITY; 32], 32).unwrap();
    let mut list = CommandList::new(&device, "test");
    let x = Tokens { rows: 1, weights: None }.columns(&mut list, &x).unwrap();
    sum.add(&mut list, &x, &x).unwrap();
    list.run().unwrap();
    let message = PreparedHessian::of_sum(name, sum, 1, EXL2_DAMPING).err().unwrap().to_string();
    assert!(message.contains("layers.7.mlp.down_proj") && message.contains("not finite"), "{message}");

    let mut weights = vec![f16::ONE; 64 * 32];
    weights[40] = f16::NAN;
    let message = FloatWeights::upload(&device, "q_proj", &weights, (64, 32)).err().unwrap().to_string();
    assert!(message.contains("q_proj") && message.contains("(1, 8) is NaN"), "{message}");

    // A scale that half precision does not hold.
    let hessian = PreparedHessian::new(&device, "x", &[0.0; 32 * 32], EXL2_DAMPING).unwrap();
    let weights = FloatWeights::upload(&device, "o_proj", &[1e6_f32; 32 * 32], (32, 32)).unwrap();
    let weights = weights.prepare(&hessian, None).unwrap();
    let message =
        quantize(&weights, &hessian, &layout(&[(2, 32)]), None, ScaleRule::Exl2).err().unwrap().to_string();
    assert!(message.contains("o_proj") && message.contains("half precision"), "{message}");
}

/// A linear that ExLlamaV2's own quantizer rounded.
#[test]
fn exllamav2_gives_the_same_weights() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/exl2-layers.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = |name: &str| file.tensor(&format!("gptq-4-3.{name}")).unwrap();
    let f32s = |name: &str| -> Vec<f32> {
        data(name).data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let f64s = |name: &str| -> Vec<f64> {
        data(name).data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    };
    let u16s = |name: &str| -> Vec<u16> {
        data(name).data().as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect()
    };
    let (k, n) = (256, 64);
    let source = f32s("source");
    let weights: Vec<f32> = (0..k * n).map(|at| source[at % k * n + at / k]).collect();
    let hessian: Vec<f32> = f64s("hessian").into_iter().map(|value| value as f32).collect();
    let layout = Layout::from_q_groups(&u16s("q_groups"), data("q_weight").shape()[0]).unwrap();
    for (device, _) in devices() {
        let hessian = PreparedHessian::new(&device, "gptq-4-3", &hessian, EXL2_DAMPING).unwrap();
        let weights = FloatWeights::upload(&device, "gptq-4-3", &weights, (n, k))
            .unwrap()
            .prepare(&hessian, None)
            .unwrap();
        let found = quantize(&weights, &hessian, &layout, None, ScaleRule::Exl2).unwrap();
        let scale_max: Vec<u16> = found.matrix.q_scale_max.iter().map(|value| value.to_bits()).collect();
        assert_eq!(scale_max, u16s("q_scale_max"));
        let decoded = found.matrix.dequantize();
        let differing =
            decoded.iter().zip(u16s("decoded")).filter(|(found, bits)| found.to_bits() != *bits).count();
        // Single precision here, another order of sums there; see above.
        assert!(differing * 1000 <= k * n, "{differing} of {} weights differ", k * n);
    }
}
