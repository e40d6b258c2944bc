// What values differ by: y = factor·(y − x), elementwise over `count`.
//
// x, y: f32 [count]. One lane an element, a flat grid.
// Oracle: reference/difference.rs.
override WG: u32;
#import "common/index.wgsl"

struct Params { count: u32, factor: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = flat_workgroup(id, count) * WG + lane;
    if (i < p.count) {
        y[i] = p.factor * (y[i] - x[i]);
    }
}
