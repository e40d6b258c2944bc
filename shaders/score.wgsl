// What rows of logits of a model say: the negative log likelihood of a token, and beside a reference's logits the divergence
// Σ p·(ln p − ln q), p = softmax(reference[r, :]), q = softmax(model[r, :]), in nats, and whether both are highest at the same
// token, the lowest of equals.
//
// model, reference: f32 [rows, cols]; without a reference bind the model twice, whose divergence from itself is 0. targets: u32,
// the row's token or any number from cols on for none, whose likelihood counts as 1. scores: of row r at first + r, as its target
// is. The lowest token whose logit is not finite is told, the model's first; what else a row of such says is nothing.
//
// One workgroup a row, which it reads three times. With d = reference − model and its mean d' under p the divergence is
// ln Σ p·exp(d' − d) = ln(1 + Σ p·g(d − d')), g(t) = exp(−t) − 1 + t: a sum of what is never negative, so that small
// divergences keep their digits in single precision. A large one is d' less the logarithms of both sums of exponentials,
// which do not overflow. Grid (rows).
// Oracle: reference/score.rs.
override WG: u32;
#import "common/reduce.wgsl"
#import "common/sampling.wgsl"
#import "common/peak.wgsl"

struct Params { cols: u32, first: u32 }
var<immediate> p: Params;

// `ops/score.rs` has the same.
struct Score { likelihood: f32, divergence: f32, agrees: u32, bad: u32 }

// Of a row whose logits are all finite; and what is added to a token of the reference.
const ALL_FINITE: u32 = 0xffffffffu;
const REFERENCE: u32 = 0x80000000u;

// Divergences from which on the difference of logarithms has digits enough.
const LARGE: f32 = 4.0;

@group(0) @binding(0) var<storage, read> model: array<f32>;
@group(0) @binding(1) var<storage, read> reference: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> scores: array<Score>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, lane: Lane) {
    let base = id.x * p.cols;
    var highest = no_peak();
    var highest_beside = no_peak();
    for (var i = lane.index; i < p.cols; i += WG) {
        let key = key_of(model[base + i]);
        highest = peak_of(highest, Peak(key, i, key));
        let key_beside = key_of(reference[base + i]);
        highest_beside = peak_of(highest_beside, Peak(key_beside, i, key_beside));
    }
    let best = workgroup_peak(highest, lane.index);
    let beside = workgroup_peak(highest_beside, lane.index);
    let top = score_of(best.top);
    let top_beside = score_of(beside.top);

    var mass = 0.0;
    var mass_beside = 0.0;
    var moment = 0.0;
    for (var i = lane.index; i < p.cols; i += WG) {
        mass += exp(model[base + i] - top);
        let e = exp(reference[base + i] - top_beside);
        mass_beside += e;
        moment += e * (reference[base + i] - model[base + i]);
    }
    let whole = workgroup_sum(mass, lane);
    let whole_beside = workgroup_sum(mass_beside, lane);
    let mean = workgroup_sum(moment, lane) / whole_beside;

    var sum = 0.0;
    for (var i = lane.index; i < p.cols; i += WG) {
        sum += above_tangent(reference[base + i] - top_beside, reference[base + i] - model[base + i] - mean);
    }
    let excess = workgroup_sum(sum, lane) / whole_beside;

    if (lane.index == 0u) {
        let at = p.first + id.x;
        let wanted = targets[at];
        var likelihood = 0.0;
        if (wanted < p.cols) {
            likelihood = log(whole) + (top - model[base + wanted]);
        }
        var bad = ALL_FINITE;
        if (best.top == BAD_KEY) {
            bad = best.token;
        } else if (beside.top == BAD_KEY) {
            bad = beside.token | REFERENCE;
        }
        let large = mean + (log(whole) - log(whole_beside)) + (top - top_beside);
        let divergence = select(log_above_one(excess), large, large > LARGE);
        scores[at] = Score(likelihood, divergence, u32(best.token == beside.token), bad);
    }
}

// ln(1 + e); 1 + e would keep few digits of a small e, and log few of what is near 1. Twice the area tangent's series.
fn log_above_one(e: f32) -> f32 {
    let s = e / (2.0 + e);
    let q = s * s;
    let series = 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0)))));
    return select(log(1.0 + e), series, e < 0.5);
}

// exp(x)·g(t).
fn above_tangent(x: f32, t: f32) -> f32 {
    let e = exp(x);
    // The one factor may be less than single precision holds, and the other more, where their product counts.
    if (t < -8.0) {
        return exp(x - t) + e * (t - 1.0);
    }
    let series = t * t * (0.5 - t * (1.0 / 6.0 - t * (1.0 / 24.0 - t * (1.0 / 120.0 - t * (1.0 / 720.0)))));
    return e * select(exp(-t) - 1.0 + t, series, abs(t) < 0.25);
}
