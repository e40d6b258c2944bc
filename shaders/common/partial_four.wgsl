// The sums of `common/partial.wgsl` four columns at a time: `at` and `stride` count fours, and the importing kernel binds
// `partial` as vec4<f32>. How many there are to be added is the constant SUMS, 1, 2, 4, 8 or 16, so that all loads of a
// tree are under way at once.
fn two_parts(at: u32, stride: u32) -> vec4<f32> {
    return partial[at] + partial[at + stride];
}

fn four_parts(at: u32, stride: u32) -> vec4<f32> {
    return two_parts(at, stride) + two_parts(at + 2u * stride, stride);
}

fn eight_parts(at: u32, stride: u32) -> vec4<f32> {
    return four_parts(at, stride) + four_parts(at + 4u * stride, stride);
}

fn tree_four(at: u32, stride: u32) -> vec4<f32> {
    switch SUMS {
        case 1u: { return partial[at]; }
        case 2u: { return two_parts(at, stride); }
        case 4u: { return four_parts(at, stride); }
        case 8u: { return eight_parts(at, stride); }
        default: { return eight_parts(at, stride) + eight_parts(at + 8u * stride, stride); }
    }
}
