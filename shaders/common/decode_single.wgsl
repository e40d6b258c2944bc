// The cache in single precision, for verification: the bindings and functions of `common/decode_half.wgsl`.

@group(0) @binding(5) var<storage, read_write> keys: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> values: array<Four>;

struct Eight { low: vec4<f32>, high: vec4<f32> }

alias Four = vec4<u32>;

fn four(words: Four) -> vec4<f32> {
    return bitcast<vec4<f32>>(words);
}

fn packed(x: vec4<f32>) -> Four {
    return bitcast<Four>(x);
}

fn key_eight(unit: u32) -> Eight {
    return Eight(four(keys[2u * unit]), four(keys[2u * unit + 1u]));
}

fn value_four(at: u32) -> vec4<f32> {
    return four(values[at]);
}

fn store_key(unit: u32, low: Four, high: Four) {
    keys[2u * unit] = low;
    keys[2u * unit + 1u] = high;
}
