// next = u + r * (up + down + left + right - 4 * u)
//
// A lane computes a strip of rows from top to bottom, so that it loads each row once, and not three times. Two entry
// points: `by_four` for rows of a multiple of four cells, four cells a lane, and `by_cell` for all others.

struct Params {
    // Per row, and where rows start: in cells, or for `by_four` in vectors of four.
    cols: u32,
    rows: u32,
    u_start: u32,
    next_start: u32,
    // 1 if u holds the row above the first, and the one below the last.
    above: u32,
    below: u32,
    // Rows per lane.
    strip: u32,
    r: f32,
}

// Whether the grid's border keeps its temperature; otherwise it is insulated.
override FIXED: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> u_by_four: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> next_by_four: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> u: array<f32>;
@group(0) @binding(4) var<storage, read_write> next: array<f32>;

@compute @workgroup_size(64)
fn by_four(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = group.y * params.strip;
    let end = min(first + params.strip, params.rows);
    let last = params.cols - 1u;
    for (var col = group.x * 64u + lane; col < params.cols; col += groups.x * 64u) {
        var at = params.u_start + first * params.cols + col;
        var middle = u_by_four[at];
        var up = middle;
        if first > 0u || params.above == 1u {
            up = u_by_four[at - params.cols];
        }
        for (var row = first; row < end; row++) {
            let at_bottom = row + 1u == params.rows && params.below == 0u;
            // Insulated: beyond the border it is as warm as at it.
            var down = middle;
            if !at_bottom {
                down = u_by_four[at + params.cols];
            }
            let left = select(u_by_four[at - min(col, 1u)].w, middle.x, col == 0u);
            let right = select(u_by_four[at + min(last - col, 1u)].x, middle.w, col == last);
            let sideways = vec4(left, middle.xyz) + vec4(middle.yzw, right);
            var cells = middle + params.r * ((up + down) + sideways - 4.0 * middle);
            if FIXED {
                if at_bottom || (row == 0u && params.above == 0u) {
                    cells = middle;
                }
                cells.x = select(cells.x, middle.x, col == 0u);
                cells.w = select(cells.w, middle.w, col == last);
            }
            next_by_four[params.next_start + row * params.cols + col] = cells;
            up = middle;
            middle = down;
            at += params.cols;
        }
    }
}

@compute @workgroup_size(64)
fn by_cell(
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
            let left = u[at - min(col, 1u)];
            let right = u[at + min(last - col, 1u)];
            var cell = middle + params.r * ((up + down) + (left + right) - 4.0 * middle);
            let at_top = row == 0u && params.above == 0u;
            if FIXED && (at_top || at_bottom || col == 0u || col == last) {
                cell = middle;
            }
            next[params.next_start + row * params.cols + col] = cell;
            up = middle;
            middle = down;
            at += params.cols;
        }
    }
}
