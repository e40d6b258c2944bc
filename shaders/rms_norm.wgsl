// Root-mean-square norm: out[r, i] = x[r, i] / sqrt(mean_i(x[r, i]²) + eps) · weight[i].
//
// x, out: f32 [rows, cols]; weight: f32 [cols]. One workgroup a row.
// Oracle: reference/rms_norm.rs.
override WG: u32;
#import "common/reduce.wgsl"

struct Params { cols: u32, eps: f32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, lane: Lane) {
    let base = id.x * p.cols;
    var squares = 0.0;
    for (var i = lane.index; i < p.cols; i += WG) {
        squares += x[base + i] * x[base + i];
    }
    let mean = workgroup_sum(squares, lane) / f32(p.cols);
    let factor = 1.0 / sqrt(mean + p.eps);
    for (var i = lane.index; i < p.cols; i += WG) {
        out[base + i] = x[base + i] * factor * weight[i];
    }
}
