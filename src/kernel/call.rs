//! A kernel with the borrows of its arguments.

use super::{ErrorBound, Execution, Kernel, LaunchSpec};
use crate::device::Placement;
use crate::error::Result;
use std::marker::PhantomData;
use std::sync::Arc;

/// A kernel with the borrows of its arguments and, optionally, a placement.
///
/// Constructors such as [`axpy`](crate::kernels::axpy()) return one; pass it to [`Runtime::run`](crate::Runtime::run).
/// Because the constructor borrows written arrays as `&mut`, the borrow checker refuses aliasing:
///
/// ```compile_fail,E0502
/// # use divvy::prelude::*;
/// # let rt = Runtime::builder().cpu_only().build()?;
/// let mut x = rt.array_from(&[1.0f32])?;
/// rt.run(axpy(2.0, &x, &mut x))?; // `x` is also borrowed as immutable
/// # Ok::<(), divvy::Error>(())
/// ```
#[must_use = "a call does nothing until it is given to `Runtime::run`"]
pub struct Call<'a, K> {
    pub(crate) kernel: K,
    pub(crate) placement: Option<Placement>,
    pub(crate) read_back: Option<bool>,
    pub(crate) borrows: PhantomData<&'a mut ()>,
}

impl<'a, K: Kernel> Call<'a, K> {
    /// Wraps a kernel. The lifetime must be that of the borrows through which the kernel reached its arrays. A
    /// constructor's signature ties it, as in `fn scale<'a>(x: &'a mut Array<f32>) -> Call<'a, Scale>`.
    pub fn new(kernel: K) -> Self {
        Self {
            kernel,
            placement: None,
            read_back: None,
            borrows: PhantomData,
        }
    }

    /// Sets the placement of this call, which overrides the runtime's default.
    pub fn on(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
        self
    }

    /// Says whether the host will read what the call writes before it is written again. This matters for the cost of
    /// results on a GPU. Without it, Divvy infers the answer from what happened to earlier results in the same arrays,
    /// and assumes that the host reads the first results in full.
    pub fn read_back(mut self, wanted: bool) -> Self {
        self.read_back = Some(wanted);
        self
    }

    /// The kernel.
    pub fn kernel(&self) -> &K {
        &self.kernel
    }
}

/// A kernel with several owners.
pub(crate) struct SharedKernel<K>(pub(crate) Arc<K>);

impl<K: Kernel> Kernel for SharedKernel<K> {
    type Output = K::Output;

    fn name(&self) -> &str {
        self.0.name()
    }

    fn implementation(&self) -> u64 {
        self.0.implementation()
    }

    fn spec(&self) -> Result<LaunchSpec> {
        self.0.spec()
    }

    fn execute(&self, cx: &mut Execution<'_>) -> Result<K::Output> {
        self.0.execute(cx)
    }

    fn error_bound(&self, binding: usize) -> ErrorBound {
        self.0.error_bound(binding)
    }

    fn value_error_bound(&self) -> ErrorBound {
        self.0.value_error_bound()
    }

    fn is_one_pass(&self) -> bool {
        self.0.is_one_pass()
    }
}
