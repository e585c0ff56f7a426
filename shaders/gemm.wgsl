// C = alpha * op(A) * op(B) + beta * C, row-major; one square tile of C per workgroup.
//
// A workgroup of SIDE x SIDE lanes computes TILE x TILE elements of C, 8 x 8 a lane, from panels of op(A) and
// op(B) that are DEPTH deep along k. One half of the lanes fetches A, the other B: a 4 x 4 block each, held in
// registers while the panel before it is multiplied, and stored such that in both panels a row is one k.
// Past the edges of C the last row or column is fetched again and its products are never stored, so that the loop
// over k has no bounds checks. Where k is no multiple of DEPTH, the first panel is the short one, filled up with
// zeros.

struct Params {
    m: u32,
    n: u32,
    k: u32,
    // Elements from one stored row of A, B and C to the next.
    lda: u32,
    ldb: u32,
    ldc: u32,
    // Where A, B and C begin within their bindings, in elements.
    a_lead: u32,
    b_lead: u32,
    c_lead: u32,
    alpha: f32,
    beta: f32,
}

// Lanes along a side of the tile.
override SIDE: u32 = 16u;
// Whether a lane computes 8 x 8 elements of C, or only 4 x 4.
override WIDE: bool = true;
// Whether the matrix is stored transposed: as K x M, or N x K.
override TRANSPOSED_A: bool = false;
override TRANSPOSED_B: bool = false;
// Whether every stored row begins at a multiple of four elements and has a multiple of four.
override ALIGNED_A: bool = true;
override ALIGNED_B: bool = true;

override TILE: u32 = select(4u, 8u, WIDE) * SIDE;
// So deep that a panel has one block for every other lane.
override DEPTH: u32 = select(2u, 1u, WIDE) * SIDE;
override LOADERS: u32 = SIDE * SIDE / 2u;
// Vectors in a row of a panel.
override WIDTH: u32 = select(1u, 2u, WIDE) * SIDE;
// Tile rows that are finished before the next are begun, so that what they share stays in the cache.
const BAND: u32 = 8u;

const FOUR = vec4<u32>(0u, 1u, 2u, 3u);

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;

var<workgroup> a_panel: array<vec4<f32>, DEPTH * WIDTH>;
var<workgroup> b_panel: array<vec4<f32>, DEPTH * WIDTH>;

// The elements of A at `row` + `at`: one vector where they lie in one.
fn a_row(row: u32, at: vec4<u32>) -> vec4<f32> {
    let i = row + at;
    if ALIGNED_A {
        return a[i.x >> 2u];
    }
    return vec4(
        a[i.x >> 2u][i.x & 3u],
        a[i.y >> 2u][i.y & 3u],
        a[i.z >> 2u][i.z & 3u],
        a[i.w >> 2u][i.w & 3u],
    );
}

// The same whatever the alignment, with zeros where `inside` is false.
fn a_row_inside(row: u32, at: vec4<u32>, inside: vec4<bool>) -> vec4<f32> {
    let i = row + at;
    var v = vec4(0.0);
    if inside.x {
        v.x = a[i.x >> 2u][i.x & 3u];
    }
    if inside.y {
        v.y = a[i.y >> 2u][i.y & 3u];
    }
    if inside.z {
        v.z = a[i.z >> 2u][i.z & 3u];
    }
    if inside.w {
        v.w = a[i.w >> 2u][i.w & 3u];
    }
    return v;
}

// A block of A as it is stored.
fn a_block(rows: vec4<u32>, at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4(a_row(rows.x, at), a_row(rows.y, at), a_row(rows.z, at), a_row(rows.w, at));
}

// The same with zeros past the end of k: `inside` says which of the block's four k are there.
fn a_short_block(rows: vec4<u32>, at: vec4<u32>, inside: vec4<bool>) -> mat4x4<f32> {
    let along_k = !TRANSPOSED_A;
    return mat4x4(
        a_row_inside(rows.x, at, select(vec4(inside.x), inside, along_k)),
        a_row_inside(rows.y, at, select(vec4(inside.y), inside, along_k)),
        a_row_inside(rows.z, at, select(vec4(inside.z), inside, along_k)),
        a_row_inside(rows.w, at, select(vec4(inside.w), inside, along_k)),
    );
}

// The elements of B at `row` + `at`: one vector where they lie in one.
fn b_row(row: u32, at: vec4<u32>) -> vec4<f32> {
    let i = row + at;
    if ALIGNED_B {
        return b[i.x >> 2u];
    }
    return vec4(
        b[i.x >> 2u][i.x & 3u],
        b[i.y >> 2u][i.y & 3u],
        b[i.z >> 2u][i.z & 3u],
        b[i.w >> 2u][i.w & 3u],
    );
}

// The same whatever the alignment, with zeros where `inside` is false.
fn b_row_inside(row: u32, at: vec4<u32>, inside: vec4<bool>) -> vec4<f32> {
    let i = row + at;
    var v = vec4(0.0);
    if inside.x {
        v.x = b[i.x >> 2u][i.x & 3u];
    }
    if inside.y {
        v.y = b[i.y >> 2u][i.y & 3u];
    }
    if inside.z {
        v.z = b[i.z >> 2u][i.z & 3u];
    }
    if inside.w {
        v.w = b[i.w >> 2u][i.w & 3u];
    }
    return v;
}

// A block of B as it is stored.
fn b_block(rows: vec4<u32>, at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4(b_row(rows.x, at), b_row(rows.y, at), b_row(rows.z, at), b_row(rows.w, at));
}

// The same with zeros past the end of k: `inside` says which of the block's four k are there.
fn b_short_block(rows: vec4<u32>, at: vec4<u32>, inside: vec4<bool>) -> mat4x4<f32> {
    let along_k = TRANSPOSED_B;
    return mat4x4(
        b_row_inside(rows.x, at, select(vec4(inside.x), inside, along_k)),
        b_row_inside(rows.y, at, select(vec4(inside.y), inside, along_k)),
        b_row_inside(rows.z, at, select(vec4(inside.z), inside, along_k)),
        b_row_inside(rows.w, at, select(vec4(inside.w), inside, along_k)),
    );
}

// Stores four elements of a row of C as far as they are inside.
fn store(row: u32, column: u32, products: vec4<f32>) {
    if row >= params.m || column >= params.n {
        return;
    }
    let at = params.c_lead + row * params.ldc + column;
    let values = params.alpha * products;
    if params.beta == 0.0 {
        c[at] = values.x;
        if column + 1u < params.n {
            c[at + 1u] = values.y;
        }
        if column + 2u < params.n {
            c[at + 2u] = values.z;
        }
        if column + 3u < params.n {
            c[at + 3u] = values.w;
        }
    } else {
        c[at] = values.x + params.beta * c[at];
        if column + 1u < params.n {
            c[at + 1u] = values.y + params.beta * c[at + 1u];
        }
        if column + 2u < params.n {
            c[at + 2u] = values.z + params.beta * c[at + 2u];
        }
        if column + 3u < params.n {
            c[at + 3u] = values.w + params.beta * c[at + 3u];
        }
    }
}

@compute @workgroup_size(SIDE * SIDE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // Which tile: down a band of tile rows, then on to the next tile column.
    let tile_rows = (params.m + TILE - 1u) / TILE;
    let tile_columns = (params.n + TILE - 1u) / TILE;
    let tile = group.y * groups.x + group.x;
    if tile >= tile_rows * tile_columns {
        return;
    }
    let band = tile / (BAND * tile_columns);
    let in_band = tile % (BAND * tile_columns);
    let band_rows = min(BAND, tile_rows - band * BAND);
    let row0 = TILE * (band * BAND + in_band % band_rows);
    let column0 = TILE * (in_band / band_rows);

    // Which block this lane fetches. Eight lanes side by side have neighbouring vectors of the same rows of the panel,
    // so that their stores do not conflict; the next eight are further along k, so that what a team of 32 lanes loads
    // lies together in memory whichever way the matrix is stored.
    let fetches_a = lane < LOADERS;
    let loader = lane % LOADERS;
    let k0 = 4u * (loader / 8u % (DEPTH / 4u));
    let vector = loader % 8u + 8u * (loader / (2u * DEPTH));
    let slot = k0 * WIDTH + vector;
    let extent = select(params.n, params.m, fetches_a);
    let across = min(4u * vector + select(column0, row0, fetches_a) + FOUR, vec4(extent - 1u));
    let along_k = select(TRANSPOSED_B, !TRANSPOSED_A, fetches_a);
    let ld = select(params.ldb, params.lda, fetches_a);
    let at = select(across, k0 + FOUR, along_k);
    var rows = select(params.b_lead, params.a_lead, fetches_a) + ld * select(k0 + FOUR, across, along_k);
    let k_step = select(ld, 1u, along_k);

    var block: mat4x4<f32>;
    var left = params.k;
    let short = params.k % DEPTH;
    if short != 0u {
        let inside = (k0 + FOUR) < vec4(short);
        if fetches_a {
            block = a_short_block(rows, at, inside);
        } else {
            block = b_short_block(rows, at, inside);
        }
        rows += short * k_step;
        left += DEPTH - short;
    } else if left != 0u {
        if fetches_a {
            block = a_block(rows, at);
        } else {
            block = b_block(rows, at);
        }
        rows += DEPTH * k_step;
    }

    // Which elements of the tile this lane computes. A team of 32 lanes has eight vectors of columns by four of rows,
    // two rows interleaved, which keeps its reads of the panels free of bank conflicts.
    let team = lane / 32u;
    let x = lane / 2u % 8u + 8u * (team % (SIDE / 8u));
    let y = lane % 2u + 2u * (lane / 16u % 2u) + 4u * (team / (SIDE / 8u));

    // Four rows of four columns. If a lane is wide, these are the corner of its elements, and there are as many to the
    // right, as many lower down, and as many diagonally across.
    var c0 = vec4(0.0);
    var c1 = vec4(0.0);
    var c2 = vec4(0.0);
    var c3 = vec4(0.0);
    var r0 = vec4(0.0);
    var r1 = vec4(0.0);
    var r2 = vec4(0.0);
    var r3 = vec4(0.0);
    var l0 = vec4(0.0);
    var l1 = vec4(0.0);
    var l2 = vec4(0.0);
    var l3 = vec4(0.0);
    var d0 = vec4(0.0);
    var d1 = vec4(0.0);
    var d2 = vec4(0.0);
    var d3 = vec4(0.0);
    while left != 0u {
        left -= DEPTH;
        workgroupBarrier();
        if fetches_a {
            if !TRANSPOSED_A {
                block = transpose(block);
            }
            a_panel[slot] = block[0];
            a_panel[slot + WIDTH] = block[1];
            a_panel[slot + 2u * WIDTH] = block[2];
            a_panel[slot + 3u * WIDTH] = block[3];
        } else {
            if TRANSPOSED_B {
                block = transpose(block);
            }
            b_panel[slot] = block[0];
            b_panel[slot + WIDTH] = block[1];
            b_panel[slot + 2u * WIDTH] = block[2];
            b_panel[slot + 3u * WIDTH] = block[3];
        }
        workgroupBarrier();
        if left != 0u {
            if fetches_a {
                block = a_block(rows, at);
            } else {
                block = b_block(rows, at);
            }
            rows += DEPTH * k_step;
        }
        for (var k = 0u; k < DEPTH; k++) {
            let p = a_panel[k * WIDTH + y];
            let u = b_panel[k * WIDTH + x];
            c0 = fma(vec4(p.x), u, c0);
            c1 = fma(vec4(p.y), u, c1);
            c2 = fma(vec4(p.z), u, c2);
            c3 = fma(vec4(p.w), u, c3);
            if WIDE {
                let q = a_panel[k * WIDTH + SIDE + y];
                let v = b_panel[k * WIDTH + SIDE + x];
                r0 = fma(vec4(p.x), v, r0);
                r1 = fma(vec4(p.y), v, r1);
                r2 = fma(vec4(p.z), v, r2);
                r3 = fma(vec4(p.w), v, r3);
                l0 = fma(vec4(q.x), u, l0);
                l1 = fma(vec4(q.y), u, l1);
                l2 = fma(vec4(q.z), u, l2);
                l3 = fma(vec4(q.w), u, l3);
                d0 = fma(vec4(q.x), v, d0);
                d1 = fma(vec4(q.y), v, d1);
                d2 = fma(vec4(q.z), v, d2);
                d3 = fma(vec4(q.w), v, d3);
            }
        }
    }

    let row = row0 + 4u * y;
    let column = column0 + 4u * x;
    store(row, column, c0);
    store(row + 1u, column, c1);
    store(row + 2u, column, c2);
    store(row + 3u, column, c3);
    if WIDE {
        let below = row + 4u * SIDE;
        let right = column + 4u * SIDE;
        store(row, right, r0);
        store(row + 1u, right, r1);
        store(row + 2u, right, r2);
        store(row + 3u, right, r3);
        store(below, column, l0);
        store(below + 1u, column, l1);
        store(below + 2u, column, l2);
        store(below + 3u, column, l3);
        store(below, right, d0);
        store(below + 1u, right, d1);
        store(below + 2u, right, d2);
        store(below + 3u, right, d3);
    }
}
