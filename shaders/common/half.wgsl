// IEEE half precision without the f16 feature. Rounding is to nearest even, subnormals are kept,
// whatever the driver does with either: the integers are worked out here.

// Bits of the half nearest to x.
fn half_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    if (magnitude >= 0x47800000u) {
        // 65536 and more, infinity, NaN
        return sign | select(0x7c00u, 0x7e00u, magnitude > 0x7f800000u);
    }
    if (magnitude < 0x38800000u) {
        // below 2^-14: the integer number of 2^-24 steps
        return sign | u32(round(bitcast<f32>(magnitude) * 16777216.0));
    }
    let rounded = magnitude + 0x0fffu + ((magnitude >> 13u) & 1u);
    return sign | ((rounded - 0x38000000u) >> 13u);
}

// x rounded to half precision.
fn round_to_half(x: f32) -> f32 {
    let bits = half_bits(x);
    let magnitude = bits & 0x7fffu;
    let normal = bitcast<f32>(((bits & 0x8000u) << 16u) | ((magnitude << 13u) + 0x38000000u));
    let subnormal = f32(magnitude) * (1.0 / 16777216.0);
    return select(normal, select(subnormal, -subnormal, (bits & 0x8000u) != 0u), magnitude < 0x0400u);
}

// Two halves in a word, the first in the low bits.
fn pack_halves(low: f32, high: f32) -> u32 {
    return half_bits(low) | (half_bits(high) << 16u);
}
