// Joins the splits of `attention_decode` and stores the result in the order in which the next product takes it:
// out[r, i] = x[r, order[i]], x[r, h, ·] = Σ_s e^(m_s − m)·acc_s / Σ_s e^(m_s − m)·l_s.
//
// splits: f32 [rows, HEADS, splits, DIM] (acc), then f32 [rows, HEADS, splits, 2] (m, l); positions: u32 [rows] (0xffffffff:
// row not in use, its output is left alone); order: u32 [HEADS·DIM]; out: what `put` makes of [rows, HEADS·DIM]. Which splits
// were at work follows from the position and the window. Grid (HEADS·DIM / 128 rounded up, rows).
//
// A workgroup works out the weights of all splits of all heads, since any head may lie behind an output, then 32 lanes side
// by side have 4 outputs each, WG / 32 times with every eighth split; these are added in order. Bytes: 8·HEADS a live split and
// workgroup and 4·HEADS·DIM a live split in all, out of L2, where the last dispatch left them. On an H100 about 3.5 µs for one
// live split and 4 µs for 16 are expected (2.3 of them the dispatch). Measured (benches/README.md): 4.4 µs for one of 64 heads, 8.3 for 33.
// Oracle: reference/attention.rs (the whole softmax), reference/permute.rs.
override WG: u32;
override HEADS: u32;
override DIM: u32;
#import "common/put_single.wgsl"

struct Params { rows: u32, split_len: u32, splits: u32, window: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> splits: array<f32>;
@group(0) @binding(1) var<storage, read> positions: array<u32>;
@group(0) @binding(2) var<storage, read> order: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

const LOWEST: f32 = -3.0e38;
// Outputs of a workgroup, in fours.
const FOURS: u32 = 32u;
// Lanes that share a head while its weights are worked out.
const SHARE: u32 = 4u;
// HEADS · splits at most.
const WEIGHTS: u32 = 4096u;

var<workgroup> weights: array<f32, WEIGHTS>;
var<workgroup> parts: array<f32, HEADS * SHARE>;
var<workgroup> totals: array<f32, HEADS * SHARE>;
var<workgroup> sums: array<vec4<f32>, WG>;
// Features of the outputs: asked for at the beginning. A load that only what is behind a barrier needs is moved behind it.
var<workgroup> features_of: array<vec4<u32>, FOURS>;

// (m, l) of a split of a head.
fn split(row: u32, head: u32, s: u32) -> vec2<f32> {
    let at = p.rows * HEADS * p.splits * DIM + 2u * ((row * HEADS + head) * p.splits + s);
    return vec2<f32>(splits[at], splits[at + 1u]);
}

// Its part of an output, weighed.
fn part(row: u32, feature: u32, s: u32) -> f32 {
    let head = feature / DIM;
    return weights[head * p.splits + s] * splits[((row * HEADS + head) * p.splits + s) * DIM + feature % DIM];
}

fn total(feature: u32) -> f32 {
    let at = feature / DIM * SHARE;
    return (totals[at] + totals[at + 1u]) + (totals[at + 2u] + totals[at + 3u]);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = id.y;
    let position = positions[row];
    if (position == 0xffffffffu) {
        return;
    }
    let first = select(0u, position + 1u - p.window, position + 1u > p.window);
    let begin = first / p.split_len;
    let end = min(position / p.split_len + 1u, p.splits);
    let share = lane % SHARE;
    if (lane < FOURS) {
        features_of[lane] = order[min(id.x * FOURS + lane, HEADS * DIM / 4u - 1u)];
    }
    for (var head = lane / SHARE; head < HEADS; head += WG / SHARE) {
        var largest = LOWEST;
        for (var s = begin + share; s < end; s += SHARE) {
            largest = max(largest, split(row, head, s).x);
        }
        parts[head * SHARE + share] = largest;
    }
    workgroupBarrier();
    for (var head = lane / SHARE; head < HEADS; head += WG / SHARE) {
        let at = head * SHARE;
        let largest = max(max(parts[at], parts[at + 1u]), max(parts[at + 2u], parts[at + 3u]));
        var sum = 0.0;
        for (var s = begin + share; s < end; s += SHARE) {
            let pair = split(row, head, s);
            let weight = exp(pair.x - largest);
            weights[head * p.splits + s] = weight;
            sum += weight * pair.y;
        }
        totals[at + share] = sum;
    }
    workgroupBarrier();

    let cols = HEADS * DIM;
    let four = id.x * FOURS + lane % FOURS;
    let features = features_of[lane % FOURS];
    var sum = vec4<f32>(0.0);
    for (var s = begin + lane / FOURS; s < end; s += WG / FOURS) {
        sum += vec4<f32>(part(row, features.x, s), part(row, features.y, s),
            part(row, features.z, s), part(row, features.w, s));
    }
    sums[lane] = sum;
    workgroupBarrier();
    // Lanes past the outputs have nothing to store, which `put` sees from their number.
    var out_four = cols / 4u + lane;
    var result = vec4<f32>(0.0);
    if (lane < FOURS && four < cols / 4u) {
        for (var i = lane + FOURS; i < WG; i += FOURS) {
            sum += sums[i];
        }
        out_four = four;
        result = sum / vec4<f32>(total(features.x), total(features.y), total(features.z), total(features.w));
    }
    put(row, out_four, cols, result, lane);
}
