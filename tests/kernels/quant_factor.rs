//! Factors of Hessians on the device against an oracle, and when the host takes over.

use exlay::gpu::{CommandList, Device, DeviceOptions};
use exlay::ops::Tensor;
use exlay::quant::hessian::{Doubt, FactoredOn, PreparedHessian};
use exlay::quant::sums::{ProductSum, Tokens};
use exlay::reference::cholesky::{lower_factor, lower_inverse};

use crate::quant_numbers::Numbers;
use crate::support::{adapter, devices};

/// A Hessian of correlated inputs whose sizes differ a hundredfold, of fewer tokens than features.
fn hessian(device: &Device, on: FactoredOn, k: usize, damping: f64) -> PreparedHessian {
    let (tokens, mut numbers) = ((k / 2 + 1).min(96), Numbers(k as u64));
    let sizes: Vec<f64> = (0..k).map(|_| 0.03 + numbers.uniform().powi(4) * 3.0).collect();
    let mut inputs = Vec::with_capacity(tokens * k);
    for _ in 0..tokens {
        let common = numbers.normal();
        inputs.extend(sizes.iter().map(|size| (size * (numbers.normal() + common)) as f32));
    }
    let x = Tensor::upload(device, "x", &inputs, k).unwrap();
    let sum = ProductSum::symmetric(device, "layer", k).unwrap();
    let mut list = CommandList::new(device, "test");
    let x = Tokens { rows: tokens, weights: None }.columns(&mut list, &x).unwrap();
    sum.add(&mut list, &x, &x).unwrap();
    list.run().unwrap();
    PreparedHessian::of_sum_on(on, "layer", sum, tokens / 3, damping).unwrap()
}

/// U in double precision of the H that the device has, and how far single precision may lie from it.
fn expected(prepared: &PreparedHessian) -> (Vec<f64>, Vec<f64>) {
    let (k, order, amount) = (prepared.k(), prepared.order(), prepared.damping().amount);
    let h = prepared.hessian().unwrap().read().unwrap();
    let feature = |row: usize| order[k - 1 - row] as usize;
    let element = |at: usize| {
        let (i, j) = (at / k, at % k);
        f64::from(h[feature(i) * k + feature(j)]) + if i == j { amount } else { 0.0 }
    };
    let matrix: Vec<f64> = (0..k * k).map(element).collect();
    let inverse = lower_inverse(&lower_factor(&matrix, k).unwrap(), k);
    let u: Vec<f64> = (0..k * k).map(|at| inverse[(k - 1 - at / k) * k + k - 1 - at % k]).collect();
    // Scaled to a diagonal of ones, M errs by E, some √k roundings an element, which is worked out in k steps, and L⁻¹ to first order by
    // Φ(L⁻¹·E·L⁻ᵀ)·L⁻¹, Φ the lower half. Element (a, b) of the product in brackets is a rounding times the lengths of the rows
    // a and b of L⁻¹, which grow as damping falls: one over the root of it at most, relative to the diagonal.
    let size = |j: usize| matrix[(k - 1 - j) * (k + 1)];
    let squares: Vec<f64> =
        (0..k).map(|i| (i..k).map(|j| u[i * k + j].powi(2) * size(j)).sum::<f64>()).collect();
    let columns: Vec<f64> =
        (0..k).map(|j| (0..=j).map(|i| squares[i] * u[i * k + j].powi(2)).sum::<f64>().sqrt()).collect();
    let bound =
        |at: usize| 2.0 * (k as f64).sqrt() * 2.0_f64.powi(-24) * squares[at / k].sqrt() * columns[at % k];
    let bounds = (0..k * k).map(bound).collect();
    (u, bounds)
}

/// The worst error as a part of its bound.
fn error(found: &[f32], (u, bounds): &(Vec<f64>, Vec<f64>)) -> f64 {
    let k = bounds.len().isqrt();
    let mut worst = 0.0_f64;
    for (at, (&found, &expected)) in found.iter().zip(u).enumerate() {
        if at % k < at / k {
            assert_eq!(found.to_bits(), 0, "below the diagonal");
        }
        let part = (f64::from(found) - expected).abs() / bounds[at];
        worst = if part.is_nan() { f64::INFINITY } else { worst.max(part) };
    }
    worst
}

fn check(device: &Device, k: usize, damping: f64) {
    let prepared = hessian(device, FactoredOn::Device, k, damping);
    assert_eq!((prepared.factored_on(), prepared.doubt()), (FactoredOn::Device, None), "{k}");
    let expected = expected(&prepared);
    let mut found = prepared.factor().read().unwrap();
    let (worst, residual) = (error(&found, &expected), prepared.residual().unwrap());
    println!("k {k}, damping {damping}: {worst:.2e} of the bound, residual {residual:.1e}");
    assert!(worst <= 1.0, "{k}: {worst} of the bound");
    assert!(residual < 1e-3, "{residual}");

    // The same again, to the last bit.
    let again = hessian(device, FactoredOn::Device, k, damping);
    assert!(again.factor().read().unwrap() == found);

    // Some columns of the inverse.
    let columns: Vec<usize> = (0..k).step_by(7).collect();
    let width = columns.len().next_multiple_of(4);
    let mut unit = vec![0.0; k * width];
    columns.iter().enumerate().for_each(|(at, &column)| unit[column * width + at] = 1.0);
    let [right, solved] = [&unit, &vec![0.0; k * width]]
        .map(|values| Tensor::upload(device, "inverse", values, width).unwrap());
    prepared.add_solved(&right, &solved, 1.0).unwrap();
    let inverse = solved.read(k).unwrap();
    let product = |i: usize, j: usize| -> f64 {
        (0..=i.min(j)).map(|r| f64::from(found[r * k + i]) * f64::from(found[r * k + j])).sum()
    };
    for i in 0..k {
        for (at, &j) in columns.iter().enumerate() {
            let size = (product(i, i) * product(j, j)).sqrt();
            let bound = 2.0 * k as f64 * 2.0_f64.powi(-24) * size;
            let (got, expected) = (f64::from(inverse[i * width + at]), product(i, j));
            assert!((got - expected).abs() <= bound, "({i}, {j}): {got}, expected {expected}");
        }
    }

    // A wrong value is seen by the comparison, and in the columns that it looks at by the check that needs no oracle.
    let at = k / 2 * k + k - 1;
    found[at] += 3.0 * expected.1[at] as f32;
    assert!(error(&found, &expected) > 1.0);
    found[k * k - 1] *= 1.5;
    prepared.factor().write(&found).unwrap();
    let residual = prepared.residual().unwrap();
    assert!(residual > 0.05, "{residual}");
}

#[test]
fn factors_lie_within_the_bound_of_their_damping() {
    for (device, _) in devices() {
        for (k, damping) in [(4, 0.025), (32, 0.12), (96, 0.025), (160, 0.01)] {
            check(&device, k, damping);
        }
    }
}

#[test]
fn panels_and_slabs_of_any_size() {
    check(&devices().next().unwrap().0, 608, 0.025);
    // Slabs of 96 rows.
    for (k, limit) in [(160, 65536), (608, 256 * 1024)] {
        let options = DeviceOptions { binding_limit: Some(limit), ..Default::default() };
        let device = Device::open(&adapter(), options).unwrap();
        let prepared = hessian(&device, FactoredOn::Device, k, 0.025);
        assert_eq!(prepared.factor().slab_rows(), 96);
        check(&device, k, 0.025);
    }
}

/// Ones on the diagonal and two features with these values in their own.
fn pair(k: usize, own: f32, common: f32) -> Vec<f32> {
    let mut values = vec![0.0; k * k];
    (0..k).for_each(|i| values[i * (k + 1)] = 1.0);
    (values[0], values[k + 1], values[1], values[k]) = (own, own, common, common);
    values
}

#[test]
fn what_single_precision_cannot_factor_goes_to_the_host() {
    let (device, _) = devices().next().unwrap();
    let k = 64;
    let make = |on, values: &[f32], damping| PreparedHessian::new_on(on, &device, "layer 3", values, damping);
    // The two differ by 3e-9 of their size, which is the damping.
    let values = pair(k, 1e6, 1e6);
    let found = make(FactoredOn::Device, &values, 1e-7).unwrap();
    assert_eq!(found.factored_on(), FactoredOn::Host);
    let doubt = found.doubt().unwrap();
    assert!(
        matches!(doubt, Doubt::Pivot { .. }) && doubt.to_string().contains("single precision"),
        "{doubt}"
    );
    let host = make(FactoredOn::Host, &values, 1e-7).unwrap();
    assert_eq!((host.factored_on(), host.doubt()), (FactoredOn::Host, None));
    assert_eq!(found.damping(), host.damping());
    assert!(found.factor().read().unwrap() == host.factor().read().unwrap());

    // Clearly indefinite: eigenvalues 3.5 and −1.5.
    let found = make(FactoredOn::Device, &pair(k, 1.0, 2.5), 0.2).unwrap();
    assert_eq!((found.factored_on(), found.damping().attempts), (FactoredOn::Device, 8));
    assert!((found.damping().amount - 1.6).abs() < 1e-6);
    let message = make(FactoredOn::Device, &pair(k, 1.0, 2.5), 0.12).err().unwrap().to_string();
    assert!(message.contains("layer 3") && message.contains("positive definite"), "{message}");

    // A k that the products do not take.
    let odd = make(FactoredOn::Device, &pair(45, 1.0, 0.5), 0.1).unwrap();
    assert_eq!((odd.factored_on(), odd.doubt()), (FactoredOn::Host, None));
}

#[test]
fn what_is_not_finite_is_named() {
    let (device, _) = devices().next().unwrap();
    for (i, j, value) in [(3, 3, f32::NAN), (2, 40, f32::INFINITY), (60, 63, f32::NEG_INFINITY)] {
        let mut values = pair(64, 1.0, 0.5);
        (values[i * 64 + j], values[j * 64 + i]) = (value, value);
        for on in [FactoredOn::Device, FactoredOn::Host] {
            let message =
                PreparedHessian::new_on(on, &device, "layers.7.down_proj", &values, 0.1).err().unwrap();
            let message = message.to_string();
            let place = format!("layers.7.down_proj: the Hessian holds {value} at ({i}, {j}): activations");
            assert!(message.contains(&place), "{message}");
        }
    }
}

/// `cargo test --release -- --ignored --nocapture speed_of_both`: what [`FactoredOn::choose`] rests on.
#[test]
#[ignore = "measures"]
fn speed_of_both() {
    let (device, _) = devices().nth(2).unwrap();
    for k in [128, 128, 576, 1536] {
        for on in [FactoredOn::Device, FactoredOn::Host] {
            let values = pair(k, 1.0, 0.5);
            let started = std::time::Instant::now();
            let made = PreparedHessian::new_on(on, &device, "x", &values, 0.025).unwrap();
            made.factor().read().unwrap();
            println!("k {k} on {on:?}: {:?}", started.elapsed());
        }
    }
}
