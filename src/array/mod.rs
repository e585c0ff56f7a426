//! Arrays: one-dimensional data that lives where it is used.
//!
//! An [`Array`] owns its elements; where they are is not the caller's concern. Each range of them is valid on the
//! host, on some GPUs, or on several places at once (`residency`), and moves only when somebody needs it where it
//! is not. The invariant that everything here keeps: every element is always valid somewhere.

mod element;
mod host;
mod matrix;
mod range_set;
mod read_back;
mod rehearsal;
mod replay;
mod residency;

pub use element::{Element, ElementType};
pub(crate) use matrix::Operand;
pub use matrix::{Matrix, MatrixMut};
pub use range_set::RangeSet;
pub(crate) use rehearsal::Rehearsal;
pub(crate) use replay::ReplayTurn;
pub(crate) use residency::{
    DeviceCopy, DeviceView, Elements, Fit, Moved, Residency, Uses, Version,
};

use crate::device::gpu::{Evict, Evicted, ExtentId, Gate, Gpu, Victims};
use crate::error::{Error, Result};
pub(crate) use host::HostBuffer;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};

/// A one-dimensional array of `f32`, `u32` or `i32`, valid wherever it was last used.
///
/// Kernels take arrays by reference: `&Array` is read, `&mut Array` is written. On the host, [`read`](Self::read)
/// and [`write`](Self::write) give slices, after waiting for exactly the data they need.
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
    /// [`Error::HostMemory`] if there is not enough memory; so for every constructor.
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
    /// where the system offers them, which large arrays that are used often repay.
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

    /// An array whose elements are not chosen: for results that a kernel will write. Reading one is safe and gives
    /// unspecified values. Memory is taken where the array is first used, so this costs nothing by itself.
    pub fn uninit(len: usize) -> Result<Self> {
        let array = Self::zeroed(len)?;
        array.handle.residency().undefine(0..len);
        Ok(array)
    }

    /// An array of zeros, which take no memory before the array is used.
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
        let storage = Arc::new_cyclic(|this: &Weak<Storage>| {
            let residency = Residency::on_host(this.clone(), len, T::TYPE, host);
            Storage {
                len,
                ty: T::TYPE,
                born: residency::now(),
                name: OnceLock::new(),
                rehearsed: rehearsal::is_under_way(),
                is_owned: AtomicBool::new(true),
                residency: Mutex::new(residency),
                stand_in: OnceLock::new(),
            }
        });
        Self {
            handle: Handle { storage },
            element: PhantomData,
        }
    }

    /// The same array with a name for messages, such as the one that says what of it was lost with a GPU. The first name
    /// stays.
    pub fn named(self, name: impl Into<String>) -> Self {
        let _ = self.handle.storage.name.set(name.into());
        self
    }

    /// How many elements the array has.
    pub fn len(&self) -> usize {
        self.handle.len()
    }

    /// Whether the array has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements that hold unspecified values: of an array made by [`Array::uninit`] those that nobody has written,
    /// and those that a call was to write which failed on the CPU. Reading them is safe. They are no longer counted once
    /// a kernel or the host has had them to write; what a kernel computes from them is not marked.
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

    /// The elements on the host. Waits for the GPU work that produces them, and moves what is not yet here.
    pub fn read(&self) -> Result<ReadGuard<'_, T>> {
        self.read_range(0..self.len())
    }

    /// The elements of `range` on the host; only those that are not yet here move.
    ///
    /// # Errors
    /// [`Error::Argument`] if the range reaches past the end.
    pub fn read_range(&self, range: Range<usize>) -> Result<ReadGuard<'_, T>> {
        self.check_range("read_range", &range)?;
        self.handle.read_by_host(&range);
        let (start, borrow) = self.handle.borrow_on_host(range.clone(), true, false)?;
        // SAFETY: `start` is that of the array's host memory, where `range` is now allocated and initialised; the
        // guard keeps the shared borrow, so that nobody writes while it lives.
        let slice =
            unsafe { std::slice::from_raw_parts(start.cast::<T>().add(range.start), range.len()) };
        Ok(ReadGuard {
            slice,
            _borrow: borrow,
        })
    }

    /// The elements on the host, to be changed. Afterwards they are valid on the host only.
    pub fn write(&mut self) -> Result<WriteGuard<'_, T>> {
        self.write_range(0..self.len())
    }

    /// The elements of `range` on the host, to be changed; afterwards those are valid on the host only.
    ///
    /// # Errors
    /// [`Error::Argument`] if the range reaches past the end.
    pub fn write_range(&mut self, range: Range<usize>) -> Result<WriteGuard<'_, T>> {
        self.check_range("write_range", &range)?;
        // It is fetched first, for who changes only some of it.
        self.handle.read_by_host(&range);
        let (start, borrow) = self.handle.borrow_on_host(range.clone(), true, true)?;
        // SAFETY: as in `read_range`; the borrow is exclusive, so that nobody else reads or writes.
        let slice = unsafe {
            std::slice::from_raw_parts_mut(start.cast::<T>().add(range.start), range.len())
        };
        Ok(WriteGuard {
            slice,
            _borrow: borrow,
        })
    }

    /// Overwrites all elements, without fetching the old ones from where they are.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are exactly `len()` elements.
    pub fn write_all(&mut self, elements: &[T]) -> Result<()> {
        Error::check_length("write_all", "elements", elements.len(), self.len(), || {
            format!("the array has {}", self.len())
        })?;
        self.handle.residency().read_back().written_by_host();
        let (start, _borrow) = self.handle.borrow_on_host(0..self.len(), false, true)?;
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
        self.handle.storage.is_owned.store(false, Ordering::Relaxed);
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

/// A counted reference to an array without its element type: what kernels keep.
///
/// A handle gives no access to the elements; kernels reach those through the parts they are given. What was computed on a
/// GPU that is lost is computed again as long as there is the [`Array`], or a call with one of its handles followed on
/// that.
#[derive(Clone)]
pub struct Handle {
    storage: Arc<Storage>,
}

/// A reference to an array that does not keep it.
#[derive(Clone)]
pub(crate) struct WeakHandle {
    storage: Weak<Storage>,
}

impl WeakHandle {
    /// The array, if there is anybody who keeps it.
    pub(crate) fn upgrade(&self) -> Option<Handle> {
        let storage = self.storage.upgrade()?;
        Some(Handle { storage })
    }

    /// Whether it is a reference to that array.
    pub(crate) fn is_of(&self, array: &Handle) -> bool {
        std::ptr::eq(self.storage.as_ptr(), Arc::as_ptr(&array.storage))
    }

    /// A number that no other array has as long as this one is referred to.
    pub(crate) fn id(&self) -> usize {
        self.storage.as_ptr().addr()
    }
}

impl std::fmt::Debug for WeakHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.upgrade() {
            Some(array) => array.fmt(f),
            None => f.write_str("a dropped array"),
        }
    }
}

struct Storage {
    len: usize,
    ty: ElementType,
    born: Version,
    name: OnceLock<String>,
    /// Whether it was made in a rehearsal, and not by or for the caller.
    rehearsed: bool,
    /// Whether somebody may still ask for its elements: false once its `Array` is dropped, unless a later call uses it.
    is_owned: AtomicBool,
    residency: Mutex<Residency>,
    /// What replays see in place of the residency.
    stand_in: OnceLock<Box<Mutex<Residency>>>,
}

impl Evict for Storage {
    fn evict(&self, extent: ExtentId, victims: Victims, alone: bool) -> Result<Option<Evicted>> {
        let mut residency = match self.residency.try_lock() {
            Ok(residency) => residency,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if !alone => return Ok(None),
            // Whoever has it needs none that the caller has.
            Err(TryLockError::WouldBlock) => self
                .residency
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        };
        residency.evict(extent, victims)
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}; {}]", self.ty, self.len)
    }
}

impl Handle {
    /// How many elements the array has.
    pub fn len(&self) -> usize {
        self.storage.len
    }

    /// Whether the array has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the elements are.
    pub fn element_type(&self) -> ElementType {
        self.storage.ty
    }

    /// Whether both are handles to the same array.
    pub fn same_array(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
    }

    /// Waits for the work that produces the elements, and makes them valid on the host, besides where they are.
    pub fn fetch(&self) -> Result<()> {
        self.read_by_host(&(0..self.len()));
        self.borrow_on_host(0..self.len(), true, false).map(drop)
    }

    /// Waits for the work that produces the elements, and makes the host the only place where they are valid: whoever
    /// uses them elsewhere next must move them. For measuring with and without transfers.
    ///
    /// # Errors
    /// [`Error::Argument`] if somebody holds a guard of the array.
    pub fn move_to_host(&self) -> Result<()> {
        self.borrow_on_host(0..self.len(), true, true).map(drop)
    }

    /// Where `range` lies on `gpu`, with its values if they are needed (`fetch`), in a new extent if there is none that
    /// covers it. Room for that is made as the `gate`, through which the caller came, allows.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room and none can be made.
    pub(crate) fn admit(
        &self,
        gpu: &Arc<Gpu>,
        range: Range<usize>,
        fetch: bool,
        fit: Fit,
        gate: &Gate<'_>,
    ) -> Result<DeviceView> {
        let bytes = (range.len() * self.element_type().size()) as u64;
        if bytes > gpu.largest_buffer() {
            return Err(gpu.no_room(bytes));
        }
        let view = self.making_room(gpu, gate, |r| r.admit(gpu, &range, fit))?;
        let fetched = if fetch {
            self.fetch_to_device(gpu, &view, &range, gate)
        } else {
            Ok(())
        };
        if let Err(error) = fetched {
            // Of no use to anybody, and in the way of a smaller one.
            let extent = view.extent;
            drop(view);
            self.residency().evict(extent, Victims::Any)?;
            return Err(error);
        }
        Ok(view)
    }

    /// Makes the values of `range` present where a view shows it.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room to stage them and none can be made.
    pub(crate) fn fetch_to_device(
        &self,
        gpu: &Gpu,
        view: &DeviceView,
        range: &Range<usize>,
        gate: &Gate<'_>,
    ) -> Result<()> {
        // Who holds a view of the extent does not evict it to make room for moving something there.
        self.making_room(gpu, gate, |residency| {
            residency.fetch_to_device(view, range)
        })
    }

    /// Does something that needs memory of a GPU, making room until there is enough or none can be made.
    fn making_room<T>(
        &self,
        gpu: &Gpu,
        gate: &Gate<'_>,
        mut act: impl FnMut(&mut Residency) -> Result<T>,
    ) -> Result<T> {
        loop {
            // In a statement of its own, for the lock must be free when room is made.
            let done = act(&mut self.residency());
            let Err(Error::DeviceMemory { bytes, .. }) = done else {
                return done;
            };
            let room = gpu.make_room(bytes, gate)?;
            let to_host = room.to_host;
            self.residency().add_moved(Moved {
                to_host,
                ..Moved::default()
            });
            if room.freed == 0 {
                return done;
            }
        }
    }

    /// Where `range` lies on `gpu`, for callers who hold no views yet; with its values if they are needed (`fetch`).
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room for it.
    pub(crate) fn place_on(
        &self,
        gpu: &Arc<Gpu>,
        range: Range<usize>,
        fetch: bool,
    ) -> Result<DeviceView> {
        let admit = |gate: Gate<'_>| self.admit(gpu, range.clone(), fetch, Fit::Whole, &gate);
        match admit(gpu.share()) {
            Err(Error::DeviceMemory { .. }) => admit(gpu.be_alone()),
            admitted => admitted,
        }
    }

    /// Takes the array off a GPU; what is valid nowhere else goes to the host. What others use stays.
    pub(crate) fn leave(&self, gpu: &Gpu) -> Result<()> {
        let mut residency = self.residency();
        for extent in residency.extents_on(gpu.id()) {
            if let Some(evicted) = residency.evict(extent, Victims::Any)? {
                let to_host = evicted.to_host;
                residency.add_moved(Moved {
                    to_host,
                    ..Moved::default()
                });
            }
        }
        Ok(())
    }

    /// Bytes of the whole array.
    pub(crate) fn bytes(&self) -> usize {
        self.len() * self.element_type().size()
    }

    /// Gives `take` the bytes of the elements, a window after the other, which are fetched as they are needed. The array
    /// cannot be written meanwhile.
    pub(crate) fn take_windows(&self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.read_by_host(&(0..self.len()));
        let size = self.element_type().size();
        for window in windows(self.len()) {
            let (start, _borrow) = self.borrow_on_host(window.clone(), true, false)?;
            // SAFETY: `start` is that of the array's host memory, where the window is allocated and initialised, and
            // bytes have no alignment; the shared borrow keeps others from writing.
            let bytes = unsafe {
                std::slice::from_raw_parts(start.add(window.start * size), window.len() * size)
            };
            take(bytes)?;
        }
        Ok(())
    }

    /// Has `fill` overwrite the bytes of the elements, a window after the other, without fetching the old ones.
    pub(crate) fn fill_windows(&self, mut fill: impl FnMut(&mut [u8]) -> Result<()>) -> Result<()> {
        self.residency().read_back().written_by_host();
        let size = self.element_type().size();
        for window in windows(self.len()) {
            let (start, _borrow) = self.borrow_on_host(window.clone(), false, true)?;
            // SAFETY: as in `take_windows`, and any bytes are elements; the exclusive borrow keeps others away.
            let bytes = unsafe {
                std::slice::from_raw_parts_mut(start.add(window.start * size), window.len() * size)
            };
            fill(bytes)?;
        }
        Ok(())
    }

    /// Takes note that the host uses what is in `range`.
    fn read_by_host(&self, range: &Range<usize>) {
        let share = range.len() as f32 / self.len().max(1) as f32;
        self.residency().read_back().read_by_host(share);
    }

    /// The start of the array's host memory, where `range` is made valid if its values are needed (`fetch`) and the
    /// only valid place if it will change (`write`); and the borrow that keeps others from clashing with this access.
    ///
    /// The borrow checker already forbids a clash for who uses [`Array`]; handles can be cloned, so it is checked here.
    pub(crate) fn borrow_on_host(
        &self,
        range: Range<usize>,
        fetch: bool,
        write: bool,
    ) -> Result<(*mut u8, HostBorrow<'_>)> {
        self.borrow_for(None, range, fetch, write)
    }

    /// [`Handle::borrow_on_host`]; `uses` keeps a record of it if it is for a call that may be run again.
    pub(crate) fn borrow_for(
        &self,
        uses: Option<&Arc<Uses>>,
        range: Range<usize>,
        fetch: bool,
        write: bool,
    ) -> Result<(*mut u8, HostBorrow<'_>)> {
        if !self.storage.rehearsed && rehearsal::is_under_way() {
            return Err(rehearsal::refusal());
        }
        let uses = uses.filter(|uses| self.storage.born < uses.version);
        let start = self.despite_losses(&range, || {
            let mut residency = self.residency();
            residency.check_borrow(write)?;
            if let Some(uses) = uses {
                residency.begin_history();
                residency.record(self, &range, (fetch, false), uses);
            }
            let start = residency.host_access(range.clone(), fetch, write)?;
            if let Some(uses) = uses.filter(|_| write) {
                residency.record(self, &range, (false, true), uses);
                residency.arrived_on_host(&range);
            }
            residency.borrow(write)?;
            Ok(start)
        })?;
        let borrow = HostBorrow {
            handle: self,
            exclusive: write,
        };
        Ok((start, borrow))
    }

    /// Makes a range valid on the host, besides where it is.
    pub(crate) fn fetch_range(&self, range: Range<usize>) -> Result<Moved> {
        self.despite_losses(&range, || {
            let mut residency = self.residency();
            residency.host_access(range.clone(), true, false)?;
            Ok(residency.take_moved())
        })
    }

    /// Makes all of it present on a GPU.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room for it.
    pub(crate) fn prefetch(&self, gpu: &Arc<Gpu>) -> Result<()> {
        let all = 0..self.len();
        self.despite_losses(&all, || self.place_on(gpu, all.clone(), true).map(drop))
    }

    /// Brings back what was lost of it.
    ///
    /// # Errors
    /// [`Error::DataLost`] if that cannot be done.
    pub(crate) fn bring_back(&self) -> Result<()> {
        let all = 0..self.len();
        self.despite_losses(&all, || self.residency().check_not_lost(&all))
    }

    /// Notes that a call is about to use a range on a GPU: where a view shows what it writes, if it writes. `uses` keeps a
    /// record of it if it may have to be run again.
    pub(crate) fn used_on_device(
        &self,
        view: Option<&DeviceView>,
        range: &Range<usize>,
        (reads, writes): (bool, bool),
        uses: Option<&Arc<Uses>>,
    ) -> Result<()> {
        let uses = uses.filter(|uses| self.storage.born < uses.version);
        let written = view.filter(|_| writes);
        if uses.is_none() && written.is_none() {
            return Ok(());
        }
        let mut residency = self.residency();
        if uses.is_some() {
            residency.begin_history();
        }
        if let Some(view) = written {
            residency.written_on_device(view, range)?;
        }
        match uses {
            Some(uses) => {
                self.storage.is_owned.store(true, Ordering::Relaxed);
                residency.record(self, range, (reads, writes), uses);
            }
            None => residency.written_without_record(range),
        }
        Ok(())
    }

    /// Does something that needs `range`, after bringing back what was lost of that, if need be. Nobody may call this who
    /// holds the lock of an array, or views.
    fn despite_losses<T>(
        &self,
        range: &Range<usize>,
        mut access: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        /// Every further GPU may be lost meanwhile.
        const ATTEMPTS: usize = 8;
        let mut attempts = 0;
        loop {
            let error = match access() {
                Err(error @ (Error::DeviceLost { .. } | Error::DataLost { .. })) => error,
                Err(error @ Error::Gpu { .. }) => {
                    self.residency().probe();
                    if self.residency().rescue(range).is_none() {
                        return Err(error);
                    }
                    error
                }
                outcome => return outcome,
            };
            attempts += 1;
            if attempts == ATTEMPTS || replay::is_under_way() {
                return Err(error);
            }
            // In a statement of its own, for the lock must be free when calls are run again.
            let rescue = self.residency().rescue(range);
            match rescue {
                // Somebody else was quicker, or it is the GPU that it was to go to that is lost.
                None => {}
                Some(None) => return Err(self.data_lost(range)),
                Some(Some(rescue)) => {
                    let outcome = rescue.rescue(self);
                    // Whatever became of other arrays.
                    if !self.residency().lost_within(range).is_empty() {
                        outcome?;
                        return Err(self.data_lost(range));
                    }
                }
            }
        }
    }

    /// The error that says which elements of `range` are lost.
    fn data_lost(&self, range: &Range<usize>) -> Error {
        let residency = self.residency();
        let ranges = residency.lost_within(range);
        let (device, reason) = residency.loss();
        Error::DataLost {
            array: self.to_string(),
            ranges,
            device,
            reason,
        }
    }

    /// Whether somebody may still ask for the elements.
    pub(crate) fn is_owned(&self) -> bool {
        self.storage.is_owned.load(Ordering::Relaxed)
    }

    /// Whether it was made at that moment or later.
    pub(crate) fn is_born_since(&self, moment: Version) -> bool {
        self.storage.born >= moment
    }

    /// A reference that does not keep the array.
    pub(crate) fn downgrade(&self) -> WeakHandle {
        WeakHandle {
            storage: Arc::downgrade(&self.storage),
        }
    }

    /// Where the elements are. Held only for the time of one decision or one transfer.
    pub(crate) fn residency(&self) -> MutexGuard<'_, Residency> {
        let residency = if replay::replaces(self.storage.born) {
            self.stand_in()
        } else {
            &self.storage.residency
        };
        // A panic while the lock was held can only come from a failed assertion below; the sets are consistent
        // between statements, so the data stays usable.
        residency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the elements are, for everybody but a replay.
    pub(crate) fn real_residency(&self) -> MutexGuard<'_, Residency> {
        let residency = &self.storage.residency;
        residency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stand_in(&self) -> &Mutex<Residency> {
        let make = || Box::new(Mutex::new(self.real_residency().stand_in()));
        self.storage.stand_in.get_or_init(make)
    }

    /// Lets go of what replays left in the stand-in.
    pub(crate) fn clear_stand_in(&self) {
        if let Some(stand_in) = self.storage.stand_in.get() {
            let mut stand_in = stand_in.lock().unwrap_or_else(PoisonError::into_inner);
            *stand_in = stand_in.stand_in();
        }
    }
}

impl std::fmt::Display for Handle {
    /// The name, if it has one, and the type.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(name) = self.storage.name.get() {
            write!(f, "`{name}` ")?;
        }
        write!(f, "[{}; {}]", self.element_type(), self.len())
    }
}

/// Cuts an array of `len` elements into windows that are large enough to be moved at full speed.
fn windows(len: usize) -> impl Iterator<Item = Range<usize>> {
    const WINDOW: usize = 1 << 20;
    (0..len)
        .step_by(WINDOW)
        .map(move |start| start..len.min(start + WINDOW))
}

/// A borrow of an array's host memory, given back when dropped.
#[derive(Debug)]
pub(crate) struct HostBorrow<'a> {
    handle: &'a Handle,
    exclusive: bool,
}

impl Drop for HostBorrow<'_> {
    fn drop(&mut self) {
        self.handle.residency().give_back(self.exclusive);
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}; {}]", self.element_type(), self.len())?;
        self.residency().fmt(f)
    }
}

/// ```compile_fail
/// let a = divvy::Array::from_slice(&[1.0f64]); // error[E0277]: arrays hold f32, u32 or i32
/// ```
#[doc(hidden)]
pub struct UnsupportedElementsDoNotCompile;

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
