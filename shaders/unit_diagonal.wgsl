// A symmetric matrix in another order and scaled to a diagonal of ones, above the diagonal:
// out[r, c] = h[order[r], order[c]]·scale[r]·scale[c] for r < c, and 1 for r = c. What is below is left as it is.
//
// h, out: f32 [rows, k], slabs of rows from h_first and out_first on; order: u32 [k], a permutation (checked on the host);
// scale: f32 [k]. Rows of `out` whose row of h is in another slab are left as they are. A workgroup takes WG values of a row,
// a flat grid.
// Oracle: reference/cholesky.rs.
override WG: u32;
#import "common/index.wgsl"

struct Params { k: u32, h_first: u32, h_rows: u32, out_first: u32, out_rows: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> h: array<f32>;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let parts = (p.k + WG - 1u) / WG;
    let group = flat_workgroup(id, count);
    let local = group / parts;
    let row = p.out_first + local;
    let column = group % parts * WG + lane;
    if (local >= p.out_rows || column >= p.k || column < row) {
        return;
    }
    let source = order[row] - p.h_first;
    // Wraps around for a row before the slab.
    if (source >= p.h_rows) {
        return;
    }
    var value = 1.0;
    if (row != column) {
        value = h[source * p.k + order[column]] * scale[row] * scale[column];
    }
    out[local * p.k + column] = value;
}
