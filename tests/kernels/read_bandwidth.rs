//! The kernel that reads memory: every vector counts once, whatever their number.

use exlay::gpu::{CommandList, Tier};
use exlay::ops::read_bandwidth::{LANES, LOADS, read_bandwidth};
use exlay::selftest::ReadBandwidth;

use crate::support::{check, device};

#[test]
fn every_vector_is_read_once() {
    for vectors in [1, LANES - 1, LANES, LANES * LOADS, LANES * LOADS + 1, 3 * LANES * LOADS + 17] {
        check(&ReadBandwidth { vectors });
    }
}

#[test]
fn what_is_not_there_is_not_read() {
    let device = device(Tier::Plain, false);
    let data = device.alloc("data", 64).unwrap();
    let mut list = CommandList::new(&device, "read");
    for bytes in [8, 80] {
        assert!(read_bandwidth(&mut list, &data, bytes, &device.alloc("out", 1024).unwrap()).is_err());
    }
    assert!(read_bandwidth(&mut list, &data, 64, &device.alloc("out", 512).unwrap()).is_err());
}
