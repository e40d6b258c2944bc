// Four numbers for each head of a workgroup, in registers: scores of four positions, or sums of four values. Written out head by
// head, since an array that a compiler does not unroll lies in memory. Heads past the constant HEADS are not used.
// Expects `query`, `weights`, `keeps` and `scratch` as `attention_decode` has them, UNITS and QUADS.
struct Heads {
    h0: vec4<f32>, h1: vec4<f32>, h2: vec4<f32>, h3: vec4<f32>,
    h4: vec4<f32>, h5: vec4<f32>, h6: vec4<f32>, h7: vec4<f32>,
}

// Four neighbours in each of four positions, or the other way round.
struct Rows { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

fn same(x: vec4<f32>) -> Heads {
    return Heads(x, x, x, x, x, x, x, x);
}

fn transposed(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> Rows {
    return Rows(vec4<f32>(a.x, b.x, c.x, d.x), vec4<f32>(a.y, b.y, c.y, d.y),
        vec4<f32>(a.z, b.z, c.z, d.z), vec4<f32>(a.w, b.w, c.w, d.w));
}

fn head_dots(sum: vec4<f32>, head: u32, unit: u32, low: Rows, high: Rows) -> vec4<f32> {
    let x = query[2u * head * UNITS + unit];
    let y = query[(2u * head + 1u) * UNITS + unit];
    return sum + x.x * low.a + x.y * low.b + x.z * low.c + x.w * low.d
        + y.x * high.a + y.y * high.b + y.z * high.c + y.w * high.d;
}

// Adds the products of eight numbers of each query with those of four keys, `low` and `high` transposed.
fn add_dots(sums: Heads, unit: u32, low: Rows, high: Rows) -> Heads {
    var next = sums;
    next.h0 = head_dots(sums.h0, 0u, unit, low, high);
    if (HEADS > 1u) { next.h1 = head_dots(sums.h1, 1u, unit, low, high); }
    if (HEADS > 2u) { next.h2 = head_dots(sums.h2, 2u, unit, low, high); }
    if (HEADS > 3u) { next.h3 = head_dots(sums.h3, 3u, unit, low, high); }
    if (HEADS > 4u) { next.h4 = head_dots(sums.h4, 4u, unit, low, high); }
    if (HEADS > 5u) { next.h5 = head_dots(sums.h5, 5u, unit, low, high); }
    if (HEADS > 6u) { next.h6 = head_dots(sums.h6, 6u, unit, low, high); }
    if (HEADS > 7u) { next.h7 = head_dots(sums.h7, 7u, unit, low, high); }
    return next;
}

fn head_weigh(sum: vec4<f32>, head: u32, quad: u32, rows: Rows) -> vec4<f32> {
    let w = weights[head * QUADS + quad];
    return sum + w.x * rows.a + w.y * rows.b + w.z * rows.c + w.w * rows.d;
}

// Adds four rows of values, weighed.
fn weigh(sums: Heads, quad: u32, rows: Rows) -> Heads {
    var next = sums;
    next.h0 = head_weigh(sums.h0, 0u, quad, rows);
    if (HEADS > 1u) { next.h1 = head_weigh(sums.h1, 1u, quad, rows); }
    if (HEADS > 2u) { next.h2 = head_weigh(sums.h2, 2u, quad, rows); }
    if (HEADS > 3u) { next.h3 = head_weigh(sums.h3, 3u, quad, rows); }
    if (HEADS > 4u) { next.h4 = head_weigh(sums.h4, 4u, quad, rows); }
    if (HEADS > 5u) { next.h5 = head_weigh(sums.h5, 5u, quad, rows); }
    if (HEADS > 6u) { next.h6 = head_weigh(sums.h6, 6u, quad, rows); }
    if (HEADS > 7u) { next.h7 = head_weigh(sums.h7, 7u, quad, rows); }
    return next;
}

// The part of the sums that is kept under a new largest score.
fn kept(sums: Heads) -> Heads {
    var next = sums;
    next.h0 *= keeps[0u];
    if (HEADS > 1u) { next.h1 *= keeps[1u]; }
    if (HEADS > 2u) { next.h2 *= keeps[2u]; }
    if (HEADS > 3u) { next.h3 *= keeps[3u]; }
    if (HEADS > 4u) { next.h4 *= keeps[4u]; }
    if (HEADS > 5u) { next.h5 *= keeps[5u]; }
    if (HEADS > 6u) { next.h6 *= keeps[6u]; }
    if (HEADS > 7u) { next.h7 *= keeps[7u]; }
    return next;
}

// Heads `step` apart.
fn store_heads(sums: Heads, to: u32, step: u32) {
    scratch[to] = sums.h0;
    if (HEADS > 1u) { scratch[to + 1u * step] = sums.h1; }
    if (HEADS > 2u) { scratch[to + 2u * step] = sums.h2; }
    if (HEADS > 3u) { scratch[to + 3u * step] = sums.h3; }
    if (HEADS > 4u) { scratch[to + 4u * step] = sums.h4; }
    if (HEADS > 5u) { scratch[to + 5u * step] = sums.h5; }
    if (HEADS > 6u) { scratch[to + 6u * step] = sums.h6; }
    if (HEADS > 7u) { scratch[to + 7u * step] = sums.h7; }
}
