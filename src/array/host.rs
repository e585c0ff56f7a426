//! Host memory of arrays: aligned, and in huge pages where the array is large.
//!
//! Huge pages make memory-bound kernels up to twice as fast: a 64 MiB array is 16,384 small pages, far more than the
//! processor's translation cache holds.

use crate::error::{Error, Result};
use std::alloc::Layout;
use std::ptr::NonNull;

/// Arrays of at least this many bytes get their own mapping, aligned to the size of a huge page.
const HUGE_PAGE: usize = 2 << 20;
/// Alignment of smaller arrays: a cache line, and the widest vector register.
const ALIGN: usize = 64;

/// The target of an empty block's pointer: nothing, aligned.
#[repr(align(64))]
struct AlignedUnit;

/// An owned block of host memory, initialised from the start.
pub(crate) struct HostBuffer {
    ptr: NonNull<u8>,
    bytes: usize,
    owner: Owner,
}

/// The allocator of the memory, which decides how it is freed.
enum Owner {
    /// The global allocator, with this layout. Empty blocks own nothing.
    Heap(Layout),
    /// A mapping of its own.
    #[cfg(unix)]
    Mapping,
}

// SAFETY: the block is plain memory owned by this value; nothing about it belongs to a thread.
unsafe impl Send for HostBuffer {}
// SAFETY: `&HostBuffer` gives out only a raw pointer; the code that dereferences it argues for that access.
unsafe impl Sync for HostBuffer {}

impl HostBuffer {
    /// `bytes` bytes of zeros.
    pub(crate) fn zeroed(bytes: usize) -> Result<Self> {
        #[cfg(unix)]
        if bytes >= HUGE_PAGE {
            return Self::mapped(bytes);
        }
        let layout =
            Layout::from_size_align(bytes, ALIGN).map_err(|_| Error::HostMemory { bytes })?;
        if bytes == 0 {
            let ptr = NonNull::<AlignedUnit>::dangling().cast();
            return Ok(Self {
                ptr,
                bytes,
                owner: Owner::Heap(layout),
            });
        }
        // SAFETY: the layout is not empty.
        let ptr = unsafe { std::alloc::alloc_zeroed(layout) };
        let ptr = NonNull::new(ptr).ok_or(Error::HostMemory { bytes })?;
        Ok(Self {
            ptr,
            bytes,
            owner: Owner::Heap(layout),
        })
    }

    /// Takes over the memory of a vector, without copying.
    pub(crate) fn from_vec<T: bytemuck::Pod>(vec: Vec<T>) -> Self {
        let mut vec = std::mem::ManuallyDrop::new(vec);
        let bytes = size_of_val(vec.as_slice());
        // A vector's allocation has exactly this layout; it fits, because the vector exists.
        let layout = Layout::array::<T>(vec.capacity()).expect("the layout of an existing vector");
        // SAFETY: a vector's pointer is never null.
        let ptr = unsafe { NonNull::new_unchecked(vec.as_mut_ptr().cast()) };
        Self {
            ptr,
            bytes,
            owner: Owner::Heap(layout),
        }
    }

    /// The start of the block.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// Anonymous memory at a huge-page boundary. The kernel zeroes it page by page as it is touched.
    #[cfg(unix)]
    fn mapped(bytes: usize) -> Result<Self> {
        let error = || Error::HostMemory { bytes };
        let length = Self::mapped_length(bytes).ok_or_else(error)?;
        let padded = length.checked_add(HUGE_PAGE).ok_or_else(error)?;
        // SAFETY: a private anonymous mapping at an address of the kernel's choice touches nothing that exists;
        // the pieces unmapped afterwards are the unaligned ends of that same mapping.
        let ptr = unsafe {
            let base = libc::mmap(
                std::ptr::null_mut(),
                padded,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if base == libc::MAP_FAILED {
                return Err(error());
            }
            let head = base.addr().next_multiple_of(HUGE_PAGE) - base.addr();
            let start = base.byte_add(head);
            if head > 0 {
                libc::munmap(base, head);
            }
            if head < HUGE_PAGE {
                libc::munmap(start.byte_add(length), HUGE_PAGE - head);
            }
            #[cfg(target_os = "linux")]
            libc::madvise(start, length, libc::MADV_HUGEPAGE); // Advice: a refusal costs speed only.
            start.cast::<u8>()
        };
        let ptr = NonNull::new(ptr).ok_or_else(error)?;
        Ok(Self {
            ptr,
            bytes,
            owner: Owner::Mapping,
        })
    }

    /// The length of the mapping that holds `bytes` bytes.
    #[cfg(unix)]
    fn mapped_length(bytes: usize) -> Option<usize> {
        bytes.checked_next_multiple_of(HUGE_PAGE)
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        match self.owner {
            Owner::Heap(layout) if layout.size() == 0 => {}
            // SAFETY: allocated by the global allocator with this layout, and freed once.
            Owner::Heap(layout) => unsafe { std::alloc::dealloc(self.ptr.as_ptr(), layout) },
            #[cfg(unix)]
            Owner::Mapping => {
                let length =
                    Self::mapped_length(self.bytes).expect("it was mapped with this length");
                // SAFETY: this is the mapping made in `mapped`, less the ends unmapped there.
                unsafe { libc::munmap(self.ptr.as_ptr().cast(), length) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(buffer: &mut HostBuffer) -> &mut [u8] {
        // SAFETY: the buffer is borrowed mutably and holds `bytes` initialised bytes.
        unsafe { std::slice::from_raw_parts_mut(buffer.as_ptr(), buffer.bytes) }
    }

    #[test]
    fn memory_is_zeroed_aligned_and_writable() {
        for bytes in [
            0,
            4,
            100,
            4096,
            HUGE_PAGE - 4,
            HUGE_PAGE,
            HUGE_PAGE + 4,
            5 * HUGE_PAGE + 12,
        ] {
            let mut buffer = HostBuffer::zeroed(bytes).expect("a few megabytes");
            let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGN };
            assert_eq!(buffer.as_ptr() as usize % align, 0, "{bytes}");
            assert!(slice(&mut buffer).iter().all(|b| *b == 0), "{bytes}");
            slice(&mut buffer).fill(0xa5);
        }
    }

    #[test]
    fn a_vector_is_taken_over_without_copying() {
        let mut vec = Vec::with_capacity(100);
        vec.extend([1.0f32, 2.0, 3.0]);
        let at = vec.as_ptr() as usize;
        let mut buffer = HostBuffer::from_vec(vec);
        assert_eq!(buffer.as_ptr() as usize, at);
        assert_eq!(
            slice(&mut buffer),
            bytemuck::cast_slice::<f32, u8>(&[1.0, 2.0, 3.0])
        );
        drop(HostBuffer::from_vec(Vec::<f32>::new()));
    }

    #[test]
    fn absurd_sizes_are_errors() {
        assert!(matches!(
            HostBuffer::zeroed(usize::MAX),
            Err(Error::HostMemory { .. })
        ));
        assert!(matches!(
            HostBuffer::zeroed(1 << 60),
            Err(Error::HostMemory { .. })
        ));
    }
}
