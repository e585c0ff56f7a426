//! What is known of a GPU before it is used, and what the caller wants of it. Knows nothing of wgpu.

use super::tuning::Tuning;
use crate::device::DeviceKind;
use std::time::Duration;

/// Identifies an opened GPU within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GpuId(pub(crate) u64);

/// What an adapter says of itself.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GpuInfo {
    /// The adapter's name.
    pub name: String,
    /// The driver and its version.
    pub driver: String,
    /// The API it is reached through: vulkan, metal or dx12.
    pub backend: String,
    /// What sort of device it is; software adapters are [`DeviceKind::Software`].
    pub kind: DeviceKind,
    /// What it can bind, allocate and dispatch.
    pub limits: GpuLimits,
    pub(super) hardware: HardwareId,
}

/// Tells devices apart whatever API shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HardwareId {
    pub(super) vendor: u32,
    pub(super) device: u32,
    pub(super) pci_bus: String,
}

impl GpuInfo {
    /// The most that is taken of its memory, if the caller sets no budget: what the driver tells, less what the driver,
    /// the screen and other programs may need of it.
    pub(super) fn default_budget(&self, tuning: &Tuning) -> Option<u64> {
        let all = self.limits.memory_bytes?;
        Some(all - (all / 16).max(tuning.reserved_memory).min(all / 2))
    }

    /// Whether both are the same device behind different APIs.
    pub(super) fn same_hardware(&self, other: &Self) -> bool {
        self.backend != other.backend && self.hardware == other.hardware && self.name == other.name
    }
}

/// What an adapter can bind, allocate and dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuLimits {
    /// The largest window of a buffer that a dispatch can see, in bytes.
    pub max_binding_bytes: u64,
    /// The largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// The most workgroups along one dimension of a dispatch.
    pub max_groups: u32,
    /// The most memory that a workgroup can share, in bytes.
    pub max_workgroup_bytes: u32,
    /// The most arrays that a dispatch can see.
    pub max_arrays: u32,
    /// The largest uniform, in bytes.
    pub max_uniform_bytes: u64,
    /// All of its memory, if the driver tells.
    pub memory_bytes: Option<u64>,
}

/// How GPUs are opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct GpuOptions {
    /// Compile built-in shaders with run-time checks too.
    pub(crate) checked_shaders: bool,
    /// Use no larger windows than this, although the adapter could.
    pub(crate) max_binding_bytes: Option<u64>,
    /// Use no larger buffers than this, although the adapter could.
    pub(crate) max_buffer_bytes: Option<u64>,
    /// Bind no more arrays at once than this, although the adapter could.
    pub(crate) max_arrays: Option<u32>,
    /// Take no more of its memory than this.
    pub(crate) memory_budget: Option<u64>,
    /// Fail allocations as a driver with no more memory than this would.
    pub(crate) driver_bytes: Option<u64>,
    /// Take a submission that is not done after this time to hang, unless it is predicted to take that long.
    pub(crate) hang_limit: Option<Duration>,
    /// The numbers that tune it.
    pub(crate) tuning: Tuning,
}
