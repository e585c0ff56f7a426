//! What a kernel is: an operation bound to its arguments, that can run on the CPU, on a GPU, or in parts
//! on several devices.
//!
//! Two traits. A [`Pass`] is one data-parallel loop over *items* (the outermost axis of the operation:
//! elements, rows, bodies): it says which elements of which arrays each range of items reads and writes
//! ([`Outline`]), how to compute a range on the CPU, and how to encode one on a GPU. It can be cut at any
//! multiple of its grain. A [`Kernel`] is what [`Runtime::run`](crate::Runtime::run) takes: most are one pass,
//! others are a short program of passes over temporary arrays (a sum is block sums, then sums of those).
//!
//! The kernel owns reference-counted handles to its arrays, so that it can be kept and replayed; [`Call`] adds
//! the lifetime that holds the caller's borrows, and the placement asked for.
//!
//! This module must never know a device's API: `device/gpu` knows wgpu, `dispatch` knows plans.

mod custom;
mod gpu_part;
mod outline;
mod tolerance;
mod wgsl;

pub use custom::{BoundWgsl, Fold, PartItems, WgslArgs, WgslKernel, WgslKernelBuilder};
pub(crate) use gpu_part::Views;
pub use gpu_part::{GpuArg, GpuPart};
pub use outline::{Access, Binding, Bindings, Outline, Role, Work};
pub use tolerance::Tolerance;

use crate::dispatch::{Execution, Placement};
use crate::error::Result;
use crate::hash::{fnv1a, mixed};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

pub use crate::device::cpu::CpuPart;
pub use crate::device::gpu::{BindingKind, Shader};

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
    fn outline(&self) -> Result<Outline>;

    /// Runs the passes, through [`Execution::launch`]. It may be run again later, on the same elements, to bring back what
    /// a lost GPU held, and must then compute the same; the value of that is dropped.
    fn execute(&self, cx: &mut Execution<'_>) -> Result<Self::Output>;

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

    fn outline(&self) -> Result<Outline> {
        Pass::outline(self)
    }

    fn execute(&self, cx: &mut Execution<'_>) -> Result<()> {
        cx.launch(self)
    }

    fn is_one_pass(&self) -> bool {
        true
    }
}

/// One data-parallel loop over items, with an implementation for the CPU, for GPUs, or both.
///
/// An item may be computed on any device, in any order, together with any others: an implementation reads and
/// writes only what its [`Outline`] declares for the items it is given.
pub trait Pass: Send + Sync + 'static {
    /// The name for reports.
    fn name(&self) -> &str;

    /// A hash of the implementation, as [`Kernel::implementation`]: for a shader [`Shader::hash`].
    fn implementation(&self) -> u64 {
        0
    }

    /// The items, the arrays they touch, and what they cost. Checks the arguments.
    fn outline(&self) -> Result<Outline>;

    /// How far the results of two devices may be apart in the array that is number `binding` of the outline: what
    /// [`Policy::verify`](crate::Policy::verify) compares by.
    fn tolerance(&self, binding: usize) -> Tolerance {
        let _ = binding;
        Tolerance::default()
    }

    /// How the CPU cuts a part into tasks.
    fn cpu_tasks(&self) -> CpuTasks {
        CpuTasks::Ranges
    }

    /// Computes the items of `part` on the calling thread. Called from several threads at once, each with its
    /// own range of items.
    fn cpu(&self, part: &mut CpuPart<'_>) -> Result<()>;

    /// Encodes the items of `part` for a GPU. Called for pieces of a part that fit the adapter's limits.
    fn gpu(&self, part: &mut GpuPart<'_>) -> Result<()>;
}

/// How the CPU runs a part of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuTasks {
    /// Divvy cuts the part into ranges of items and calls [`Pass::cpu`] for each, from every thread of the pool.
    Ranges,
    /// [`Pass::cpu`] is called once, inside the pool, with the number of threads it may use.
    Own,
}

/// A kernel with the borrows of its arguments and, if the caller wants one, a placement.
///
/// Constructors such as [`axpy`](crate::kernels::axpy()) return one; hand it to [`Runtime::run`](crate::Runtime::run).
/// Because the constructor borrows what is written as `&mut`, the borrow checker refuses aliasing:
///
/// ```compile_fail
/// # use divvy::prelude::*;
/// # let rt = Runtime::builder().cpu_only().build().unwrap();
/// let mut x = rt.array_from(&[1.0f32]).unwrap();
/// rt.run(axpy(2.0, &x, &mut x)); // error[E0502]: `x` is also borrowed as immutable
/// ```
#[must_use = "a call does nothing until it is given to `Runtime::run`"]
pub struct Call<'a, K> {
    pub(crate) kernel: K,
    pub(crate) placement: Option<Placement>,
    pub(crate) read_back: Option<bool>,
    pub(crate) borrows: PhantomData<&'a mut ()>,
}

impl<'a, K: Kernel> Call<'a, K> {
    /// Wraps a kernel. The lifetime must be that of the borrows through which its arrays were reached; a
    /// constructor's signature ties it, as in `fn scale<'a>(x: &'a mut Array<f32>) -> Call<'a, Scale>`.
    pub fn new(kernel: K) -> Self {
        Self {
            kernel,
            placement: None,
            read_back: None,
            borrows: PhantomData,
        }
    }

    /// Places this call, whatever the runtime's default placement is.
    pub fn on(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
        self
    }

    /// Says whether the host will read what the call writes before it is written again, which counts where results are
    /// on a GPU. Otherwise that is told from what became of earlier results in the same arrays, and of the first it is
    /// taken to read all.
    pub fn read_back(mut self, wanted: bool) -> Self {
        self.read_back = Some(wanted);
        self
    }

    /// The kernel.
    pub fn kernel(&self) -> &K {
        &self.kernel
    }
}

/// A kernel that several hold on to.
pub(crate) struct Shared<K>(pub(crate) Arc<K>);

impl<K: Kernel> Kernel for Shared<K> {
    type Output = K::Output;

    fn name(&self) -> &str {
        self.0.name()
    }

    fn implementation(&self) -> u64 {
        self.0.implementation()
    }

    fn outline(&self) -> Result<Outline> {
        self.0.outline()
    }

    fn execute(&self, cx: &mut Execution<'_>) -> Result<K::Output> {
        self.0.execute(cx)
    }

    fn is_one_pass(&self) -> bool {
        self.0.is_one_pass()
    }
}

/// A hash of a kernel's name and implementation.
pub(crate) fn identity<K: Kernel + ?Sized>(kernel: &K) -> u64 {
    mixed(fnv1a(kernel.name().bytes()), kernel.implementation())
}

/// The elements of an array that a range of items stands for, when `num` elements belong to every `den` items. Items
/// at the end that are fewer than `den` own `num` all the same.
pub(crate) fn scaled(items: &Range<usize>, num: usize, den: usize) -> Range<usize> {
    if den == 1 {
        // Nearly always, and a division takes longer than all the rest.
        return items.start * num..items.end * num;
    }
    let den = den.max(1);
    items.start / den * num..items.end.div_ceil(den) * num
}
