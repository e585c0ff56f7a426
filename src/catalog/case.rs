//! The one case: a kernel bound to random arguments, and everything that follows from that.

use super::Check;
use super::argument::Arguments;
use super::check::Checker;
use crate::device::Placement;
use crate::error::Result;
use crate::execute::Report;
use crate::kernel::{Call, Kernel, LaunchSpec, SharedKernel};
use crate::plan::{Explanation, Plan};
use crate::runtime::Runtime;
use std::fmt::Debug;
use std::sync::Arc;

/// A kernel bound to random arguments, with the reference to check it by.
pub trait Case: Send {
    /// Restores the drawn inputs and poisons outputs, so that an unwritten element shows. Afterwards every array is
    /// valid on the host only.
    fn reset(&mut self) -> Result<()>;

    /// Runs the kernel once. Keeps a returned value for [`Case::check`].
    fn run(&mut self, rt: &Runtime, placement: Placement) -> Result<Report>;

    /// What `run` with this placement would do, and why.
    fn explain(&mut self, rt: &Runtime, placement: Placement) -> Result<Explanation>;

    /// What `run` with this placement would do, without the reasons. It costs what planning costs a call.
    fn plan(&mut self, rt: &Runtime, placement: Placement) -> Result<Plan>;

    /// The kernel's launch spec.
    fn spec(&self) -> &LaunchSpec;

    /// Compares the last run's results with the reference, by the kernel's own error bounds. Only meaningful after
    /// `reset` and one `run`.
    fn check(&mut self) -> Result<Check>;

    /// The bytes of the last run's results, for comparisons between placements.
    fn bytes(&mut self) -> Result<Vec<u8>>;
}

/// A kernel, its arguments, and how its results are checked.
struct Bound<K: Kernel, A, C> {
    kernel: Arc<K>,
    spec: LaunchSpec,
    arguments: A,
    check: C,
    /// The value that the last run returned.
    value: Option<K::Output>,
}

/// The case of a kernel. `check` compares each written array, and the value, with the reference.
pub(super) fn bind<K: Kernel<Output: Debug + Send>, A: Arguments>(
    kernel: K,
    arguments: A,
    check: impl Fn(&mut Checker<'_>, &A, &K::Output) -> Result<()> + Send + 'static,
) -> Result<Box<dyn Case>> {
    Ok(Box::new(Bound {
        spec: kernel.spec()?,
        kernel: Arc::new(kernel),
        arguments,
        check,
        value: None,
    }))
}

impl<K: Kernel, A, C> Bound<K, A, C> {
    fn call(&self, placement: Placement) -> Call<'static, SharedKernel<K>> {
        Call::new(SharedKernel(Arc::clone(&self.kernel))).on(placement)
    }
}

impl<K: Kernel<Output: Debug + Send>, A: Arguments, C> Case for Bound<K, A, C>
where
    C: Fn(&mut Checker<'_>, &A, &K::Output) -> Result<()> + Send,
{
    fn reset(&mut self) -> Result<()> {
        self.value = None;
        self.arguments.reset()
    }

    fn run(&mut self, rt: &Runtime, placement: Placement) -> Result<Report> {
        let run = rt.run(self.call(placement))?;
        self.value = Some(run.value);
        Ok(run.report)
    }

    fn explain(&mut self, rt: &Runtime, placement: Placement) -> Result<Explanation> {
        rt.explain(&self.call(placement))
    }

    fn plan(&mut self, rt: &Runtime, placement: Placement) -> Result<Plan> {
        rt.plan(&self.call(placement))
    }

    fn spec(&self) -> &LaunchSpec {
        &self.spec
    }

    fn check(&mut self) -> Result<Check> {
        let bound_of = |binding: Option<usize>| match binding {
            Some(binding) => self.kernel.error_bound(binding),
            None => self.kernel.value_error_bound(),
        };
        let mut checker = Checker {
            spec: &self.spec,
            bound_of: &bound_of,
            check: Check::default(),
            compared: Vec::new(),
        };
        match &self.value {
            Some(value) => (self.check)(&mut checker, &self.arguments, value)?,
            None => checker.require(false),
        }
        Ok(checker.finish())
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        // Different values have different texts.
        let mut all = format!("{:?}", self.value).into_bytes();
        for array in self.spec.written() {
            array.take_windows(|bytes| {
                all.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        Ok(all)
    }
}
