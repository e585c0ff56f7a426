//! A step of a simulation of bodies that attract each other: the leapfrog, kick-drift-kick.

use super::nbody::{NBody, WIDTH};
use crate::array::{Array, Handle};
use crate::error::{Error, Result};
use crate::kernel::Execution;
use crate::kernel::Shader;
use crate::kernel::{Binding, Call, CpuPart, GpuPart, Kernel, LaunchSpec, Pass, Role, Tolerance};
use crate::simd::{Lanes, VectorLoop};
use bytemuck::{Pod, Zeroable};
use std::sync::LazyLock;

/// Advances bodies by one time step `dt` under their mutual attraction, with the leapfrog method (kick, drift, kick):
///
/// ```text
/// v += a·dt/2;  r += v·dt;  a = accelerations(r);  v += a·dt/2
/// ```
///
/// `bodies` and `softening` are those of [`nbody_accelerations`](super::nbody_accelerations()). `velocities` holds four
/// elements for each body: x, y, z and one that stays unchanged. `accelerations` must be those of the bodies at their
/// current positions, and are so again after the step: compute them once before the first step. A step therefore
/// evaluates the forces once.
///
/// All arrays stay on the devices that run the step, from step to step. The method is of second order, keeps the energy
/// bounded over long times, and is reversible: steps with `-dt` lead back, except for rounding.
///
/// # Errors
/// Running fails if `dt` is infinite or not a number, or the arrays differ in length, and as `nbody_accelerations`.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// // A light body on a circle around a heavy one: after half a turn, π, it is on the other side.
/// let mut bodies = rt.array_from(&[0.0f32, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1e-9])?;
/// let mut velocities = rt.array_from(&[0.0f32, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])?;
/// let mut accelerations = rt.uninit(8)?;
/// rt.run(nbody_accelerations(0.0, &bodies, &mut accelerations))?;
/// for _ in 0..200 {
///     let dt = std::f32::consts::PI / 200.0;
///     rt.run(leapfrog_step(dt, 0.0, &mut bodies, &mut velocities, &mut accelerations))?;
/// }
/// let r = bodies.to_vec()?;
/// assert!((r[4] + 1.0).abs() < 1e-3 && r[5].abs() < 1e-3);
/// # Ok(())
/// # }
/// ```
pub fn leapfrog_step<'a>(
    dt: f32,
    softening: f32,
    bodies: &'a mut Array<f32>,
    velocities: &'a mut Array<f32>,
    accelerations: &'a mut Array<f32>,
) -> Call<'a, Leapfrog> {
    let forces = NBody::new(softening, bodies.handle(), accelerations.handle());
    let [bodies, velocities, accelerations] =
        [bodies, velocities, accelerations].map(|array| array.handle().clone());
    Call::new(Leapfrog {
        kick_drift: HalfStep {
            dt,
            velocities: velocities.clone(),
            accelerations: accelerations.clone(),
            drifting: Some(bodies),
        },
        forces,
        kick: HalfStep {
            dt,
            velocities,
            accelerations,
            drifting: None,
        },
    })
}

/// The kernel behind [`leapfrog_step()`].
#[derive(Debug)]
pub struct Leapfrog {
    kick_drift: HalfStep,
    forces: NBody,
    kick: HalfStep,
}

impl Kernel for Leapfrog {
    type Output = ();

    fn name(&self) -> &str {
        "leapfrog"
    }

    fn implementation(&self) -> u64 {
        SHADER.variant(Pass::implementation(&self.forces))
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let dt = self.kick.dt;
        if !dt.is_finite() {
            return Err(Error::argument(
                "leapfrog",
                format!("`dt` is {dt}; it must be a finite time step"),
            ));
        }
        let mut spec = Pass::spec(&self.forces)?;
        let (v, len) = (&self.kick.velocities, WIDTH * spec.items);
        let because = || format!("4 for each of {} bodies", spec.items);
        Error::check_length("leapfrog", "velocities", v.len(), len, because)?;
        // The forces dominate, but the location of the velocities matters too.
        let velocities = Binding::update(v, Role::rows(WIDTH));
        spec.bindings.push(velocities);
        Ok(spec)
    }

    fn execute(&self, cx: &mut Execution<'_>) -> Result<()> {
        cx.launch(&self.kick_drift)?;
        cx.launch(&self.forces)?;
        cx.launch(&self.kick)
    }
}

pub(crate) static SHADER: LazyLock<Shader> = LazyLock::new(|| {
    Shader::builtin("leapfrog", include_str!("../../shaders/leapfrog.wgsl"))
        .entry("kick_drift", &[])
        .entry("kick", &[])
});

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    bodies: u32,
    dt: f32,
}

/// Bodies per workgroup of both entry points.
const LANES: usize = 64;

/// A kick, `v += a·dt/2`, and in the first half of a step a drift, `r += v·dt`.
#[derive(Clone, Debug)]
struct HalfStep {
    dt: f32,
    velocities: Handle,
    accelerations: Handle,
    /// The bodies that drift, if any do.
    drifting: Option<Handle>,
}

impl Pass for HalfStep {
    fn name(&self) -> &str {
        "leapfrog"
    }

    fn implementation(&self) -> u64 {
        SHADER.hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let velocities = [
            Binding::read(&self.accelerations, Role::rows(WIDTH)),
            Binding::update(&self.velocities, Role::rows(WIDTH)),
        ];
        let bodies = self.drifting.iter();
        let bodies = bodies.map(|bodies| Binding::update(bodies, Role::rows(WIDTH)));
        let bindings = velocities.into_iter().chain(bodies);
        let n = self.velocities.len() / WIDTH;
        // Three products and three sums for each array that is updated.
        let flops = if self.drifting.is_some() { 12.0 } else { 6.0 };
        Ok(LaunchSpec::new(n, bindings, flops * n as f64))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        let roundings = if self.drifting.is_some() { 4.0 } else { 2.0 };
        let magnitudes = Self {
            dt: self.dt.abs(),
            ..self.clone()
        };
        Tolerance::roundings(roundings, magnitudes)
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let (accelerations, velocities) = (part.read(0), part.write(1));
        part.simd().run(Advance {
            dt: 0.5 * self.dt,
            rates: accelerations,
            values: velocities,
        });
        if self.drifting.is_some() {
            let bodies = part.write(2);
            part.simd().run(Advance {
                dt: self.dt,
                rates: velocities,
                values: bodies,
            });
        }
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let params = Params {
            bodies: part.len() as u32,
            dt: self.dt,
        };
        let groups = part.len().div_ceil(LANES) as u32;
        let (kick, drift) = ([part.arg(0), part.arg(1)], self.drifting.is_some());
        if !drift {
            return part.dispatch_with(&SHADER, "kick", &[], &kick, &params, groups);
        }
        let [accelerations, velocities] = kick;
        let args = [accelerations, velocities, part.arg(2)];
        part.dispatch_with(&SHADER, "kick_drift", &[], &args, &params, groups)
    }
}

/// `values += dt * rates`, except for the fourth value of each body, which keeps its bits.
struct Advance<'a> {
    dt: f32,
    rates: &'a [f32],
    values: &'a mut [f32],
}

/// All bits of x, y and z, and none of the fourth element.
const KEPT: [u32; 16] = [!0, !0, !0, 0, !0, !0, !0, 0, !0, !0, !0, 0, !0, !0, !0, 0];

impl VectorLoop for Advance<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        // What is subtracted is 0 for the fourth value, and -0 - 0 is -0, where -0 + 0 would be 0.
        let backward = -self.dt;
        let backwards = lanes.splat(backward);
        // Every vector begins with a body.
        const { assert!(L::F32_LANES.is_multiple_of(WIDTH) && L::F32_LANES <= KEPT.len()) };
        let kept = L::as_simd_u32s(&KEPT).0[0];
        let (rates, rates_rest) = L::as_simd_f32s(self.rates);
        let (values, values_rest) = L::as_mut_simd_f32s(self.values);
        for (value, rate) in values.iter_mut().zip(rates) {
            *value = lanes.sub(*value, lanes.and(lanes.mul(backwards, *rate), kept));
        }
        for ((value, rate), kept) in values_rest.iter_mut().zip(rates_rest).zip(KEPT) {
            *value -= f32::from_bits((backward * rate).to_bits() & kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{InstructionSet, Simd};

    #[test]
    fn every_instruction_set_advances_all_but_the_fourth_value_to_the_same_bits() {
        let mut rng = fastrand::Rng::with_seed(1);
        for bodies in [0, 1, 2, 3, 4, 5, 7, 8, 100] {
            let mut random = || -> Vec<f32> {
                let numbers = std::iter::repeat_with(|| rng.f32() - 0.5);
                numbers.take(WIDTH * bodies).collect()
            };
            let (mut rates, mut before) = (random(), random());
            // What is left alone may be anything.
            for body in rates.chunks_mut(WIDTH) {
                body[3] = f32::NAN;
            }
            // Minus zero is the value that adding zero changes.
            for body in before.chunks_mut(WIDTH) {
                body[3] = -0.0;
            }
            let mut want = before.clone();
            for (i, value) in want.iter_mut().enumerate() {
                if i % WIDTH < 3 {
                    *value += 0.3 * rates[i];
                }
            }
            for set in InstructionSet::available() {
                let mut values = before.clone();
                let (dt, rates, values_mut) = (0.3, &rates[..], &mut values[..]);
                Simd::new(set).expect("it is available").run(Advance {
                    dt,
                    rates,
                    values: values_mut,
                });
                let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&values), bits(&want), "{bodies} bodies, {set}");
            }
        }
    }
}
