// next = u + r * (up + down + left + right - 4 * u), four cells a lane, for rows of a multiple of four cells.
//
// A lane computes a strip of rows from top to bottom, so that it loads each row once, and not three times.

struct Params {
    // Vectors of four cells per row.
    cols: u32,
    rows: u32,
    u_start: u32,
    next_start: u32,
    above: u32,
    below: u32,
    strip: u32,
    fixed: u32,
    r: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> u: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> next: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = group.y * params.strip;
    let end = min(first + params.strip, params.rows);
    let last = params.cols - 1u;
    for (var col = group.x * 64u + lane; col < params.cols; col += groups.x * 64u) {
        var at = params.u_start + first * params.cols + col;
        var middle = u[at];
        var up = middle;
        if first > 0u || params.above == 1u {
            up = u[at - params.cols];
        }
        for (var row = first; row < end; row++) {
            let at_bottom = row + 1u == params.rows && params.below == 0u;
            var down = middle;
            if !at_bottom {
                down = u[at + params.cols];
            }
            // Insulated: beyond the border it is as warm as at it.
            var left = middle.x;
            if col > 0u {
                left = u[at - 1u].w;
            }
            var right = middle.w;
            if col < last {
                right = u[at + 1u].x;
            }
            let sideways = vec4(left, middle.xyz) + vec4(middle.yzw, right);
            var cells = middle + params.r * ((up + down) + sideways - 4.0 * middle);
            if params.fixed == 1u {
                if at_bottom || (row == 0u && params.above == 0u) {
                    cells = middle;
                }
                if col == 0u {
                    cells.x = middle.x;
                }
                if col == last {
                    cells.w = middle.w;
                }
            }
            next[params.next_start + row * params.cols + col] = cells;
            up = middle;
            middle = down;
            at += params.cols;
        }
    }
}
