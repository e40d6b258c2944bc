// Turns a lower triangle by half a circle into an upper one, in place, with its columns scaled:
// out[k − 1 − i, k − 1 − j] = x[i, j]·scale[j] for j <= i, and zeros below the diagonal.
//
// source, turned: f32 [rows, k], slabs of rows of the one matrix, from source_first and turned_first on; they may be one buffer.
// scale: f32 [k]. A lane takes a value of `source` on or below the diagonal whose new row is in `turned`; of two values of the
// diagonal that change places, the lane of the upper one takes both. A workgroup takes WG values of a row, a flat grid.
// Oracle: reference/cholesky.rs.
override WG: u32;
#import "common/index.wgsl"

struct Params { k: u32, source_first: u32, source_rows: u32, turned_first: u32, turned_rows: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> scale: array<f32>;
@group(0) @binding(1) var<storage, read_write> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> turned: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let parts = (p.k + WG - 1u) / WG;
    let group = flat_workgroup(id, count);
    let local = group / parts;
    let row = p.source_first + local;
    let column = group % parts * WG + lane;
    if (local >= p.source_rows || column > row || row >= p.k) {
        return;
    }
    let new_column = p.k - 1u - column;
    // Wraps around for a row before the slab.
    let new_local = p.k - 1u - row - p.turned_first;
    if (new_local >= p.turned_rows) {
        return;
    }
    let old_at = local * p.k + column;
    let new_at = new_local * p.k + new_column;
    let value = source[old_at] * scale[column];
    if (column < row) {
        source[old_at] = 0.0;
        turned[new_at] = value;
    } else if (column <= new_column) {
        let other = turned[new_at] * scale[new_column];
        source[old_at] = other;
        turned[new_at] = value;
    }
}
