// Two halves in a word.
#import "common/half.wgsl"
alias Pair = u32;

fn pair(low: f32, high: f32) -> Pair {
    return pack_halves(low, high);
}
