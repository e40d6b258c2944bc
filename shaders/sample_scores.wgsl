// First step of choosing a token: logits to scores, and the highest of each group of GROUP tokens.
//
// score[r, t] = Σ over ks of partial[·, r, t], divided by the row's repetition penalty if positive and multiplied by it if
// not where token t occurred (bit t of seen[r]).
// partial: f32 [ks, rows, cols], of which the first `vocabulary` columns count; settings, positions: of the rows; seen: u32
// [rows, seen_words]; peaks: (highest key, its lowest token, lowest key, 0) [rows, groups]; with `keep`, keys: u32 [rows, vocabulary]
// and the histogram of each row (3·BUCKETS + BUCKETS + 2 words) is cleared. A row that is not in use is left alone.
// Grid (groups, rows).
// Oracle: reference/sample.rs.
override WG: u32;
override GROUP: u32;
override BUCKETS: u32;
#import "common/sampling.wgsl"
#import "common/peak.wgsl"

struct Params { vocabulary: u32, cols: u32, rows: u32, ks: u32, groups: u32, seen_words: u32, keep: u32 }
var<immediate> p: Params;

@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read> settings: array<Settings>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> seen: array<u32>;
@group(0) @binding(4) var<storage, read_write> peaks: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> keys: array<u32>;
@group(0) @binding(6) var<storage, read_write> histogram: array<u32>;
#import "common/partial.wgsl"

const LARGEST: f32 = 3.4028234e38;

fn score(row: u32, token: u32) -> f32 {
    let logit = tree(row * p.cols + token, p.rows * p.cols, p.ks);
    let row_settings = settings[row];
    if (row_settings.penalty == 1.0) {
        return logit;
    }
    // Comparing bits: what is not finite stays as it is.
    let finite = (bitcast<u32>(logit) & 0x7f800000u) != 0x7f800000u;
    let occurred = (seen[row * p.seen_words + token / 32u] >> (token % 32u)) & 1u;
    if (occurred == 0u || !finite) {
        return logit;
    }
    let factor = select(row_settings.penalty, row_settings.inverse_penalty, logit > 0.0);
    return clamp(logit * factor, -LARGEST, LARGEST);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = id.y;
    if (positions[row] == UNUSED) {
        return;
    }
    if (p.keep != 0u) {
        let words = 4u * BUCKETS + 2u;
        for (var i = id.x * WG + lane; i < words; i += p.groups * WG) {
            histogram[row * words + i] = 0u;
        }
    }
    var best = no_peak();
    // As many turns for every lane, so that they can be unrolled; past the end the last token comes again.
    for (var i = 0u; i < GROUP / WG; i++) {
        let token = min(id.x * GROUP + i * WG + lane, p.vocabulary - 1u);
        let key = key_of(score(row, token));
        if (p.keep != 0u) {
            keys[row * p.vocabulary + token] = key;
        }
        best = peak_of(best, Peak(key, token, key));
    }
    best = workgroup_peak(best, lane);
    if (lane == 0u) {
        peaks[row * p.groups + id.x] = vec4<u32>(best.top, best.token, best.lowest, 0u);
    }
}
