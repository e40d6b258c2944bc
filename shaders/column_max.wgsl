// Scale with which a column's largest weight would just fit: base[c] = (max_r |w[r, c]| + 1e-12) / top over the rows
// of a group, and the largest of all columns: largest[group] = max(largest[group], base[c]), as bits, which order like
// the positive numbers that they are.
//
// w: f32 [.., pitch], from row `first`; base: f32, from `column` on; largest: u32, zero before the group's first
// dispatch. A lane takes every eighth row of a column. Grid (columns / 32).
// Oracle: reference/scale_search.rs.
struct Params { first: u32, rows: u32, pitch: u32, column: u32, group: u32, top: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read_write> base: array<f32>;
@group(0) @binding(2) var<storage, read_write> largest: array<atomic<u32>>;

var<workgroup> maxima: array<f32, 256>;
var<workgroup> block: atomic<u32>;

@compute @workgroup_size(32, 8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
    let column = id.x * 32u + lane.x;
    var most = 0.0;
    for (var row = lane.y; row < p.rows; row += 8u) {
        most = max(most, abs(w[(p.first + row) * p.pitch + column]));
    }
    maxima[index] = most;
    if (index == 0u) {
        atomicStore(&block, 0u);
    }
    workgroupBarrier();
    if (lane.y == 0u) {
        for (var i = 1u; i < 8u; i++) {
            most = max(most, maxima[i * 32u + lane.x]);
        }
        let scale = (most + 1e-12) / p.top;
        base[p.column + column] = scale;
        atomicMax(&block, bitcast<u32>(scale));
    }
    workgroupBarrier();
    if (index == 0u) {
        atomicMax(&largest[p.group], atomicLoad(&block));
    }
}
