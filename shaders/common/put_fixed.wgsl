// `put` of common/put_single.wgsl in fixed point: eight lanes make a block of 32 values, each x = step · (256 · high + low) with
// signed bytes high and low, step = (largest |x| of the block) / 32639. A row holds for each block eight words of high bytes and
// eight of low ones, then for each block its step (f32) and the sum of its integers (i32), to whole 16 bytes.
const MOST: f32 = 32639.0; // 127 · 256 + 127
// Below this a block counts as zero: the reciprocal of the step would overflow.
const LEAST: f32 = 1.0e-30;

var<workgroup> put_largest: array<f32, WG>;
var<workgroup> put_sum: array<i32, WG>;

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
    let q = vec4<i32>(clamp(round(scaled), vec4<f32>(-MOST), vec4<f32>(MOST)));
    let low = (q << vec4<u32>(24u)) >> vec4<u32>(24u);
    let high = (q - low) >> vec4<u32>(8u);
    put_sum[lane] = q.x + q.y + q.z + q.w;
    workgroupBarrier();
    if (four < cols / 4u) {
        let blocks = cols / 32u;
        let base = row * (16u * blocks + 4u * ((blocks + 1u) / 2u));
        let block = four / 8u;
        out[base + 16u * block + four % 8u] = pack4xI8(high);
        out[base + 16u * block + 8u + four % 8u] = pack4xI8(low);
        if (lane == first) {
            var sum = 0;
            for (var i = 0u; i < 8u; i++) {
                sum += put_sum[first + i];
            }
            out[base + 16u * blocks + 2u * block] = bitcast<u32>(select(0.0, largest / MOST, some));
            out[base + 16u * blocks + 2u * block + 1u] = bitcast<u32>(sum);
        }
    }
    workgroupBarrier();
}
