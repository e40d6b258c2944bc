// The cache in halves, read and written: what `attention_decode` knows of its element format, its bindings included.
// `common/decode_single.wgsl` has the same for single precision.
#import "common/half.wgsl"

@group(0) @binding(5) var<storage, read_write> keys: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> values: array<vec2<u32>>;

struct Eight { low: vec4<f32>, high: vec4<f32> }

fn four(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

fn packed(x: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(pack_halves(x.x, x.y), pack_halves(x.z, x.w));
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

// As the cache gives it back.
fn rounded(x: vec4<f32>) -> vec4<f32> {
    return four(packed(x));
}

fn store_key(unit: u32, low: vec4<f32>, high: vec4<f32>) {
    keys[unit] = vec4<u32>(packed(low), packed(high));
}

fn store_value(at: u32, x: vec4<f32>) {
    values[at] = packed(x);
}
