//! The planner's input beyond the rates of the machine.

use crate::cost::learned::{ExplorationBudget, PerfModel};
use crate::device::DeviceId;
use crate::device::DeviceSet;
use smallvec::SmallVec;
use std::sync::Arc;

/// What the planner knows beyond the rates of the machine: earlier runs of the kernel, and the state of the devices.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PlannerInput {
    /// The performance model of this kernel, learned from its runs.
    pub perf_model: PerfModel,
    /// What exploration may cost now.
    pub exploration_budget: ExplorationBudget,
    /// Seconds until a device has finished its submitted work; devices that are not listed are idle. A software adapter
    /// and the CPU share the cores: the backlog of either delays both.
    pub backlog: SmallVec<[(DeviceId, f64); 2]>,
    /// Devices that have not compiled their pipelines for this kernel yet.
    pub compiling: DeviceSet,
    /// Devices that cannot be used now, each with the reason.
    pub unusable: SmallVec<[(DeviceId, Arc<str>); 1]>,
}
