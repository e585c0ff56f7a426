//! The view that a pass has of its arrays on the host.

use super::{Access, LaunchSpec};
use crate::element::{Element, ElementType};
use crate::simd::Simd;
use std::ops::Range;

/// The location of an array on the host during one launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostView {
    /// The array's first element.
    pub(crate) start: *mut u8,
    /// The type of the elements.
    pub(crate) ty: ElementType,
}

// SAFETY: `CpuPart` hands out non-overlapping slices of the memory behind the pointer; see there.
unsafe impl Send for HostView {}
// SAFETY: as above.
unsafe impl Sync for HostView {}

/// The items that one call of [`Pass::cpu`](crate::kernel::Pass::cpu) computes, and its view of the arrays.
pub struct CpuPart<'a> {
    items: Range<usize>,
    spec: &'a LaunchSpec,
    views: &'a [HostView],
    threads: usize,
    simd: Simd,
    /// Bit `i` is set once binding `i` has been handed out for writing.
    handed_out: u64,
}

impl<'a> CpuPart<'a> {
    /// A view of `items` on the host.
    ///
    /// For the whole of `'a`, each view must point to memory in which the elements of its binding that belong to
    /// `items` are allocated and initialised. No other `CpuPart` may contain those of written bindings, and nothing
    /// else may access them. Nothing may write those of read bindings.
    pub(crate) unsafe fn new(
        items: Range<usize>,
        spec: &'a LaunchSpec,
        views: &'a [HostView],
        threads: usize,
        simd: Simd,
    ) -> Self {
        Self {
            items,
            spec,
            views,
            threads,
            simd,
            handed_out: 0,
        }
    }

    /// The items to compute.
    pub fn items(&self) -> Range<usize> {
        self.items.clone()
    }

    /// The number of items to compute.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no items to compute.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The number of items of the whole pass.
    pub fn total(&self) -> usize {
        self.spec.items
    }

    /// The number of threads that this call may use: 1 unless the pass requests
    /// [`CpuTasks::Own`](crate::kernel::CpuTasks::Own).
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The instruction set for loops over the elements: pass a [`VectorLoop`](crate::simd::VectorLoop) to it.
    pub fn simd(&self) -> Simd {
        self.simd
    }

    /// The elements of binding `index` that belong to the items.
    ///
    /// # Panics
    /// If there is no such binding, if it is written, or if it does not hold `T`. These are mistakes in the pass, which
    /// [`Runtime::run`](crate::Runtime::run) reports as [`Error::Panicked`](crate::Error::Panicked).
    pub fn read<T: Element>(&self, index: usize) -> &'a [T] {
        let (start, len) = self.locate::<T>(index);
        let binding = &self.spec.bindings[index];
        assert!(
            binding.access == Access::Read,
            "binding {index} is written: use `write`"
        );
        // SAFETY: `new`'s contract: the elements are allocated and initialised, and nothing writes them during 'a.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// The elements of binding `index` that belong to the items, for writing (and, with [`Access::ReadWrite`],
    /// reading). Callable once per binding and part.
    ///
    /// # Panics
    /// As [`CpuPart::read`], and if the binding is only read or was handed out before.
    pub fn write<T: Element>(&mut self, index: usize) -> &'a mut [T] {
        let (start, len) = self.locate::<T>(index);
        let binding = &self.spec.bindings[index];
        assert!(
            binding.access.writes(),
            "binding {index} is only read: use `read`"
        );
        let bit = 1u64 << index;
        assert!(
            self.handed_out & bit == 0,
            "binding {index} was already handed out for writing"
        );
        self.handed_out |= bit;
        // SAFETY: `new`'s contract: no other part has these elements, and this part hands them out once.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// The number of elements of `read(index)` before the first that the items own: nonzero only for halos.
    pub fn lead(&self, index: usize) -> usize {
        match self.spec.bindings[index].role {
            super::Role::Halo { width, .. } => {
                self.items.start * width - self.elements(index).start
            }
            _ => 0,
        }
    }

    fn elements(&self, index: usize) -> Range<usize> {
        self.spec.bindings[index].elements(&self.items, self.spec.items)
    }

    fn locate<T: Element>(&self, index: usize) -> (*mut T, usize) {
        let view = self.views[index];
        assert!(
            view.ty == T::TYPE,
            "binding {index} holds {}, not {}",
            view.ty,
            T::TYPE
        );
        let elements = self.elements(index);
        // SAFETY: the offset stays within the array of `new`'s contract.
        (
            unsafe { view.start.cast::<T>().add(elements.start) },
            elements.len(),
        )
    }
}
