// Gated activation on the way from one product to the next: x[r, j] = silu(g)·u of feature o = order[j], where g and u are the sums
// (a binary tree) of the parts that the product of gate and up left, stored with `put`.
//
// partial: f32 [SUMS, rows, columns], gate from column 0 and up from column `up`; order: u32 [cols]; out: an activation
// [1, rows, row words]. A lane has four values; grid (cols / (4·WG), rows).
// Oracle: reference/swiglu.rs.
override WG: u32;

#import "common/partial.wgsl"
#import "common/put_single.wgsl"

struct Params { rows: u32, cols: u32, columns: u32, up: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read> order: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

fn values(at: vec4<u32>) -> vec4<f32> {
    let stride = p.rows * p.columns;
    return vec4<f32>(tree(at.x, stride, SUMS), tree(at.y, stride, SUMS), tree(at.z, stride, SUMS), tree(at.w, stride, SUMS));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = id.y;
    let four = id.x * WG + lane;
    var x = vec4<f32>(0.0);
    if (four < p.cols / 4u) {
        let at = row * p.columns + order[four];
        let g = values(at);
        let u = values(at + p.up);
        x = g / (1.0 + exp(-g)) * u;
    }
    put(row, four, p.cols, x, lane);
}
