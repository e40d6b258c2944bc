// Reads words and keeps nearly nothing of them, for measuring how fast memory can be read.
//
// out[i] = xor of the words of the vectors that lane i of the grid reads: lane `lane` of workgroup w reads vectors
// (w·LOADS + j)·WG + lane for j < LOADS, as far as there are `vectors` of them: sixteen bytes a lane and load, neighbouring
// lanes side by side, four loads in flight. data: [vectors] of four words; out: a word for each lane of the grid.
// Grid flat_grid(vectors / (WG·LOADS)).
// Oracle: reference/read_bandwidth.rs.
#import "common/index.wgsl"
override WG: u32;
override LOADS: u32; // a multiple of 4

struct Params { vectors: u32, workgroups: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let group = flat_workgroup(id, count);
    if (group >= p.workgroups) {
        return;
    }
    let first = group * LOADS * WG + lane;
    var sum = vec4<u32>();
    if ((group + 1u) * LOADS * WG <= p.vectors) {
        for (var j = 0u; j < LOADS; j += 4u) {
            let at = first + j * WG;
            let a = data[at];
            let b = data[at + WG];
            let c = data[at + 2u * WG];
            let d = data[at + 3u * WG];
            sum ^= (a ^ b) ^ (c ^ d);
        }
    } else {
        for (var at = first; at < p.vectors; at += WG) {
            sum ^= data[at];
        }
    }
    out[group * WG + lane] = (sum.x ^ sum.y) ^ (sum.z ^ sum.w);
}
