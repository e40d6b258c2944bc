// Causal attention of a decode step: all query heads of a key/value head (at most eight a workgroup) over one split of one
// row's context, from the partial sums of the q|k|v product to the sums that `attention_join` joins. Rotates the queries
// itself. STORED false: the workgroup whose split holds the row's own position rotates and rounds its key, stores key and
// value in the cache and begins with their rounded values, so no workgroup reads what another one writes; rows are of
// different slots. STORED true: `kv_write` has stored them, and rows may be of one slot.
//
// Row r sees positions first ..= positions[r] of its slot, as in `attention`. partial: f32 [SUMS, rows, 4·columns], queries from
// column 0, keys from 4·key and values from 4·value; table: cosine, sine [context, DIM / 2]; positions, slots: u32 [rows] (position
// 0xffffffff: row not in use); pages: u32 [slots, pages_per_slot]; keys, values: a slab [page][kv_heads][PAGE][DIM] of the cache,
// halves or (import) single precision, for `group` query heads each from first_head on; splits: f32 [rows, heads, splits, DIM] =
// Σ e^(score − m)·value, then f32 [rows, heads, splits, 2] = m and Σ e^(score − m). A split with nothing to do leaves at once.
// DIM, a multiple of 8 up to 256, HEADS, up to 8, SUMS and STORED are constants of the prologue. Grid (splits, kv_heads · sets, rows): `sets` workgroups share the heads of a key/value head.
//
// A tile of 64 positions takes three barriers. Scores: 8 lanes share 4 keys (16-byte loads, whole sectors), a lane's products
// for all heads go through workgroup memory. Weights: a lane has 4 positions of a head. Sums: a lane has 4 values of all
// heads, DIM / 4 lanes read a whole row. All orders are fixed, so neither card nor subgroup changes a bit.
// Bytes: 4·DIM a position and key/value head (halves), and 4·SUMS·(HEADS + 2)·DIM of partial sums a workgroup, out of L2. On an
// H100 (3 TB/s, 2.3 µs a dispatch, about 0.7 µs a dependent load from memory, 0.3 from L2) the chain position, page and
// partial sums, keys, values is 4 to 5 µs at a near-empty context; 2048 positions of 8 key/value heads of 128 are 8.4 MB in 256
// workgroups, two an SM: 2.8 µs of bytes, 2 µs of arithmetic, 6 to 7.5 µs expected. Measured (benches/README.md): 4.7 µs and 9.2 µs; with 32 key/value heads 4.5 and 20.
// Oracle: reference/attention_decode.rs, then reference/attention.rs.
override PAGE: u32;
#import "common/decode_half.wgsl"
#import "common/decode_heads.wgsl"
#import "common/decode_rows.wgsl"

struct Params {
    rows: u32, columns: u32, key: u32, value: u32, heads: u32, first_head: u32, group: u32, kv_heads: u32, sets: u32,
    pages_per_slot: u32, split_len: u32, splits: u32, window: u32, scale: f32,
}
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> partial: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> table: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> slots: array<u32>;
@group(0) @binding(4) var<storage, read> pages: array<u32>;
@group(0) @binding(7) var<storage, read_write> splits: array<vec4<f32>>;

const LOWEST: f32 = -3.0e38;
const LANES: u32 = 128u;
const TILE: u32 = 64u;
const QUADS: u32 = 16u;
const PARTS: u32 = 8u;
const UNITS: u32 = DIM / 8u;
const FOURS: u32 = DIM / 4u;
// Lanes that have the same four values of different positions.
const GROUPS: u32 = min(QUADS, LANES / FOURS);

// Parts of scores, and at the end of sums.
var<workgroup> scratch: array<vec4<f32>, HEADS * LANES>;
var<workgroup> weights: array<vec4<f32>, HEADS * QUADS>;
var<workgroup> reduced: array<f32, HEADS * QUADS>;
var<workgroup> keeps: array<f32, 8>;

// Row number (of DIM values) of a position in keys and values.
fn place(slot: u32, kv_head: u32, position: u32) -> u32 {
    let page = pages[slot * p.pages_per_slot + position / PAGE];
    return (page * p.kv_heads + kv_head) * PAGE + position % PAGE;
}

// Twisted, so that neither those who write nor those who read it meet in a bank.
fn part_place(head: u32, quad: u32, part: u32) -> u32 {
    return (head * QUADS + quad) * PARTS + (part ^ (quad % PARTS));
}

// Parts of the scores of the tile whose first key is number `base`; its positions low .. high are live.
fn score_parts(base: u32, low: u32, high: u32, lane: u32) {
    let part = lane % PARTS;
    let quad = lane / PARTS;
    if (4u * quad + 4u <= low || 4u * quad >= high) {
        return;
    }
    let at = (base + clamp(4u * quad + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(low), vec4<u32>(high - 1u))) * UNITS;
    var sum = same(vec4<f32>(0.0));
    for (var unit = part; unit < UNITS; unit += PARTS) {
        let a = key_eight(at.x + unit);
        let b = key_eight(at.y + unit);
        let c = key_eight(at.z + unit);
        let d = key_eight(at.w + unit);
        sum = add_dots(sum, unit, transposed(a.low, b.low, c.low, d.low), transposed(a.high, b.high, c.high, d.high));
    }
    store_heads(sum, part_place(0u, quad, part), LANES);
}

fn value_rows(base: u32, quad: u32, low: u32, high: u32, lane: u32) -> Rows {
    let at = (base + clamp(4u * quad + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(low), vec4<u32>(high - 1u))) * FOURS
        + lane % FOURS;
    return Rows(value_four(at.x), value_four(at.y), value_four(at.z), value_four(at.w));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let position = positions[id.z];
    let slot = slots[id.z];
    let first = select(0u, position + 1u - p.window, position + 1u > p.window);
    let begin = max(id.x * p.split_len, first);
    let end = min((id.x + 1u) * p.split_len, position + 1u);
    if (position == 0xffffffffu || begin >= end) {
        return;
    }
    let kv_head = id.y / p.sets;
    let first_in_group = id.y % p.sets * HEADS;
    let live_heads = min(HEADS, p.group - first_in_group);
    let q_head = p.first_head + kv_head * p.group + first_in_group;
    let row = id.z * p.columns;
    let stride = p.rows * p.columns;
    let owns = !STORED && end == position + 1u;

    stage_queries(row + q_head * FOURS, live_heads, position, stride, lane);
    if (owns) {
        stage_own(row + p.key + kv_head * FOURS, row + p.value + kv_head * FOURS, position, stride, lane);
    }
    workgroupBarrier();

    // A lane's head and four positions of a tile: the head's largest score so far and the lane's part of the total.
    let head = lane / QUADS;
    let quad = lane % QUADS;
    var largest = LOWEST;
    var total = 0.0;
    // A lane's four values and every GROUPS-th four positions: sums for each head.
    let at = lane % FOURS;
    let group = lane / FOURS;
    let zero = vec4<f32>(0.0);
    var sums = same(zero);
    if (owns) {
        if (first_in_group == 0u) {
            store_own(place(slot, kv_head, position), lane);
        }
        if (head < HEADS) {
            own_parts[lane] = own_part(head, quad);
        }
        workgroupBarrier();
        if (head < HEADS) {
            largest = 0.0;
            for (var i = 0u; i < QUADS; i++) {
                largest += own_parts[head * QUADS + i];
            }
            largest *= p.scale;
            total = select(0.0, 1.0, quad == 0u);
        }
        if (group == 0u) {
            sums = same(four(own_value[at]));
        }
    }

    let cached = select(end, position, owns);
    for (var tile = select(cached, begin / TILE * TILE, begin < cached); tile < cached; tile += TILE) {
        let base = place(slot, kv_head, tile);
        let low = max(begin, tile) - tile;
        let high = min(cached - tile, TILE);
        score_parts(base, low, high, lane);
        workgroupBarrier();
        let numbers = 4u * quad + vec4<u32>(0u, 1u, 2u, 3u);
        let live = (numbers >= vec4<u32>(low)) & (numbers < vec4<u32>(high));
        var scores = zero;
        if (head < HEADS) {
            for (var part = 0u; part < PARTS; part++) {
                scores += scratch[part_place(head, quad, part)];
            }
            scores = select(vec4<f32>(LOWEST), scores * p.scale, live);
            reduced[lane] = max(max(scores.x, scores.y), max(scores.z, scores.w));
        }
        workgroupBarrier();
        if (head < HEADS) {
            var next = largest;
            for (var i = 0u; i < QUADS; i++) {
                next = max(next, reduced[head * QUADS + i]);
            }
            let weight = select(zero, exp(scores - next), live);
            let part = exp(largest - next);
            total = total * part + ((weight.x + weight.y) + (weight.z + weight.w));
            largest = next;
            weights[lane] = weight;
            if (quad == 0u) {
                keeps[head] = part;
            }
        }
        workgroupBarrier();
        if (group < GROUPS) {
            sums = kept(sums);
            // Two times four positions at once, for more loads in flight.
            for (var i = group; 4u * i < high; i += 2u * GROUPS) {
                let rows = value_rows(base, i, low, high, lane);
                let after = value_rows(base, i + GROUPS, low, high, lane);
                sums = weigh(sums, i, rows);
                if (i + GROUPS < QUADS) {
                    sums = weigh(sums, i + GROUPS, after);
                }
            }
        }
    }

    if (head < HEADS) {
        reduced[lane] = total;
    }
    if (group < GROUPS) {
        store_heads(sums, group * HEADS * FOURS + at, FOURS);
    }
    workgroupBarrier();
    let to = (id.z * p.heads + q_head) * p.splits + id.x;
    for (var i = lane; i < live_heads * FOURS; i += LANES) {
        var sum = scratch[i];
        for (var g = 1u; g < GROUPS; g++) {
            sum += scratch[g * HEADS * FOURS + i];
        }
        splits[(to + i / FOURS * p.splits) * FOURS + i % FOURS] = sum;
    }
    if (head < live_heads && quad == 0u) {
        var all = 0.0;
        for (var i = 0u; i < QUADS; i++) {
            all += reduced[lane + i];
        }
        let number = to + head * p.splits;
        let pair = p.rows * p.heads * p.splits * FOURS + number / 2u;
        splits[pair][2u * (number % 2u)] = largest;
        splits[pair][2u * (number % 2u) + 1u] = all;
    }
}
