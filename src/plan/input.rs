//! What the planner knows beyond the rates of the machine.

use crate::cost::learned::{ExplorationBudget, PerfModel};
use crate::device::DeviceId;
use crate::device::DeviceSet;
use smallvec::SmallVec;
use std::sync::Arc;

/// What is known beyond the rates of the machine: what runs of the kernel taught, and what the devices are doing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PlannerInput {
    /// What runs of this kernel taught.
    pub perf_model: PerfModel,
    /// What may be spent now on finding out whether another way is faster.
    pub exploration_budget: ExplorationBudget,
    /// Seconds until a device is done with the work it has; devices that are not listed are idle. A software adapter
    /// and the CPU share one: what either has to do delays both.
    pub backlog: SmallVec<[(DeviceId, f64); 2]>,
    /// Devices whose pipelines for this kernel are not compiled yet.
    pub compiling: DeviceSet,
    /// Devices that cannot be used now, and why not.
    pub unusable: SmallVec<[(DeviceId, Arc<str>); 1]>,
}
