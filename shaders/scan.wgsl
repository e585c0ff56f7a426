// Prefix sums by the fixed tree of src/kernels/prefix.rs. A workgroup scans a tile of 2048 elements: each of its 128
// lanes a run of 16, then together the totals of the runs.

alias T = f32;

const RUN = 16u;
const RUNS = 128u;
const TILE = 2048u;
const VECTORS = 512u; // in a tile
const LEVELS = 7u; // log2(RUNS)

struct Params {
    elements: u32,
    // The tile with which this dispatch begins, counted from the start of the array.
    first_tile: u32,
    // Elements of `totals` before the first that belongs to this dispatch.
    lead: u32,
    // Whether each element gets the sum of those before it, without itself.
    exclusive: u32,
    // What comes before the first element: always +0, which the compiler does not know, so that it adds it.
    zero: T,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<T>>;
// The inclusive prefix sums of the totals of all tiles.
@group(0) @binding(2) var<storage, read> carry: array<T>;
@group(0) @binding(3) var<storage, read_write> totals: array<T>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<T>>;

// The inclusive prefix sums of the totals of a tile's runs.
var<workgroup> prefix: array<T, RUNS>;

// The elements of a run, or their prefix sums.
struct Run {
    a: vec4<T>,
    b: vec4<T>,
    c: vec4<T>,
    d: vec4<T>,
}

fn tile_of(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

// Four elements; 0 for those past the end. `i` is the vector's index.
fn load(i: u32) -> vec4<T> {
    if 4u * i >= params.elements {
        return vec4<T>();
    }
    return select(x[i], vec4<T>(), vec4(4u * i) + vec4(0u, 1u, 2u, 3u) >= vec4(params.elements));
}

// The prefix sums of the run of elements that begins at vector `i`.
fn run_prefix(i: u32) -> Run {
    var run = Run(load(i), load(i + 1u), load(i + 2u), load(i + 3u));
    // Pairs, then fours, eights and all sixteen: the right half of each gains the last sum of the left half.
    run.a = vec4(run.a.x, run.a.y + run.a.x, run.a.z, run.a.w + run.a.z);
    run.b = vec4(run.b.x, run.b.y + run.b.x, run.b.z, run.b.w + run.b.z);
    run.c = vec4(run.c.x, run.c.y + run.c.x, run.c.z, run.c.w + run.c.z);
    run.d = vec4(run.d.x, run.d.y + run.d.x, run.d.z, run.d.w + run.d.z);
    run.a = vec4(run.a.xy, run.a.zw + run.a.yy);
    run.b = vec4(run.b.xy, run.b.zw + run.b.yy);
    run.c = vec4(run.c.xy, run.c.zw + run.c.yy);
    run.d = vec4(run.d.xy, run.d.zw + run.d.yy);
    run.b += vec4(run.a.w);
    run.d += vec4(run.c.w);
    run.c += vec4(run.b.w);
    run.d += vec4(run.b.w);
    return run;
}

// Leaves the inclusive prefix sums of the lanes' totals in `prefix`. Uniform control flow.
fn scan_totals(total: T, lane: u32) {
    prefix[lane] = total;
    for (var level = 0u; level < LEVELS; level++) {
        workgroupBarrier();
        if ((lane >> level) & 1u) != 0u {
            // The last sum of the left half, which no lane changes at this level.
            prefix[lane] += prefix[((lane >> level) << level) - 1u];
        }
    }
    workgroupBarrier();
}

// Stores a scanned run. `base` is the sum of everything before the run, `next` the sum up to its end.
fn store(run: Run, i: u32, base: T, next: T) {
    var sums: Run;
    if params.exclusive != 0u {
        let zero = params.zero;
        sums.a = vec4(base) + vec4(zero, run.a.xyz);
        sums.b = vec4(base) + vec4(run.a.w, run.b.xyz);
        sums.c = vec4(base) + vec4(run.b.w, run.c.xyz);
        sums.d = vec4(base) + vec4(run.c.w, run.d.xyz);
    } else {
        sums.a = vec4(base) + run.a;
        sums.b = vec4(base) + run.b;
        sums.c = vec4(base) + run.c;
        sums.d = vec4(vec3(base) + run.d.xyz, next);
    }
    if 4u * i < params.elements {
        out[i] = sums.a;
    }
    if 4u * i + 4u < params.elements {
        out[i + 1u] = sums.b;
    }
    if 4u * i + 8u < params.elements {
        out[i + 2u] = sums.c;
    }
    if 4u * i + 12u < params.elements {
        out[i + 3u] = sums.d;
    }
}

@compute @workgroup_size(RUNS)
fn tile_totals(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(group, groups);
    let run = run_prefix(tile * VECTORS + lane * (RUN / 4u));
    scan_totals(run.d.w, lane);
    if lane == 0u && tile * TILE < params.elements {
        totals[params.lead + tile] = prefix[RUNS - 1u];
    }
}

// An array of one tile.
@compute @workgroup_size(RUNS)
fn scan_tile(@builtin(local_invocation_index) lane: u32) {
    let i = lane * (RUN / 4u);
    let run = run_prefix(i);
    scan_totals(run.d.w, lane);
    var base = params.zero;
    if lane > 0u {
        base += prefix[lane - 1u];
    }
    store(run, i, base, params.zero + prefix[lane]);
}

// An array of several tiles.
@compute @workgroup_size(RUNS)
fn scan_tiles(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(group, groups);
    let i = tile * VECTORS + lane * (RUN / 4u);
    let run = run_prefix(i);
    scan_totals(run.d.w, lane);
    // A group past the last tile has no carry.
    if tile * TILE >= params.elements {
        return;
    }
    let number = params.first_tile + tile;
    var before = params.zero;
    if number > 0u {
        before = carry[number - 1u];
    }
    var base = before;
    if lane > 0u {
        base = before + prefix[lane - 1u];
    }
    var next = carry[number];
    if lane < RUNS - 1u {
        next = before + prefix[lane];
    }
    store(run, i, base, next);
}
