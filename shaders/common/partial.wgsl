// The sum of the partial results that a product left: ks of them (a power of two, at most 16), `stride` apart, always as the
// same binary tree. The importing kernel binds `partial` (f32).

fn tree2(at: u32, stride: u32) -> f32 {
    return partial[at] + partial[at + stride];
}

fn tree4(at: u32, stride: u32) -> f32 {
    return tree2(at, stride) + tree2(at + 2u * stride, stride);
}

fn tree8(at: u32, stride: u32) -> f32 {
    return tree4(at, stride) + tree4(at + 4u * stride, stride);
}

fn tree(at: u32, stride: u32, ks: u32) -> f32 {
    switch (ks) {
        case 1u: { return partial[at]; }
        case 2u: { return tree2(at, stride); }
        case 4u: { return tree4(at, stride); }
        case 8u: { return tree8(at, stride); }
        default: { return tree8(at, stride) + tree8(at + 8u * stride, stride); }
    }
}
