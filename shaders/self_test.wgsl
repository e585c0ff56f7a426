// What every kernel counts on: integers that wrap around, sums in a fixed order, memory that a workgroup shares, and
// barriers. Each workgroup folds numbers of its own; the host knows what comes out.

struct Params {
    seed: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> results: array<vec2<u32>>;

const LANES = 256u;

var<workgroup> words: array<u32, LANES>;
var<workgroup> floats: array<f32, LANES>;

// The finaliser of MurmurHash3 (A. Appleby, public domain).
fn mixed(number: u32) -> u32 {
    var x = number;
    x = (x ^ (x >> 16u)) * 0x85ebca6bu;
    x = (x ^ (x >> 13u)) * 0xc2b2ae35u;
    return x ^ (x >> 16u);
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let word = mixed(params.seed + group.x * LANES + lane);
    words[lane] = word;
    // Exact, from 0 to 1 in steps of 2^-24.
    floats[lane] = f32(word >> 8u) * 0x1p-24;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            words[lane] = words[lane] * 31u + words[lane + half];
            floats[lane] = floats[lane] + floats[lane + half];
        }
        workgroupBarrier();
    }
    if lane == 0u {
        results[group.x] = vec2(words[0], bitcast<u32>(floats[0]));
    }
}
