// Dense product for prompts: y[r, first + n] = Σ_k x[r, k]·w[n, k] (+ bias[n]) (+ y[r, first + n]).
//
// Bindings and immediates as in `gemv`. A workgroup of 16 × 16 lanes makes 64 × 64 outputs from tiles of 16 values
// of k in workgroup memory; a lane makes 4 × 4. Edges are filled with zeros. Grid (n / 64, rows / 64).
// `matmul_coop` is the same product on matrix units.
// Oracle: reference/matmul.rs.
const TILE: u32 = 64u;
const STEP: u32 = 16u;
const PITCH: u32 = 68u; // a tile's row with padding, so that the lanes of a column hit different banks

#import "common/product.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// [k][row] and [k][n]
var<workgroup> xs: array<f32, 1088>;
var<workgroup> ws: array<f32, 1088>;

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
    let row0 = id.y * TILE;
    let n0 = id.x * TILE;
    let pairs = p.k / 2u;
    var acc0 = vec4<f32>(0.0);
    var acc1 = vec4<f32>(0.0);
    var acc2 = vec4<f32>(0.0);
    var acc3 = vec4<f32>(0.0);
    for (var k0 = 0u; k0 < pairs; k0 += STEP / 2u) {
        for (var i = index; i < TILE * STEP / 2u; i += 256u) {
            let pair = i % (STEP / 2u);
            let line = i / (STEP / 2u);
            var a = vec2<f32>(0.0);
            var b = vec2<f32>(0.0);
            if (k0 + pair < pairs) {
                if (row0 + line < p.rows) {
                    a = x[(row0 + line) * pairs + k0 + pair];
                }
                if (n0 + line < p.n) {
                    b = unpack2x16float(w[(n0 + line) * pairs + k0 + pair]);
                }
            }
            xs[2u * pair * PITCH + line] = a.x;
            xs[(2u * pair + 1u) * PITCH + line] = a.y;
            ws[2u * pair * PITCH + line] = b.x;
            ws[(2u * pair + 1u) * PITCH + line] = b.y;
        }
        workgroupBarrier();
        for (var k = 0u; k < STEP; k++) {
            let a = k * PITCH + lane.y * 4u;
            let b = k * PITCH + lane.x * 4u;
            let line = vec4<f32>(ws[b], ws[b + 1u], ws[b + 2u], ws[b + 3u]);
            acc0 += xs[a] * line;
            acc1 += xs[a + 1u] * line;
            acc2 += xs[a + 2u] * line;
            acc3 += xs[a + 3u] * line;
        }
        workgroupBarrier();
    }
    store(row0 + lane.y * 4u, n0 + lane.x * 4u, acc0);
    store(row0 + lane.y * 4u + 1u, n0 + lane.x * 4u, acc1);
    store(row0 + lane.y * 4u + 2u, n0 + lane.x * 4u, acc2);
    store(row0 + lane.y * 4u + 3u, n0 + lane.x * 4u, acc3);
}

fn store(row: u32, n: u32, sums: vec4<f32>) {
    if (row >= p.rows) {
        return;
    }
    for (var i = 0u; i < 4u; i++) {
        if (n + i < p.n) {
            store_output(row, n + i, sums[i]);
        }
    }
}
