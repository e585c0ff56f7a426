//! A GPU as a device: an opened wgpu adapter with its buffers, pipelines, staging and queue.
//!
//! Owns everything of wgpu; no type of it leaves this folder but that of [`useful_features`], for a tool. Knows buffers
//! and shaders, never arrays or kernels
//! by name. Nothing here panics on what a driver does: errors that wgpu reports out of band are kept and returned by
//! the next operation.
//!
//! From the ground up, each over those before it: `connection` (the driver's side), `memory` and `allocation`, `pool`,
//! `pipelines`, `staging`, `recorder`, `gpu`, and on top `adapter` and `discovery`, which open one. What a [`Gpu`] can do
//! is told by theme in `allocate`, `transfer`, `eviction` and `compile_ahead`.

mod adapter;
mod allocate;
mod allocation;
mod bind_groups;
mod clock;
mod compile_ahead;
mod connection;
mod discovery;
mod dispatch;
mod eviction;
mod extents;
mod faults;
#[expect(
    clippy::module_inception,
    reason = "the file of the type that the folder is about"
)]
mod gpu;
mod info;
mod memory;
mod pipelines;
mod pool;
mod readiness;
mod recorder;
pub(crate) mod self_test;
mod shader;
mod staging;
mod stamps;
#[cfg(test)]
mod tests;
mod timeline;
mod transfer;
mod tuning;

pub use adapter::useful_features;
pub(crate) use adapter::{Adapter, OpenGpu};
pub(crate) use clock::{Clock, Reading};
pub(crate) use discovery::{Discovery, discover};
pub(crate) use dispatch::{Arity, Dispatch, EntryPoint, Window};
pub(crate) use extents::{Evict, Evicted, ExtentId, Gate, Registration, Victims};
pub use faults::{FaultPoint, Faults};
pub(crate) use gpu::Gpu;
pub(crate) use info::{GpuId, GpuOptions};
pub use info::{GpuInfo, GpuLimits};
pub use memory::GpuMemory;
pub(crate) use memory::LEAST_BUDGET;
pub(crate) use pool::DeviceBuffer;
pub(crate) use readiness::Readiness;
pub(crate) use shader::BOOL;
pub(crate) use shader::TypedShaders;
pub use shader::{BindingKind, Shader, Specialization};
