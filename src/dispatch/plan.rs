//! Decides which items of a call run on which device, from predicted times alone.
//!
//! Pure: no clock, no device, no lock, no wgpu type. Everything it knows is in its arguments, so that the same
//! arguments always give the same plan, on real machines and on invented ones. `consider` finds the candidates and
//! chooses; this takes the choice, and `explain` shows all of it.

use super::consider::choose;
use super::placement::Placement;
use crate::array::{Handle, RangeSet};
use crate::cost::{Machine, Prediction};
use crate::device::DeviceId;
use crate::error::Result;
use crate::kernel::{Access, Outline, Role, Work};
use smallvec::SmallVec;
use std::ops::Range;

/// What is to be planned: the outline of a call, and where its arrays are valid.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The kernel's name.
    pub kernel: &'a str,
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
    /// The arrays.
    pub operands: SmallVec<[Operand; 4]>,
}

/// An array of a request.
#[derive(Clone, Debug)]
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
}

/// The elements of an array that are valid on each device; [`DeviceId::Cpu`] stands for the host's memory.
/// A device that is not listed holds none.
pub type Residency = SmallVec<[(DeviceId, RangeSet); 2]>;

impl<'a> Request<'a> {
    /// The request for a kernel's outline; `residency` says where an array is valid.
    pub fn new(
        kernel: &'a str,
        outline: &Outline,
        residency: impl Fn(&Handle) -> Residency,
    ) -> Self {
        let operands = outline.bindings.iter().map(|binding| Operand {
            role: binding.role,
            access: binding.access,
            len: binding.array.len(),
            element_bytes: binding.array.element_type().size(),
            residency: residency(&binding.array),
        });
        Self {
            kernel,
            items: outline.items,
            border_grain: outline.border_grain(),
            work: outline.work,
            has_cpu: outline.has_cpu,
            has_gpu: outline.has_gpu,
            returned_bytes: outline.returned_bytes,
            operands: operands.collect(),
        }
    }
}

/// When the planner prefers what over what.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Policy {
    /// The share of the best single device's time that a split must save to be chosen. 10 %, because the
    /// equal-finish estimate flatters itself.
    pub split_gain: f64,
    /// How many times slower per item than the fastest a device may be and still get a part. 8: what such a device
    /// could save is less than the margin above.
    pub split_speed_ratio: f64,
    /// How many times longer a device takes while the others of a split run too. A guess until pairs are measured.
    pub corun_slowdown: f64,
    /// The share of the time that must be saved for a call to leave the device that holds its data.
    pub hysteresis: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            split_gain: 0.1,
            split_speed_ratio: 8.0,
            corun_slowdown: 1.1,
            hysteresis: 0.1,
        }
    }
}

/// Which part runs where, and how long it is predicted to take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Contiguous, ascending, none empty, one per device. None at all if there are no items.
    pub parts: SmallVec<[PlannedPart; 2]>,
    /// Seconds from the call until its results are complete.
    pub predicted_seconds: f64,
}

/// A part of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedPart {
    /// Where it runs.
    pub device: DeviceId,
    /// Its items.
    pub range: Range<usize>,
    /// CPU threads that compute it: 1 or the pool's. 1 on a GPU.
    pub threads: usize,
    /// What its time is made of.
    pub predicted: Prediction,
}

/// Plans a call.
///
/// # Errors
/// [`Error::NoSuchDevice`](crate::Error::NoSuchDevice) if `placement` names a device that `machine` does not have, [`Error::Placement`](crate::Error::Placement) if its
/// shares cannot be used, [`Error::Infeasible`](crate::Error::Infeasible) if the devices that it allows cannot run the kernel.
pub fn plan(
    request: &Request<'_>,
    machine: &Machine,
    placement: &Placement,
    policy: &Policy,
) -> Result<Plan> {
    choose(request, machine, placement, policy)
}

#[cfg(test)]
mod tests;
