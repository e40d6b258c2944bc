//! What linears are fitted to, against the equation that it solves.

use exlay::gpu::DeviceOptions;
use exlay::model::GroupSpec;
use exlay::quant::accumulate::Lack;
use exlay::quant::correction::Correction;
use exlay::quant::hessian::PreparedHessian;
use exlay::quant::method::Method;
use exlay::quant::sums::ProductSum;
use exlay::quant::transform::Site;

use crate::streams::{open, quantized};
use crate::support;

/// W' solves (H + damping)·(W' − W) = G, G being what the outputs lack, summed with the inputs.
#[test]
fn weights_are_fitted_to_the_unquantized_model() {
    let device = support::device(DeviceOptions::default());
    let source = open(&device);
    let mut stream = quantized(&source, 2);
    let block = source.block(2).unwrap();
    let spec = block.spec().clone();
    let method = Method { asymmetry: 0.5, residual: 0.25, damping: 0.1, ..Method::default() };
    for (group, sums) in stream
        .accumulate(&source, (&block, &block), 0..spec.groups.len(), method)
        .unwrap()
        .into_iter()
        .enumerate()
    {
        let GroupSpec { input, linears } = &spec.groups[group];
        let linear = &linears[0];
        let (k, n) = (linear.k, linear.n);
        let lack = sums.lack.unwrap();
        let read = |sum: &ProductSum| -> Vec<f64> {
            sum.matrix().read().unwrap().iter().map(|&value| f64::from(value) / 3.0).collect()
        };
        let (inputs, outputs) = match &lack {
            Lack::Inputs(sum) => (Some(read(sum)), None),
            Lack::Outputs(slabs) => (None, Some(read(&slabs[0]))),
        };
        let prepared = PreparedHessian::of_sum("test", sums.hessian, 3, method.damping).unwrap();
        let h: Vec<f64> =
            prepared.hessian().unwrap().read().unwrap().iter().map(|&value| f64::from(value)).collect();
        let weights = |correction: Option<Correction<'_>>| -> Vec<f64> {
            let site = Site { block: &spec, input: *input, linear };
            let ordered =
                source.weights(site).unwrap().prepare(&prepared, correction).unwrap().read().unwrap();
            let mut values = vec![0.0; k * n];
            for (row, &feature) in prepared.order().iter().enumerate() {
                for column in 0..n {
                    values[feature as usize * n + column] =
                        f64::from(ordered[row * n.next_multiple_of(32) + column]);
                }
            }
            values
        };
        let original = weights(None);
        let fitted = weights(Some(Correction { lack: &lack, rows: 3 }));
        let moved: f64 = original.iter().zip(&fitted).map(|(a, b)| (a - b).abs()).sum();
        assert!(moved > 1e-3, "{}: nothing moved", linear.name);
        let (mut largest, mut worst) = (0.0_f64, 0.0_f64);
        for i in 0..k {
            for c in 0..n {
                let (mut left, mut right) =
                    (prepared.damping().amount * (fitted[i * n + c] - original[i * n + c]), 0.0);
                for j in 0..k {
                    left += h[i * k + j] * (fitted[j * n + c] - original[j * n + c]);
                    right += inputs.as_ref().map_or(0.0, |sum| sum[j * k + i] * original[j * n + c]);
                }
                right += outputs.as_ref().map_or(0.0, |sum| sum[i * n + c]);
                largest = largest.max(right.abs());
                worst = worst.max((left - right).abs());
            }
        }
        // Single precision through a product with the inverse, whose condition number damping keeps below 1/0.1 of the mean.
        assert!(worst <= 1e-3 * largest, "{}: {worst} of {largest}", linear.name);
    }
}
