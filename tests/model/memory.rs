//! What a model holds besides its weights and its cache.

use exlay::gpu::DeviceOptions;
use exlay::model::Placement;

use super::{load, support};

/// Bytes of the head in halves, the largest matrix of both models.
const DECODED: u64 = 2 * 256 * 2048;

#[test]
fn only_long_prompts_through_packed_weights_have_room_to_decode_them() {
    let scratch = |directory: &str, rows: usize| {
        let device = support::device(DeviceOptions::default());
        load(&device, &support::path(directory), rows, 256, Placement::Device).memory().scratch
    };
    let growth = |directory: &str| scratch(directory, 16) - scratch(directory, 8);
    assert!(growth("examples/tiny-stories") < DECODED, "halves are multiplied as they are");
    assert!(growth("tests/data/tiny-stories-exl2/4.0") >= DECODED, "a prompt decodes");
}
