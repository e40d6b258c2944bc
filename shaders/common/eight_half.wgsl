// Eight neighbours of the cache in halves: what `attention_subgroup` knows of its element format.
// `common/eight_single.wgsl` has the same functions for single precision.
struct Eight { low: vec4<f32>, high: vec4<f32> }

fn eight(words: vec4<u32>) -> Eight {
    return Eight(vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)),
        vec4<f32>(unpack2x16float(words.z), unpack2x16float(words.w)));
}

// Numbers 8·unit and on.
fn key_eight(unit: u32) -> Eight {
    return eight(keys[unit]);
}

fn value_eight(unit: u32) -> Eight {
    return eight(values[unit]);
}
