// Sums of blocks of 4096 elements by the fixed tree of src/kernels/tree.rs: a lane holds four of the 256 columns and
// adds 16 rows of them serially, then the columns fold by halving. One workgroup per block.

alias T = f32;

const LANES = 64u;
const ROWS = 16u;
const VECTORS = 1024u; // in a block

struct Params {
    elements: u32,
    // Elements of `sums` before the first that belongs to this dispatch.
    lead: u32,
    // Always 0, which the compiler does not know.
    zero: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<T>>;
@group(0) @binding(2) var<storage, read> y: array<vec4<T>>;
@group(0) @binding(3) var<storage, read_write> sums: array<T>;

var<workgroup> columns: array<vec4<T>, LANES>;

// The index of a group, which may be past the last block.
fn block_of(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

// `terms`, with those of elements past the end replaced by 0. `i` is the vector's index.
fn present(terms: vec4<T>, i: u32) -> vec4<T> {
    return select(terms, vec4<T>(), vec4(4u * i) + vec4(0u, 1u, 2u, 3u) >= vec4(params.elements));
}

// Folds the columns of all lanes and stores the block's sum.
fn fold(mine: vec4<T>, lane: u32, block: u32) {
    columns[lane] = mine;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            columns[lane] += columns[lane + half];
        }
    }
    if lane == 0u {
        let four = columns[0];
        let two = four.xy + four.zw;
        sums[params.lead + block] = two.x + two.y;
    }
}

@compute @workgroup_size(LANES)
fn sum(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = block_of(group, groups);
    let first = block * VECTORS + lane;
    var mine = vec4<T>();
    if (block + 1u) * VECTORS <= params.elements / 4u {
        for (var row = 0u; row < ROWS; row++) {
            mine += x[first + row * LANES];
        }
    } else {
        for (var i = first; 4u * i < params.elements; i += LANES) {
            mine += present(x[i], i);
        }
    }
    // A group past the last block has nothing to store.
    if block * VECTORS * 4u < params.elements {
        fold(mine, lane, block);
    }
}

// Products, rounded before anything can be added to them: an integer operation in between, which changes nothing but
// which no compiler can leave out, keeps multiplication and addition from being fused.
fn product(i: u32) -> vec4<T> {
    return bitcast<vec4<T>>(bitcast<vec4<u32>>(x[i] * y[i]) ^ vec4(params.zero));
}

@compute @workgroup_size(LANES)
fn dot(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = block_of(group, groups);
    let first = block * VECTORS + lane;
    var mine = vec4<T>();
    if (block + 1u) * VECTORS <= params.elements / 4u {
        for (var row = 0u; row < ROWS; row++) {
            mine += product(first + row * LANES);
        }
    } else {
        for (var i = first; 4u * i < params.elements; i += LANES) {
            mine += present(product(i), i);
        }
    }
    if block * VECTORS * 4u < params.elements {
        fold(mine, lane, block);
    }
}
