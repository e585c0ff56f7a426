//! Decides which items of a call run on which device, from predicted times alone.
//!
//! Pure: no clock, no device, no lock, no wgpu type. Everything it knows is in its arguments, so that the same
//! arguments always give the same plan, on real machines and on invented ones. `consider` finds the candidates and
//! chooses; this takes the choice, and `explain` shows all of it.

use super::consider::choose;
use super::placement::Placement;
use crate::array::{Handle, RangeSet};
use crate::cost::learned::{Allowance, Arm, DeviceSet, Experience, KernelKey};
use crate::cost::{Machine, Prediction};
use crate::device::DeviceId;
use crate::error::Result;
use crate::kernel::{Access, Outline, Role, Work};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;

/// What is to be planned: the outline of a call, and where its arrays are valid.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The kernel.
    pub kernel: KernelKey<'a>,
    /// The length of the outermost axis.
    pub items: usize,
    /// What borders between parts are multiples of: [`Outline::border_grain`].
    pub border_grain: usize,
    /// What all items cost.
    pub work: Work,
    /// Whether the CPU can run it.
    pub has_cpu: bool,
    /// Whether GPUs can run it.
    pub has_gpu: bool,
    /// Bytes that the caller gets as a value after the run.
    pub returned_bytes: usize,
    /// Bytes of the largest uniform that a GPU needs for it.
    pub uniform_bytes: usize,
    /// The arrays.
    pub operands: SmallVec<[Operand; 4]>,
}

/// An array of a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Operand {
    /// Which elements belong to a range of items.
    pub role: Role,
    /// What happens to them.
    pub access: Access,
    /// Elements of the whole array.
    pub len: usize,
    /// Bytes of one element.
    pub element_bytes: usize,
    /// Where which elements are valid.
    pub residency: Residency,
    /// The share of what is written that the host is expected to read before it is written again, from 0 to 1.
    pub read_back: f64,
}

/// The elements of an array that are valid on each device; [`DeviceId::Cpu`] stands for the host's memory.
/// A device that is not listed holds none.
pub type Residency = SmallVec<[(DeviceId, RangeSet); 2]>;

impl<'a> Request<'a> {
    /// The request for a kernel's outline; `residency` says where an array is valid, `read_back` how much of it is
    /// expected to be read on the host afterwards.
    pub fn new(
        name: &'a str,
        implementation: u64,
        outline: &Outline,
        residency: impl Fn(&Handle) -> Residency,
        read_back: impl Fn(&Handle) -> f64,
    ) -> Self {
        let operands = outline.bindings.iter().map(|binding| Operand {
            role: binding.role,
            access: binding.access,
            len: binding.array.len(),
            element_bytes: binding.array.element_type().size(),
            residency: residency(&binding.array),
            read_back: if binding.access.writes() {
                read_back(&binding.array)
            } else {
                0.0
            },
        });
        Self {
            kernel: KernelKey {
                name,
                element_type: outline.element_type(),
                implementation,
            },
            items: outline.items,
            border_grain: outline.border_grain(),
            work: outline.work,
            has_cpu: outline.has_cpu,
            has_gpu: outline.has_gpu,
            returned_bytes: outline.returned_bytes,
            uniform_bytes: outline.uniform_bytes,
            operands: operands.collect(),
        }
    }
}

/// What is known beyond the rates of the machine: what runs of the kernel taught, and what the devices are doing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Knowledge {
    /// What runs of this kernel taught.
    pub experience: Experience,
    /// What may be spent now on finding out whether another way is faster.
    pub allowance: Allowance,
    /// Seconds until a device is done with the work it has; devices that are not listed are idle. A software adapter
    /// and the CPU share one: what either has to do delays both.
    pub backlog: SmallVec<[(DeviceId, f64); 2]>,
    /// Devices whose pipelines for this kernel are not compiled yet.
    pub compiling: DeviceSet,
    /// Devices that cannot be used now, and why not.
    pub unusable: SmallVec<[(DeviceId, Arc<str>); 1]>,
}

/// When the planner prefers what over what.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Policy {
    /// What is to be the least.
    pub objective: Objective,
    /// The share of the best single device's time that a split must save to be chosen. 10 %, because the
    /// equal-finish estimate flatters itself.
    pub split_gain: f64,
    /// How many times slower per item than the fastest a device may be and still get a part. 8: what such a device
    /// could save is less than the margin above.
    pub split_speed_ratio: f64,
    /// How many times longer a device takes while others of a split run too, if a pair was not measured: 1.1.
    pub corun_slowdown: f64,
    /// The share of the time that must be saved for a call to leave the device that holds its data: 10 %.
    pub hysteresis: f64,
    /// How many times as long as the fastest known way another may be predicted to take to be tried at all. How much time
    /// goes into trying is the learner's to say: [`Learner::allowance`](crate::cost::learned::Learner::allowance).
    pub exploration_limit: f64,
    /// The share of parts that are verified, from 0 to 1: see [`Policy::verify`]. If it is 0, `DIVVY_VERIFY` may say more.
    pub verified_share: f64,
}

/// What a plan is to make the least of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Objective {
    /// The time until the results are complete.
    #[default]
    Time,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            objective: Objective::Time,
            split_gain: 0.1,
            split_speed_ratio: 8.0,
            corun_slowdown: 1.1,
            hysteresis: 0.1,
            exploration_limit: 3.0,
            verified_share: 0.0,
        }
    }
}

impl Policy {
    /// Has a share of the parts, from 0 to 1 and drawn at random, computed a second time on another device, and the results
    /// compared as the [`Tolerance`](crate::kernel::Tolerance) of each pass allows: of parts on GPUs by the CPU, if the
    /// kernel has an implementation for it, and of parts on the CPU by a GPU.
    ///
    /// A call whose results disagree fails with [`Error::Mismatch`](crate::Error::Mismatch). When three verifications in a
    /// row speak against a GPU, nothing is placed on it any more, and [`Runtime::gpus_set_aside`](crate::Runtime::gpus_set_aside) names it.
    ///
    /// A part that is verified is waited for, takes as long again as on the other device, and needs host memory for what it
    /// reads and writes. [`Report::verified`](crate::Report) counts them. `DIVVY_VERIFY=0.01` in the environment asks for the same.
    ///
    /// ```
    /// # fn main() -> divvy::Result<()> {
    /// use divvy::{Policy, prelude::*};
    ///
    /// let rt = Runtime::builder().policy(Policy::default().verify(0.01)).build()?;
    /// let x = rt.filled(1000, 1.0f32)?;
    /// assert_eq!(rt.run(sum(&x))?.value, 1000.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn verify(self, fraction: f64) -> Self {
        Self {
            verified_share: fraction,
            ..self
        }
    }
}

/// Which part runs where, and how long it is predicted to take.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// Contiguous, ascending, none empty, one per device. None at all if there are no items.
    pub parts: SmallVec<[PlannedPart; 2]>,
    /// Seconds from the call until its results are complete, and where the caller is expected to read them.
    pub predicted_seconds: f64,
    /// Of these, seconds to put the results of the parts together.
    pub combine_seconds: f64,
    /// How large the call is to the learner: log2 of the sum of its operations, bytes and items.
    pub size: f64,
    /// Whether it was chosen to find out how long it takes, rather than as the fastest known.
    pub exploring: bool,
    /// Devices that would have been chosen or tried, were their pipelines compiled.
    pub awaits: DeviceSet,
}

impl Plan {
    /// Whether no GPU has a part in it.
    pub(crate) fn is_on_cpu(&self) -> bool {
        self.parts.iter().all(|part| part.device == DeviceId::Cpu)
    }
}

/// A part of a plan.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PlannedPart {
    /// Where it runs.
    pub device: DeviceId,
    /// Its items.
    pub range: Range<usize>,
    /// CPU threads that compute it: 1 or the pool's. 1 on a GPU.
    pub threads: usize,
    /// What its time is made of.
    pub predicted: Prediction,
    /// What the prediction rests on.
    pub evidence: Evidence,
}

/// What a prediction rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Evidence {
    /// The way of running that its measurements will be learned for.
    pub arm: Arm,
    /// log2 of the sum of its operations, bytes and items.
    pub size: f64,
    /// Seconds that the prior gives it, without waiting and without what the caller reads back.
    pub prior_seconds: f64,
    /// Measurements that it rests on most: those at the nearest size that was measured, of this way or, if it was not
    /// measured, of the way that tells of it. 0 if it is predicted from the prior alone.
    pub samples: u64,
    /// The standard deviation of the natural logarithm of the predicted seconds: 0.1 means about 10 %.
    pub uncertainty: f64,
    /// Whether it is larger, or smaller, than everything that was measured.
    pub extrapolated: bool,
}

/// Plans a call.
///
/// # Errors
/// [`Error::NoSuchDevice`](crate::Error::NoSuchDevice) if `placement` names a device that `machine` does not have, [`Error::Placement`](crate::Error::Placement) if its
/// shares cannot be used, [`Error::Infeasible`](crate::Error::Infeasible) if the devices that it allows cannot run the kernel.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::array::RangeSet;
/// use divvy::cost::{Curve, DeviceModel, Engine, Limits, Link, Machine};
/// use divvy::device::{DeviceId, DeviceKind};
/// use divvy::dispatch::plan::{Request, Residency};
/// use divvy::dispatch::{Knowledge, Placement, Policy, plan};
/// use divvy::kernels::catalog;
///
/// // A machine that nobody has: the GPU computes 100 times as fast, behind a slow link of 1.5 GB/s.
/// let device = |id, kind, launch_seconds, speed: f64, link: Option<Link>| DeviceModel {
///     id,
///     kind,
///     name: format!("invented {id}"),
///     engines: vec![Engine {
///         threads: 1,
///         launch_seconds,
///         flops_per_second: 1e11 * speed,
///         bandwidth: Curve::constant(1e10 * speed).expect("positive"),
///     }],
///     queued_seconds: 0.0,
///     upload: link.clone(),
///     download: link,
///     limits: Limits::default(),
/// };
/// let machine = Machine {
///     devices: vec![
///         device(DeviceId::Cpu, DeviceKind::Cpu, 0.0, 1.0, None),
///         device(DeviceId::Gpu(0), DeviceKind::Discrete, 2e-5, 100.0, Link::from_rate(1e-5, 1.5e9)),
///     ],
///     corun: Vec::new(),
/// };
/// for (kernel, n, best) in [("axpy", 1 << 20, DeviceId::Cpu), ("gemm", 4096, DeviceId::Gpu(0))] {
///     let outline = catalog::outline(kernel, n).expect("a kernel of the catalog")?;
///     let on_host = |array: &_| {
///         let array: &divvy::array::Handle = array;
///         Residency::from_iter([(DeviceId::Cpu, RangeSet::from(0..array.len()))])
///     };
///     let request = Request::new(kernel, 0, &outline, on_host, |_| 1.0);
///     let plan = plan(&request, &machine, &Knowledge::default(), &Placement::Auto, &Policy::default())?;
///     assert_eq!((plan.parts.len(), plan.parts[0].device), (1, best));
/// }
/// # Ok(())
/// # }
/// ```
pub fn plan(
    request: &Request<'_>,
    machine: &Machine,
    knowledge: &Knowledge,
    placement: &Placement,
    policy: &Policy,
) -> Result<Plan> {
    choose(request, machine, knowledge, placement, policy)
}

#[cfg(test)]
mod tests;
