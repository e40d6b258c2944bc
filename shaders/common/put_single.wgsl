// Stores values 4·four .. 4·four + 3 of a row of `cols` values of an activation in single precision. All lanes of a workgroup
// call it together, lane l with four = (a multiple of eight) + l; past the end with zeros. The importing kernel has `out` and WG.
fn put(row: u32, four: u32, cols: u32, v: vec4<f32>, lane: u32) {
    if (four < cols / 4u) {
        let at = row * cols + 4u * four;
        let bits = bitcast<vec4<u32>>(v);
        out[at] = bits.x;
        out[at + 1u] = bits.y;
        out[at + 2u] = bits.z;
        out[at + 3u] = bits.w;
    }
}
