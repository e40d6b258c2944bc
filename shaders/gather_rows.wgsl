// Rows into packed order: out[r, :] = x[order[r], :].
//
// x, out: f32 [rows, cols]; order: u32 [rows], below the rows of x (checked on the host). One lane an element, a flat
// grid.
// Oracle: reference/embed.rs.
override WG: u32;
#import "common/index.wgsl"

struct Params { rows: u32, cols: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = flat_workgroup(id, count) * WG + lane;
    if (i < p.rows * p.cols) {
        out[i] = x[order[i / p.cols] * p.cols + i % p.cols];
    }
}
