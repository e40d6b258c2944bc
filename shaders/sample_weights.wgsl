// Second step of sampling: the weight of each token, and how many tokens of what weight each of BUCKETS buckets holds.
//
// Token t stands d = highest score − score[t] below the highest one; its weight is e^(−d / temperature). Buckets divide
// the scores, highest first, into equal parts down to the lowest one or to where weights vanish; what lies below that is
// in the last bucket and has the weight 0.
// keys: u32 [rows, vocabulary]; settings, positions: of the rows; peaks: [rows, groups], all of `sample_scores`;
// staged: (weight as f32, bucket) [rows, vocabulary]; histogram, of each row: u32 [BUCKETS] tokens, [BUCKETS] and [BUCKETS]
// the low and high words of their weights, [BUCKETS] zeros, then both words of the weight of all tokens that min-p keeps.
// Greedy rows are left alone. Grid (groups, rows).
// Oracle: reference/sample.rs.
override WG: u32;
override GROUP: u32;
override BUCKETS: u32;
#import "common/sampling.wgsl"
#import "common/mass.wgsl"

struct Params { vocabulary: u32, groups: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> keys: array<u32>;
@group(0) @binding(1) var<storage, read> settings: array<Settings>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> peaks: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> staged: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> histogram: array<atomic<u32>>;
#import "common/row_peak.wgsl"

// e^-29 is below the step of a weight.
const VANISHED: f32 = 29.0;

var<workgroup> counts: array<atomic<u32>, BUCKETS>;
var<workgroup> lows: array<atomic<u32>, BUCKETS>;
var<workgroup> highs: array<atomic<u32>, BUCKETS>;

// Adds to the wide integer in words `low` and `low + apart`.
fn add_wide_global(low: u32, apart: u32, value: vec2<u32>) {
    let carry = select(0u, 1u, atomicAdd(&histogram[low], value.x) > ~value.x);
    if (value.y + carry > 0u) {
        atomicAdd(&histogram[low + apart], value.y + carry);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = id.y;
    let row_settings = settings[row];
    if (positions[row] == UNUSED || row_settings.temperature == 0.0) {
        return;
    }
    for (var i = lane; i < BUCKETS; i += WG) {
        atomicStore(&counts[i], 0u);
        atomicStore(&lows[i], 0u);
        atomicStore(&highs[i], 0u);
    }
    let best = row_peak(row, p.groups, lane);
    workgroupBarrier();

    let top = score_of(best.top);
    let spread = min(top - score_of(best.lowest), VANISHED * row_settings.temperature);
    let buckets_per_score = f32(BUCKETS - 2u) / max(spread, 1.0e-30);
    let last = f32(BUCKETS - 1u);
    var kept = vec2<u32>(0u, 0u);
    let end = min((id.x + 1u) * GROUP, p.vocabulary);
    for (var token = id.x * GROUP + lane; token < end; token += WG) {
        let at = row * p.vocabulary + token;
        let d = top - score_of(keys[at]);
        let bucket = min(u32(min(d * buckets_per_score, last)), BUCKETS - 1u);
        var weight = 0.0;
        if (bucket < BUCKETS - 1u) {
            weight = min(exp(-(d * row_settings.inverse_temperature)), 1.0);
        }
        staged[at] = vec2<u32>(bitcast<u32>(weight), bucket);
        let mass = mass_weight(weight);
        atomicAdd(&counts[bucket], 1u);
        let carry = select(0u, 1u, atomicAdd(&lows[bucket], mass.x) > ~mass.x);
        if (mass.y + carry > 0u) {
            atomicAdd(&highs[bucket], mass.y + carry);
        }
        if (d <= row_settings.min_p) {
            kept = wide_add(kept, mass);
        }
    }
    workgroupBarrier();
    let base = row * (4u * BUCKETS + 2u);
    for (var i = lane; i < BUCKETS; i += WG) {
        let count = atomicLoad(&counts[i]);
        if (count > 0u) {
            atomicAdd(&histogram[base + i], count);
            let mass = vec2<u32>(atomicLoad(&lows[i]), atomicLoad(&highs[i]));
            add_wide_global(base + BUCKETS + i, BUCKETS, mass);
        }
    }
    if (kept.x + kept.y > 0u) {
        add_wide_global(base + 4u * BUCKETS, 1u, kept);
    }
}
