// Dense product for a few rows: y[r, first + n] = Σ_k x[r, k]·w[n, k] (+ bias[n]) (+ y[r, first + n]).
//
// x: f32 [rows, k], k even; w: halves in pairs [n, k / 2], one slab; bias: f32 [n] with flag BIAS, else any
// buffer; y: f32 [rows, out_cols]; flag ADD keeps what y holds. One workgroup an output, a flat grid over n·rows.
// Oracle: reference/matmul.rs.
override WG: u32;
#import "common/index.wgsl"
#import "common/reduce.wgsl"

#import "common/product.wgsl"

@group(0) @binding(0) var<storage, read> x: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, lane: Lane) {
    let output = flat_workgroup(id, count);
    if (output >= p.n * p.rows) {
        return;
    }
    let n = output % p.n;
    let row = output / p.n;
    let pairs = p.k / 2u;
    var sum = 0.0;
    for (var i = lane.index; i < pairs; i += WG) {
        let a = x[row * pairs + i];
        let b = unpack2x16float(w[n * pairs + i]);
        sum += a.x * b.x + a.y * b.y;
    }
    let total = workgroup_sum(sum, lane);
    if (lane.index == 0u) {
        store_output(row, n, total);
    }
}
