//! What a list of dispatches refuses, and that it runs any number of times.

use exlay::Error;
use exlay::gpu::{CommandList, Device, DeviceOptions, Kernel, Tier, Variant, flat_grid};
use exlay::ops::matmul::{Store, matmul};
use exlay::ops::swiglu::swiglu;
use exlay::ops::{DenseMatrix, Operand, Tensor};
use half::f16;

use crate::support::{device, open};

fn shape_error<T>(result: exlay::Result<T>, words: &str) {
    match result {
        Err(Error::Shape { operation, message }) => {
            assert!(message.contains(words), "{operation}: {message}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted, should say `{words}`"),
    }
}

fn kernel(device: &Device) -> Kernel {
    device.kernel(&Variant::new("swiglu").constant("WG", 64)).unwrap()
}

#[test]
fn the_interface_is_read_off_the_shader() {
    let device = device(Tier::Plain, false);
    let kernel = kernel(&device);
    let interface = kernel.interface();
    let bindings: Vec<_> =
        interface.bindings.iter().map(|binding| (binding.name.as_str(), binding.writes)).collect();
    assert_eq!(bindings, [("gate", false), ("up", false), ("out", true)]);
    assert_eq!(interface.immediate_bytes, 4);
}

#[test]
fn a_dispatch_that_does_not_fit_is_refused() {
    let device = device(Tier::Plain, false);
    let other = open(DeviceOptions { tier: Some(Tier::Plain), ..Default::default() });
    let kernel = kernel(&device);
    let [a, b, c] = ["a", "b", "c"].map(|label| device.upload(label, &[1.0_f32; 64]).unwrap());
    let foreign = other.upload("foreign", &[1.0_f32; 64]).unwrap();
    let mut list = CommandList::new(&device, "test");
    let one = [1, 1, 1];
    shape_error(list.dispatch(&kernel, &[&a, &b], &64_u32, one), "2 buffers for 3");
    shape_error(list.dispatch(&kernel, &[&a, &b, &c], &[64_u32, 0], one), "8 bytes of immediates for 4");
    shape_error(list.dispatch(&kernel, &[&a, &foreign, &c], &64_u32, one), "`foreign` belongs to another");
    shape_error(list.dispatch(&kernel, &[&a, &b, &a], &64_u32, one), "`a` is both read and written");
    let most = device.max_workgroups();
    shape_error(list.dispatch(&kernel, &[&a, &b, &c], &64_u32, [1, most + 1, 1]), "is the most");
    list.dispatch(&kernel, &[&a, &b, &c], &64_u32, [1, 0, 1]).unwrap();
    assert!(list.is_empty(), "nothing of these was added");
    list.dispatch(&kernel, &[&a, &a, &c], &64_u32, one).unwrap();
    list.run().unwrap();
    let got = device.read::<f32>(&c, 0, 64).unwrap();
    assert!(got.iter().all(|value| (value - 0.731_058_6).abs() < 1e-6), "{got:?}");
}

#[test]
fn copies_are_checked_and_keep_their_place_between_dispatches() {
    let device = device(Tier::Plain, false);
    let [a, b, c] = [1.0_f32, 2.0, 3.0].map(|value| device.upload("copy", &[value; 64]).unwrap());
    let mut list = CommandList::new(&device, "test");
    shape_error(list.copy(&a, 0, &a, 128, 4), "`copy`");
    shape_error(list.copy(&a, 200, &b, 0, 60), "60 bytes");
    shape_error(list.copy(&a, 0, &b, 2, 4), "4 bytes");
    let kernel = kernel(&device);
    list.copy(&a, 0, &b, 0, 128).unwrap();
    list.dispatch(&kernel, &[&b, &b, &c], &64_u32, [1, 1, 1]).unwrap();
    list.clear(&b);
    assert_eq!(list.len(), 3);
    list.run().unwrap();
    let silu = |x: f32| x / (1.0 + (-x).exp()) * x;
    let got = device.read::<f32>(&c, 0, 64).unwrap();
    assert!((got[0] - silu(1.0)).abs() < 1e-6 && (got[63] - silu(2.0)).abs() < 1e-6, "{got:?}");
    assert_eq!(device.read::<f32>(&b, 0, 64).unwrap(), [0.0; 64]);
}

/// A list holds shapes, not values: run again, it works with what the buffers hold then.
#[test]
fn a_list_runs_any_number_of_times() {
    let device = device(Tier::Plain, false);
    let x = Tensor::upload(&device, "x", &[1.0, 2.0], 2).unwrap();
    let y = Tensor::zeros(&device, "y", 1, 3).unwrap();
    let halves = [1.0, 0.5, 2.0, 0.0, 0.0, -1.0].map(f16::from_f32).to_vec();
    let weights = DenseMatrix::upload(&device, "w", 3, 2, |_| Ok(halves.clone()), None).unwrap();
    let mut list = CommandList::new(&device, "test");
    matmul(&mut list, &Operand::single(&x), &weights, &y, 1, Store::Add).unwrap();
    list.run().unwrap();
    list.run().unwrap();
    assert_eq!(y.read(1).unwrap(), [4.0, 4.0, -4.0]);
    x.write(&[10.0, 0.0]).unwrap();
    list.run().unwrap();
    assert_eq!(y.read(1).unwrap(), [14.0, 24.0, -4.0]);
}

#[test]
fn operations_refuse_shapes_that_differ() {
    let device = device(Tier::Plain, false);
    let tensor = |rows: usize, cols: usize| Tensor::zeros(&device, "t", rows, cols).unwrap();
    let mut list = CommandList::new(&device, "test");
    shape_error(swiglu(&mut list, &tensor(2, 3), &tensor(2, 4), &tensor(2, 3), 2), "needed is [2, 3]");
    shape_error(swiglu(&mut list, &tensor(2, 3), &tensor(1, 3), &tensor(2, 3), 2), "`t` is [1, 3]");
    let weights = DenseMatrix::upload(&device, "w", 3, 2, |_| Ok(vec![f16::ONE; 6]), None).unwrap();
    shape_error(
        matmul(&mut list, &Operand::single(&tensor(1, 4)), &weights, &tensor(1, 3), 1, Store::Set),
        "[1, 4]",
    );
    shape_error(
        matmul(&mut list, &Operand::single(&tensor(1, 2)), &weights, &tensor(1, 2), 1, Store::Set),
        "needed is [1, 3]",
    );
    let odd = DenseMatrix::upload(&device, "w", 2, 3, |_| Ok(vec![f16::ONE; 6]), None);
    shape_error(odd, "even");
    let short = DenseMatrix::upload(&device, "w", 2, 2, |_| Ok(vec![f16::ONE; 3]), None);
    shape_error(short, "3 values");
    assert!(list.is_empty());
}

#[test]
fn long_grids_fold() {
    let device = device(Tier::Plain, false);
    let most = u64::from(device.max_workgroups());
    for workgroups in [0, 1, most - 1, most, most + 1, 3 * most + 7] {
        let [x, y, z] = flat_grid(&device, workgroups);
        assert!(u64::from(x) <= most && z == 1);
        let (all, row) = (u64::from(x) * u64::from(y), u64::from(y));
        assert!(all >= workgroups && all < workgroups + row.max(1), "{workgroups}: {x} x {y}");
    }
}
