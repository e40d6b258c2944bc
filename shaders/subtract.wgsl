// minuend[i] -= subtrahend[i], elementwise over `count`.
//
// minuend, subtrahend: f32 [count]. One lane an element, a flat grid.
// Oracle: reference/subtract.rs.
override WG: u32;
#import "common/index.wgsl"

struct Params { count: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read_write> minuend: array<f32>;
@group(0) @binding(1) var<storage, read> subtrahend: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = flat_workgroup(id, count) * WG + lane;
    if (i < p.count) {
        minuend[i] -= subtrahend[i];
    }
}
