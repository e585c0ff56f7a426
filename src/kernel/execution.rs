//! The interface through which a kernel launches its passes.
//!
//! A kernel must not know who runs it: the same code runs for its results, to compile its shaders ahead, to recover the
//! contents of a lost GPU, and to verify a device.

use super::Pass;
use crate::array::Array;
use crate::element::Element;
use crate::error::Result;
use crate::simd::Simd;

/// Runs passes.
pub(crate) trait Launch: Send + Sync {
    /// Runs a pass as planned.
    fn launch(&mut self, pass: &dyn Pass) -> Result<()>;

    /// Runs a small follow-up pass unsplit.
    fn launch_small(&mut self, pass: &dyn Pass) -> Result<()>;

    /// The instruction set for loops that the kernel itself runs on the host.
    fn simd(&self) -> Simd;
}

/// A kernel's run in progress: [`Kernel::execute`](super::Kernel::execute) launches its passes through it.
pub struct Execution<'a> {
    launcher: &'a mut dyn Launch,
}

impl<'a> Execution<'a> {
    /// A run whose passes `launcher` runs.
    pub(crate) fn through(launcher: &'a mut dyn Launch) -> Self {
        Self { launcher }
    }

    /// Runs a pass as planned. It must have the number of items of the planned launch spec.
    ///
    /// # Errors
    /// Any error of a device, and [`Error::Argument`](crate::Error::Argument) if the pass declares outputs that
    /// overlap.
    pub fn launch<P: Pass>(&mut self, pass: &P) -> Result<()> {
        self.launcher.launch(pass)
    }

    /// Runs a small follow-up pass unsplit: on the device that ran everything before it, or on the CPU after a split.
    ///
    /// # Errors
    /// As [`Execution::launch`].
    pub fn launch_small<P: Pass>(&mut self, pass: &P) -> Result<()> {
        self.launcher.launch_small(pass)
    }

    /// The instruction set for loops that the kernel itself runs on the host.
    pub fn simd(&self) -> Simd {
        self.launcher.simd()
    }

    /// A temporary array.
    ///
    /// # Errors
    /// As [`Array::uninit`].
    pub fn uninit<T: Element>(&self, len: usize) -> Result<Array<T>> {
        Array::uninit(len)
    }
}
