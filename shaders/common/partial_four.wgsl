// Sums a product's partial sums four columns at a time, as a binary tree: ks = 4 gives (p0 + p1) + (p2 + p3), so that the
// bits do not depend on how a product's geometry came to ks parts. ks is 1, 2, 4, 8 or 16.
// Expects `partial: array<vec4<f32>>`, [ks][rows][cols / 4].
fn two_parts(at: u32, stride: u32) -> vec4<f32> {
    return partial[at] + partial[at + stride];
}

fn four_parts(at: u32, stride: u32) -> vec4<f32> {
    return two_parts(at, stride) + two_parts(at + 2u * stride, stride);
}

fn eight_parts(at: u32, stride: u32) -> vec4<f32> {
    return four_parts(at, stride) + four_parts(at + 4u * stride, stride);
}

// Columns 4·at and on of part 0 with those of the others, `stride` (in fours) apart.
fn tree_four(at: u32, stride: u32, ks: u32) -> vec4<f32> {
    if (ks == 1u) {
        return partial[at];
    }
    if (ks == 2u) {
        return two_parts(at, stride);
    }
    if (ks == 4u) {
        return four_parts(at, stride);
    }
    if (ks == 8u) {
        return eight_parts(at, stride);
    }
    return eight_parts(at, stride) + eight_parts(at + 8u * stride, stride);
}
