// The cache in single precision, for verification: the functions of `common/cache_half.wgsl`.

fn key_dot(unit: u32, o: u32) -> f32 {
    let a = bitcast<vec4<f32>>(keys[2u * unit]);
    let b = bitcast<vec4<f32>>(keys[2u * unit + 1u]);
    return a.x * query[o] + a.y * query[o + 1u] + a.z * query[o + 2u] + a.w * query[o + 3u]
        + b.x * query[o + 4u] + b.y * query[o + 5u] + b.z * query[o + 6u] + b.w * query[o + 7u];
}

fn value_at(i: u32) -> f32 {
    return bitcast<f32>(values[i]);
}
