// Last step of sampling: where the cuts lie and which token the drawn number falls on, and what follows.
//
// Tokens stand in the order of their rank: higher scores first, equal ones by token. Top-k keeps the first k; top-p of
// these the fewest that reach its share of their weight; min-p those within its distance of the highest score. All
// three keep the first tokens, so what is left is the least of three sums, and the token is the one at which the sum passes
// the drawn share of that. Each of these is a search for a count or a weight in the order of rank: through the
// histogram first, then by digits within one bucket. Sums are of integers, so their order does not matter.
//
// peaks: of `sample_scores`; histogram: of `sample_weights`; ordered: of `sample_order`; settings, positions, tokens,
// seen, choices: see common/advance.wgsl. Greedy rows take their peak. One workgroup a row.
// Oracle: reference/sample.rs.
override WG: u32;
override BUCKETS: u32;
#import "common/sampling.wgsl"
#import "common/scan.wgsl"
#import "common/philox.wgsl"

struct Params { rows: u32, groups: u32, seen_words: u32, vocabulary: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> peaks: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> settings: array<Settings>;
@group(0) @binding(2) var<storage, read_write> positions: array<u32>;
@group(0) @binding(3) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(4) var<storage, read_write> seen: array<u32>;
@group(0) @binding(5) var<storage, read_write> choices: array<u32>;
@group(0) @binding(6) var<storage, read> histogram: array<u32>;
@group(0) @binding(7) var<storage, read> ordered: array<u32>;
#import "common/row_peak.wgsl"
#import "common/advance.wgsl"

// Where a search has come to: bucket or digit, all that ranks before it, and that with it.
struct Place { index: u32, before: Mass, through: Mass }
const NOWHERE: u32 = 0xffffffffu;

// A token and the weight of all that rank up to it.
struct Found { token: u32, weight: vec2<u32> }

// Counts and weights to be reached: the other of the two is 0.
fn reached(wanted: Mass, sum: Mass) -> bool {
    return sum.count >= wanted.count && !wide_less(sum.weight, wanted.weight);
}

var<private> before_lane: Mass;
var<workgroup> place: Place;
var<workgroup> lowest: atomic<u32>;
var<workgroup> highest: atomic<u32>;
// One digit of the tokens of a bucket, for each of WG values of it: how many, their weight, the place of one of them.
var<workgroup> digit_counts: array<atomic<u32>, WG>;
var<workgroup> digit_lows: array<atomic<u32>, WG>;
var<workgroup> digit_highs: array<atomic<u32>, WG>;
var<workgroup> digit_places: array<atomic<u32>, WG>;

fn bucket_mass(row: u32, bucket: u32) -> Mass {
    let at = row * (4u * BUCKETS + 2u) + bucket;
    return Mass(histogram[at], vec2<u32>(histogram[at + BUCKETS], histogram[at + 2u * BUCKETS]));
}

// Notes this place if it is where the sum passes what is wanted.
fn offer(wanted: Mass, index: u32, before: Mass, through: Mass) {
    if (reached(wanted, through) && !reached(wanted, before)) {
        place = Place(index, before, through);
    }
}

fn search_buckets(row: u32, wanted: Mass, lane: u32) -> Place {
    if (lane == 0u) {
        place = Place(NOWHERE, before_lane, before_lane);
    }
    workgroupBarrier();
    var sum = before_lane;
    for (var i = 0u; i < BUCKETS / WG; i++) {
        let bucket = lane * (BUCKETS / WG) + i;
        let next = mass_add(sum, bucket_mass(row, bucket));
        offer(wanted, bucket, sum, next);
        sum = next;
    }
    return workgroupUniformLoad(&place);
}

// The lowest and the highest ~key of some tokens.
fn extremes(first: u32, count: u32, lane: u32) -> vec2<u32> {
    if (lane == 0u) {
        atomicStore(&lowest, 0xffffffffu);
        atomicStore(&highest, 0u);
    }
    workgroupBarrier();
    for (var i = lane; i < count; i += WG) {
        let value = ordered[3u * (first + i)];
        atomicMin(&lowest, value);
        atomicMax(&highest, value);
    }
    workgroupBarrier();
    let both = vec2<u32>(atomicLoad(&lowest), atomicLoad(&highest));
    workgroupBarrier();
    return both;
}

// The range of values that is divided next: `low`, and how far it goes on after that. First ~keys, then the tokens whose
// ~key is `same`.
struct Range { low: u32, length: u32, of_tokens: bool, same: u32 }

// How far the range's values are to be shifted to be WG different ones at most.
fn digit_shift(range: Range) -> u32 {
    let bits = 32u - countLeadingZeros(range.length);
    let digit = 31u - countLeadingZeros(WG);
    return max(bits, digit) - digit;
}

// Counts the tokens of a bucket that lie in the range by digit and finds the digit at which the sum passes.
fn search_digit(wanted: Mass, before: Mass, first: u32, count: u32, range: Range, lane: u32) -> Place {
    atomicStore(&digit_counts[lane], 0u);
    atomicStore(&digit_lows[lane], 0u);
    atomicStore(&digit_highs[lane], 0u);
    if (lane == 0u) {
        place = Place(NOWHERE, before, before);
    }
    workgroupBarrier();
    let shift = digit_shift(range);
    for (var i = lane; i < count; i += WG) {
        let at = 3u * (first + i);
        let value = select(ordered[at], ordered[at + 1u], range.of_tokens) - range.low;
        if (value <= range.length && (!range.of_tokens || ordered[at] == range.same)) {
            let digit = value >> shift;
            let weight = mass_weight(bitcast<f32>(ordered[at + 2u]));
            atomicAdd(&digit_counts[digit], 1u);
            let carry = select(0u, 1u, atomicAdd(&digit_lows[digit], weight.x) > ~weight.x);
            atomicAdd(&digit_highs[digit], weight.y + carry);
            atomicStore(&digit_places[digit], first + i);
        }
    }
    workgroupBarrier();
    let mine = Mass(atomicLoad(&digit_counts[lane]),
        vec2<u32>(atomicLoad(&digit_lows[lane]), atomicLoad(&digit_highs[lane])));
    let through = mass_add(before, workgroup_scan(mine, lane));
    offer(wanted, lane, mass_sub(through, mine), through);
    return workgroupUniformLoad(&place);
}

// The first token in the order of rank at which the sum of counts or weights reaches what is wanted.
fn search(row: u32, wanted: Mass, lane: u32) -> Found {
    let bucket = search_buckets(row, wanted, lane);
    // All in the last bucket add nothing to the weight.
    if (bucket.index >= BUCKETS - 1u) {
        return Found(UNUSED, bucket.through.weight);
    }
    let first = row * p.vocabulary + bucket.before.count;
    let count = bucket.through.count - bucket.before.count;
    let ends = extremes(first, count, lane);
    var range = Range(ends.x, ends.y - ends.x, false, 0u);
    var before = bucket.before;
    var found = Found(UNUSED, bucket.through.weight);
    // Four digits of a ~key and four of a token at most.
    for (var round = 0u; round < 8u; round++) {
        let shift = digit_shift(range);
        let digit = search_digit(wanted, before, first, count, range, lane);
        if (digit.index == NOWHERE) {
            break;
        }
        if (digit.through.count - digit.before.count == 1u) {
            found = Found(ordered[3u * atomicLoad(&digit_places[digit.index]) + 1u], digit.through.weight);
            break;
        }
        before = digit.before;
        let low = range.low + (digit.index << shift);
        if (shift == 0u) {
            range = Range(0u, p.vocabulary - 1u, true, low);
        } else {
            range = Range(low, (1u << shift) - 1u, range.of_tokens, range.same);
        }
    }
    workgroupBarrier();
    return found;
}

fn wide_min(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return select(a, b, wide_less(b, a));
}

fn draw(row: u32, step: u32, lane: u32) -> u32 {
    let one = settings[row];
    var mine = Mass(0u, vec2<u32>(0u, 0u));
    for (var i = 0u; i < BUCKETS / WG; i++) {
        mine = mass_add(mine, bucket_mass(row, lane * (BUCKETS / WG) + i));
    }
    let through = workgroup_scan(mine, lane);
    before_lane = mass_sub(through, mine);
    // min-p keeps all where it is off.
    let of_min_p = row * (4u * BUCKETS + 2u) + 4u * BUCKETS;
    let in_min_p = vec2<u32>(histogram[of_min_p], histogram[of_min_p + 1u]);
    scan_weights[lane] = through.weight;
    workgroupBarrier();
    var kept = scan_weights[WG - 1u];
    workgroupBarrier();
    if (one.top_k > 0u && one.top_k < p.vocabulary) {
        kept = search(row, Mass(one.top_k, vec2<u32>(0u, 0u)), lane).weight;
    }
    if (one.top_p.x + one.top_p.y > 0u) {
        let share = wide_share(kept, one.top_p);
        let wanted = select(share, vec2<u32>(1u, 0u), share.x + share.y == 0u);
        kept = search(row, Mass(0u, wanted), lane).weight;
    }
    kept = wide_min(kept, in_min_p);
    let drawn = wide_share(kept, philox_fraction(one.seed, step));
    return search(row, Mass(0u, wide_add(drawn, vec2<u32>(1u, 0u))), lane).token;
}

var<workgroup> drawing: u32;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = id.x;
    let best = row_peak(row, p.groups, lane);
    if (lane == 0u) {
        let used = positions[row] != UNUSED && best.top != BAD_KEY && settings[row].temperature != 0.0;
        drawing = select(0u, 1u, used);
    }
    var choice = select(best.token, NOT_FINITE, best.top == BAD_KEY);
    if (workgroupUniformLoad(&drawing) == 1u) {
        choice = draw(row, text_step(row), lane);
    }
    if (lane == 0u) {
        advance(row, select(choice, UNUSED, positions[row] == UNUSED));
    }
}
