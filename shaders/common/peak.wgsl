// The highest key of a row with the lowest token that has it, and the lowest key.
struct Peak { top: u32, token: u32, lowest: u32 }

// Of no tokens. A function, because a constant struct before an override is more than naga 30 can order.
fn no_peak() -> Peak {
    return Peak(0u, 0xffffffffu, 0xffffffffu);
}

var<workgroup> peak_tops: array<u32, WG>;
var<workgroup> peak_tokens: array<u32, WG>;
var<workgroup> peak_lowests: array<u32, WG>;

fn peak_of(a: Peak, b: Peak) -> Peak {
    let other = b.top > a.top || (b.top == a.top && b.token < a.token);
    return Peak(select(a.top, b.top, other), select(a.token, b.token, other), min(a.lowest, b.lowest));
}

// Over a workgroup of WG lanes, a power of two.
fn workgroup_peak(mine: Peak, lane: u32) -> Peak {
    var best = mine;
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        peak_tops[lane] = best.top;
        peak_tokens[lane] = best.token;
        peak_lowests[lane] = best.lowest;
        workgroupBarrier();
        let other = lane ^ width;
        best = peak_of(best, Peak(peak_tops[other], peak_tokens[other], peak_lowests[other]));
        workgroupBarrier();
    }
    return best;
}
