// `put` of common/put_single.wgsl in pairs of halves: eight lanes make a block of 32 values, each x = unit · (high + low), unit =
// (largest |x| of the block) / 16, high an integer and low a multiple of 2^-12 of at most a half. So products of codes with high
// and sums of several are exact in half precision, and none with low is subnormal, which cards may take for zero. A row holds for
// each block sixteen words of pairs of high and sixteen of low, of four values the first with the third and the second with the
// fourth, as a quad's bytes come apart; then for each block its unit (f32), to whole 16 bytes.
#import "common/half.wgsl"
const MOST: f32 = 16.0;
const STEPS: f32 = 4096.0;
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
    let scaled = v * select(0.0, MOST / largest, some);
    let high = round(scaled);
    let low = round((scaled - high) * STEPS) * (1.0 / STEPS);
    if (four < cols / 4u) {
        let blocks = cols / 32u;
        let base = row * (32u * blocks + 4u * ((blocks + 3u) / 4u));
        let at = base + 32u * (four / 8u) + 2u * (four % 8u);
        out[at] = pack_halves(high.x, high.z);
        out[at + 1u] = pack_halves(high.y, high.w);
        out[at + 16u] = pack_halves(low.x, low.z);
        out[at + 17u] = pack_halves(low.y, low.w);
        if (lane == first) {
            out[base + 32u * blocks + four / 8u] = bitcast<u32>(select(0.0, largest / MOST, some));
        }
    }
    workgroupBarrier();
}
