// Unfolds the grid that `gpu::flat_grid` folded: the number of this workgroup.
fn flat_workgroup(id: vec3<u32>, count: vec3<u32>) -> u32 {
    return id.y * count.x + id.x;
}
