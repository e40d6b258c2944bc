// The cache in halves, two to a word: what `attention` knows of its element format.
// `common/cache_single.wgsl` has the same functions for single precision.

// Sum over 8 values, number 8·unit and on, of key · query, the query's from number o on.
fn key_dot(unit: u32, o: u32) -> f32 {
    let word = keys[unit];
    let a = unpack2x16float(word.x);
    let b = unpack2x16float(word.y);
    let c = unpack2x16float(word.z);
    let d = unpack2x16float(word.w);
    return a.x * query[o] + a.y * query[o + 1u] + b.x * query[o + 2u] + b.y * query[o + 3u]
        + c.x * query[o + 4u] + c.y * query[o + 5u] + d.x * query[o + 6u] + d.y * query[o + 7u];
}

// Value number i.
fn value_at(i: u32) -> f32 {
    let pair = unpack2x16float(values[i / 2u]);
    return select(pair.x, pair.y, (i & 1u) == 1u);
}
