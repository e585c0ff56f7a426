//! What a pass sees of its arrays on the host.

use super::{Access, LaunchSpec};
use crate::element::{Element, ElementType};
use crate::simd::Simd;
use std::ops::Range;

/// Where an array lies on the host, for the time of one launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostView {
    /// The array's first element.
    pub(crate) start: *mut u8,
    /// What the elements are.
    pub(crate) ty: ElementType,
}

// SAFETY: `CpuPart` hands out non-overlapping parts of what the pointer leads to; see there.
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
    /// # Safety
    /// For as long as `'a`, each view must lead to memory in which the elements of its binding that belong to
    /// `items` are allocated and initialised; those of written bindings must be in no other `CpuPart` and not be
    /// accessed otherwise, those of read bindings must not be written.
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

    /// How many items there are to compute.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many items the whole pass has.
    pub fn total(&self) -> usize {
        self.spec.items
    }

    /// How many threads this call may use: 1 unless the pass asked for
    /// [`CpuTasks::Own`](crate::kernel::CpuTasks::Own).
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The instruction set that loops over the elements run with: give it a
    /// [`VectorLoop`](crate::simd::VectorLoop).
    pub fn simd(&self) -> Simd {
        self.simd
    }

    /// The elements of binding `index` that belong to the items.
    ///
    /// # Panics
    /// If there is no such binding, it is written, or it does not hold `T`: mistakes in the pass, which
    /// [`Runtime::run`](crate::Runtime::run) reports as [`Error::Panicked`].
    pub fn read<T: Element>(&self, index: usize) -> &'a [T] {
        let (start, len) = self.locate::<T>(index);
        let binding = &self.spec.bindings[index];
        assert!(
            binding.access == Access::Read,
            "binding {index} is written: use `write`"
        );
        // SAFETY: `new`'s contract: allocated, initialised, and written by nobody during 'a.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// The elements of binding `index` that belong to the items, to be written (and, for
    /// [`Access::ReadWrite`], read). Once per binding and part.
    ///
    /// # Panics
    /// As [`CpuPart::read`], if the binding is only read, or if it was handed out before.
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
        // SAFETY: `new`'s contract: in no other part; and handed out once by this one.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// How many elements of `read(index)` precede the first that the items own: not 0 only for halos.
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
        // SAFETY: the offset stays within the array that `new`'s contract speaks of.
        (
            unsafe { view.start.cast::<T>().add(elements.start) },
            elements.len(),
        )
    }
}
