// Stores a pair of keys and a pair of values in the cache in single precision, for verification.
fn store_pair(at: u32, k0: f32, k1: f32, v0: f32, v1: f32) {
    keys[2u * at] = bitcast<u32>(k0);
    keys[2u * at + 1u] = bitcast<u32>(k1);
    values[2u * at] = bitcast<u32>(v0);
    values[2u * at + 1u] = bitcast<u32>(v1);
}
