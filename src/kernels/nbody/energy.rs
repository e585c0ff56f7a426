//! The energy of bodies, which a simulation should conserve.

use super::{LEAST_DISTANCE2, WIDTH, check_softening, count_bodies};
use crate::array::Array;
use crate::error::{Error, Result};
use crate::kernels::nbody::pairs::Row;
use crate::simd::{Lanes, Simd, VectorLoop};
use rayon::prelude::*;

/// The energy of a system of bodies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Energy {
    /// `Σi m[i]·|v[i]|²/2`
    pub kinetic: f64,
    /// `-Σ(i<j) m[i]·m[j]/√(|r[i] - r[j]|² + softening²)`, without pairs for which the root is below 10⁻¹⁰
    pub potential: f64,
}

impl Energy {
    /// The sum of both, which attraction between the bodies conserves.
    pub fn total(&self) -> f64 {
        self.kinetic + self.potential
    }
}

/// The energy of bodies under the forces of [`nbody_accelerations`](super::nbody_accelerations()), on the host in f64.
///
/// `bodies` is as there. `velocities` holds four elements for each body: x, y, z and one that is ignored. The work is
/// proportional to the square of the number of bodies and runs on rayon's current pool: about a second for 40,000
/// bodies. It uses the instruction set of [`Simd::from_environment`].
///
/// # Errors
/// As `nbody_accelerations`, if the arrays cannot be read, and as `Simd::from_environment`.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let bodies = Array::from_slice(&[0.0f32, 0.0, 0.0, 4.0, 2.0, 0.0, 0.0, 1.0])?;
/// let velocities = Array::from_slice(&[0.0f32, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0])?;
/// let energy = nbody_energy(0.0, &bodies, &velocities)?;
/// assert_eq!((energy.kinetic, energy.potential), (4.5, -2.0));
/// # Ok(())
/// # }
/// ```
pub fn nbody_energy(
    softening: f32,
    bodies: &Array<f32>,
    velocities: &Array<f32>,
) -> Result<Energy> {
    let n = count_bodies("nbody_energy", bodies.len())?;
    check_softening("nbody_energy", softening)?;
    Error::check_length(
        "nbody_energy",
        "velocities",
        velocities.len(),
        WIDTH * n,
        || format!("4 for each of {n} bodies"),
    )?;
    let (bodies, velocities) = (bodies.read()?, velocities.read()?);
    let bodies: &[Row] = bytemuck::cast_slice(&bodies);
    let velocities: &[Row] = bytemuck::cast_slice(&velocities);
    let kinetic = bodies
        .iter()
        .zip(velocities)
        .map(|(body, v)| {
            let square: f64 = v[..3].iter().map(|v| f64::from(*v).powi(2)).sum();
            f64::from(body[3]) * square / 2.0
        })
        .sum();

    let simd = Simd::from_environment()?;
    // By columns, so that the inner loop is vector code.
    let column = |axis: usize| {
        bodies
            .iter()
            .map(|b| f64::from(b[axis]))
            .collect::<Vec<f64>>()
    };
    let [x, y, z, mass] = [0, 1, 2, 3].map(column);
    let softening2 = f64::from(softening).powi(2);
    // The sums are added in order, so that the result is the same in every run.
    let sums: Vec<f64> = (0..n)
        .into_par_iter()
        .map(|i| {
            let others = [&x, &y, &z, &mass].map(|column| &column[i + 1..]);
            let at = [x[i], y[i], z[i]];
            let attraction = simd.run(Attraction {
                at,
                others,
                softening2,
            });
            mass[i] * attraction
        })
        .collect();
    Ok(Energy {
        kinetic,
        potential: -sums.iter().sum::<f64>(),
    })
}

/// `Σj mass[j]/distance[j]` of other bodies, given by columns.
struct Attraction<'a> {
    at: [f64; 3],
    others: [&'a [f64]; 4],
    softening2: f64,
}

impl VectorLoop for Attraction<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> f64 {
        let least = f64::from(LEAST_DISTANCE2);
        let [x, y, z, mass] = self.others;
        let ((x, x_rest), (y, y_rest)) = (L::as_simd_f64s(x), L::as_simd_f64s(y));
        let ((z, z_rest), (mass, mass_rest)) = (L::as_simd_f64s(z), L::as_simd_f64s(mass));
        let at = [
            lanes.splat_f64s(self.at[0]),
            lanes.splat_f64s(self.at[1]),
            lanes.splat_f64s(self.at[2]),
        ];
        let softening2s = lanes.splat_f64s(self.softening2);
        let (leasts, zero) = (lanes.splat_f64s(least), lanes.splat_f64s(0.0));
        let mut sums = zero;
        for (((x, y), z), mass) in x.iter().zip(y).zip(z).zip(mass) {
            let mut square = softening2s;
            for (there, at) in [*x, *y, *z].into_iter().zip(at) {
                let d = lanes.sub_f64s(there, at);
                square = lanes.add_f64s(square, lanes.mul_f64s(d, d));
            }
            let term = lanes.div_f64s(*mass, lanes.sqrt_f64s(square));
            // Points at the same place have no potential, as they have no attraction.
            let is_near = lanes.less_than_f64s(square, leasts);
            sums = lanes.add_f64s(sums, lanes.select_f64s(is_near, zero, term));
        }
        let mut sum = lanes.reduce_sum_f64s(sums);
        for (((x, y), z), mass) in x_rest.iter().zip(y_rest).zip(z_rest).zip(mass_rest) {
            let mut square = self.softening2;
            for (there, at) in [*x, *y, *z].into_iter().zip(self.at) {
                square += (there - at) * (there - at);
            }
            sum += if square < least {
                0.0
            } else {
                mass / square.sqrt()
            };
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::InstructionSet;

    #[test]
    fn every_instruction_set_adds_up_all_bodies_but_those_at_the_same_place() {
        let mut rng = fastrand::Rng::with_seed(2);
        for bodies in [0, 1, 3, 4, 7, 8, 9, 50] {
            let mut columns: [Vec<f64>; 4] =
                std::array::from_fn(|_| (0..bodies).map(|_| rng.f64()).collect());
            let at = [0.25, 0.5, 0.75];
            if bodies > 5 {
                (0..3).for_each(|axis| columns[axis][4] = at[axis]);
            }
            let [x, y, z, mass] = &columns;
            let mut want = 0.0;
            for (((x, y), z), mass) in x.iter().zip(y).zip(z).zip(mass) {
                let distance = [x - at[0], y - at[1], z - at[2]].map(|d| d * d);
                let square: f64 = distance.iter().sum();
                if square > 0.0 {
                    want += mass / square.sqrt();
                }
            }
            for set in InstructionSet::available() {
                let got = Simd::new(set).expect("it is available").run(Attraction {
                    at,
                    others: [0, 1, 2, 3].map(|axis| &columns[axis][..]),
                    softening2: 0.0,
                });
                assert!((got - want).abs() <= 1e-12 * want, "{bodies} bodies, {set}");
            }
        }
    }
}
