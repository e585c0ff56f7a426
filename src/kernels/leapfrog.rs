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
        kick_drift: KickDrift {
            dt,
            bodies,
            velocities: velocities.clone(),
            accelerations: accelerations.clone(),
        },
        forces,
        kick: Kick {
            dt,
            velocities,
            accelerations,
        },
    })
}

/// The kernel behind [`leapfrog_step()`].
#[derive(Debug)]
pub struct Leapfrog {
    kick_drift: KickDrift,
    forces: NBody,
    kick: Kick,
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
        let (v, len) = (&self.kick.velocities, self.kick_drift.bodies.len());
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

/// `v += a·dt/2; r += v·dt`
#[derive(Clone, Debug)]
struct KickDrift {
    dt: f32,
    bodies: Handle,
    velocities: Handle,
    accelerations: Handle,
}

impl Pass for KickDrift {
    fn name(&self) -> &str {
        "leapfrog"
    }

    fn implementation(&self) -> u64 {
        SHADER.hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let bindings = [
            Binding::read(&self.accelerations, Role::rows(WIDTH)),
            Binding::update(&self.velocities, Role::rows(WIDTH)),
            Binding::update(&self.bodies, Role::rows(WIDTH)),
        ];
        let n = self.bodies.len() / WIDTH;
        Ok(LaunchSpec::new(n, bindings, 12.0 * n as f64))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        let magnitudes = Self {
            dt: self.dt.abs(),
            ..self.clone()
        };
        Tolerance::roundings(4.0, magnitudes)
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let dt = self.dt;
        let (a, v, r) = (part.read(0), part.write(1), part.write(2));
        part.simd().run(Advance {
            dt: 0.5 * dt,
            rates: a,
            values: v,
        });
        part.simd().run(Advance {
            dt,
            rates: v,
            values: r,
        });
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let args = [part.arg(0), part.arg(1), part.arg(2)];
        let params = Params {
            bodies: part.len() as u32,
            dt: self.dt,
        };
        let groups = part.len().div_ceil(LANES) as u32;
        part.dispatch_with(&SHADER, "kick_drift", &[], &args, &params, groups)
    }
}

/// `v += a·dt/2`
#[derive(Clone, Debug)]
struct Kick {
    dt: f32,
    velocities: Handle,
    accelerations: Handle,
}

impl Pass for Kick {
    fn name(&self) -> &str {
        "leapfrog"
    }

    fn implementation(&self) -> u64 {
        SHADER.hash()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let bindings = [
            Binding::read(&self.accelerations, Role::rows(WIDTH)),
            Binding::update(&self.velocities, Role::rows(WIDTH)),
        ];
        let n = self.velocities.len() / WIDTH;
        Ok(LaunchSpec::new(n, bindings, 6.0 * n as f64))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        let magnitudes = Self {
            dt: self.dt.abs(),
            ..self.clone()
        };
        Tolerance::roundings(2.0, magnitudes)
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let (a, v) = (part.read(0), part.write(1));
        part.simd().run(Advance {
            dt: 0.5 * self.dt,
            rates: a,
            values: v,
        });
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let args = [part.arg(0), part.arg(1)];
        let params = Params {
            bodies: part.len() as u32,
            dt: self.dt,
        };
        let groups = part.len().div_ceil(LANES) as u32;
        part.dispatch_with(&SHADER, "kick", &[], &args, &params, groups)
    }
}

/// `values += dt * rates`, except for the fourth value of each body.
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
        let dt = lanes.splat(self.dt);
        // Every vector begins with a body.
        const { assert!(L::F32_LANES.is_multiple_of(WIDTH) && L::F32_LANES <= KEPT.len()) };
        let kept = L::as_simd_u32s(&KEPT).0[0];
        let (rates, rates_rest) = L::as_simd_f32s(self.rates);
        let (values, values_rest) = L::as_mut_simd_f32s(self.values);
        for (value, rate) in values.iter_mut().zip(rates) {
            *value = lanes.add(*value, lanes.mul(dt, lanes.and(*rate, kept)));
        }
        for ((value, rate), kept) in values_rest.iter_mut().zip(rates_rest).zip(KEPT) {
            *value += self.dt * f32::from_bits(rate.to_bits() & kept);
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
            let (mut rates, before) = (random(), random());
            // What is left alone may be anything.
            rates
                .iter_mut()
                .skip(3)
                .step_by(WIDTH)
                .for_each(|rate| *rate = f32::NAN);
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
                assert_eq!(values, want, "{bodies} bodies, {set}");
            }
        }
    }
}
