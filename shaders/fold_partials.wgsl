// result[i] = copies[0][i] folded with copies[1][i] and so on, in that order; an element a lane.

alias T = f32;

struct Params {
    // The first element of this part, and how many it has.
    first: u32,
    len: u32,
    copies: u32,
    // Elements from one copy to the next.
    stride: u32,
    // 0: add, 1: least, 2: greatest.
    fold: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> copies: array<T>;
@group(0) @binding(2) var<storage, read_write> result: array<T>;

fn folded(a: T, b: T) -> T {
    switch params.fold {
        case 0u: { return a + b; }
        case 1u: { return select(a, b, b < a); }
        default: { return select(a, b, b > a); }
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * 64u + lane;
    if i >= params.len {
        return;
    }
    var value = copies[params.first + i];
    for (var copy = 1u; copy < params.copies; copy++) {
        value = folded(value, copies[copy * params.stride + params.first + i]);
    }
    result[i] = value;
}
