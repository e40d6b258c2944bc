// Parts of a scalar product: parts[part + i] = Σ x[j]·y[y_first + j] over the j of workgroup i, j < count.
//
// x, y: f32; parts: f32. A lane takes every (lanes of the grid)-th product and the lanes' sums are added as a tree:
// the order is fixed by the grid. Grid (any count).
// Oracle: reference/dot.rs.
override WG: u32;

struct Params { count: u32, y_first: u32, part: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> parts: array<f32>;

var<workgroup> lanes: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = id.x * WG + lane; i < p.count; i += count.x * WG) {
        sum += x[i] * y[p.y_first + i];
    }
    lanes[lane] = sum;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half = half / 2u) {
        if (lane < half) {
            lanes[lane] += lanes[lane + half];
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        parts[p.part + id.x] = lanes[0];
    }
}
