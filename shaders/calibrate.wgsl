// What calibration runs: y = alpha * x + y, four elements a lane, with as many rounds of arithmetic in between as
// asked for. No vectors and it is an empty dispatch, no rounds and it is bound by memory, many and by arithmetic.

struct Params {
    vectors: u32,
    rounds: u32,
    alpha: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = (group.y * groups.x + group.x) * 64u + lane;
    if i >= params.vectors {
        return;
    }
    let alpha = vec4(params.alpha);
    let step = x[i];
    // Chains that do not wait for each other, enough to hide the latency of one multiply-add.
    var a = y[i];
    var b = a + step;
    var c = a - step;
    var d = a * step;
    for (var round = 0u; round < params.rounds; round++) {
        a = fma(a, alpha, step);
        b = fma(b, alpha, step);
        c = fma(c, alpha, step);
        d = fma(d, alpha, step);
    }
    y[i] = fma(alpha, b + c, a + d);
}
