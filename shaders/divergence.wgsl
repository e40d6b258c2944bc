// Divergence of the distributions that two rows of logits stand for: out[first + r] = Σ p·(ln p − ln q), p = softmax(x[r, :]),
// q = softmax(y[r, :]), in nats.
//
// x, y: f32 [rows, cols]; out: f32. One workgroup a row, which it reads three times. With d = x − y and its mean d' under p
// this is ln Σ p·exp(d' − d) = ln(1 + Σ p·g(d − d')), g(t) = exp(−t) − 1 + t: a sum of what is never negative, so that small
// divergences keep their digits in single precision. Near 0 g is its series. Grid (rows).
// Oracle: reference/divergence.rs.
override WG: u32;
#import "common/reduce.wgsl"

struct Params { cols: u32, first: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, lane: Lane) {
    let base = id.x * p.cols;
    var largest = x[base];
    for (var i = lane.index; i < p.cols; i += WG) {
        largest = max(largest, x[base + i]);
    }
    let top = workgroup_max(largest, lane);
    var mass = 0.0;
    var moment = 0.0;
    for (var i = lane.index; i < p.cols; i += WG) {
        let e = exp(x[base + i] - top);
        mass += e;
        moment += e * (x[base + i] - y[base + i]);
    }
    let whole = workgroup_sum(mass, lane);
    let mean = workgroup_sum(moment, lane) / whole;
    var sum = 0.0;
    for (var i = lane.index; i < p.cols; i += WG) {
        sum += exp(x[base + i] - top) * above_tangent(x[base + i] - y[base + i] - mean);
    }
    let excess = workgroup_sum(sum, lane) / whole;
    if (lane.index == 0u) {
        // ln(1 + e) of a small e, of which 1 + e would keep few digits.
        let series = excess * (1.0 - excess * (0.5 - excess * (1.0 / 3.0 - excess * 0.25)));
        out[p.first + id.x] = select(log(1.0 + excess), series, excess < 0.01);
    }
}

fn above_tangent(t: f32) -> f32 {
    let series = t * t * (0.5 - t * (1.0 / 6.0 - t * (1.0 / 24.0 - t * (1.0 / 120.0 - t * (1.0 / 720.0)))));
    // What lies further out has no mass that single precision could hold beside the rest.
    return select(exp(min(-t, 80.0)) - 1.0 + t, series, abs(t) < 0.25);
}
