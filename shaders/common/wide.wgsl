// Integers of 64 bits as (low, high). Sums of them do not depend on their order, which sums of floats do.

fn wide_add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn wide_sub(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn wide_less(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

// a · b in full.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
    return vec2<u32>(a * b, (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u));
}

// floor(a · share / 2^64): the part `share` of a, share being a fraction of 64 bits.
fn wide_share(a: vec2<u32>, share: vec2<u32>) -> vec2<u32> {
    let low = wide_product(a.x, share.x);
    let one = wide_product(a.x, share.y);
    let other = wide_product(a.y, share.x);
    let middle = wide_add(wide_add(vec2<u32>(low.y, 0u), vec2<u32>(one.x, 0u)), vec2<u32>(other.x, 0u));
    let high = wide_add(wide_product(a.y, share.y), vec2<u32>(middle.y, 0u));
    return wide_add(high, wide_add(vec2<u32>(one.y, 0u), vec2<u32>(other.y, 0u)));
}
