//! Times of lists: of each command, and of the whole.

use exlay::gpu::{Clock, CommandList, Device, DeviceOptions, Tier};
use exlay::ops::Tensor;
use exlay::ops::swiglu::swiglu;

use crate::support::device;

#[test]
fn a_profile_has_a_time_for_each_command_and_the_long_one_is_the_longest() {
    let device = device(Tier::Plain, false);
    let tensor = |rows: usize| Tensor::upload(&device, "x", &vec![1.0_f32; 1024 * rows], 1024).unwrap();
    let (x, y, out) = (tensor(2048), tensor(2048), tensor(2048));
    let mut list = CommandList::new(&device, "timed");
    for rows in [1, 2048, 1] {
        swiglu(&mut list, &x, &y, &out, rows).unwrap();
    }
    list.copy(x.buffer(), 0, out.buffer(), 0, 4096).unwrap();
    list.run().unwrap();
    let profile = list.profile().unwrap();
    let labels: Vec<&str> = profile.steps.iter().map(|(label, _)| label.split(' ').next().unwrap()).collect();
    assert_eq!(labels, ["swiglu", "swiglu", "swiglu", "copy"]);
    let seconds: Vec<f64> = profile.steps.iter().map(|&(_, seconds)| seconds).collect();
    assert!(seconds.iter().all(|&seconds| (0.0..10.0).contains(&seconds)), "{seconds:?}");
    let others = seconds[0] + seconds[2];
    assert!(seconds[1] > 2.0 * others, "{seconds:?}, {:?}", profile.clock);
    let (one, eight) = (list.seconds(1, profile.clock).unwrap(), list.seconds(8, profile.clock).unwrap());
    assert!(one > 0.0 && eight > 2.0 * one, "{one} {eight}");
}

#[test]
fn the_hosts_clock_serves_where_the_device_has_none() {
    let device = device(Tier::Plain, false);
    let x = Tensor::upload(&device, "x", &vec![1.0; 1 << 20], 1024).unwrap();
    let out = Tensor::zeros(&device, "out", 1024, 1024).unwrap();
    let mut list = CommandList::new(&device, "timed");
    swiglu(&mut list, &x, &x, &out, 1024).unwrap();
    let host = Clock::Host { round_trip: 0.0 };
    let (one, many) = (list.seconds(1, host).unwrap(), list.seconds(32, host).unwrap());
    assert!(one > 0.0 && many > 4.0 * one, "{one} {many}");
}

#[test]
fn stages_are_told_apart_and_what_is_inside_counts_there() {
    let adapter = exlay::gpu::select(None).unwrap();
    let device = Device::open(&adapter, DeviceOptions { metered: true, ..Default::default() }).unwrap();
    let x = Tensor::upload(&device, "x", &vec![1.0; 1 << 20], 1024).unwrap();
    let out = Tensor::zeros(&device, "out", 1024, 1024).unwrap();
    let mut list = CommandList::new(&device, "timed");
    (0..8).for_each(|_| swiglu(&mut list, &x, &x, &out, 1024).unwrap());
    {
        let _outer = device.stage("outer").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let _inner = device.stage("inner").unwrap();
        // More lists than there is room for stamps at a time.
        (0..2500).for_each(|at| {
            if at % 500 == 0 { list.run() } else { CommandList::new(&device, "empty").run() }.unwrap()
        });
    }
    list.run().unwrap();
    let stages = device.stages();
    let paths: Vec<&[&str]> = stages.iter().map(|stage| stage.path.as_slice()).collect();
    assert_eq!(paths, [&[][..], &["outer"], &["outer", "inner"]]);
    assert!(stages[1].seconds >= 0.03 && stages[1].busy.is_none_or(|busy| busy == 0.0), "{stages:?}");
    let inner = &stages[2];
    assert!(inner.busy.is_none_or(|busy| 0.0 < busy && busy <= inner.seconds), "{stages:?}");
    assert_eq!(inner.peak, device.memory().held);
    let silent = crate::support::device(Tier::Plain, false);
    let _stage = silent.stage("outer").unwrap();
    assert!(silent.stages().is_empty());
}
