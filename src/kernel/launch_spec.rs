//! What a pass touches and costs: enough to plan it and to move its bytes, nothing about how it computes.

use crate::array::{ElementType, Handle};
use crate::error::{Error, Result};
use smallvec::SmallVec;
use std::ops::Range;

/// The items of a pass, the arrays they touch, and what they cost.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LaunchSpec {
    /// How many items there are: the length of the outermost axis.
    pub items: usize,
    /// Borders between parts are multiples of this. At least 1.
    pub grain: usize,
    /// The arrays, in the order in which implementations refer to them.
    pub bindings: Bindings,
    /// What all items cost together; a part costs its share.
    pub work: Work,
    /// Whether [`Pass::cpu`](super::Pass::cpu) is implemented.
    pub has_cpu: bool,
    /// Whether [`Pass::gpu`](super::Pass::gpu) is implemented.
    pub has_gpu: bool,
    /// Bytes that are read back to the host after every run because the caller gets them as a value.
    pub returned_bytes: usize,
    /// Bytes of the largest uniform that a dispatch has, where it may be more than every adapter takes; else 0.
    pub uniform_bytes: usize,
}

/// As many as `CpuPart` has bits to note which were handed out.
const MOST_BINDINGS: usize = 64;

/// The arrays of a pass; nearly always four or fewer.
pub type Bindings = SmallVec<[Binding; 4]>;

impl LaunchSpec {
    /// A pass over `items` items that has both implementations, may be cut anywhere, and returns nothing.
    pub fn new(items: usize, bindings: impl IntoIterator<Item = Binding>, work: Work) -> Self {
        Self {
            items,
            grain: 1,
            bindings: bindings.into_iter().collect(),
            work,
            has_cpu: true,
            has_gpu: true,
            returned_bytes: 0,
            uniform_bytes: 0,
        }
    }

    /// Refuses what could not be run safely: items that own more elements than can be counted, and written arrays in
    /// which ranges of items that end at multiples of the grain would share elements, with each other or with another
    /// binding.
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

    /// The same with another grain.
    pub fn grain(mut self, grain: usize) -> Self {
        self.grain = grain.max(1);
        self
    }

    /// The type of its elements: that of the first array.
    pub fn element_type(&self) -> Option<ElementType> {
        let first = self.bindings.first();
        first.map(|binding| binding.array.element_type())
    }

    /// What borders between parts on different devices, and between pieces on a GPU, are multiples of: the grain, and
    /// 64 items, so that elements of 4 bytes begin at the 256-byte borders that bindings must begin at.
    pub fn border_grain(&self) -> usize {
        const ALIGNED_LOG2: u32 = 6;
        let grain = self.grain.max(1);
        grain.saturating_mul(1 << (ALIGNED_LOG2 - grain.trailing_zeros().min(ALIGNED_LOG2)))
    }

    /// The same with `bytes` read back to the host after each run.
    pub fn returning(mut self, bytes: usize) -> Self {
        self.returned_bytes = bytes;
        self
    }
}

/// One array of a pass: which elements belong to which items, and what happens to them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Binding {
    /// The array.
    pub array: Handle,
    /// Which of its elements belong to a range of items.
    pub role: Role,
    /// What happens to them.
    pub access: Access,
}

impl Binding {
    /// An array of which the items' elements are read.
    pub fn read(array: &Handle, role: Role) -> Self {
        Self {
            array: array.clone(),
            role,
            access: Access::Read,
        }
    }

    /// An array of which the items' elements are all written without being read.
    pub fn write(array: &Handle, role: Role) -> Self {
        Self {
            array: array.clone(),
            role,
            access: Access::Write,
        }
    }

    /// An array of which the items' elements are read and written.
    pub fn update(array: &Handle, role: Role) -> Self {
        Self {
            array: array.clone(),
            role,
            access: Access::ReadWrite,
        }
    }

    /// The elements that `items` stand for. Within the array, whatever the items.
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
    /// Every item owns `width` elements, and a part also reads those of `halo` items past both its ends
    /// (as far as there are any).
    Halo {
        /// Elements per item.
        width: usize,
        /// Items read past each end.
        halo: usize,
    },
    /// Every part reads the whole array, which must fit one storage binding of the adapter.
    Whole,
    /// Every part reads the whole array; the GPU implementation binds it a window at a time, so that it may be
    /// larger than one storage binding, and than the GPU's memory.
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

    /// The most items of which an adapter can bind the elements at once, in an array of `len` elements of
    /// `element_bytes` each. 0 if even one is too much.
    pub(crate) fn bindable_items(
        &self,
        len: usize,
        element_bytes: usize,
        max_binding_bytes: u64,
    ) -> usize {
        // Windows start at an aligned offset, up to 63 elements before the first that is needed.
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

    /// How many elements `items` items stand for, whatever the array's length; `None` if that cannot be counted.
    fn extent(&self, items: usize) -> Option<usize> {
        match *self {
            Self::Items { num, den } => items.div_ceil(den.max(1)).checked_mul(num),
            Self::Halo { width, halo } => items.checked_add(halo)?.checked_mul(width),
            Self::Whole | Self::WholeWindowed => Some(0),
        }
    }

    /// The elements that `items` of `all_items` stand for in an array of `len` elements.
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
    /// Writes every one and reads none: what they held before need not be moved.
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

/// What items cost in the abstract, whichever device computes them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Work {
    /// Floating-point (or, for integer kernels, integer) operations.
    pub flops: f64,
    /// Bytes read from memory, each input once.
    pub bytes_read: f64,
    /// Bytes written to memory.
    pub bytes_written: f64,
}

impl Work {
    /// The same with so many operations.
    pub fn with_flops(self, flops: f64) -> Self {
        Self { flops, ..self }
    }

    /// The same with so many bytes read.
    pub fn with_bytes_read(self, bytes_read: f64) -> Self {
        Self { bytes_read, ..self }
    }

    /// The same with so many bytes written.
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

/// The elements of an array that a range of items stands for, when `num` elements belong to every `den` items. Items
/// at the end that are fewer than `den` own `num` all the same.
fn scaled(items: &Range<usize>, num: usize, den: usize) -> Range<usize> {
    if den == 1 {
        // Nearly always, and a division takes longer than all the rest.
        return items.start * num..items.end * num;
    }
    let den = den.max(1);
    items.start / den * num..items.end.div_ceil(den) * num
}
