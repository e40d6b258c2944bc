// Tokens with their weight, a multiple of 2^-42 of the most likely token's: what is counted, added up and searched.
#import "common/wide.wgsl"

struct Mass { count: u32, weight: vec2<u32> }

fn mass_add(a: Mass, b: Mass) -> Mass {
    return Mass(a.count + b.count, wide_add(a.weight, b.weight));
}

fn mass_sub(a: Mass, b: Mass) -> Mass {
    return Mass(a.count - b.count, wide_sub(a.weight, b.weight));
}

// A weight of 0 to 1 in steps of 2^-42, rounded down.
fn mass_weight(weight: f32) -> vec2<u32> {
    let bits = bitcast<u32>(weight);
    let mantissa = (bits & 0x7fffffu) | 0x800000u;
    // The mantissa counts steps of 2^(exponent - 150).
    let exponent = bits >> 23u;
    if (exponent > 108u) {
        let shift = exponent - 108u;
        return vec2<u32>(mantissa << shift, mantissa >> (32u - shift));
    }
    return vec2<u32>(select(0u, mantissa >> (108u - exponent), exponent > 84u), 0u);
}
