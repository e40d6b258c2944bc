// What the sampling kernels share: how a row chooses, and scores as integers in the same order.

// How a row of a batch chooses its tokens; `ops/sample/settings.rs` has the same. Temperature 0 takes the highest
// score. top_k 0 keeps all; top_p is a fraction of 64 bits, 0 keeps all; min_p is a distance below the highest score.
struct Settings {
    temperature: f32, inverse_temperature: f32, penalty: f32, inverse_penalty: f32,
    top_p: vec2<u32>, seed: vec2<u32>,
    top_k: u32, min_p: f32, context: u32, unused: u32,
}

// Position of a row that is not in use, and what such a row chooses.
const UNUSED: u32 = 0xffffffffu;
// What a row chooses whose scores are not all finite.
const NOT_FINITE: u32 = 0xfffffffeu;
// Key of a score that is not finite; above all others.
const BAD_KEY: u32 = 0xffffffffu;

// Keys have the order of the scores; the two zeros are equal.
fn key_of(score: f32) -> u32 {
    let bits = bitcast<u32>(score);
    if ((bits & 0x7f800000u) == 0x7f800000u) {
        return BAD_KEY;
    }
    let same = select(bits, 0u, bits == 0x80000000u);
    return select(same | 0x80000000u, ~same, (same & 0x80000000u) != 0u);
}

fn score_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}
