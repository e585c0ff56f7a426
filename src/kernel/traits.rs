//! What a runtime runs.

use super::{ErrorBound, Execution, LaunchSpec, Pass, Tolerance};
use crate::error::Result;
use crate::hash::{fnv1a, mixed};

/// An operation bound to its arguments: what [`Runtime::run`](crate::Runtime::run) runs.
///
/// Every [`Pass`] is a kernel without a value. Implement this trait directly for operations that need several
/// passes or return a value.
pub trait Kernel: Send + Sync + 'static {
    /// What a run gives back to the caller.
    type Output;

    /// The name under which the kernel is reported and its speed is learned.
    fn name(&self) -> &str;

    /// A hash of the implementation: what was learned of another one's speed is not believed. Kernels that do the same
    /// in ways of different speed, such as one for each of several functions, give each its own. Asked for on every
    /// call, so it must be at hand.
    fn implementation(&self) -> u64 {
        0
    }

    /// Checks the arguments and describes the pass that dominates, which is the one that is placed.
    fn spec(&self) -> Result<LaunchSpec>;

    /// Runs the passes, through [`Execution::launch`]. It may be run again later, on the same elements, to bring back what
    /// a lost GPU held, and must then compute the same; the value of that is dropped.
    fn execute(&self, cx: &mut Execution<'_>) -> Result<Self::Output>;

    /// How far the elements may be from exact ones in the array that is number `binding` of the spec: what tests hold
    /// a result against a reference by. For a pass it follows from [`Pass::tolerance`].
    fn error_bound(&self, binding: usize) -> ErrorBound {
        let _ = binding;
        Tolerance::default().error_bound()
    }

    /// How far the value may be from the exact one.
    fn value_error_bound(&self) -> ErrorBound {
        ErrorBound::Exact
    }

    /// Whether it launches one pass with its own outline and nothing else, so that any of its items can be computed
    /// again without the others.
    #[doc(hidden)]
    fn is_one_pass(&self) -> bool {
        false
    }
}

impl<P: Pass> Kernel for P {
    type Output = ();

    fn name(&self) -> &str {
        Pass::name(self)
    }

    fn implementation(&self) -> u64 {
        Pass::implementation(self)
    }

    fn spec(&self) -> Result<LaunchSpec> {
        Pass::spec(self)
    }

    fn execute(&self, cx: &mut Execution<'_>) -> Result<()> {
        cx.launch(self)
    }

    fn error_bound(&self, binding: usize) -> ErrorBound {
        Pass::error_bound(self, binding)
    }

    fn is_one_pass(&self) -> bool {
        true
    }
}

/// A hash of a kernel's name and implementation.
pub(crate) fn identity<K: Kernel + ?Sized>(kernel: &K) -> u64 {
    mixed(fnv1a(kernel.name().bytes()), kernel.implementation())
}
