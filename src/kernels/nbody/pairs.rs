//! The sum over all pairs on the CPU.
//!
//! One vector of targets meets one source after another. The sum is written once, over [`Lanes`]; an instruction
//! set is its handful of vector operations. This module knows slices only.
//!
//! The cost of a pair is the vector instructions it takes, so there are as few as possible: the estimate `y` of
//! `1/√d` is not refined and then cubed, but the cube of the estimate is corrected in one step. With
//! `y = (1 + e)/√d` and `h = d·y² = (1 + e)²`, Taylor's expansion of `h^(-3/2)` at 1 gives
//! `d^(-3/2) = y³·(5/2 - 3/2·h)·(1 + 15/2·e² + ..)`. The factor 3/2 is taken out of the sum.

use super::{LEAST_DISTANCE2, Softening};
use bytemuck::Pod;

/// A body (x, y, z, mass) or an acceleration (x, y, z, 0).
pub(super) type Row = [f32; 4];

/// Sources whose attraction is summed before it is added to the total: the rounding error of a serial f32 sum grows
/// with its length, that of a sum of such sums hardly (median 1.5e-6 against 1.2e-7 for 16,384 bodies).
const BLOCK: usize = 512;

/// The square of a distance from which even the heaviest body attracts nothing.
const FAR: f32 = 1e30;

/// Writes the acceleration of each target by all sources. There must be as many `accelerations` as `targets`.
pub(super) fn attract(
    targets: &[Row],
    sources: &[Row],
    softening: Softening,
    accelerations: &mut [Row],
) {
    let sum = Sum {
        targets,
        sources,
        softening,
        accelerations,
    };
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    {
        if let Some(simd) = pulp::x86::V4::try_new() {
            return simd.vectorize(sum.with(simd));
        }
        if let Some(simd) = pulp::x86::V3::try_new() {
            return simd.vectorize(sum.with(simd));
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        if let Some(simd) = pulp::aarch64::Neon::try_new() {
            return simd.vectorize(sum.with(simd));
        }
    }
    pulp::NullaryFnOnce::call(sum.with(Portable));
}

/// The vector operations that the sum needs.
trait Lanes: Copy {
    /// A vector of f32.
    type V: Pod;

    fn splat(self, value: f32) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a·b + c`
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a·b`
    fn neg_mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `1/√a` with a relative error of at most 2^-11, for positive normal numbers.
    fn rsqrt(self, a: Self::V) -> Self::V;
    /// `small` where `a < b`, else `other`.
    fn select_less(self, a: Self::V, b: Self::V, small: Self::V, other: Self::V) -> Self::V;
}

/// [`Lanes`] by the operations of a pulp token, and the estimate given.
macro_rules! lanes_by_pulp {
    ($simd:ty, |$self:ident, $a:ident| $rsqrt:expr) => {
        impl Lanes for $simd {
            type V = <$simd as pulp::Simd>::f32s;

            #[inline(always)]
            fn splat(self, value: f32) -> Self::V {
                pulp::Simd::splat_f32s(self, value)
            }
            #[inline(always)]
            fn add(self, a: Self::V, b: Self::V) -> Self::V {
                pulp::Simd::add_f32s(self, a, b)
            }
            #[inline(always)]
            fn sub(self, a: Self::V, b: Self::V) -> Self::V {
                pulp::Simd::sub_f32s(self, a, b)
            }
            #[inline(always)]
            fn mul(self, a: Self::V, b: Self::V) -> Self::V {
                pulp::Simd::mul_f32s(self, a, b)
            }
            #[inline(always)]
            fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                pulp::Simd::mul_add_f32s(self, a, b, c)
            }
            #[inline(always)]
            fn neg_mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                pulp::Simd::negate_mul_add_f32s(self, a, b, c)
            }
            #[inline(always)]
            fn rsqrt($self, $a: Self::V) -> Self::V {
                $rsqrt
            }
            #[inline(always)]
            fn select_less(self, a: Self::V, b: Self::V, small: Self::V, other: Self::V) -> Self::V {
                let less = pulp::Simd::less_than_f32s(self, a, b);
                pulp::Simd::select_f32s(self, less, small, other)
            }
        }
    };
}

// The instruction's estimate is within 2^-14.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
lanes_by_pulp!(pulp::x86::V4, |self, a| bytemuck::cast(
    self.avx512f._mm512_rsqrt14_ps(bytemuck::cast(a))
));

// The instruction's estimate is within 1.5·2^-12.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
lanes_by_pulp!(pulp::x86::V3, |self, a| self
    .approx_reciprocal_sqrt_f32x8(a));

// The instruction's estimate has 8 bits; a Newton step doubles them.
#[cfg(target_arch = "aarch64")]
lanes_by_pulp!(pulp::aarch64::Neon, |self, a| {
    let a: std::arch::aarch64::float32x4_t = bytemuck::cast(a);
    let y = self.neon.vrsqrteq_f32(a);
    let step = self.neon.vrsqrtsq_f32(self.neon.vmulq_f32(a, y), y);
    bytemuck::cast(self.neon.vmulq_f32(y, step))
});

/// Plain arithmetic that any compiler vectorises for whatever the target always has.
#[derive(Clone, Copy)]
struct Portable;

impl Lanes for Portable {
    type V = [f32; 8];

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        [value; 8]
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i])
    }
    // Rounded twice: without the instruction, `f32::mul_add` is a slow library call.
    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn neg_mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| c[i] - a[i] * b[i])
    }
    #[inline(always)]
    fn rsqrt(self, a: Self::V) -> Self::V {
        a.map(|a| 1.0 / a.sqrt())
    }
    #[inline(always)]
    fn select_less(self, a: Self::V, b: Self::V, small: Self::V, other: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { small[i] } else { other[i] })
    }
}

/// The arguments of [`attract`].
struct Sum<'a> {
    targets: &'a [Row],
    sources: &'a [Row],
    softening: Softening,
    accelerations: &'a mut [Row],
}

impl<'a> Sum<'a> {
    fn with<L: Lanes>(self, lanes: L) -> SumWith<'a, L> {
        SumWith { sum: self, lanes }
    }
}

/// The sum and the instruction set to compute it with; called where that instruction set is enabled.
struct SumWith<'a, L> {
    sum: Sum<'a>,
    lanes: L,
}

impl<L: Lanes> pulp::NullaryFnOnce for SumWith<'_, L> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        if self.sum.softening.is_careful() {
            self.sum.compute::<L, true>(self.lanes);
        } else {
            self.sum.compute::<L, false>(self.lanes);
        }
    }
}

impl Sum<'_> {
    #[inline(always)]
    fn compute<L: Lanes, const CAREFUL: bool>(self, lanes: L) {
        let Sum {
            targets,
            sources,
            softening,
            accelerations,
        } = self;
        let width = size_of::<L::V>() / size_of::<f32>();
        for (targets, accelerations) in targets.chunks(width).zip(accelerations.chunks_mut(width)) {
            attract_vector::<L, CAREFUL>(lanes, targets, sources, softening, accelerations);
        }
    }
}

/// The same for at most one vector of targets.
#[inline(always)]
fn attract_vector<L: Lanes, const CAREFUL: bool>(
    lanes: L,
    targets: &[Row],
    sources: &[Row],
    softening: Softening,
    accelerations: &mut [Row],
) {
    let zero = lanes.splat(0.0);
    let softening2 = lanes.splat(softening.squared());
    let least = lanes.splat(LEAST_DISTANCE2);
    let far = lanes.splat(FAR);
    let five_thirds = lanes.splat(5.0 / 3.0);
    // Lanes without a target compute something that nobody reads.
    let [x, y, z] = [0, 1, 2].map(|axis| {
        let mut column = zero;
        for (lane, target) in elements_mut(&mut column).iter_mut().zip(targets) {
            *lane = target[axis];
        }
        column
    });
    let mut total = [zero; 3];
    for block in sources.chunks(BLOCK) {
        let mut sum = [zero; 3];
        for source in block {
            let [dx, dy, dz] =
                [(0, x), (1, y), (2, z)].map(|(axis, at)| lanes.sub(lanes.splat(source[axis]), at));
            let d = if CAREFUL {
                let d = lanes.mul_add(dx, dx, lanes.mul_add(dy, dy, lanes.mul(dz, dz)));
                lanes.select_less(d, least, far, lanes.add(d, softening2))
            } else {
                let d = lanes.mul_add(dz, dz, softening2);
                lanes.mul_add(dx, dx, lanes.mul_add(dy, dy, d))
            };
            let estimate = lanes.rsqrt(d);
            let square = lanes.mul(estimate, estimate);
            let correction = lanes.neg_mul_add(d, square, five_thirds);
            // The mass first, so that what is far and heavy does not underflow.
            let cube = lanes.mul(lanes.mul(lanes.splat(source[3]), estimate), square);
            let strength = lanes.mul(cube, correction);
            sum = [
                lanes.mul_add(strength, dx, sum[0]),
                lanes.mul_add(strength, dy, sum[1]),
                lanes.mul_add(strength, dz, sum[2]),
            ];
        }
        for (total, sum) in total.iter_mut().zip(sum) {
            *total = lanes.add(*total, sum);
        }
    }
    let [x, y, z] = total.map(|total| lanes.mul(total, lanes.splat(1.5)));
    let columns = elements(&x).iter().zip(elements(&y)).zip(elements(&z));
    for (acceleration, ((x, y), z)) in accelerations.iter_mut().zip(columns) {
        *acceleration = [*x, *y, *z, 0.0];
    }
}

#[inline(always)]
fn elements<V: Pod>(vector: &V) -> &[f32] {
    bytemuck::cast_slice(std::slice::from_ref(vector))
}

#[inline(always)]
fn elements_mut<V: Pod>(vector: &mut V) -> &mut [f32] {
    bytemuck::cast_slice_mut(std::slice::from_mut(vector))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::relative_error;
    use crate::kernels::nbody::exact;
    use pulp::NullaryFnOnce;

    type Path = (&'static str, fn(Sum<'_>));

    /// Every implementation that this machine can run.
    fn paths() -> Vec<Path> {
        let mut paths: Vec<Path> = vec![
            ("chosen", |s| {
                attract(s.targets, s.sources, s.softening, s.accelerations)
            }),
            ("portable", |s| s.with(Portable).call()),
        ];
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        {
            use pulp::x86::{V3, V4};
            if V4::try_new().is_some() {
                paths.push(("AVX-512", |s| {
                    let simd = V4::try_new().expect("looked up before");
                    simd.vectorize(s.with(simd));
                }));
            }
            if V3::try_new().is_some() {
                paths.push(("AVX2", |s| {
                    let simd = V3::try_new().expect("looked up before");
                    simd.vectorize(s.with(simd));
                }));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if pulp::aarch64::Neon::try_new().is_some() {
            paths.push(("NEON", |s| {
                let simd = pulp::aarch64::Neon::try_new().expect("looked up before");
                simd.vectorize(s.with(simd));
            }));
        }
        paths
    }

    fn run(path: fn(Sum<'_>), targets: &[Row], sources: &[Row], softening: f32) -> Vec<Row> {
        let mut accelerations = vec![[f32::NAN; 4]; targets.len()];
        let softening = Softening(softening);
        path(Sum {
            targets,
            sources,
            softening,
            accelerations: &mut accelerations,
        });
        accelerations
    }

    fn bodies(n: usize, rng: &mut fastrand::Rng) -> Vec<Row> {
        (0..n).map(|_| [(); 4].map(|()| rng.f32())).collect()
    }

    #[test]
    fn every_path_is_accurate_for_every_remainder() {
        let seed = fastrand::u64(..);
        let mut rng = fastrand::Rng::with_seed(seed);
        let sources = bodies(1500, &mut rng);
        for (name, path) in paths() {
            // Both variants of the loop.
            for softening in [0.01, 0.0] {
                for n in [0, 1, 2, 7, 8, 9, 15, 16, 17, 33, 100] {
                    let got = run(path, &sources[..n], &sources, softening);
                    for (got, target) in got.iter().zip(&sources) {
                        let want = exact(target, &sources, softening);
                        let error = relative_error(&got.map(f64::from), &want);
                        assert!(error < 1e-5, "{name}, {n}: {error:e}, seed {seed}");
                        assert_eq!(got[3], 0.0, "{name}, {n}");
                    }
                }
            }
        }
    }

    #[test]
    fn one_pair_is_correct_to_a_few_units_in_the_last_place() {
        // One source, so that no sum hides an error of the reciprocal square root.
        let mut rng = fastrand::Rng::with_seed(3);
        for (name, path) in paths() {
            let mut worst = 0.0f64;
            for i in 0..2000 {
                let far = 10f32.powi(rng.i32(-4..8));
                let source = [far * (1.0 + rng.f32()), 0.0, 0.0, 1.0];
                let softening = if i % 2 == 0 { 0.0 } else { 0.002 };
                let got = run(path, &[[0.0; 4]], &[source], softening);
                let want = exact(&[0.0; 4], &[source], softening);
                worst = worst.max(relative_error(&got[0].map(f64::from), &want));
            }
            // 7.5·e² for the worst estimate, that of AVX, and rounding.
            assert!(worst < 1.5e-6, "{name}: {worst:e}");
        }
    }

    #[test]
    fn bodies_at_one_place_do_not_attract_each_other_however_heavy_they_are() {
        for (name, path) in paths() {
            for (mass, softening) in [(1e30, 0.0), (1e30, 1e-6), (-1e30, 0.0), (1e20, 0.01)] {
                let bodies = [[1.0, 2.0, 3.0, mass]; 3];
                let got = run(path, &bodies, &bodies, softening);
                assert_eq!(got, [[0.0; 4]; 3], "{name}, {mass:e}, {softening}");
            }
        }
    }

    #[test]
    fn no_sources_give_no_acceleration_and_nan_spreads() {
        for (name, path) in paths() {
            assert_eq!(run(path, &[[1.0; 4]], &[], 1.0), [[0.0; 4]], "{name}");
            let got = run(
                path,
                &[[1.0; 4], [f32::NAN; 4]],
                &[[0.0, 0.0, 0.0, 1.0]],
                1.0,
            );
            assert!(
                got[0][0].is_finite() && got[1][0].is_nan(),
                "{name}: {got:?}"
            );
        }
    }
}
