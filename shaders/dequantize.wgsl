// Packed weights to halves, bit for bit as ExLlamaV2 reconstructs them: s = half(c² · maximum[g]),
// out[n, k] = half((code − 2^(bits−1)) · s), k in packed row order.
//
// words, scales, maxima, blocks as in `quant_gemv`; out: halves in pairs [n, k / 2]. Each product is exact in single
// precision before its one rounding. One lane a column and block of 32 rows; the halves pass through workgroup memory, so that
// neighbouring lanes write neighbouring words. Grid (n / 32, k / 32 / 8).
// Oracle: reference/dequantize.rs.
#import "common/half.wgsl"
#import "common/pair_word.wgsl"
#import "generated/decode.wgsl"

struct Params { n: u32, k: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> words: array<u32>;
@group(0) @binding(1) var<storage, read> scales: array<u32>;
@group(0) @binding(2) var<storage, read> maxima: array<f32>;
@group(0) @binding(3) var<storage, read> blocks: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<Pair>;

const PAIRS: u32 = 128u; // of a column in eight blocks
const PITCH: u32 = 129u;

var<workgroup> decoded: array<Pair, 32u * PITCH>;

@compute @workgroup_size(32, 8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
    let n = id.x * 32u + lane.x;
    // Past the last block it is decoded again and not stored.
    let block = blocks[min(id.y * 8u + lane.y, p.k / 32u - 1u)];
    let group = block.y >> 8u;
    let code = ((scales[group * (p.n / 8u) + n / 8u] >> (4u * (n % 8u))) & 15u) + 1u;
    let scale = round_to_half(f32(code * code) * maxima[group]);
    decode_block(block.y & 255u, block.x * p.n + n, p.n, scale, lane.x * PITCH + lane.y * 16u);
    workgroupBarrier();
    let first = id.y * PAIRS;
    let count = min(PAIRS, p.k / 2u - first);
    for (var column = lane.y; column < 32u; column += 8u) {
        let to = (id.x * 32u + column) * (p.k / 2u) + first;
        for (var i = lane.x; i < count; i += 32u) {
            out[to + i] = decoded[column * PITCH + i];
        }
    }
}
