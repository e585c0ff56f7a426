//! The trait of everything that a runtime runs.

use super::{ErrorBound, Execution, LaunchSpec, Pass, Tolerance};
use crate::error::Result;
use crate::hash::{fnv1a, mixed};

/// An operation bound to its arguments, which [`Runtime::run`](crate::Runtime::run) runs.
///
/// Every [`Pass`] is a kernel without a value. Implement this trait directly for operations that need several passes or
/// return a value.
pub trait Kernel: Send + Sync + 'static {
    /// The value that a run returns to the caller.
    type Output;

    /// The name in reports. Divvy learns the kernel's speed under this name.
    fn name(&self) -> &str;

    /// A hash of the implementation. Divvy discards what it learned about another implementation's speed. A kernel
    /// whose variants differ in speed, such as one for each of several functions, gives each its own hash. Divvy calls
    /// this for every call, so it must be cheap.
    fn implementation(&self) -> u64 {
        0
    }

    /// Checks the arguments and describes the dominant pass, which is the one that is placed.
    fn spec(&self) -> Result<LaunchSpec>;

    /// Runs the passes, through [`Execution::launch`]. To recover the contents of a lost GPU, Divvy may run it again
    /// later on the same elements; it must then compute the same results, and the value of that run is dropped.
    fn execute(&self, cx: &mut Execution<'_>) -> Result<Self::Output>;

    /// How far the elements of the array with index `binding` in the launch spec may be from exact ones. Tests compare
    /// a result with a reference by it. For a pass it follows from [`Pass::tolerance`].
    fn error_bound(&self, binding: usize) -> ErrorBound {
        let _ = binding;
        Tolerance::default().error_bound()
    }

    /// How far the value may be from the exact one.
    fn value_error_bound(&self) -> ErrorBound {
        ErrorBound::Exact
    }

    /// Whether it launches exactly one pass, with the kernel's own launch spec, so that any of its items can be
    /// recomputed alone.
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
