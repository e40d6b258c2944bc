// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011), the numbers of `reference/philox.rs`.
#import "common/wide.wgsl"

// The number that a text draws at a step, a fraction of 64 bits of which the lowest 11 are 0.
fn philox_fraction(seed: vec2<u32>, step: u32) -> vec2<u32> {
    var counter = vec4<u32>(step, 0u, 0u, 0u);
    var key = seed;
    for (var round = 0u; round < 10u; round++) {
        let a = wide_product(0xd2511f53u, counter.x);
        let b = wide_product(0xcd9e8d57u, counter.z);
        counter = vec4<u32>(b.y ^ counter.y ^ key.x, b.x, a.y ^ counter.w ^ key.y, a.x);
        key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return vec2<u32>(counter.x & 0xfffff800u, counter.y);
}
