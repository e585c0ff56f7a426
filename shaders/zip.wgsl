// out = a OP b, four elements a lane. OP is a constant, so that each operation is a pipeline without branches.
//
// Elements travel as bits, and only arithmetic looks at them as T: min and max both pick the element of lower rank
// (src/kernels/order.rs), so that NaN and signed zeros fare the same on every device.

alias T = f32;

// The operations, numbered as `Binary` in src/kernels/zip.rs.
const ADD = 0u;
const SUB = 1u;
const MUL = 2u;
const DIV = 3u;
override OP: u32 = ADD;

struct Params {
    vectors: u32,
    // Whether T must be kept from dividing by 0, and the least T by -1.
    guard_zero: u32,
    guard_least: u32,
    // How min or max ranks T.
    flip: u32,
    merge: u32,
    descending: u32,
    origin: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<u32>>;

fn rank(bits: vec4<u32>) -> vec4<u32> {
    let negative = bitcast<vec4<u32>>(bitcast<vec4<i32>>(bits) >> vec4(31u));
    let ordinal = (bits ^ (negative & vec4(params.flip))) + (negative & vec4(params.merge));
    let origin = vec4(params.origin);
    return select(ordinal - origin, origin - ordinal, params.descending != 0u);
}

// What to divide by: 1 where the quotient is not defined, which makes x / 0 = x and MIN / -1 = MIN.
fn divisor(x: vec4<u32>, y: vec4<u32>) -> vec4<u32> {
    let zero = (y == vec4(0u)) & vec4(params.guard_zero != 0u);
    let least = (x == vec4(0x80000000u)) & (y == vec4(0xffffffffu)) & vec4(params.guard_least != 0u);
    return select(y, vec4(1u), zero | least);
}

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
    let x = a[i];
    let y = b[i];
    let u = bitcast<vec4<T>>(x);
    let v = bitcast<vec4<T>>(y);
    switch OP {
        case ADD {
            out[i] = bitcast<vec4<u32>>(u + v);
        }
        case SUB {
            out[i] = bitcast<vec4<u32>>(u - v);
        }
        case MUL {
            out[i] = bitcast<vec4<u32>>(u * v);
        }
        case DIV {
            out[i] = bitcast<vec4<u32>>(u / bitcast<vec4<T>>(divisor(x, y)));
        }
        default {
            out[i] = select(x, y, rank(y) < rank(x));
        }
    }
}
