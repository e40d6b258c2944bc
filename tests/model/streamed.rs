//! A model that passes through the card a block at a time gives the same bits.

use exlay::gpu::DeviceOptions;
use exlay::model::{Placement, Streamed, blocks, cross};
use exlay::ops::Tensor;

use super::{load, logits, recorded, support};

#[test]
fn streaming_in_less_memory_than_the_weights_need_changes_no_bit() {
    let directory = support::path("examples/tiny-stories");
    let recorded = recorded(&support::path("tests/data/tiny-stories-exl2/4.0"), 200);
    let device = support::device(DeviceOptions::default());
    let whole = logits(&mut load(&device, &directory, 64, 256, Placement::Device), &recorded.ids);

    let capped = support::device(DeviceOptions { memory_limit: Some(6 << 20), ..Default::default() });
    let streamed = Streamed::open(&capped, &directory, 64, 256).unwrap();
    let mut hidden = streamed.embed(&recorded.ids).unwrap();
    for index in 0..blocks(streamed.config()).len() {
        let block = streamed.block(index).unwrap();
        streamed.untapped(&block).run(&mut hidden).unwrap();
    }
    let mut found = Vec::new();
    let head = streamed.head().unwrap();
    let scratch = streamed.scratch();
    for chunk in hidden.chunks(scratch.rows() * streamed.config().hidden_size) {
        scratch.hidden().write(chunk).unwrap();
        let rows: Vec<usize> = (0..chunk.len() / streamed.config().hidden_size).collect();
        for slice in rows.chunks(head.slice_rows()) {
            found.extend(head.logits(scratch, scratch.hidden(), slice).unwrap());
        }
    }
    assert_eq!(whole.len(), found.len());
    assert!(whole.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn hidden_states_cross_within_a_device_and_between_two() {
    let (first, second) =
        (support::device(DeviceOptions::default()), support::device(DeviceOptions::default()));
    let values: Vec<f32> = (0..96).map(|i| i as f32 * 0.37 - 11.0).collect();
    let source = Tensor::upload(&first, "source", &values, 32).unwrap();
    for device in [&first, &second] {
        let target = Tensor::zeros(device, "target", 3, 32).unwrap();
        cross(&source, &target, 2).unwrap();
        let found = target.read(3).unwrap();
        assert_eq!(found[..64], values[..64]);
        assert_eq!(found[64..], [0.0; 32], "only the rows asked for");
    }
    let narrow = Tensor::zeros(&second, "narrow", 3, 16).unwrap();
    assert!(cross(&source, &narrow, 2).is_err());
}
