// `put` of common/put_single.wgsl in half precision: eight lanes make a block of 32 values, each x = unit · h with a half h and the
// unit a power of two that brings the block's largest value to 16 and more, below 32. Each h is a multiple of 2^-14, so that
// products with codes and their sums are never subnormal, which cards may take for zero. A row holds for each block sixteen words
// of pairs, of four values the first with the third and the second with the fourth, as a quad's bytes come apart; then for each
// block its unit (f32), to whole 16 bytes.
#import "common/half.wgsl"
// Below this a block counts as zero: the reciprocal of the unit would overflow.
const LEAST: f32 = 1.0e-30;

var<workgroup> put_largest: array<f32, WG>;

fn put(row: u32, four: u32, cols: u32, v: vec4<f32>, lane: u32) {
    let sizes = abs(v);
    put_largest[lane] = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
    workgroupBarrier();
    let first = lane & 0xfffffff8u;
    var largest = put_largest[first];
    for (var i = 1u; i < 8u; i++) {
        largest = max(largest, put_largest[first + i]);
    }
    let some = largest >= LEAST;
    // The exponent alone, less four; the sum of exponents of a number and its reciprocal is 254.
    let unit = select(0u, (bitcast<u32>(largest) & 0x7f800000u) - 0x02000000u, some);
    let scaled = v * select(0.0, bitcast<f32>(0x7f000000u - unit), some);
    let h = select(scaled, round(scaled * 16384.0) * (1.0 / 16384.0), abs(scaled) < vec4<f32>(0.0625));
    if (four < cols / 4u) {
        let blocks = cols / 32u;
        let base = row * (16u * blocks + 4u * ((blocks + 3u) / 4u));
        out[base + 2u * four] = pack_halves(h.x, h.z);
        out[base + 2u * four + 1u] = pack_halves(h.y, h.w);
        if (lane == first) {
            out[base + 16u * blocks + four / 8u] = unit;
        }
    }
    workgroupBarrier();
}
