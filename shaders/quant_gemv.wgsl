// Product of a few rows with packed weights: y[r, first + n] = Σ_k x[r, k]·w[k, n] (+ bias[n]) (+ y[r, first + n]).
//
// w[k, n] = (code − 2^(bits−1))·(c² · maximum[g]) in single precision, c = scale code of group g and column n; the
// group maximum is rounded to half by the host, the two later roundings of the format are skipped.
// x: f32 [rows, k] in packed row order; words: u32 [word_rows, n], one slab of n columns (a multiple of 32);
// scales: u32 [groups, n / 8]; maxima: f32 [groups]; blocks: per 32 packed rows (first word row, bits | group << 8);
// bias, y, flags as in `gemv`. A workgroup makes 32 columns of one row, 8 lanes a column share the blocks.
// Grid (n / 32, rows).
// Oracle: reference/quant_matmul.rs.
#import "generated/unpack.wgsl"

#import "common/product.wgsl"
const SLICES: u32 = 8u;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> words: array<u32>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read> maxima: array<f32>;
@group(0) @binding(4) var<storage, read> blocks: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

var<workgroup> parts: array<f32, 256>;

@compute @workgroup_size(32, 8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
    let n = id.x * 32u + lane.x;
    let row = id.y;
    var sum = 0.0;
    for (var b = lane.y; b < p.k / 32u; b += SLICES) {
        let block = blocks[b];
        let group = block.y >> 8u;
        unpack_block(block.y & 255u, block.x * p.n + n, p.n);
        var dot = 0.0;
        for (var i = 0u; i < 32u; i++) {
            dot += codes[i] * x[row * p.k + b * 32u + i];
        }
        let code = ((scales[group * (p.n / 8u) + n / 8u] >> (4u * (n % 8u))) & 15u) + 1u;
        sum += dot * (f32(code * code) * maxima[group]);
    }
    parts[lane.y * 32u + lane.x] = sum;
    workgroupBarrier();
    if (lane.y != 0u) {
        return;
    }
    var total = 0.0;
    for (var s = 0u; s < SLICES; s++) {
        total += parts[s * 32u + lane.x];
    }
    if (p.first + n >= p.out_cols) {
        return; // a padding column
    }
    store_output(row, n, total);
}
