//! One data-parallel loop.

use super::{CpuPart, ErrorBound, GpuPart, LaunchSpec, Tolerance};
use crate::error::Result;

/// One data-parallel loop over items, with an implementation for the CPU, for GPUs, or both.
///
/// Any device may compute an item, in any order, together with any other items. An implementation reads and writes only
/// the elements that its [`LaunchSpec`] declares for its items.
pub trait Pass: Send + Sync + 'static {
    /// The name for reports.
    fn name(&self) -> &str;

    /// A hash of the implementation, as [`Kernel::implementation`](super::Kernel::implementation); for a shader,
    /// [`Shader::hash`](super::Shader::hash).
    fn implementation(&self) -> u64 {
        0
    }

    /// The items, the arrays they touch, and what they cost. Checks the arguments.
    fn spec(&self) -> Result<LaunchSpec>;

    /// How far the results of two devices may be apart in the array with index `binding` in the launch spec.
    /// [`Policy::verify`](crate::Policy::verify) compares by it.
    fn tolerance(&self, binding: usize) -> Tolerance {
        let _ = binding;
        Tolerance::default()
    }

    /// How far the elements of that array may be from exact ones, on any device. By default half of what two devices
    /// may be apart; a pass overrides it if its devices promise different accuracy.
    fn error_bound(&self, binding: usize) -> ErrorBound {
        self.tolerance(binding).error_bound()
    }

    /// How the CPU cuts a part into tasks.
    fn cpu_tasks(&self) -> CpuTasks {
        CpuTasks::Ranges
    }

    /// Computes the items of `part` on the calling thread. Several threads call it at once, each with its own range of
    /// items.
    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()>;

    /// Encodes the items of `part` for a GPU. Divvy calls it for pieces of a part that fit the adapter's limits.
    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()>;
}

/// How the CPU runs a part of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CpuTasks {
    /// Divvy cuts the part into ranges of items and calls [`Pass::cpu`] for each, from every thread of the pool.
    Ranges,
    /// Divvy calls [`Pass::cpu`] once, inside the pool, with the number of threads it may use.
    Own,
}
