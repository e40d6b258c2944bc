//! Results that come back while later work runs.

use exlay::Error;
use exlay::gpu::{CommandList, Readback, Tier, Variant};

use crate::support::device;

#[test]
fn each_copy_is_of_its_own_moment() {
    let device = device(Tier::Plain, false);
    // x becomes silu(x) · x each time, starting over from `start`.
    let kernel = device.kernel(&Variant::new("swiglu").constant("WG", 64)).unwrap();
    let [x, y] = ["x", "y"].map(|label| device.upload(label, &[2.0_f32; 64]).unwrap());
    let mut list = CommandList::new(&device, "test");
    list.dispatch(&kernel, &[&x, &x, &y], &64_u32, [1, 1, 1]).unwrap();
    list.copy(&y, 0, &x, 0, 256).unwrap();
    let mut readback = Readback::new(&device, "results", 12, 3).unwrap();
    let silu = |x: f32| x / (1.0 + (-x).exp()) * x;
    let mut expected = 2.0;
    let mut check = |readback: &mut Readback| {
        expected = silu(expected);
        let got = readback.wait::<f32>().unwrap();
        assert_eq!(got.len(), 3);
        assert!(got.iter().all(|value| (value - expected).abs() < 1e-5 * expected), "{got:?}, {expected}");
    };
    for _ in 0..3 {
        list.run_and_read(&mut readback, &y, 8, 12).unwrap();
    }
    assert_eq!((readback.pending(), readback.free()), (3, 0));
    check(&mut readback);
    list.run_and_read(&mut readback, &y, 0, 12).unwrap();
    check(&mut readback);
    device.wait("test").unwrap();
    assert!(readback.ready().unwrap());
    check(&mut readback);
    check(&mut readback);
    assert!(!readback.ready().unwrap(), "nothing is on its way");
    list.run_and_read(&mut readback, &y, 0, 4).unwrap();
    readback.discard().unwrap();
    assert_eq!((readback.pending(), readback.free()), (0, 3));
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_runs() {
    let device = device(Tier::Plain, false);
    let x = device.upload("x", &[1.0_f32; 16]).unwrap();
    let list = CommandList::new(&device, "test");
    let mut readback = Readback::new(&device, "results", 16, 1).unwrap();
    assert!(matches!(readback.wait::<u32>(), Err(Error::Shape { .. })));
    for (offset, bytes) in [(0, 20), (2, 4), (64, 4), (0, 6)] {
        assert!(list.run_and_read(&mut readback, &x, offset, bytes).is_err(), "{bytes} at {offset}");
    }
    list.run_and_read(&mut readback, &x, 60, 4).unwrap();
    let error = list.run_and_read(&mut readback, &x, 0, 4).unwrap_err();
    assert!(error.to_string().contains("on their way already"), "{error}");
    assert_eq!(readback.wait::<f32>().unwrap(), [1.0]);
}
