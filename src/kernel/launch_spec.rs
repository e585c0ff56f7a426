//! What a pass touches and costs: enough to plan it and to move its bytes. How it computes is not part of it.
//!
//! The bytes that a pass reads and writes follow from its bindings. They are computed here and nowhere else.

use crate::array::{ElementType, Handle};
use crate::error::{Error, Result};
use smallvec::SmallVec;
use std::ops::Range;

/// The items of a pass, the arrays they touch, and what they cost.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LaunchSpec {
    /// The number of items: the length of the outermost axis.
    pub items: usize,
    /// Borders between parts are multiples of this. At least 1.
    pub grain: usize,
    /// The arrays, in the order in which implementations refer to them.
    pub bindings: Bindings,
    /// Operations of all items together: floating-point, or integer for integer kernels.
    pub flops: f64,
    /// The cost of the kernel's other passes, if it has any.
    pub other_passes: Work,
    /// Whether [`Pass::cpu`](super::Pass::cpu) is implemented.
    pub has_cpu: bool,
    /// Whether [`Pass::gpu`](super::Pass::gpu) is implemented.
    pub has_gpu: bool,
    /// Bytes that are read back to the host after every run because the run returns them as a value.
    pub returned_bytes: usize,
    /// Bytes of the largest uniform of a dispatch, if some adapters may not accept it; else 0.
    pub uniform_bytes: usize,
}

/// The number of bits in which `CpuPart` records the bindings it handed out.
const MOST_BINDINGS: usize = 64;

/// The arrays of a pass. Nearly all passes have four or fewer.
pub type Bindings = SmallVec<[Binding; 4]>;

impl LaunchSpec {
    /// A pass over `items` items that has both implementations, may be cut anywhere, and returns nothing. All items
    /// together cost `flops` operations.
    pub fn new(items: usize, bindings: impl IntoIterator<Item = Binding>, flops: f64) -> Self {
        Self {
            items,
            grain: 1,
            bindings: bindings.into_iter().collect(),
            flops,
            other_passes: Work::default(),
            has_cpu: true,
            has_gpu: true,
            returned_bytes: 0,
            uniform_bytes: 0,
        }
    }

    /// Refuses a pass that cannot run safely: items own more elements than can be counted, or ranges of items that end
    /// at multiples of the grain would share written elements, with each other or with another binding.
    pub(crate) fn check(&self, kernel: &str) -> Result<()> {
        let refuse = |problem: &str| Err(Error::argument(kernel, problem));
        if self.bindings.len() > MOST_BINDINGS {
            return refuse("a pass can bind at most 64 arrays");
        }
        for (i, binding) in self.bindings.iter().enumerate() {
            if binding.role.extent(self.items).is_none() {
                return refuse("its items own more elements than can be counted");
            }
            if !binding.access.writes() {
                continue;
            }
            match binding.role {
                Role::Items { den, .. } if den > 0 && self.grain.is_multiple_of(den) => {}
                Role::Items { .. } => {
                    return refuse(
                        "the grain must be a multiple of the items that share written elements",
                    );
                }
                _ => return refuse("only arrays that are split by item can be written"),
            }
            let mut others = self.bindings.iter().enumerate().filter(|(j, _)| *j != i);
            if others.any(|(_, other)| other.array.same_array(&binding.array)) {
                return refuse("an array that is written is bound twice");
            }
        }
        Ok(())
    }

    /// The cost of all items together; a part costs its share. The bytes follow from the bindings. An array that is
    /// read counts once, however many items read an element of it; so does an array that is written. One that is read
    /// and written counts in both. A pass without items moves nothing.
    pub fn work(&self) -> Work {
        let mut work = self.other_passes;
        work.flops += self.flops;
        for binding in self.bindings.iter().filter(|_| self.items > 0) {
            let elements = binding.elements(&(0..self.items), self.items).len();
            let bytes = elements as f64 * binding.array.element_type().size() as f64;
            if binding.access.reads() {
                work.bytes_read += bytes;
            }
            if binding.access.writes() {
                work.bytes_written += bytes;
            }
        }
        work
    }

    /// The arrays that are written, some of which may be read too.
    pub fn written(&self) -> impl Iterator<Item = &Handle> {
        let bindings = self.bindings.iter().filter(|b| b.access.writes());
        bindings.map(|binding| &binding.array)
    }

    /// Whether an array is read and written: a second run finds other elements than the first.
    pub fn is_in_place(&self) -> bool {
        let mut read = self.bindings.iter().filter(|b| b.access.reads());
        read.any(|binding| self.written().any(|array| array.same_array(&binding.array)))
    }

    /// The arrays, each once.
    pub fn arrays(&self) -> Vec<Handle> {
        let mut distinct: Vec<Handle> = Vec::new();
        for Binding { array, .. } in &self.bindings {
            if !distinct.iter().any(|other| other.same_array(array)) {
                distinct.push(array.clone());
            }
        }
        distinct
    }

    /// Bytes of the arrays, each counted once.
    pub fn footprint(&self) -> usize {
        let arrays = self.arrays();
        let bytes = arrays.iter().map(Handle::bytes);
        bytes.fold(0, usize::saturating_add)
    }

    /// The same spec with the cost of the kernel's other passes.
    pub fn with_other_passes(mut self, work: Work) -> Self {
        self.other_passes = work;
        self
    }

    /// The same spec with another grain.
    pub fn grain(mut self, grain: usize) -> Self {
        self.grain = grain.max(1);
        self
    }

    /// The element type: that of the first array.
    pub fn element_type(&self) -> Option<ElementType> {
        let first = self.bindings.first();
        first.map(|binding| binding.array.element_type())
    }

    /// Borders between parts on different devices, and between pieces on a GPU, are multiples of this: the grain, and
    /// 64 items, so that elements of 4 bytes begin at the 256-byte borders where bindings must begin.
    pub fn border_grain(&self) -> usize {
        const ALIGNED_LOG2: u32 = 6;
        let grain = self.grain.max(1);
        grain.saturating_mul(1 << (ALIGNED_LOG2 - grain.trailing_zeros().min(ALIGNED_LOG2)))
    }

    /// The same spec with `bytes` read back to the host after each run.
    pub fn returning(mut self, bytes: usize) -> Self {
        self.returned_bytes = bytes;
        self
    }
}

/// One array of a pass: which elements belong to which items, and what the pass does with them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Binding {
    /// The array.
    pub array: Handle,
    /// Which of its elements belong to a range of items.
    pub role: Role,
    /// What the pass does with them.
    pub access: Access,
}

impl Binding {
    /// An array whose elements the items read.
    pub fn read(array: &Handle, role: Role) -> Self {
        Self {
            array: array.clone(),
            role,
            access: Access::Read,
        }
    }

    /// An array whose elements the items all write, without reading them.
    pub fn write(array: &Handle, role: Role) -> Self {
        Self {
            array: array.clone(),
            role,
            access: Access::Write,
        }
    }

    /// An array whose elements the items read and write.
    pub fn update(array: &Handle, role: Role) -> Self {
        Self {
            array: array.clone(),
            role,
            access: Access::ReadWrite,
        }
    }

    /// The elements that belong to `items`. They lie within the array for any `items`.
    pub fn elements(&self, items: &Range<usize>, all_items: usize) -> Range<usize> {
        self.role.elements(items, all_items, self.array.len())
    }
}

/// Which elements of an array belong to a range of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Every `den` items own the next `num` elements: item `i` has `num * i / den ..`. `Role::ITEM` is one each.
    Items {
        /// Elements for every `den` items.
        num: usize,
        /// Items that share `num` elements.
        den: usize,
    },
    /// Every item owns `width` elements, and a part also reads those of up to `halo` items past both its ends, within
    /// the array.
    Halo {
        /// Elements per item.
        width: usize,
        /// Items read past each end.
        halo: usize,
    },
    /// Every part reads the whole array, which must fit one storage binding of the adapter.
    Whole,
    /// Every part reads the whole array. The GPU implementation binds it a window at a time, so that it may be larger
    /// than one storage binding and than the GPU's memory.
    WholeWindowed,
}

impl Role {
    /// One element per item.
    pub const ITEM: Self = Self::Items { num: 1, den: 1 };

    /// `width` elements per item: the rows of a matrix.
    pub const fn rows(width: usize) -> Self {
        Self::Items { num: width, den: 1 }
    }

    /// One element for every `items` items: the partial results of blocks.
    pub const fn per(items: usize) -> Self {
        Self::Items { num: 1, den: items }
    }

    /// The most items whose elements an adapter can bind at once, in an array of `len` elements of `element_bytes`
    /// each. 0 if it cannot bind even those of one item.
    pub(crate) fn bindable_items(
        &self,
        len: usize,
        element_bytes: usize,
        max_binding_bytes: u64,
    ) -> usize {
        // Windows start at an aligned offset, up to 63 elements before the first required one.
        const LEAD: usize = 64;
        if len.saturating_add(LEAD).saturating_mul(element_bytes) as u64 <= max_binding_bytes {
            return usize::MAX;
        }
        let all = max_binding_bytes as usize / element_bytes;
        let elements = all.saturating_sub(LEAD);
        match *self {
            Self::Items { num, den } => (elements / num.max(1)).saturating_mul(den),
            Self::Halo { width, halo } => (elements / width.max(1)).saturating_sub(2 * halo),
            Self::Whole if len > all => 0,
            Self::Whole | Self::WholeWindowed => usize::MAX,
        }
    }

    /// The number of elements of `items` items, ignoring the array's length. `None` if it overflows.
    fn extent(&self, items: usize) -> Option<usize> {
        match *self {
            Self::Items { num, den } => items.div_ceil(den.max(1)).checked_mul(num),
            Self::Halo { width, halo } => items.checked_add(halo)?.checked_mul(width),
            Self::Whole | Self::WholeWindowed => Some(0),
        }
    }

    /// The elements that belong to `items` of `all_items` in an array of `len` elements.
    pub fn elements(&self, items: &Range<usize>, all_items: usize, len: usize) -> Range<usize> {
        let range = match *self {
            Self::Items { num, den } => scaled(items, num, den),
            Self::Halo { width, halo } => {
                let lo = items.start.saturating_sub(halo);
                let hi = (items.end + halo).min(all_items);
                lo * width..hi * width
            }
            Self::Whole | Self::WholeWindowed => 0..len,
        };
        range.start.min(len)..range.end.min(len)
    }
}

/// What a pass does with an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Only reads them.
    Read,
    /// Writes all of them and reads none: the old values need not move.
    Write,
    /// Reads and writes them.
    ReadWrite,
}

impl Access {
    /// Whether the old values are needed.
    pub const fn reads(self) -> bool {
        !matches!(self, Self::Write)
    }

    /// Whether the values change.
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Read)
    }
}

/// The cost of items in the abstract, independent of the device that computes them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Work {
    /// Operations: floating-point, or integer for integer kernels.
    pub flops: f64,
    /// Bytes read from memory, each input once: see [`LaunchSpec::work`].
    pub bytes_read: f64,
    /// Bytes written to memory.
    pub bytes_written: f64,
}

impl Work {
    /// The same work with this number of operations.
    pub fn with_flops(self, flops: f64) -> Self {
        Self { flops, ..self }
    }

    /// The same work with this number of bytes read.
    pub fn with_bytes_read(self, bytes_read: f64) -> Self {
        Self { bytes_read, ..self }
    }

    /// The same work with this number of bytes written.
    pub fn with_bytes_written(self, bytes_written: f64) -> Self {
        Self {
            bytes_written,
            ..self
        }
    }

    /// Bytes read and written.
    pub fn bytes(&self) -> f64 {
        self.bytes_read + self.bytes_written
    }

    /// The share `fraction` of this work.
    pub fn share(&self, fraction: f64) -> Self {
        Self {
            flops: self.flops * fraction,
            bytes_read: self.bytes_read * fraction,
            bytes_written: self.bytes_written * fraction,
        }
    }
}

/// The elements that belong to a range of items, when `num` elements belong to every `den` items. A last group of fewer
/// than `den` items also owns `num`.
fn scaled(items: &Range<usize>, num: usize, den: usize) -> Range<usize> {
    if den == 1 {
        // The common case: it saves a division, which takes longer than all the rest.
        return items.start * num..items.end * num;
    }
    let den = den.max(1);
    items.start / den * num..items.end.div_ceil(den) * num
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::{Array, Element};

    fn array<T: Element>(len: usize) -> Handle {
        Array::<T>::uninit(len).expect("no memory").handle().clone()
    }

    fn work(items: usize, bindings: impl IntoIterator<Item = Binding>) -> Work {
        LaunchSpec::new(items, bindings, 0.0).work()
    }

    fn bytes(read: f64, written: f64) -> Work {
        Work::default()
            .with_bytes_read(read)
            .with_bytes_written(written)
    }

    #[test]
    fn an_array_counts_once_for_every_role() {
        let (x, y) = (array::<f32>(600), array::<u32>(100));
        let halo = Role::Halo { width: 6, halo: 2 };
        for role in [Role::rows(6), halo, Role::Whole, Role::WholeWindowed] {
            let read = Binding::read(&x, role);
            assert_eq!(work(100, [read]), bytes(2400.0, 0.0), "{role:?}");
        }
        assert_eq!(
            work(100, [Binding::write(&y, Role::ITEM)]),
            bytes(0.0, 400.0)
        );
        assert_eq!(
            work(100, [Binding::update(&y, Role::ITEM)]),
            bytes(400.0, 400.0)
        );
        assert_eq!(
            work(599, [Binding::write(&y, Role::per(6))]),
            bytes(0.0, 400.0)
        );
    }

    #[test]
    fn only_the_items_elements_count_except_of_whole_arrays() {
        let x = array::<f32>(600);
        assert_eq!(
            work(10, [Binding::read(&x, Role::rows(6))]),
            bytes(240.0, 0.0)
        );
        assert_eq!(
            work(10, [Binding::read(&x, Role::Whole)]),
            bytes(2400.0, 0.0)
        );
        assert_eq!(work(0, [Binding::read(&x, Role::Whole)]), bytes(0.0, 0.0));
    }

    #[test]
    fn other_passes_add_their_cost() {
        let x = array::<f32>(10);
        let other = Work {
            flops: 1.0,
            bytes_read: 2.0,
            bytes_written: 3.0,
        };
        let spec = LaunchSpec::new(10, [Binding::read(&x, Role::ITEM)], 5.0);
        let all = Work {
            flops: 6.0,
            bytes_read: 42.0,
            bytes_written: 3.0,
        };
        assert_eq!(spec.with_other_passes(other).work(), all);
    }
}
