// Causal attention of one query row and head over one split of the paged cache (flash-decoding).
//
// Row r sees positions first ..= positions[r] of its slot, where first is 0 or, with a sliding window,
// positions[r] − window + 1. Split s covers positions s·split_len .. (s + 1)·split_len and writes, for its part,
// partial[r, head, s, 0] = m = max score, [1] = Σ e^(score − m), [2 ..] = Σ e^(score − m)·value. A split with
// nothing to do leaves at once; `attention_merge` knows which those are.
//
// q: f32 [rows, heads, dim]; keys, values: a slab [page][kv_heads][PAGE][dim] of the cache, halves or (import) single precision,
// for `group` query heads each from first_head on; pages: u32 [slots, pages_per_slot]; positions, slots: u32 [rows] (position
// 0xffffffff: row not in use); partial: f32 [rows, heads, splits, dim + 2]. dim is a multiple of 8 and at most 4·WG. Grid
// (splits, kv_heads · group, rows).
// Oracle: reference/attention.rs.
override WG: u32;
override PAGE: u32;
override DIM: u32;
#import "common/reduce.wgsl"
#import "common/cache_half.wgsl"

struct Params {
    heads: u32, first_head: u32, group: u32, kv_heads: u32,
    pages_per_slot: u32, split_len: u32, splits: u32, window: u32, scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> keys: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> values: array<u32>;
@group(0) @binding(3) var<storage, read> pages: array<u32>;
@group(0) @binding(4) var<storage, read> positions: array<u32>;
@group(0) @binding(5) var<storage, read> slots: array<u32>;
@group(0) @binding(6) var<storage, read_write> partial: array<f32>;

const LOWEST: f32 = -3.0e38;

var<workgroup> query: array<f32, DIM>;
var<workgroup> weights: array<f32, WG>;
var<workgroup> places: array<u32, WG>;

// Row number (of DIM values) of a position in keys and values.
fn place(slot: u32, kv_head: u32, position: u32) -> u32 {
    let page = pages[slot * p.pages_per_slot + position / PAGE];
    return (page * p.kv_heads + kv_head) * PAGE + position % PAGE;
}

fn score(at: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < DIM / 8u; i++) {
        sum += key_dot(at * (DIM / 8u) + i, 8u * i);
    }
    return sum * p.scale;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, lane: Lane) {
    let position = positions[id.z];
    let first = select(0u, position + 1u - p.window, position + 1u > p.window);
    let begin = max(id.x * p.split_len, first);
    let end = min((id.x + 1u) * p.split_len, position + 1u);
    if (position == 0xffffffffu || begin >= end) {
        return;
    }
    let row_head = id.z * p.heads + p.first_head + id.y;
    let slot = slots[id.z];
    let kv_head = id.y / p.group;
    for (var i = lane.index; i < DIM; i += WG) {
        query[i] = q[row_head * DIM + i];
    }
    workgroupBarrier();

    var largest = LOWEST;
    var total = 0.0;
    var sums = vec4<f32>(0.0);
    for (var block = begin; block < end; block += WG) {
        let live = min(WG, end - block);
        var own = LOWEST;
        var at = 0u;
        if (lane.index < live) {
            at = place(slot, kv_head, block + lane.index);
            own = score(at);
        }
        let next = max(largest, workgroup_max(own, lane));
        let weight = select(0.0, exp(own - next), lane.index < live);
        weights[lane.index] = weight;
        places[lane.index] = at;
        let keep = exp(largest - next);
        total = total * keep + workgroup_sum(weight, lane);
        sums *= keep;
        largest = next;
        for (var j = 0u; j < live; j++) {
            let w = weights[j];
            let base = places[j] * DIM;
            for (var k = 0u; k < 4u; k++) {
                let i = lane.index + k * WG;
                if (i < DIM) {
                    sums[k] += w * value_at(base + i);
                }
            }
        }
        workgroupBarrier();
    }
    let to = (row_head * p.splits + id.x) * (DIM + 2u);
    if (lane.index == 0u) {
        partial[to] = largest;
        partial[to + 1u] = total;
    }
    for (var k = 0u; k < 4u; k++) {
        let i = lane.index + k * WG;
        if (i < DIM) {
            partial[to + 2u + i] = sums[k];
        }
    }
}
