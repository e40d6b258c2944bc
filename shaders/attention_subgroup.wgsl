// `attention` for subgroups of eight, which is how processors run shaders: no workgroup memory and no barriers. A workgroup
// of eight lanes takes eight positions at a time; for the scores a lane has a position, for the sums eight values of every 64
// of a head. Bindings (values in vec4), immediates, grid and results as in `attention`; dim, at most 256, is the constant DIM
// of the prologue, since it sizes an array.
// Oracle: reference/attention.rs.
override PAGE: u32;
#import "common/eight_half.wgsl"

struct Params {
    heads: u32, first_head: u32, group: u32, kv_heads: u32,
    pages_per_slot: u32, split_len: u32, splits: u32, window: u32, scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> keys: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> values: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> pages: array<u32>;
@group(0) @binding(4) var<storage, read> positions: array<u32>;
@group(0) @binding(5) var<storage, read> slots: array<u32>;
@group(0) @binding(6) var<storage, read_write> partial: array<f32>;

const LOWEST: f32 = -3.0e38;

// Row number (of DIM values) of a position in keys and values.
fn place(slot: u32, kv_head: u32, position: u32) -> u32 {
    let page = pages[slot * p.pages_per_slot + position / PAGE];
    return (page * p.kv_heads + kv_head) * PAGE + position % PAGE;
}

// The query, in registers: a processor loads memory slowly, lane by lane.
var<private> query: array<vec4<f32>, DIM / 4u>;

fn score(at: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < DIM / 8u; i++) {
        let key = key_eight(at * (DIM / 8u) + i);
        sum += dot(key.low, query[2u * i]) + dot(key.high, query[2u * i + 1u]);
    }
    return sum * p.scale;
}

// A lane's eight values of every 64.
struct Sums { s0: Eight, s1: Eight, s2: Eight, s3: Eight }

fn add(sum: Eight, weight: f32, at: u32, unit: u32) -> Eight {
    if (unit >= DIM / 8u) {
        return sum;
    }
    let value = value_eight(at * (DIM / 8u) + unit);
    return Eight(sum.low + weight * value.low, sum.high + weight * value.high);
}

fn keep_part(sum: Eight, part: f32) -> Eight {
    return Eight(part * sum.low, part * sum.high);
}

fn add_row(sums: Sums, weight: f32, at: u32, lane: u32) -> Sums {
    var next = sums;
    next.s0 = add(sums.s0, weight, at, lane);
    if (DIM > 64u) {
        next.s1 = add(sums.s1, weight, at, lane + 8u);
    }
    if (DIM > 128u) {
        next.s2 = add(sums.s2, weight, at, lane + 16u);
    }
    if (DIM > 192u) {
        next.s3 = add(sums.s3, weight, at, lane + 24u);
    }
    return next;
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
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
    for (var i = 0u; i < DIM / 4u; i++) {
        query[i] = q[row_head * (DIM / 4u) + i];
    }

    let zero = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
    var sums = Sums(zero, zero, zero, zero);
    var largest = LOWEST;
    var total = 0.0;
    for (var block = begin; block < end; block += 8u) {
        // Lanes past the end look at the last position and weigh it with 0.
        let live = block + lane < end;
        let at = place(slot, kv_head, min(block + lane, end - 1u));
        let own = score(at);
        let next = max(largest, subgroupMax(own));
        let weight = select(0.0, exp(own - next), live);
        let part = exp(largest - next);
        total = total * part + subgroupAdd(weight);
        largest = next;
        sums = Sums(keep_part(sums.s0, part), keep_part(sums.s1, part), keep_part(sums.s2, part), keep_part(sums.s3, part));
        sums = add_row(sums, subgroupBroadcast(weight, 0u), subgroupBroadcast(at, 0u), lane);
        sums = add_row(sums, subgroupBroadcast(weight, 1u), subgroupBroadcast(at, 1u), lane);
        sums = add_row(sums, subgroupBroadcast(weight, 2u), subgroupBroadcast(at, 2u), lane);
        sums = add_row(sums, subgroupBroadcast(weight, 3u), subgroupBroadcast(at, 3u), lane);
        sums = add_row(sums, subgroupBroadcast(weight, 4u), subgroupBroadcast(at, 4u), lane);
        sums = add_row(sums, subgroupBroadcast(weight, 5u), subgroupBroadcast(at, 5u), lane);
        sums = add_row(sums, subgroupBroadcast(weight, 6u), subgroupBroadcast(at, 6u), lane);
        sums = add_row(sums, subgroupBroadcast(weight, 7u), subgroupBroadcast(at, 7u), lane);
    }
    let to = (row_head * p.splits + id.x) * (DIM + 2u);
    if (lane == 0u) {
        partial[to] = largest;
        partial[to + 1u] = total;
    }
    store(to + 2u, lane, sums.s0);
    store(to + 2u, lane + 8u, sums.s1);
    store(to + 2u, lane + 16u, sums.s2);
    store(to + 2u, lane + 24u, sums.s3);
}

fn store(to: u32, unit: u32, sum: Eight) {
    if (unit >= DIM / 8u) {
        return;
    }
    for (var i = 0u; i < 4u; i++) {
        partial[to + 8u * unit + i] = sum.low[i];
        partial[to + 8u * unit + 4u + i] = sum.high[i];
    }
}
