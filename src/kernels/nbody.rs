//! Gravity between all pairs of bodies, by direct summation.

mod energy;
mod pairs;

pub use energy::{Energy, nbody_energy};

use crate::array::{Array, Handle};
use crate::device::DeviceKind;
use crate::error::{Error, Result};
use crate::kernel::{BOOL, Shader};
use crate::kernel::{Binding, Call, CpuPart, GpuPart, LaunchSpec, Pass, Role, Tolerance};
use bytemuck::{Pod, Zeroable};
use pairs::{Attract, Row};
use std::sync::LazyLock;

/// The accelerations of bodies by their mutual attraction:
/// `a[i] = Σj m[j]·(r[j] - r[i]) / (|r[j] - r[i]|² + softening²)^(3/2)`, with a gravitational constant of 1.
///
/// `bodies` holds four elements for each body: x, y, z and its mass. `accelerations` receives x, y, z and 0. Plummer's
/// `softening`, a length, keeps close encounters finite; with 0, bodies attract as points. Bodies at the same place
/// never attract each other, so a body does not attract itself. With a softening below 0.001, bodies closer than 10⁻¹⁰
/// count as being at the same place.
///
/// The error of a body's acceleration, relative to its length, is at most 1e-5, and 2e-6 in the median, unless
/// attractions cancel almost completely. Choose units in which nothing overflows: distances up to 10¹⁸ and masses up to
/// 10²⁸ are safe.
///
/// The work is proportional to the square of the number of bodies. Each GPU must be able to bind all bodies at once.
/// With 128 MiB for a binding, the smallest limit among common drivers, that is 8 million bodies.
///
/// # Errors
/// Running fails if `softening` is negative, infinite or not a number, if `bodies` is not a whole number of bodies,
/// or if `accelerations` differs from it in length.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::prelude::*;
///
/// let rt = Runtime::new()?;
/// // A mass of 4 at the origin and one of 1 two units to the right.
/// let bodies = rt.array_from(&[0.0f32, 0.0, 0.0, 4.0, 2.0, 0.0, 0.0, 1.0])?;
/// let mut accelerations = rt.uninit(8)?;
/// rt.run(nbody_accelerations(0.0, &bodies, &mut accelerations))?;
/// let a = accelerations.to_vec()?;
/// assert!((a[0] - 0.25).abs() < 1e-5 && (a[4] + 1.0).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
pub fn nbody_accelerations<'a>(
    softening: f32,
    bodies: &'a Array<f32>,
    accelerations: &'a mut Array<f32>,
) -> Call<'a, NBody> {
    Call::new(NBody::new(
        softening,
        bodies.handle(),
        accelerations.handle(),
    ))
}

/// The kernel behind [`nbody_accelerations()`].
#[derive(Debug)]
pub struct NBody {
    softening: Softening,
    bodies: Handle,
    accelerations: Handle,
}

/// Elements per body, and per acceleration.
pub(crate) const WIDTH: usize = 4;
/// The square of a distance below which bodies count as being at the same place. It is far below the resolution of f32
/// in units in which bodies are spread over about 1.
const LEAST_DISTANCE2: f32 = 1e-20;
/// Operations per pair, by the usual count for this kernel.
const FLOPS: f64 = 20.0;

pub(crate) static SHADER: LazyLock<Shader> = LazyLock::new(|| {
    let slices: Vec<f64> = SHARING.choices().map(|slices| slices as f64).collect();
    Shader::builtin("nbody", include_str!("../../shaders/nbody.wgsl"))
        .entry("main", &[("SLICES", &slices), ("CAREFUL", BOOL)])
});

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    bodies: u32,
    /// The body of the first acceleration, and the number of accelerations.
    first: u32,
    targets: u32,
    softening2: f32,
    /// The sources that this dispatch sums.
    begin: u32,
    end: u32,
}

/// The length that is added to distances, at right angles.
#[derive(Clone, Copy, Debug)]
struct Softening(f32);

impl Softening {
    fn squared(self) -> f32 {
        self.0 * self.0
    }

    /// Whether `mass / softening³` may overflow. Pairs of bodies at the same place would multiply it with the distance
    /// 0, so they must be left out, which costs 5 to 10 %.
    fn is_careful(self) -> bool {
        self.0 < 1e-3
    }
}

/// How the GPU distributes pairs. `shaders/nbody.wgsl` repeats the first two numbers.
struct Sharing {
    /// Bodies per lane: each source that a lane loads serves all of them. On lavapipe, 4,096 bodies take 30, 10 and 7.4
    /// ms for 1, 4 and 8; with shared memory, 42, 14 and 9.1 ms.
    per_lane: usize,
    /// Lanes per workgroup.
    lanes: usize,
    /// Lanes that should fill a large GPU: a guess, not yet measured on one. With fewer bodies than this takes, several
    /// lanes share the sources of a body.
    wanted: usize,
    /// The most lanes that share the sources of a body.
    most_slices: usize,
    /// Sources that one dispatch sums on a software adapter, a multiple of the number that the shader sums at a time.
    /// Mesa's software adapter leaves a shader's loops silently after 65,535 rounds in all.
    software_sources: usize,
}

const SHARING: Sharing = Sharing {
    per_lane: 8,
    lanes: 64,
    wanted: 1 << 16,
    most_slices: 64,
    software_sources: 1 << 15,
};

impl Sharing {
    /// Every number of lanes that may share the sources of a body.
    fn choices(&self) -> impl Iterator<Item = usize> {
        (0..=self.most_slices.ilog2()).map(|log2| 1 << log2)
    }

    /// The number of lanes that share the sources of a body, a power of two, when there are `targets` bodies.
    fn slices(&self, targets: usize, kind: DeviceKind) -> usize {
        // A software adapter has few lanes, which one slice fills. Slices make it up to 40 % slower.
        if kind == DeviceKind::Software {
            return 1;
        }
        let lanes = targets.div_ceil(self.per_lane).max(1);
        self.wanted
            .div_ceil(lanes)
            .min(self.most_slices)
            .next_power_of_two()
    }

    /// The number of sources that one dispatch sums, at least 1.
    fn sources(&self, bodies: usize, kind: DeviceKind) -> usize {
        match kind {
            DeviceKind::Software => self.software_sources,
            _ => bodies.max(1),
        }
    }
}

impl NBody {
    pub(super) fn new(softening: f32, bodies: &Handle, accelerations: &Handle) -> Self {
        Self {
            softening: Softening(softening),
            bodies: bodies.clone(),
            accelerations: accelerations.clone(),
        }
    }
}

/// The number of bodies that an array of `len` elements holds.
pub(super) fn count_bodies(kernel: &str, len: usize) -> Result<usize> {
    if !len.is_multiple_of(WIDTH) {
        let problem = format!(
            "`bodies` has {len} elements, but every body has {WIDTH}: x, y, z and its mass"
        );
        return Err(Error::argument(kernel, problem));
    }
    Ok(len / WIDTH)
}

/// Refuses a softening for which no force can be computed.
pub(super) fn check_softening(kernel: &str, softening: f32) -> Result<()> {
    if softening >= 0.0 && (softening * softening).is_finite() {
        return Ok(());
    }
    let problem = format!("`softening` is {softening}; it must be a length from 0 to 1e19");
    Err(Error::argument(kernel, problem))
}

impl Pass for NBody {
    fn name(&self) -> &str {
        "nbody"
    }

    fn implementation(&self) -> u64 {
        SHADER.variant(u64::from(self.softening.is_careful()))
    }

    fn spec(&self) -> Result<LaunchSpec> {
        let len = self.bodies.len();
        let n = count_bodies("nbody", len)?;
        check_softening("nbody", self.softening.0)?;
        Error::check_length(
            "nbody",
            "accelerations",
            self.accelerations.len(),
            len,
            || format!("4 for each of {n} bodies"),
        )?;
        let bindings = [
            Binding::read(&self.bodies, Role::Whole),
            Binding::write(&self.accelerations, Role::rows(WIDTH)),
        ];
        Ok(LaunchSpec::new(n, bindings, FLOPS * n as f64 * n as f64).grain(GRAIN))
    }

    fn tolerance(&self, _: usize) -> Tolerance {
        Tolerance::Vectors {
            width: WIDTH,
            relative: 2.0 * WORST_ERROR,
        }
    }

    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()> {
        let bodies: &[Row] = bytemuck::cast_slice(part.read::<f32>(0));
        let targets = &bodies[part.items()];
        part.simd().run(Attract {
            targets,
            sources: bodies,
            softening: self.softening,
            accelerations: bytemuck::cast_slice_mut(part.write::<f32>(1)),
        });
        Ok(())
    }

    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()> {
        let (targets, bodies) = (part.len(), part.total());
        let slices = SHARING.slices(targets, part.kind());
        let careful = f64::from(u8::from(self.softening.is_careful()));
        let per_group = SHARING.per_lane * SHARING.lanes / slices;
        let constants = [("SLICES", slices as f64), ("CAREFUL", careful)];
        let args = [part.arg(0), part.arg(1)];
        let step = SHARING.sources(bodies, part.kind());
        for begin in (0..bodies).step_by(step) {
            let params = Params {
                bodies: bodies as u32,
                first: part.items().start as u32,
                targets: targets as u32,
                softening2: self.softening.squared(),
                begin: begin as u32,
                end: bodies.min(begin + step) as u32,
            };
            let groups = targets.div_ceil(per_group) as u32;
            part.dispatch_with(&SHADER, "main", &constants, &args, &params, groups)?;
        }
        Ok(())
    }
}

/// The largest error of a body's acceleration, relative to its length.
pub(crate) const WORST_ERROR: f64 = 1e-5;
/// The largest error for the median of many bodies.
pub(crate) const MEDIAN_ERROR: f64 = 2e-6;

/// Whole vectors of every instruction set, so that only the last part has unused lanes.
const GRAIN: usize = 16;

/// The acceleration of one body in f64.
pub(crate) fn exact(target: &Row, bodies: &[Row], softening: f32) -> [f64; 3] {
    let mut sum = [0.0; 3];
    for body in bodies {
        let d: [f64; 3] = std::array::from_fn(|i| f64::from(body[i]) - f64::from(target[i]));
        let square = d.iter().map(|d| d * d).sum::<f64>();
        if square < f64::from(LEAST_DISTANCE2) {
            continue;
        }
        let square = square + f64::from(softening).powi(2);
        let strength = f64::from(body[3]) / (square * square.sqrt());
        for (sum, d) in sum.iter_mut().zip(d) {
            *sum += strength * d;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_lanes_share_fewer_bodies() {
        let slices = |targets| SHARING.slices(targets, DeviceKind::Discrete);
        assert_eq!(
            [0, 1, 4096, 16_384, 65_536, 524_288, 1 << 24].map(slices),
            [64, 64, 64, 32, 8, 1, 1]
        );
        assert_eq!(SHARING.slices(1, DeviceKind::Software), 1);
    }
}
