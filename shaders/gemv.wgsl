// y = alpha * A * x + beta * y for a row-major A; LANES lanes per row.
//
// Each lane adds up every LANES-th vector of its row, four of them in flight, and the lanes' sums are folded by
// halving. The order depends on the length of a row and on LANES alone.

struct Params {
    rows: u32,
    // Elements of a row that are multiplied, and from one row to the next.
    k: u32,
    lda: u32,
    // Where A, x and y begin within their bindings, in elements.
    a_lead: u32,
    x_lead: u32,
    y_lead: u32,
    alpha: f32,
    beta: f32,
}

// Lanes per row: a power of two, at most SIZE.
override LANES: u32 = 32u;
// Whether x and every row begin at a multiple of four elements and have a multiple of four.
override ALIGNED: bool = true;

const SIZE: u32 = 128u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

var<workgroup> sums: array<f32, SIZE>;

// The sum of the lane's share of a row that begins at element `row`.
fn share_of_vectors(row: u32, first: u32) -> f32 {
    let a_start = row >> 2u;
    let x_start = params.x_lead >> 2u;
    let vectors = params.k >> 2u;
    var s0 = vec4(0.0);
    var s1 = vec4(0.0);
    var s2 = vec4(0.0);
    var s3 = vec4(0.0);
    var i = first;
    for (; i + 3u * LANES < vectors; i += 4u * LANES) {
        s0 = fma(a[a_start + i], x[x_start + i], s0);
        s1 = fma(a[a_start + i + LANES], x[x_start + i + LANES], s1);
        s2 = fma(a[a_start + i + 2u * LANES], x[x_start + i + 2u * LANES], s2);
        s3 = fma(a[a_start + i + 3u * LANES], x[x_start + i + 3u * LANES], s3);
    }
    for (; i < vectors; i += LANES) {
        s0 = fma(a[a_start + i], x[x_start + i], s0);
    }
    let s = (s0 + s1) + (s2 + s3);
    return (s.x + s.y) + (s.z + s.w);
}

// The same element by element.
fn share_of_elements(row: u32, first: u32) -> f32 {
    var s = 0.0;
    for (var i = first; i < params.k; i += LANES) {
        let at = row + i;
        let start = params.x_lead + i;
        // The component is picked in memory: one element is loaded.
        s = fma(a[at >> 2u][at & 3u], x[start >> 2u][start & 3u], s);
    }
    return s;
}

@compute @workgroup_size(SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = (group.y * groups.x + group.x) * (SIZE / LANES) + lane / LANES;
    let within = lane % LANES;
    var sum = 0.0;
    if row < params.rows {
        let begin = params.a_lead + row * params.lda;
        if ALIGNED {
            sum = share_of_vectors(begin, within);
        } else {
            sum = share_of_elements(begin, within);
        }
    }
    sums[lane] = sum;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if within < half {
            sum += sums[lane + half];
            sums[lane] = sum;
        }
    }
    if within == 0u && row < params.rows {
        let at = params.y_lead + row;
        if params.beta == 0.0 {
            y[at] = params.alpha * sum;
        } else {
            y[at] = params.alpha * sum + params.beta * y[at];
        }
    }
}
