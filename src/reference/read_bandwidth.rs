//! Oracle of the kernel that reads memory.

/// The xor of the words that each lane reads, for all workgroups of `lanes` lanes with `loads` vectors of four words a lane.
pub fn read_bandwidth(words: &[u32], lanes: usize, loads: usize) -> Vec<u32> {
    let vectors = words.len() / 4;
    let workgroups = vectors.div_ceil(lanes * loads);
    let mut out = vec![0; workgroups * lanes];
    for vector in 0..vectors {
        let lane = vector / (lanes * loads) * lanes + vector % lanes;
        for word in &words[4 * vector..4 * vector + 4] {
            out[lane] ^= word;
        }
    }
    out
}
