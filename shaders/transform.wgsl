// y = OP(x), four elements a lane. OP is a constant, so that each operation is a pipeline without branches.
//
// The functions are those of src/kernels/math.rs, formula by formula. Elements travel as bits: WGSL lets a compiler
// assume that no float is NaN or infinite, so these are recognised, and written, as integers.

// The operations, numbered as `Unary` in src/kernels/transform.rs.
const NEG = 0u;
const ABS = 1u;
const SQRT = 2u;
const EXP = 3u;
const LN = 4u;
const SIN = 5u;
const COS = 6u;
const TANH = 7u;
const SQUARE = 8u;
const RECIPROCAL = 9u;
override OP: u32 = NEG;

const SIGN = vec4(0x80000000u);
const INFINITE = vec4(0x7f800000u);
const NOT_A_NUMBER = vec4(0x7fc00000u);
const ZERO = vec4(0u);

struct Params {
    vectors: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<u32>>;

const LN_2_HIGH = 0.6933594;
const LN_2_LOW = -2.1219444e-4;

// 2^n for -126 <= n <= 127.
fn power_of_two(n: vec4<i32>) -> vec4<f32> {
    return bitcast<vec4<f32>>((n + vec4(127)) << vec4(23u));
}

// e^v for -104 <= v <= EXP_MAX.
fn exp_within(v: vec4<f32>) -> vec4<f32> {
    let n = round(v * 1.442695);
    let r = (v - n * LN_2_HIGH) - n * LN_2_LOW;
    var p = vec4(1.9875691e-4);
    p = p * r + 1.3981999e-3;
    p = p * r + 8.333452e-3;
    p = p * r + 4.1665796e-2;
    p = p * r + 1.6666666e-1;
    p = p * r + 0.5;
    let e = (p * (r * r) + r) + 1.0;
    // In two steps, since 2^n need not be a normal number where e^v is one.
    let exponent = vec4<i32>(n);
    let half = exponent >> vec4(1u);
    return (e * power_of_two(half)) * power_of_two(exponent - half);
}

// The logarithm of the greatest f32.
const EXP_MAX = 88.72283;

fn exp_bits(bits: vec4<u32>) -> vec4<u32> {
    let magnitude = bits & ~SIGN;
    let v = bitcast<vec4<f32>>(select(bits, ZERO, magnitude >= INFINITE));
    var e = bitcast<vec4<u32>>(exp_within(clamp(v, vec4(-104.0), vec4(EXP_MAX))));
    e = select(e, INFINITE, (v > vec4(EXP_MAX)) | (bits == INFINITE));
    e = select(e, ZERO, bits == (INFINITE | SIGN));
    return select(e, NOT_A_NUMBER, magnitude > INFINITE);
}

fn ln_bits(original: vec4<u32>) -> vec4<u32> {
    // A subnormal is an integer times 2^-149, and integers are not flushed to 0.
    let subnormal = original < vec4(0x00800000u);
    let bits = select(original, bitcast<vec4<u32>>(vec4<f32>(original)), subnormal);
    // v = 2^n (1 + f) with 1 + f from sqrt(1/2) to sqrt(2).
    let sqrt_half = vec4(0x3f3504f3u);
    let above = bits - sqrt_half;
    let exponent = (bitcast<vec4<i32>>(above) >> vec4(23u)) + select(vec4(0), vec4(-149), subnormal);
    let n = vec4<f32>(exponent);
    let f = bitcast<vec4<f32>>((above & vec4(0x007fffffu)) + sqrt_half) - 1.0;
    var p = vec4(7.0376836e-2);
    p = p * f - 1.151461e-1;
    p = p * f + 1.16769984e-1;
    p = p * f - 1.2420141e-1;
    p = p * f + 1.4249323e-1;
    p = p * f - 1.6668057e-1;
    p = p * f + 2.0000714e-1;
    p = p * f - 2.4999994e-1;
    p = p * f + 3.333333e-1;
    let z = f * f;
    let low = p * (f * z) + n * LN_2_LOW;
    var l = bitcast<vec4<u32>>((f + (low - 0.5 * z)) + n * LN_2_HIGH);
    l = select(l, INFINITE, original == INFINITE);
    l = select(l, NOT_A_NUMBER, original > INFINITE);
    return select(l, INFINITE | SIGN, (original & ~SIGN) == ZERO);
}

fn tanh_bits(bits: vec4<u32>) -> vec4<u32> {
    let magnitude = bits & ~SIGN;
    let a = bitcast<vec4<f32>>(min(magnitude, INFINITE - 1u));
    let b = min(a, vec4(10.0));
    let z = b * b;
    var p = vec4(-5.7049887e-3);
    p = p * z + 2.0639088e-2;
    p = p * z - 5.3739715e-2;
    p = p * z + 1.3331442e-1;
    p = p * z - 3.333328e-1;
    let near = (p * z) * b + b;
    let far = 1.0 - 2.0 / (exp_within(b + b) + 1.0);
    let t = bitcast<vec4<u32>>(select(far, near, a < vec4(0.625))) | (bits & SIGN);
    return select(t, NOT_A_NUMBER, magnitude > INFINITE);
}

// An angle as its difference from the nearest multiple of π/2, and which multiple that is.
struct Angle {
    r: vec4<f32>,
    quadrant: vec4<u32>,
}

// Arguments up to here are reduced by subtracting multiples of parts of π/2, of 8, 11, 11 and 24 bits.
const SMALL_ANGLE = 8192.0;

fn reduce(v: vec4<f32>) -> Angle {
    let n = round(v * 0.63661975);
    var r = v - n * 1.5703125;
    r = r - n * 4.837513e-4;
    r = r - n * 7.5495336e-8;
    r = r - n * 2.563344e-12;
    // So that -0 stays -0.
    r = select(r, v, n == vec4(0.0));
    return Angle(r, bitcast<vec4<u32>>(vec4<i32>(n)));
}

// The product of two words, low and high.
fn multiply(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let mid = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let mid2 = (a & 0xffffu) * (b >> 16u) + (mid & 0xffffu);
    return vec2((mid2 << 16u) | (low & 0xffffu), (a >> 16u) * (b >> 16u) + (mid >> 16u) + (mid2 >> 16u));
}

// The bits of 2/π, after 32 zeros.
const TWO_OVER_PI = array<u32, 8>(
    0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu,
);

// 32 bits of 2/π from bit `first` on. Of that the sum with 31 is less than 8 words.
fn window(first: u32) -> u32 {
    var words = TWO_OVER_PI;
    let shift = first % 32u;
    return (words[first / 32u] << shift) | ((words[first / 32u + 1u] >> 1u) >> (31u - shift));
}

// As `reduce`, for one value of at least 1, however large: the difference's bits, and the multiple.
fn reduce_large(bits: u32) -> vec2<u32> {
    let integer = (bits & 0x007fffffu) | 0x00800000u;
    let first = ((bits >> 23u) & 0xffu) - 120u;
    let low = multiply(integer, window(first + 64u)).y;
    let product = multiply(integer, window(first + 32u));
    let middle = product.x + low;
    let top = integer * window(first) + product.y + select(0u, 1u, middle < low);
    // Two bits of quadrant and 62 of fraction. Seen from the nearest multiple the fraction is signed.
    var high = (top << 2u) | (middle >> 30u);
    var rest = middle << 2u;
    let negative = high >> 31u;
    if negative != 0u {
        rest = ~rest + 1u;
        high = ~high + select(0u, 1u, rest == 0u);
    }
    // The leading 24 bits, rounded, times the power of two that they stand for. No f32 is so near to a multiple of π/2
    // that `high` is 0.
    let zeros = countLeadingZeros(high);
    let leading = (high << zeros) | ((rest >> 1u) >> (31u - zeros));
    let r = f32((leading >> 8u) + ((leading >> 7u) & 1u)) * 1.5707964 * bitcast<f32>((103u - zeros) << 23u);
    let quadrant = (top >> 30u) + negative;
    let sign = (negative << 31u) ^ (bits & 0x80000000u);
    return vec2(bitcast<u32>(r) | sign, select(quadrant, 0u - quadrant, bits >= 0x80000000u));
}

// The sine of angles that are `turns` quarter turns past those given.
fn sine_bits(bits: vec4<u32>, turns: u32) -> vec4<u32> {
    let magnitude = bits & ~SIGN;
    let v = bitcast<vec4<f32>>(select(bits, ZERO, magnitude >= INFINITE));
    let large = abs(v) > vec4(SMALL_ANGLE);
    var angle = reduce(select(v, vec4(0.0), large));
    if any(large) {
        for (var i = 0u; i < 4u; i++) {
            if large[i] {
                let reduced = reduce_large(bits[i]);
                angle.r[i] = bitcast<f32>(reduced.x);
                angle.quadrant[i] = reduced.y;
            }
        }
    }
    let quadrant = angle.quadrant + vec4(turns);
    let r = angle.r;
    let z = r * r;
    var s = vec4(-1.9515296e-4);
    s = s * z + 8.332161e-3;
    s = s * z - 1.6666655e-1;
    s = (s * z) * r + r;
    // So that the sine of -0 is -0.
    s = select(s, r, z < vec4(1e-8));
    var c = vec4(2.4433157e-5);
    c = c * z - 1.3887316e-3;
    c = c * z + 4.1666646e-2;
    c = ((c * z) * z - 0.5 * z) + 1.0;
    let odd = (quadrant & vec4(1u)) != ZERO;
    let t = bitcast<vec4<u32>>(select(s, c, odd)) ^ ((quadrant & vec4(2u)) << vec4(30u));
    return select(t, NOT_A_NUMBER, magnitude >= INFINITE);
}

fn sqrt_bits(bits: vec4<u32>) -> vec4<u32> {
    let usual = (bits > ZERO) & (bits < INFINITE);
    let root = bitcast<vec4<u32>>(sqrt(bitcast<vec4<f32>>(select(vec4(0x3f800000u), bits, usual))));
    let special = select(bits, NOT_A_NUMBER, (bits > INFINITE) & (bits != SIGN));
    return select(special, root, usual);
}

fn reciprocal_bits(bits: vec4<u32>) -> vec4<u32> {
    let magnitude = bits & ~SIGN;
    let usual = (magnitude > ZERO) & (magnitude < INFINITE);
    let inverse = bitcast<vec4<u32>>(1.0 / bitcast<vec4<f32>>(select(vec4(0x3f800000u), bits, usual)));
    var special = select(ZERO, INFINITE, magnitude == ZERO) | (bits & SIGN);
    special = select(special, NOT_A_NUMBER, magnitude > INFINITE);
    return select(special, inverse, usual);
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
    let bits = x[i];
    switch OP {
        case NEG {
            y[i] = bits ^ SIGN;
        }
        case ABS {
            y[i] = bits & ~SIGN;
        }
        case SQRT {
            y[i] = sqrt_bits(bits);
        }
        case EXP {
            y[i] = exp_bits(bits);
        }
        case LN {
            y[i] = ln_bits(bits);
        }
        case SIN {
            y[i] = sine_bits(bits, 0u);
        }
        case COS {
            y[i] = sine_bits(bits, 1u);
        }
        case TANH {
            y[i] = tanh_bits(bits);
        }
        case SQUARE {
            let v = bitcast<vec4<f32>>(bits);
            y[i] = bitcast<vec4<u32>>(v * v);
        }
        default {
            y[i] = reciprocal_bits(bits);
        }
    }
}
