// The cache in single precision, for verification: the functions of `common/eight_half.wgsl`.
struct Eight { low: vec4<f32>, high: vec4<f32> }

fn key_eight(unit: u32) -> Eight {
    return Eight(bitcast<vec4<f32>>(keys[2u * unit]), bitcast<vec4<f32>>(keys[2u * unit + 1u]));
}

fn value_eight(unit: u32) -> Eight {
    return Eight(bitcast<vec4<f32>>(values[2u * unit]), bitcast<vec4<f32>>(values[2u * unit + 1u]));
}
