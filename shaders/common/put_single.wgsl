// Stores values 4·four .. 4·four + 3 of a row of `cols` in single precision; nothing past the row's end.
// Expects `out: array<u32>`. Called by all lanes of a workgroup.
fn put(row: u32, four: u32, cols: u32, v: vec4<f32>, lane: u32) {
    if (four < cols / 4u) {
        let to = row * cols + 4u * four;
        out[to] = bitcast<u32>(v.x);
        out[to + 1u] = bitcast<u32>(v.y);
        out[to + 2u] = bitcast<u32>(v.z);
        out[to + 3u] = bitcast<u32>(v.w);
    }
}
