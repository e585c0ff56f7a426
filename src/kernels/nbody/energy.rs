//! The energy of bodies: what a simulation should keep.

use super::{LEAST_DISTANCE2, WIDTH, check_softening, count_bodies};
use crate::array::Array;
use crate::error::{Error, Result};
use crate::kernels::nbody::pairs::Row;
use crate::simd::vectorised;
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
    /// The sum of both, which attraction between the bodies keeps.
    pub fn total(&self) -> f64 {
        self.kinetic + self.potential
    }
}

/// The energy of bodies under the forces of [`nbody_accelerations`](super::nbody_accelerations()), on the host in f64.
///
/// `bodies` as there; `velocities` holds four elements for each body, x, y and z and one that is ignored. The work is
/// proportional to the square of the number of bodies and runs on rayon's current pool: about a second for 40,000.
///
/// # Errors
/// As `nbody_accelerations`, and if the arrays cannot be read.
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

    // By columns, so that the inner loop is vectorised.
    let column = |axis: usize| {
        bodies
            .iter()
            .map(|b| f64::from(b[axis]))
            .collect::<Vec<f64>>()
    };
    let [x, y, z, mass] = [0, 1, 2, 3].map(column);
    let softening2 = f64::from(softening).powi(2);
    // The sums are added in their order, so that the result is the same in every run.
    let sums: Vec<f64> = (0..n)
        .into_par_iter()
        .map(|i| {
            let others = i + 1..n;
            vectorised(
                #[inline(always)]
                || {
                    let columns = [&x, &y, &z, &mass].map(|column| &column[others.clone()]);
                    mass[i] * attraction([x[i], y[i], z[i]], columns, softening2)
                },
            )
        })
        .collect();
    Ok(Energy {
        kinetic,
        potential: -sums.iter().sum::<f64>(),
    })
}

/// `Σj mass[j]/distance[j]`, in eight partial sums that a compiler can keep in vectors.
#[inline(always)]
fn attraction(at: [f64; 3], [x, y, z, mass]: [&[f64]; 4], softening2: f64) -> f64 {
    const LANES: usize = 8;
    let term = |x: f64, y: f64, z: f64, mass: f64| {
        let [dx, dy, dz] = [x - at[0], y - at[1], z - at[2]];
        let square = dx * dx + dy * dy + dz * dz + softening2;
        // Points at the same place have no potential, as they have no attraction.
        if square < f64::from(LEAST_DISTANCE2) {
            0.0
        } else {
            mass / square.sqrt()
        }
    };
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks::<LANES>();
    let (z, z_rest) = z.as_chunks::<LANES>();
    let (mass, mass_rest) = mass.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (((x, y), z), mass) in x.iter().zip(y).zip(z).zip(mass) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane], y[lane], z[lane], mass[lane]);
        }
    }
    let rest = x_rest.iter().zip(y_rest).zip(z_rest).zip(mass_rest);
    let rest: f64 = rest
        .map(|(((x, y), z), mass)| term(*x, *y, *z, *mass))
        .sum();
    sums.iter().sum::<f64>() + rest
}
