//! Tuning: no profile changes a bit, and one that does not fit is refused.

use exlay::gpu::{Device, DeviceOptions, select};
use exlay::model::{CachePrecision, CacheSize, Llama, LoadOptions, Placement, Shape, Synthetic, Tuning};
use exlay::ops::group_geometry::choices;

use super::{logits, support};

/// Its down projections have more than one geometry.
fn tiny(device: &Device) -> Llama {
    let model = Synthetic::new(Shape::Tiny, 3.0, 1).unwrap();
    let cache = CacheSize { slots: 1, context: 64 };
    let (embedding, precision) = (Placement::Device, CachePrecision::Half);
    let options = LoadOptions { rows: 8, cache, embedding, precision };
    Llama::from_source(device, model.config().clone(), Box::new(model), options, &mut |_, _| {}).unwrap()
}

fn bits(model: &mut Llama) -> Vec<u32> {
    logits(model, &[77]).into_iter().map(f32::to_bits).collect()
}

/// Inner and outer length of that product.
const DOWN: [usize; 2] = [704, 256];

#[test]
fn profiles_change_no_bit() {
    let device = support::device(DeviceOptions::default());
    let expected = bits(&mut tiny(&device));
    let choices = choices(&device, DOWN[0], DOWN[1]);
    assert!(choices.len() > 1, "{choices:?}");
    for of_workgroup in choices {
        device.geometry().set(DOWN, Some(of_workgroup));
        assert!(bits(&mut tiny(&device)) == expected, "{of_workgroup} of a workgroup");
    }
    // What no kernel has is as if nothing were said.
    for of_workgroup in [0, 3, usize::MAX] {
        device.geometry().set(DOWN, Some(of_workgroup));
        assert!(bits(&mut tiny(&device)) == expected, "{of_workgroup} of a workgroup");
    }
}

#[test]
fn measuring_sets_each_shape_once_and_the_file_gives_it_back() {
    let name = std::env::var("EXLAY_TEST_ADAPTER").ok();
    let adapter = select(name.as_deref()).unwrap();
    let device = support::device(DeviceOptions::default());
    let mut model = tiny(&device);
    assert_eq!(model.tune().unwrap(), 1);
    assert_eq!(model.tune().unwrap(), 0);
    let measured = device.geometry().of_workgroup(DOWN).expect("it was measured");
    assert!(choices(&device, DOWN[0], DOWN[1]).contains(&measured));
    let expected = bits(&mut tiny(&support::device(DeviceOptions::default())));
    assert!(bits(&mut model) == expected);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new").join(Tuning::file_name(&adapter));
    let tuning = Tuning::of(&adapter, &device);
    tuning.write(&path).unwrap();
    let read = Tuning::read(&path, &adapter).unwrap();
    assert_eq!(read, tuning);
    let other = support::device(DeviceOptions::default());
    read.apply(&other);
    assert_eq!(other.geometry().entries(), device.geometry().entries());
}

#[test]
fn foreign_and_damaged_profiles_are_refused() {
    let name = std::env::var("EXLAY_TEST_ADAPTER").ok();
    let adapter = select(name.as_deref()).unwrap();
    let device = support::device(DeviceOptions::default());
    device.geometry().set(DOWN, Some(8));
    let good = Tuning::of(&adapter, &device);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.json");
    let mut cut = good.clone();
    cut.products[0].slices *= 2;
    for (bad, named) in [
        (Tuning { adapter: "another".into(), ..good.clone() }, "another"),
        (Tuning { driver: "older".into(), ..good.clone() }, "older"),
        (Tuning { version: "0.0.0".into(), ..good.clone() }, "0.0.0"),
        (cut, "704 x 256"),
    ] {
        bad.write(&path).unwrap();
        let message = Tuning::read(&path, &adapter).unwrap_err().to_string();
        assert!(message.contains("profile.json") && message.contains(named), "{message}");
    }
    good.write(&path).unwrap();
    let text = std::fs::read(&path).unwrap();
    for text in [&text[..text.len() / 2], b"", b"[1]", b"\xff\xfe"] {
        std::fs::write(&path, text).unwrap();
        let message = Tuning::read(&path, &adapter).unwrap_err().to_string();
        assert!(message.contains("profile.json"), "{message}");
    }
}
