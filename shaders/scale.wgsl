// c = beta * c, element by element; zeros if beta is 0, whatever c holds.

struct Params {
    count: u32,
    // Where c begins within its binding, in elements.
    lead: u32,
    beta: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> c: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * 64u + lane;
    if i >= params.count {
        return;
    }
    let at = params.lead + i;
    if params.beta == 0.0 {
        c[at] = 0.0;
    } else {
        c[at] = params.beta * c[at];
    }
}
