// y = alpha * A^T * x + beta * y for a row-major A; 32 columns per workgroup.
//
// Eight lanes side by side read 32 columns of a row of A, which is one line of most caches; the 32 such teams of a
// workgroup take every 32nd row, four of them in flight, and their sums are folded by halving. The order depends
// on the number of rows alone.

struct Params {
    columns: u32,
    // Rows that are multiplied, and elements from one to the next.
    k: u32,
    lda: u32,
    // Where A, x and y begin within their bindings, in elements.
    a_lead: u32,
    x_lead: u32,
    y_lead: u32,
    alpha: f32,
    beta: f32,
}

// Whether every row begins at a multiple of four elements and has a multiple of four.
override ALIGNED: bool = true;

const ACROSS: u32 = 8u;
const TEAMS: u32 = 32u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

var<workgroup> sums: array<vec4<f32>, TEAMS * ACROSS>;

// The elements of row `row` at the columns `at`: one vector where they lie in one.
fn fetch(row: u32, at: vec4<u32>) -> vec4<f32> {
    let i = params.a_lead + row * params.lda + at;
    if ALIGNED {
        return a[i.x >> 2u];
    }
    return vec4(
        a[i.x >> 2u][i.x & 3u],
        a[i.y >> 2u][i.y & 3u],
        a[i.z >> 2u][i.z & 3u],
        a[i.w >> 2u][i.w & 3u],
    );
}

fn store(column: u32, product: f32) {
    if column < params.columns {
        let at = params.y_lead + column;
        if params.beta == 0.0 {
            y[at] = params.alpha * product;
        } else {
            y[at] = params.alpha * product + params.beta * y[at];
        }
    }
}

@compute @workgroup_size(ACROSS * TEAMS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.y * groups.x + group.x) * (4u * ACROSS);
    if first >= params.columns {
        return;
    }
    let column = first + 4u * (lane % ACROSS);
    // Past the last column it is read again; the products are not stored.
    let at = min(column + vec4(0u, 1u, 2u, 3u), vec4(params.columns - 1u));
    var s0 = vec4(0.0);
    var s1 = vec4(0.0);
    var s2 = vec4(0.0);
    var s3 = vec4(0.0);
    var row = lane / ACROSS;
    for (; row + 3u * TEAMS < params.k; row += 4u * TEAMS) {
        let start = params.x_lead + row;
        s0 = fma(fetch(row, at), vec4(x[start]), s0);
        s1 = fma(fetch(row + TEAMS, at), vec4(x[start + TEAMS]), s1);
        s2 = fma(fetch(row + 2u * TEAMS, at), vec4(x[start + 2u * TEAMS]), s2);
        s3 = fma(fetch(row + 3u * TEAMS, at), vec4(x[start + 3u * TEAMS]), s3);
    }
    for (; row < params.k; row += TEAMS) {
        s0 = fma(fetch(row, at), vec4(x[params.x_lead + row]), s0);
    }
    var sum = (s0 + s1) + (s2 + s3);
    sums[lane] = sum;
    for (var half = ACROSS * TEAMS / 2u; half >= ACROSS; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            sum += sums[lane + half];
            sums[lane] = sum;
        }
    }
    if lane < ACROSS {
        store(column, sum.x);
        store(column + 1u, sum.y);
        store(column + 2u, sum.z);
        store(column + 3u, sum.w);
    }
}
