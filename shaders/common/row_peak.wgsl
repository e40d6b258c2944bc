// The peak of a row from those of its groups. The importing kernel binds `peaks`: (top, token, lowest, 0) [rows, groups].
#import "common/peak.wgsl"

fn row_peak(row: u32, groups: u32, lane: u32) -> Peak {
    var best = no_peak();
    for (var group = lane; group < groups; group += WG) {
        let one = peaks[row * groups + group];
        best = peak_of(best, Peak(one.x, one.y, one.z));
    }
    return workgroup_peak(best, lane);
}
