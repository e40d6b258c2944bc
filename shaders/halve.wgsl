// Rows as halves for matrix units: out[r, i] = half(x[r, order[i]] / units[r]), units[r] being the power of two that puts the
// row's largest value between 2^14 and 2^15, so that no row is too large for a half and none loses bits that others keep.
//
// x: f32 [rows, cols], cols even; order: u32 [cols] where ORDERED; out: halves in pairs [rows, planes, cols / 2], with TWO a
// second plane: half(x / unit − the first); units: f32 [rows]. One workgroup a row.
// Oracle: reference/halve.rs.
override WG: u32;
override ORDERED: u32;
override TWO: u32;
#import "common/reduce.wgsl"
#import "common/half.wgsl"

struct Params { cols: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;
@group(0) @binding(3) var<storage, read_write> units: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, lane: Lane) {
    let base = id.x * p.cols;
    var largest = 0.0;
    for (var i = lane.index; i < p.cols; i += WG) {
        largest = max(largest, abs(x[base + i]));
    }
    // Its exponent, at least one that leaves the unit a normal number.
    let exponent = max(bitcast<u32>(workgroup_max(largest, lane)) >> 23u, 15u);
    let factor = bitcast<f32>((268u - exponent) << 23u);
    if (lane.index == 0u) {
        units[id.x] = bitcast<f32>((exponent - 14u) << 23u);
    }
    let pairs = p.cols / 2u;
    for (var i = lane.index; i < pairs; i += WG) {
        var a = 2u * i;
        var b = a + 1u;
        if (ORDERED == 1u) {
            a = order[a];
            b = order[b];
        }
        let low = x[base + a] * factor;
        let high = x[base + b] * factor;
        let at = (1u + TWO) * id.x * pairs + i;
        out[at] = pack_halves(low, high);
        if (TWO == 1u) {
            out[at + pairs] = pack_halves(low - round_to_half(low), high - round_to_half(high));
        }
    }
}
