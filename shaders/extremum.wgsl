// The lowest rank (src/kernels/order.rs) of each block of 4096 elements, and where it is: the first of equal ones.
// One workgroup per block. Elements travel as bits; no float is ever compared.

const LANES = 64u;
const ROWS = 16u;
const VECTORS = 1024u; // in a block
const NONE = 0xffffffffu;

struct Params {
    elements: u32,
    // Elements of the outputs before the first that belongs to this dispatch.
    lead: u32,
    // How to rank.
    flip: u32,
    merge: u32,
    descending: u32,
    origin: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> ranks: array<u32>;
@group(0) @binding(3) var<storage, read_write> places: array<u32>;

// A rank, and the index within the block of the element that has it.
struct Best {
    rank: u32,
    place: u32,
}

var<workgroup> best: array<Best, LANES>;

fn rank(bits: vec4<u32>) -> vec4<u32> {
    let negative = bitcast<vec4<u32>>(bitcast<vec4<i32>>(bits) >> vec4(31u));
    let ordinal = (bits ^ (negative & vec4(params.flip))) + (negative & vec4(params.merge));
    let origin = vec4(params.origin);
    return select(ordinal - origin, origin - ordinal, params.descending != 0u);
}

fn better(a: Best, b: Best) -> Best {
    if b.rank < a.rank || (b.rank == a.rank && b.place < a.place) {
        return b;
    }
    return a;
}

// The best of a block; only lane 0 gets it. Uniform control flow.
fn find(block: u32, lane: u32) -> Best {
    let first = block * VECTORS + lane;
    var ranks = vec4(NONE);
    var rows = vec4<u32>();
    for (var row = 0u; row < ROWS; row++) {
        let i = first + row * LANES;
        if 4u * i < params.elements {
            let absent = vec4(4u * i) + vec4(0u, 1u, 2u, 3u) >= vec4(params.elements);
            let these = select(rank(x[i]), vec4(NONE), absent);
            let lower = these < ranks;
            ranks = select(ranks, these, lower);
            rows = select(rows, vec4(row), lower);
        }
    }
    let places = (rows * LANES + lane) * 4u + vec4(0u, 1u, 2u, 3u);
    let left = better(Best(ranks.x, places.x), Best(ranks.y, places.y));
    let right = better(Best(ranks.z, places.z), Best(ranks.w, places.w));
    best[lane] = better(left, right);
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            best[lane] = better(best[lane], best[lane + half]);
        }
    }
    return best[lane];
}

@compute @workgroup_size(LANES)
fn extreme(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = group.y * groups.x + group.x;
    let found = find(block, lane);
    // A group past the last block has nothing to store.
    if lane == 0u && block * VECTORS * 4u < params.elements {
        ranks[params.lead + block] = found.rank;
    }
}

@compute @workgroup_size(LANES)
fn locate(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = group.y * groups.x + group.x;
    let found = find(block, lane);
    if lane == 0u && block * VECTORS * 4u < params.elements {
        ranks[params.lead + block] = found.rank;
        places[params.lead + block] = found.place;
    }
}
