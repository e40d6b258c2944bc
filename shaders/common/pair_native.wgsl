// `common/pair_word.wgsl` for adapters with half-precision arithmetic: all met so far round to nearest even and keep subnormals,
// which the selftest checks bit for bit.
alias Pair = vec2<f16>;

fn pair(low: f32, high: f32) -> Pair {
    return vec2<f16>(vec2<f32>(low, high));
}
