// The cache in single precision, for verification: the bindings and functions of `common/decode_half.wgsl`.

@group(0) @binding(5) var<storage, read_write> keys: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> values: array<vec4<u32>>;

struct Eight { low: vec4<f32>, high: vec4<f32> }

fn key_eight(unit: u32) -> Eight {
    return Eight(bitcast<vec4<f32>>(keys[2u * unit]), bitcast<vec4<f32>>(keys[2u * unit + 1u]));
}

fn value_four(at: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(values[at]);
}

fn rounded(x: vec4<f32>) -> vec4<f32> {
    return x;
}

fn store_key(unit: u32, low: vec4<f32>, high: vec4<f32>) {
    keys[2u * unit] = bitcast<vec4<u32>>(low);
    keys[2u * unit + 1u] = bitcast<vec4<u32>>(high);
}

fn store_value(at: u32, x: vec4<f32>) {
    values[at] = bitcast<vec4<u32>>(x);
}
