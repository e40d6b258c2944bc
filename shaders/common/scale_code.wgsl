// Scale code 1..=16 of a column: round(16·√(base / largest)), clamped. Compares squares instead of taking a root, so
// that every kernel and driver gets the same code: code > k where 1024·base ≥ (2k + 1)²·largest.
fn scale_code(base: f32, largest: f32) -> u32 {
    var code = 1u;
    for (var k = 1u; k < 16u; k++) {
        let odd = f32(2u * k + 1u);
        code += select(0u, 1u, base * 1024.0 >= odd * odd * largest);
    }
    return code;
}
