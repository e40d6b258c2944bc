//! What a device promises: memory with its limits, transfers, errors that come back.

use exlay::Error;
use exlay::gpu::{DeviceOptions, Tier, Variant};

use crate::support::{adapter, device, open};

#[test]
fn memory_is_counted_and_the_limit_kept() {
    let device = open(DeviceOptions { memory_limit: Some(10_000), ..Default::default() });
    let first = device.alloc("first", 6001).unwrap();
    assert_eq!((first.bytes(), device.memory().held), (6004, 6004));
    let second = first.clone();
    match device.alloc("second", 4000) {
        Err(Error::OutOfMemory { label, requested, held, fits }) => {
            assert_eq!((label.as_str(), requested, held, fits), ("second", 4000, 6004, 3996));
        }
        other => panic!("{:?}", other.map(|buffer| buffer.bytes())),
    }
    assert_eq!(device.memory().held, 6004, "what was refused is not held");
    drop(first);
    assert_eq!(device.memory().held, 6004, "a clone keeps it");
    drop(second);
    assert_eq!((device.memory().held, device.memory().peak), (0, 6004));
    device.alloc("third", 10_000).unwrap();
}

#[test]
fn a_buffer_beyond_the_binding_is_refused_with_both_sizes() {
    let device = open(DeviceOptions { binding_limit: Some(4096), ..Default::default() });
    let Err(Error::Shape { message, .. }) = device.alloc("large", 5000) else { panic!("accepted") };
    assert!(message.contains("5000") && message.contains("4096"), "{message}");
}

#[test]
fn transfers_keep_every_byte_and_refuse_what_lies_outside() {
    let device = device(Tier::Plain, false);
    let bytes: Vec<u8> = (0..=250).collect();
    let buffer = device.upload("bytes", &bytes).unwrap();
    assert_eq!(device.read::<u8>(&buffer, 0, 251).unwrap(), bytes);
    assert_eq!(device.read::<u8>(&buffer, 8, 3).unwrap(), [8, 9, 10]);
    device.write(&buffer, 4, &[0xaabb_ccdd_u32]).unwrap();
    assert!(device.read::<u8>(&buffer, 3, 6).unwrap_err().to_string().contains("at 3"));
    assert_eq!(device.read::<u32>(&buffer, 4, 1).unwrap(), [0xaabb_ccdd]);
    assert!(device.read::<u32>(&buffer, 252, 1).is_err());
    assert!(device.write(&buffer, 248, &[0_u32, 0]).is_err());
    assert!(device.write(&buffer, 2, &[0_u32]).is_err());
    assert!(device.read::<u32>(&buffer, 0, 0).unwrap().is_empty());
}

#[test]
fn errors_of_the_compiler_and_the_validator_reach_the_caller() {
    let device = device(Tier::Plain, false);
    let message = |variant: Variant| match device.kernel(&variant) {
        Err(Error::Device { label, message }) => {
            assert_eq!(label.split(' ').next(), Some(variant.stem()));
            message
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{} was accepted", variant.key()),
    };
    assert!(message(Variant::new("nothing")).contains("nothing.wgsl"));
    assert!(message(Variant::new("swiglu").prologue("this is not WGSL")).contains("expected"));
    assert!(message(Variant::new("swiglu")).contains("WG"), "an override without its value");
    // The device still works.
    device.kernel(&Variant::new("swiglu").constant("WG", 32)).unwrap();
}

#[test]
fn a_tier_above_the_adapter_is_refused() {
    let adapter = adapter();
    let best = adapter.capabilities().tier();
    for tier in Tier::ALL {
        let opened =
            exlay::gpu::Device::open(&adapter, DeviceOptions { tier: Some(tier), ..Default::default() });
        match opened {
            Ok(device) => assert!(tier <= best && device.tier() == tier),
            Err(error) => assert!(tier > best && error.to_string().contains("--tier"), "{error}"),
        }
    }
}

#[test]
fn an_unknown_adapter_is_refused_with_the_list() {
    let Err(error) = exlay::gpu::select(Some("no such card")) else { panic!("found") };
    assert!(error.to_string().contains(adapter().name()), "{error}");
    assert!(exlay::gpu::select(Some("99")).is_err());
}
