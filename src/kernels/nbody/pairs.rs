//! The sum over all pairs of bodies on the CPU.
//!
//! One vector of targets meets one source after another. The sum is written once, over [`Lanes`]. This module works on
//! slices only.
//!
//! The cost of a pair is the number of its vector instructions, so there are as few as possible. The estimate `y` of
//! `1/√d` is not refined and then cubed; instead, one step corrects the cube of the estimate. With `y = (1 + e)/√d` and
//! `h = d·y² = (1 + e)²`, Taylor's expansion of `h^(-3/2)` at 1 gives `d^(-3/2) = y³·(5/2 - 3/2·h)·(1 + 15/2·e² + ..)`.
//! The sum leaves out the factor 3/2, which is applied at its end.

use super::{LEAST_DISTANCE2, Softening};
use crate::simd::{Lanes, VectorLoop};
use bytemuck::Pod;

/// A body (x, y, z, mass) or an acceleration (x, y, z, 0).
pub(super) type Row = [f32; 4];

/// The sources whose attraction is summed before it is added to the total. The rounding error of a serial f32 sum grows
/// with its length, that of a sum of such sums hardly does (median 1.5e-6 against 1.2e-7 for 16,384 bodies).
const BLOCK: usize = 512;

/// The square of a distance at which even the heaviest body attracts nothing.
const FAR: f32 = 1e30;

/// Writes the acceleration of each target by all sources. There must be as many `accelerations` as `targets`.
pub(super) struct Attract<'a> {
    pub(super) targets: &'a [Row],
    pub(super) sources: &'a [Row],
    pub(super) softening: Softening,
    pub(super) accelerations: &'a mut [Row],
}

impl VectorLoop for Attract<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        if self.softening.is_careful() {
            self.compute::<L, true>(lanes);
        } else {
            self.compute::<L, false>(lanes);
        }
    }
}

impl Attract<'_> {
    #[inline(always)]
    fn compute<L: Lanes, const CAREFUL: bool>(self, lanes: L) {
        let targets = self.targets.chunks(L::F32_LANES);
        let accelerations = self.accelerations.chunks_mut(L::F32_LANES);
        for (targets, accelerations) in targets.zip(accelerations) {
            attract_vector::<L, CAREFUL>(
                lanes,
                targets,
                self.sources,
                self.softening,
                accelerations,
            );
        }
    }
}

/// Computes the same for at most one vector of targets.
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
    // Lanes without a target compute values that are not read.
    let mut columns = [zero; 3];
    for (axis, column) in columns.iter_mut().enumerate() {
        for (lane, target) in elements_mut(column).iter_mut().zip(targets) {
            *lane = target[axis];
        }
    }
    let [x, y, z] = columns;
    let mut total = [zero; 3];
    for block in sources.chunks(BLOCK) {
        let mut sum = [zero; 3];
        for source in block {
            let dx = lanes.sub(lanes.splat(source[0]), x);
            let dy = lanes.sub(lanes.splat(source[1]), y);
            let dz = lanes.sub(lanes.splat(source[2]), z);
            let d = if CAREFUL {
                let d = lanes.multiply_add(dx, dx, lanes.multiply_add(dy, dy, lanes.mul(dz, dz)));
                lanes.select_less(d, least, far, lanes.add(d, softening2))
            } else {
                let d = lanes.multiply_add(dz, dz, softening2);
                lanes.multiply_add(dx, dx, lanes.multiply_add(dy, dy, d))
            };
            let estimate = lanes.reciprocal_sqrt_estimate(d);
            let square = lanes.mul(estimate, estimate);
            let correction = lanes.negate_multiply_add(d, square, five_thirds);
            // Multiplies by the mass first, so that a far and heavy body does not underflow.
            let cube = lanes.mul(lanes.mul(lanes.splat(source[3]), estimate), square);
            let strength = lanes.mul(cube, correction);
            sum = [
                lanes.multiply_add(strength, dx, sum[0]),
                lanes.multiply_add(strength, dy, sum[1]),
                lanes.multiply_add(strength, dz, sum[2]),
            ];
        }
        for (total, sum) in total.iter_mut().zip(sum) {
            *total = lanes.add(*total, sum);
        }
    }
    for total in &mut total {
        *total = lanes.mul(*total, lanes.splat(1.5));
    }
    let [x, y, z] = total;
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
    use crate::simd::{InstructionSet, Simd};

    /// Every instruction set of this machine.
    fn sets() -> Vec<Simd> {
        let sets = InstructionSet::available().into_iter();
        sets.map(|set| Simd::new(set).expect("it is available"))
            .collect()
    }

    fn run(simd: Simd, targets: &[Row], sources: &[Row], softening: f32) -> Vec<Row> {
        let mut accelerations = vec![[f32::NAN; 4]; targets.len()];
        simd.run(Attract {
            targets,
            sources,
            softening: Softening(softening),
            accelerations: &mut accelerations,
        });
        accelerations
    }

    fn bodies(n: usize, rng: &mut fastrand::Rng) -> Vec<Row> {
        (0..n).map(|_| [(); 4].map(|()| rng.f32())).collect()
    }

    #[test]
    fn every_instruction_set_is_accurate_for_every_remainder() {
        let seed = fastrand::u64(..);
        let mut rng = fastrand::Rng::with_seed(seed);
        let sources = bodies(1500, &mut rng);
        for simd in sets() {
            let name = simd.set();
            // Both variants of the loop.
            for softening in [0.01, 0.0] {
                for n in [0, 1, 2, 7, 8, 9, 15, 16, 17, 33, 100] {
                    let got = run(simd, &sources[..n], &sources, softening);
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
        for simd in sets() {
            let name = simd.set();
            let mut worst = 0.0f64;
            for i in 0..2000 {
                let far = 10f32.powi(rng.i32(-4..8));
                let source = [far * (1.0 + rng.f32()), 0.0, 0.0, 1.0];
                let softening = if i % 2 == 0 { 0.0 } else { 0.002 };
                let got = run(simd, &[[0.0; 4]], &[source], softening);
                let want = exact(&[0.0; 4], &[source], softening);
                worst = worst.max(relative_error(&got[0].map(f64::from), &want));
            }
            // 7.5·e² for the worst estimate, that of AVX, and rounding.
            assert!(worst < 1.5e-6, "{name}: {worst:e}");
        }
    }

    #[test]
    fn bodies_at_one_place_do_not_attract_each_other_at_any_mass() {
        for simd in sets() {
            let name = simd.set();
            for (mass, softening) in [(1e30, 0.0), (1e30, 1e-6), (-1e30, 0.0), (1e20, 0.01)] {
                let bodies = [[1.0, 2.0, 3.0, mass]; 3];
                let got = run(simd, &bodies, &bodies, softening);
                assert_eq!(got, [[0.0; 4]; 3], "{name}, {mass:e}, {softening}");
            }
        }
    }

    #[test]
    fn no_sources_give_no_acceleration_and_nan_spreads() {
        for simd in sets() {
            let name = simd.set();
            assert_eq!(run(simd, &[[1.0; 4]], &[], 1.0), [[0.0; 4]], "{name}");
            let got = run(
                simd,
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
