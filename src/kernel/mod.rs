//! What a kernel is: an operation bound to its arguments. It runs on the CPU, on a GPU, or in parts on several devices.
//!
//! There are two traits. A [`Pass`] is one data-parallel loop over *items* (the outermost axis of the operation:
//! elements, rows, bodies). It declares which elements of which arrays each range of items reads and writes
//! ([`LaunchSpec`]), computes a range on the CPU, and encodes one for a GPU. It can be cut at any multiple of its
//! grain. A [`Kernel`] is what [`Runtime::run`](crate::Runtime::run) takes. Most kernels are one pass; others are a
//! short program of passes over temporary arrays (a sum is block sums, then sums of those).
//!
//! The kernel owns reference-counted handles to its arrays, so that it can be kept and run again. [`Call`] adds the
//! lifetime that holds the caller's borrows, and the requested placement.
//!
//! This module must never know a device's API, which belongs to `device/gpu`, or a plan: kernels launch their passes
//! through an [`Execution`], which hides who runs them.

mod call;
mod cpu_part;
mod custom;
mod error_bound;
mod execution;
mod fold;
mod gpu_part;
mod launch_spec;
mod pass;
mod tolerance;
mod traits;
mod wgsl;

pub use call::Call;
pub(crate) use call::SharedKernel;
pub use cpu_part::CpuPart;
pub(crate) use cpu_part::HostView;
pub(crate) use custom::FOLD_SHADERS;
pub use custom::{BoundWgsl, PartItems, WgslArgs, WgslKernel, WgslKernelBuilder};
pub use error_bound::{ErrorBound, Exact};
pub(crate) use error_bound::{Precision, relative_error};
pub use execution::Execution;
pub(crate) use execution::Launch;
pub use fold::Fold;
pub(crate) use gpu_part::Views;
pub use gpu_part::{GpuArg, GpuPart};
pub use launch_spec::{Access, Binding, Bindings, LaunchSpec, Role, Work};
pub use pass::{CpuTasks, Pass};
pub use tolerance::Tolerance;
pub use traits::Kernel;
pub(crate) use traits::identity;

pub(crate) use crate::device::gpu::BOOL;
#[doc(hidden)]
pub use crate::device::gpu::Specialization;
pub use crate::device::gpu::{BindingKind, Shader};
