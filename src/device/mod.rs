//! The devices that run kernels: the CPU and GPUs.
//!
//! `cpu` owns the rayon pool, and `gpu` owns all of wgpu. This room knows no array and no kernel, and decides nothing:
//! the planner decides, in [`plan`](mod@crate::plan).

pub(crate) mod buffer_size;
pub(crate) mod cpu;
mod devices;
pub(crate) mod gpu;
mod id;
mod kind;
mod managed_gpu;
mod params;
mod placement;
mod region;
mod set;

pub(crate) use devices::Devices;
pub(crate) use gpu::{Clock, Reading};
#[doc(hidden)]
pub use gpu::{FaultPoint, Faults};
pub use gpu::{GpuInfo, GpuLimits, GpuMemory};
pub use id::DeviceId;
pub use kind::DeviceKind;
pub(crate) use managed_gpu::ManagedGpu;
pub use managed_gpu::UnusableGpu;
pub use placement::Placement;
pub use set::DeviceSet;
