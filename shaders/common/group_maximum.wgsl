// The group's maximum as the decoder has it, from the largest scale times 256: half(half(largest) / 256).
#import "common/half.wgsl"
fn group_maximum(largest: f32) -> f32 {
    return round_to_half(round_to_half(largest) * (1.0 / 256.0));
}
