//! exp, ln, sin, cos and tanh of f32, as arithmetic that a compiler vectorises.
//!
//! WGSL promises little for its own functions (sin and cos 2^-11 absolute within ±π, exp 3 + 2|x| ULP), and the
//! standard library's are calls that prevent a loop from being vectorised. The formulas here are those of
//! `shaders/transform.wgsl`: arithmetic and bit patterns only, within [`Unary::max_ulps`](super::Unary::max_ulps)
//! whether or not a device fuses multiplications with additions. Polynomials and reductions are those of Cephes (S.
//! Moshier, 1992, single precision). Arguments of sin and cos that are too large for them are reduced as by Payne and
//! Hanek (1983).
//!
//! Branches are selections of finished values, so that every lane of a vector takes the same path.

use std::f32::consts::{FRAC_2_PI, LOG2_E};

/// ln 2 in two parts; integers up to 2^15 times the first are exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// Adding and subtracting this rounds a float below 2^22 to an integer, ties to even.
const ROUND: f32 = 12_582_912.0;

/// An integer in two types.
struct Rounded {
    float: f32,
    integer: i32,
}

/// The integer nearest to `x`, for |x| < 2^22.
#[inline(always)]
fn round(x: f32) -> Rounded {
    let shifted = x + ROUND;
    Rounded {
        float: shifted - ROUND,
        integer: shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32,
    }
}

/// 2^n for -126 <= n <= 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

/// e^x; 0 and infinity past the ends of the range.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Past these limits the result is 0 or infinite. A NaN passes both comparisons and stays NaN.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let Rounded {
        float: n,
        integer: exponent,
    } = round(x * LOG2_E);
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_6e-1;
    let p = p * r + 0.5;
    let y = (p * (r * r) + r) + 1.0;
    // In two steps, since 2^n may be outside the normal numbers where e^x is not.
    let half = exponent >> 1;
    (y * power_of_two(half)) * power_of_two(exponent.wrapping_sub(half))
}

/// The natural logarithm; NaN below 0, -infinity at 0.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    // A subnormal is an integer times 2^-149, and integers are not flushed to 0.
    let subnormal = bits < 0x0080_0000;
    let scaled = (bits as i32 as f32).to_bits();
    let (bits, exponent) = if subnormal { (scaled, -149) } else { (bits, 0) };
    // x = 2^n (1 + f) with 1 + f from sqrt(1/2) to sqrt(2).
    const SQRT_HALF: u32 = 0x3f35_04f3;
    let above = bits.wrapping_sub(SQRT_HALF);
    let n = ((above as i32 >> 23) + exponent) as f32;
    let f = f32::from_bits((above & 0x007f_ffff) + SQRT_HALF) - 1.0;
    let p = 7.037_683_6e-2;
    let p = p * f - 1.151_461e-1;
    let p = p * f + 1.167_699_84e-1;
    let p = p * f - 1.242_014_1e-1;
    let p = p * f + 1.424_932_3e-1;
    let p = p * f - 1.666_805_7e-1;
    let p = p * f + 2.000_071_4e-1;
    let p = p * f - 2.499_999_4e-1;
    let p = p * f + 3.333_333e-1;
    let z = f * f;
    let y = p * (f * z) + n * LN_2[1];
    let y = (f + (y - 0.5 * z)) + n * LN_2[0];
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    let y = if x == f32::INFINITY { x } else { y };
    if x >= 0.0 { y } else { f32::NAN }
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = a * a;
    let p = -5.704_988_7e-3;
    let p = p * z + 2.063_908_8e-2;
    let p = p * z - 5.373_971_5e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 3.333_328e-1;
    let near = (p * z) * a + a;
    // 1 past 10: on some devices, the exponential of a larger argument would become infinite before it does on others.
    let b = if a > 10.0 { 10.0 } else { a };
    let far = 1.0 - 2.0 / (exp(b + b) + 1.0);
    let y = if a < 0.625 { near } else { far };
    y.copysign(x)
}

/// The sine of an angle of `r` past `quadrant` quarter turns, |r| <= π/4.
#[inline(always)]
fn sine(r: f32, quadrant: u32) -> f32 {
    let z = r * r;
    let s = -1.951_529_6e-4;
    let s = s * z + 8.332_161e-3;
    let s = s * z - 1.666_665_5e-1;
    let s = (s * z) * r + r;
    // Makes the sine of -0 equal -0.
    let s = if z < 1e-8 { r } else { s };
    let c = 2.443_315_7e-5;
    let c = c * z - 1.388_731_6e-3;
    let c = c * z + 4.166_664_6e-2;
    let c = ((c * z) * z - 0.5 * z) + 1.0;
    let y = if quadrant & 1 == 0 { s } else { c };
    f32::from_bits(y.to_bits() ^ ((quadrant & 2) << 30))
}

/// An angle: `r` past `quadrant` quarter turns.
struct Angle {
    r: f32,
    quadrant: u32,
}

/// Arguments up to this are reduced by subtracting multiples of parts of π/2.
const SMALL_ANGLE: f32 = 8192.0;

/// π/2 in parts of 8, 11 and 11 bits, whose products with a quadrant below 2^13 are exact, and a remainder.
const PI_2: [f32; 4] = [1.570_312_5, 4.837_513e-4, 7.549_533_6e-8, 2.563_344e-12];

/// Reduces `x` to the nearest multiple of π/2, for |x| <= [`SMALL_ANGLE`].
#[inline(always)]
fn reduce(x: f32) -> Angle {
    let Rounded {
        float: n,
        integer: quadrant,
    } = round(x * FRAC_2_PI);
    let r = x - n * PI_2[0];
    let r = r - n * PI_2[1];
    let r = r - n * PI_2[2];
    Angle {
        r: r - n * PI_2[3],
        quadrant: quadrant as u32,
    }
}

/// The bits of 2/π, after 32 zeros.
const TWO_OVER_PI: [u32; 8] = [
    0,
    0xa2f9_836e,
    0x4e44_1529,
    0xfc27_57d1,
    0xf534_ddc0,
    0xdb62_9599,
    0x3c43_9041,
    0xfe51_63ab,
];

/// The same as [`reduce`], for any finite |x| >= 1.
fn reduce_large(x: f32) -> Angle {
    let bits = x.to_bits();
    let integer = u64::from(bits & 0x007f_ffff | 0x0080_0000);
    // x = integer · 2^(exponent - 150). Only the value of x·2/π modulo 4 matters, so only the bits of 2/π from 2^(151 -
    // exponent) down do, and 96 of them decide the result: no f32 is nearer to a multiple of π/2 than 2^-30.
    let first = (bits >> 23 & 0xff) as usize - 120;
    let (word, shift) = (first / 32, first % 32);
    let window = |i: usize| {
        let pair = u64::from(TWO_OVER_PI[word + i]) << 32 | u64::from(TWO_OVER_PI[word + i + 1]);
        (pair << shift) >> 32
    };
    let low = (integer * window(2)) >> 32;
    let middle = integer * window(1) + low;
    let quarters = ((integer * window(0)) << 32).wrapping_add(middle);
    // Two bits of quadrant and 62 of fraction. Relative to the nearest multiple, the fraction is signed.
    let fraction = (quarters << 2) as i64;
    let quadrant = (quarters >> 62) as u32 + u32::from(fraction < 0);
    let r = (fraction as f64 * (std::f64::consts::FRAC_PI_2 / 2f64.powi(64))) as f32;
    if x < 0.0 {
        Angle {
            r: -r,
            quadrant: quadrant.wrapping_neg(),
        }
    } else {
        Angle { r, quadrant }
    }
}

/// The sines of the angles in `x` plus `turns` quarter turns: 0 for the sine, 1 for the cosine. NaN for infinities.
#[inline(always)]
pub(crate) fn sines(x: &[f32], y: &mut [f32], turns: u32) {
    for (x, y) in x.chunks(64).zip(y.chunks_mut(64)) {
        if x.iter()
            .fold(true, |small, x| small & (x.abs() <= SMALL_ANGLE))
        {
            for (x, y) in x.iter().zip(y) {
                let Angle { r, quadrant } = reduce(*x);
                *y = sine(r, quadrant.wrapping_add(turns));
            }
        } else {
            for (x, y) in x.iter().zip(y) {
                let Angle { r, quadrant } = if x.abs() <= SMALL_ANGLE {
                    reduce(*x)
                } else if x.is_finite() {
                    reduce_large(*x)
                } else {
                    Angle {
                        r: f32::NAN,
                        quadrant: 0,
                    }
                };
                *y = sine(r, quadrant.wrapping_add(turns));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sin(x: f32) -> f32 {
        let mut y = [0.0];
        sines(&[x], &mut y, 0);
        y[0]
    }

    fn cos(x: f32) -> f32 {
        let mut y = [0.0];
        sines(&[x], &mut y, 1);
        y[0]
    }

    /// A function, the exact one, and how many units in the last place they may differ.
    type Contract = (&'static str, fn(f32) -> f32, fn(f64) -> f64, f64);

    const CONTRACTS: &[Contract] = &[
        ("exp", exp, f64::exp, 1.0),
        ("ln", ln, f64::ln, 1.0),
        ("tanh", tanh, f64::tanh, 1.4),
        ("sin", sin, f64::sin, 2.4),
        ("cos", cos, f64::cos, 2.4),
    ];

    /// Compares at every `stride`th of all f32.
    fn compare(stride: usize) {
        for &(name, function, exact, most) in CONTRACTS {
            for bits in (0..=u32::MAX).step_by(stride) {
                let x = f32::from_bits(bits);
                let (got, want) = (function(x), exact(x.into()));
                let rounded = want as f32;
                if got.to_bits() == rounded.to_bits() || got.is_nan() && rounded.is_nan() {
                    continue;
                }
                let exponent = want.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
                let error = (f64::from(got) - want).abs() / (exponent - 23.0).exp2();
                assert!(
                    error <= most,
                    "{name}({x:e}) = {got:e}, want {want:e}: {error} ULP"
                );
            }
        }
    }

    #[test]
    fn functions_are_within_their_bounds_at_a_sample_of_all_floats() {
        compare(5003);
    }

    #[test]
    #[ignore = "takes eight minutes: scripts/all_floats.sh runs it"]
    fn functions_are_within_their_bounds_at_all_floats() {
        compare(1);
    }
}
