// Sums of the partial results that a product left, as a binary tree: the order in which K was cut, whoever cut it. The
// importing kernel binds `partial`; `at` is the place in the first of `sums` (0, 1, 2, 4, 8 or 16) parts of `stride` values.
fn tree2(at: u32, stride: u32) -> f32 {
    return partial[at] + partial[at + stride];
}

fn tree4(at: u32, stride: u32) -> f32 {
    return tree2(at, stride) + tree2(at + 2u * stride, stride);
}

fn tree8(at: u32, stride: u32) -> f32 {
    return tree4(at, stride) + tree4(at + 4u * stride, stride);
}

fn tree(at: u32, stride: u32, sums: u32) -> f32 {
    switch sums {
        case 0u: { return 0.0; }
        case 1u: { return partial[at]; }
        case 2u: { return tree2(at, stride); }
        case 4u: { return tree4(at, stride); }
        case 8u: { return tree8(at, stride); }
        default: { return tree8(at, stride) + tree8(at + 8u * stride, stride); }
    }
}
