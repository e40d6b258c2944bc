// The way from one product to the next through the residual stream: next[r, i] = hidden[r, i] + Σ parts (a binary tree), and the
// input of the next group of linears, x[c, r, j] = next[r, o]·weight[o] with o = orders[c, j], stored with `put`. The division by
// the row's root mean square is left to that product, which gets squares[r, g] = Σ next[r, i]² over the values of workgroup g.
//
// hidden, next: f32 [rows, cols]; partial: f32 [SUMS, rows, columns] (columns >= cols), nothing with SUMS = 0; weight: f32 [cols];
// orders: u32 [copies, cols]; out: an activation [copies, rows, row words]. A lane has four values; grid (cols / (4·WG), rows, copies).
// Oracle: reference/rms_norm.rs.
override WG: u32;

#import "common/reduce.wgsl"
#import "common/partial.wgsl"
#import "common/put_single.wgsl"

struct Params { rows: u32, cols: u32, columns: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> hidden: array<f32>;
@group(0) @binding(1) var<storage, read> partial: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> orders: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> next: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> squares: array<f32>;
@group(0) @binding(6) var<storage, read_write> out: array<u32>;

fn value(row: u32, i: u32) -> f32 {
    return hidden[row * p.cols + i] + tree(row * p.columns + i, p.rows * p.columns, SUMS);
}

fn values(row: u32, i: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(value(row, i.x), value(row, i.y), value(row, i.z), value(row, i.w));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, lane: Lane) {
    let row = id.y;
    let four = id.x * WG + lane.index;
    let live = four < p.cols / 4u;
    var x = vec4<f32>(0.0);
    var own = vec4<f32>(0.0);
    if (live) {
        // All loads are under way before the first is waited for.
        let o = orders[(id.z * p.cols) / 4u + four];
        own = values(row, 4u * four + vec4<u32>(0u, 1u, 2u, 3u));
        x = values(row, o) * vec4<f32>(weight[o.x], weight[o.y], weight[o.z], weight[o.w]);
    }
    put(id.z * p.rows + row, four, p.cols, x, lane.index);
    if (id.z != 0u) {
        return;
    }
    if (live) {
        next[(row * p.cols) / 4u + four] = own;
    }
    let total = workgroup_sum(dot(own, own), lane);
    if (lane.index == 0u) {
        squares[row * count.x + id.x] = total;
    }
}
