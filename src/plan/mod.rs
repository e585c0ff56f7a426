//! Decides which items of a call run on which device, from predicted times alone.
//!
//! [`plan()`] returns the choice, [`explain()`] shows every candidate, and [`learn()`] records what a plan took. Plans and
//! explanations are pure: no clock, no device, no lock, no wgpu type. The same arguments always give the same plan, on real
//! machines and on invented ones.
//!
//! `src/plan/README.md` shows the path of a call through the module, its rules and their reasons.

mod balance;
pub(crate) mod cache;
mod candidates;
mod evaluation;
mod explain;
mod input;
mod learn;
mod load;
mod params;
mod planned;
mod policy;
mod request;
mod ruled_out;
mod split;
pub(crate) mod tiling;

pub(crate) use cache::{PlanCache, PlanKey};
pub use explain::{Alternative, AlternativePart, Exclusion, Explanation, explain};
pub use input::PlannerInput;
pub use learn::{Measured, learn};
pub use planned::{Evidence, Plan, PlannedPart};
pub use policy::{Objective, Policy};
pub use request::{Operand, Request, ValidRanges};

use crate::cost::Machine;
use crate::device::Placement;
use crate::error::Result;
use candidates::choose;

/// Plans a call.
///
/// # Errors
/// [`Error::NoSuchDevice`](crate::Error::NoSuchDevice) if `placement` names a device that `machine` does not have,
/// [`Error::Placement`](crate::Error::Placement) if its shares are invalid,
/// [`Error::Infeasible`](crate::Error::Infeasible) if no device that it allows can run the kernel.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::array::RangeSet;
/// use divvy::cost::{Curve, DeviceModel, Engine, Link, Machine};
/// use divvy::device::{DeviceId, DeviceKind, Placement};
/// use divvy::plan::{PlannerInput, Policy, Request, ValidRanges, plan};
/// use divvy::catalog;
///
/// // An invented machine: the GPU computes 100 times as fast as the CPU, behind a slow link of 1.5 GB/s.
/// let device = |id, kind, launch_seconds, speed: f64| {
///     let bandwidth = Curve::constant(1e10 * speed).expect("positive");
///     let engine = Engine::new(1, launch_seconds, 1e11 * speed, bandwidth);
///     DeviceModel::new(id, kind, format!("invented {id}"), vec![engine])
/// };
/// let mut gpu = device(DeviceId::Gpu(0), DeviceKind::Discrete, 2e-5, 100.0);
/// gpu.upload = Link::from_rate(1e-5, 1.5e9);
/// gpu.download = gpu.upload.clone();
/// let mut machine = Machine::default();
/// machine.devices = vec![device(DeviceId::Cpu, DeviceKind::Cpu, 0.0, 1.0), gpu];
/// for (kernel, n, best) in [("axpy", 1 << 20, DeviceId::Cpu), ("gemm", 4096, DeviceId::Gpu(0))] {
///     let spec = catalog::spec(kernel, n).expect("a kernel of the catalog")?;
///     let on_host = |array: &_| {
///         let array: &divvy::array::Handle = array;
///         ValidRanges::from_iter([(DeviceId::Cpu, RangeSet::from(0..array.len()))])
///     };
///     let request = Request::new(kernel, 0, &spec, on_host, |_| 1.0);
///     let plan = plan(&request, &machine, &PlannerInput::default(), &Placement::Auto, &Policy::default())?;
///     assert_eq!((plan.parts.len(), plan.parts[0].device), (1, best));
/// }
/// # Ok(())
/// # }
/// ```
pub fn plan(
    request: &Request<'_>,
    machine: &Machine,
    input: &PlannerInput,
    placement: &Placement,
    policy: &Policy,
) -> Result<Plan> {
    choose(request, machine, input, placement, policy)
}

#[cfg(test)]
mod tests;
