// Stores a pair of keys and a pair of values in the cache as halves; `common/store_single.wgsl` in single precision.
#import "common/half.wgsl"

fn store_pair(at: u32, k0: f32, k1: f32, v0: f32, v1: f32) {
    keys[at] = pack_halves(k0, k1);
    values[at] = pack_halves(v0, v1);
}
