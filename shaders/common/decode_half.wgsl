// The cache in halves, read and written: what `attention_decode` knows of its element format, its bindings included.
// `common/decode_single.wgsl` has the same for single precision.
#import "common/half.wgsl"

@group(0) @binding(5) var<storage, read_write> keys: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> values: array<Four>;

struct Eight { low: vec4<f32>, high: vec4<f32> }

// Four neighbours as they are stored.
alias Four = vec2<u32>;

fn four(words: Four) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

fn packed(x: vec4<f32>) -> Four {
    return Four(pack_halves(x.x, x.y), pack_halves(x.z, x.w));
}

// Key numbers 8·unit and on.
fn key_eight(unit: u32) -> Eight {
    let words = keys[unit];
    return Eight(four(words.xy), four(words.zw));
}

// Value numbers 4·at and on.
fn value_four(at: u32) -> vec4<f32> {
    return four(values[at]);
}

fn store_key(unit: u32, low: Four, high: Four) {
    keys[unit] = vec4<u32>(low, high);
}
