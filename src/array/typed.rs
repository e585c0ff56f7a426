//! [`Array`]: an array with an element type, and its borrows on the host.

use super::handle::{Handle, HostBorrow};
use super::host::HostBuffer;
use super::range_set::RangeSet;
use super::usage::Usage;
use crate::element::Element;
use crate::error::{Error, Result};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};

/// A one-dimensional array of `f32`, `u32` or `i32`. Its elements stay where they were last used.
///
/// Kernels take arrays by reference: `&Array` is read, `&mut Array` is written. On the host, [`read`](Self::read)
/// and [`write`](Self::write) give slices. They wait for exactly the data they need.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::Array;
///
/// let mut a = Array::from_slice(&[3u32, 1, 2])?;
/// a.write()?.sort();
/// assert_eq!(*a.read()?, [1, 2, 3]);
/// # Ok(())
/// # }
/// ```
pub struct Array<T: Element> {
    handle: Handle,
    element: PhantomData<T>,
}

impl<T: Element> Array<T> {
    /// An array with a copy of `elements`.
    ///
    /// # Errors
    /// [`Error::HostMemory`] if there is not enough memory; this holds for every constructor.
    pub fn from_slice(elements: &[T]) -> Result<Self> {
        let buffer = HostBuffer::zeroed(size_of_val(elements))?;
        // SAFETY: the new buffer has room for exactly these bytes and overlaps nothing.
        unsafe {
            std::ptr::copy_nonoverlapping(
                elements.as_ptr().cast(),
                buffer.as_ptr(),
                size_of_val(elements),
            );
        }
        Ok(Self::with(elements.len(), Some(buffer)))
    }

    /// An array that takes over a vector's memory, without copying. [`Array::from_slice`] copies into huge pages
    /// where the system offers them, which pays off for large arrays that are used often.
    pub fn from_vec(elements: Vec<T>) -> Self {
        let len = elements.len();
        Self::with(len, Some(HostBuffer::from_vec(elements)))
    }

    /// An array of `len` times `value`.
    pub fn filled(len: usize, value: T) -> Result<Self> {
        let mut array = Self::zeroed(len)?;
        if bytemuck::bytes_of(&value).iter().any(|b| *b != 0) {
            array.write()?.fill(value);
        }
        Ok(array)
    }

    /// An array of unspecified values, for results that a kernel will write. Reading it is safe. Memory is allocated where
    /// the array is first used, so this costs nothing by itself.
    pub fn uninit(len: usize) -> Result<Self> {
        let array = Self::zeroed(len)?;
        array.handle.residency().undefine(0..len);
        Ok(array)
    }

    /// An array of zeros. It takes no memory before it is used.
    fn zeroed(len: usize) -> Result<Self> {
        len.checked_mul(size_of::<T>())
            .filter(|bytes| *bytes <= isize::MAX as usize)
            .ok_or_else(|| Error::TooLarge {
                what: format!("an array of {}", T::TYPE),
                given: format!("{len} elements"),
                limit: format!("{} elements", isize::MAX as usize / size_of::<T>()),
            })?;
        Ok(Self::with(len, None))
    }

    fn with(len: usize, host: Option<HostBuffer>) -> Self {
        Self {
            handle: Handle::new(len, T::TYPE, host),
            element: PhantomData,
        }
    }

    /// The same array with a name for messages, such as the error that says which elements were lost with a GPU. The first
    /// name stays.
    pub fn named(self, name: impl Into<String>) -> Self {
        self.handle.name(name.into());
        self
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.handle.len()
    }

    /// Whether the array has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements with unspecified values: those of an array from [`Array::uninit`] that were never written, and the
    /// outputs of a call that failed on the CPU. Reading them is safe. Elements leave this set when a kernel or the host
    /// gets them for writing. What a kernel computes from them is not in the set.
    ///
    /// ```
    /// # fn main() -> divvy::Result<()> {
    /// let mut a = divvy::Array::<f32>::uninit(10)?;
    /// a.write_range(0..4)?.fill(1.0);
    /// assert_eq!(a.undefined().iter().collect::<Vec<_>>(), [4..10]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn undefined(&self) -> RangeSet {
        self.handle.residency().undefined().clone()
    }

    /// The untyped handle that kernels keep.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The elements on the host. Waits for the GPU work that produces them, and moves those that are not valid here.
    pub fn read(&self) -> Result<ReadGuard<'_, T>> {
        self.read_range(0..self.len())
    }

    /// The elements of `range` on the host. Only those that are not valid here move.
    ///
    /// # Errors
    /// [`Error::Argument`] if the range reaches past the end.
    pub fn read_range(&self, range: Range<usize>) -> Result<ReadGuard<'_, T>> {
        self.check_range("read_range", &range)?;
        self.handle.read_by_host(&range);
        let (start, borrow) = self.handle.borrow_on_host(range.clone(), Usage::READ)?;
        // SAFETY: `start` is that of the array's host memory, where `range` is now allocated and initialised; the
        // guard keeps the shared borrow, so nothing writes while it lives.
        let slice =
            unsafe { std::slice::from_raw_parts(start.cast::<T>().add(range.start), range.len()) };
        Ok(ReadGuard {
            slice,
            _borrow: borrow,
        })
    }

    /// The elements on the host, for changing. Afterwards they are valid on the host only.
    pub fn write(&mut self) -> Result<WriteGuard<'_, T>> {
        self.write_range(0..self.len())
    }

    /// The elements of `range` on the host, for changing. Afterwards they are valid on the host only.
    ///
    /// # Errors
    /// [`Error::Argument`] if the range reaches past the end.
    pub fn write_range(&mut self, range: Range<usize>) -> Result<WriteGuard<'_, T>> {
        self.check_range("write_range", &range)?;
        // The old values are fetched: the caller may change only some of them.
        self.handle.read_by_host(&range);
        let (start, borrow) = self.handle.borrow_on_host(range.clone(), Usage::UPDATE)?;
        // SAFETY: as in `read_range`; the borrow is exclusive, so nothing else reads or writes.
        let slice = unsafe {
            std::slice::from_raw_parts_mut(start.cast::<T>().add(range.start), range.len())
        };
        Ok(WriteGuard {
            slice,
            _borrow: borrow,
        })
    }

    /// Overwrites all elements. The old values are not fetched.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are exactly `len()` elements.
    pub fn write_all(&mut self, elements: &[T]) -> Result<()> {
        Error::check_length("write_all", "elements", elements.len(), self.len(), || {
            format!("the array has {}", self.len())
        })?;
        self.handle.residency().read_back().written_by_host();
        let all = 0..self.len();
        let (start, _borrow) = self.handle.borrow_on_host(all, Usage::OVERWRITE)?;
        // SAFETY: the array's host memory is allocated for `len` elements, and the exclusive borrow keeps others away.
        unsafe {
            std::ptr::copy_nonoverlapping(elements.as_ptr(), start.cast::<T>(), self.len());
        }
        Ok(())
    }

    /// A copy of the elements.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        Ok(self.read()?.to_vec())
    }

    fn check_range(&self, function: &str, range: &Range<usize>) -> Result<()> {
        if range.start <= range.end && range.end <= self.len() {
            return Ok(());
        }
        let (given, len) = (range, self.len());
        Err(Error::argument(
            function,
            format!("the range {given:?} was given, expected one within 0..{len}"),
        ))
    }
}

impl<T: Element> Drop for Array<T> {
    fn drop(&mut self) {
        self.handle.release_owner();
    }
}

impl<T: Element> From<Vec<T>> for Array<T> {
    fn from(elements: Vec<T>) -> Self {
        Self::from_vec(elements)
    }
}

impl<T: Element> std::fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.handle.fmt(f)
    }
}

/// The elements of an array on the host, for reading.
#[derive(Debug)]
pub struct ReadGuard<'a, T> {
    slice: &'a [T],
    _borrow: HostBorrow<'a>,
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.slice
    }
}

/// The elements of an array on the host, for changing.
#[derive(Debug)]
pub struct WriteGuard<'a, T> {
    slice: &'a mut [T],
    _borrow: HostBorrow<'a>,
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.slice
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.slice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_send_sync<T: Send + Sync>() {}

    #[test]
    fn arrays_and_handles_are_send_and_sync() {
        assert_send_sync::<Array<f32>>();
        assert_send_sync::<Handle>();
    }

    #[test]
    fn host_access_reads_and_writes_what_was_put_there() -> Result<()> {
        let mut array = Array::from_slice(&[1i32, -2, 3])?;
        assert_eq!(array.to_vec()?, [1, -2, 3]);
        array.write_range(1..3)?.copy_from_slice(&[5, 6]);
        assert_eq!(*array.read()?, [1, 5, 6]);
        assert_eq!(*array.read_range(2..3)?, [6]);
        array.write_all(&[7, 8, 9])?;
        assert_eq!(array.to_vec()?, [7, 8, 9]);
        assert_eq!(Array::filled(3, 4u32)?.to_vec()?, [4, 4, 4]);
        assert_eq!(Array::from_vec(vec![0.5f32]).to_vec()?, [0.5]);
        assert!(Array::<f32>::uninit(0)?.read()?.is_empty());
        Ok(())
    }

    #[test]
    fn misuse_is_an_error_that_says_what_was_expected() -> Result<()> {
        let mut array = Array::<f32>::uninit(4)?;
        let text = array
            .read_range(2..5)
            .expect_err("past the end")
            .to_string();
        assert!(text.contains("2..5") && text.contains("0..4"), "{text}");
        let text = array
            .write_all(&[0.0; 3])
            .expect_err("too short")
            .to_string();
        assert!(
            text.contains("has 3") && text.contains("4 are needed"),
            "{text}"
        );
        assert!(matches!(
            Array::<f32>::uninit(usize::MAX / 2),
            Err(Error::TooLarge { .. })
        ));
        Ok(())
    }
}
