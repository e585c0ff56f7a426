//! Handles: counted references to arrays without their element type. Kernels keep handles, and every access to elements
//! goes through one.

use super::host::HostBuffer;
use super::residency::{
    AccessSet, Coverage, DeviceView, LostGpu, Rescuer, Residency, TransferBytes, Version,
};
use super::{ElementType, Usage, dry_run, residency, shadow};
use crate::device::gpu::{Evict, Evicted, ExtentId, Gate, Gpu, Victims};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};

/// A counted reference to an array without its element type: what kernels keep.
///
/// A handle gives no access to the elements; kernels reach those through their parts. If a GPU is lost, what it computed is
/// computed again while the [`Array`](super::Array) exists. Once that is dropped, this holds only for arrays that a later
/// call with one of their handles has used.
#[derive(Clone)]
pub struct Handle {
    storage: Arc<Storage>,
}

/// A reference to an array that does not keep it alive.
#[derive(Clone)]
pub(crate) struct WeakHandle {
    storage: Weak<Storage>,
}

impl WeakHandle {
    /// The array, if it still exists.
    pub(crate) fn upgrade(&self) -> Option<Handle> {
        let storage = self.storage.upgrade()?;
        Some(Handle { storage })
    }

    /// Whether it refers to that array.
    pub(crate) fn is_of(&self, array: &Handle) -> bool {
        std::ptr::eq(self.storage.as_ptr(), Arc::as_ptr(&array.storage))
    }

    /// A number that is unique among arrays while this reference exists.
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
    created: Version,
    name: OnceLock<String>,
    /// Whether a dry run created it, and not the caller.
    in_dry_run: bool,
    /// Whether its elements may still be read: false once its `Array` is dropped, unless a later call uses it.
    is_owned: AtomicBool,
    residency: Mutex<Residency>,
    /// What a shadow scope sees in place of the residency.
    shadow: OnceLock<Box<Mutex<Residency>>>,
}

impl Evict for Storage {
    fn evict(&self, extent: ExtentId, victims: Victims, alone: bool) -> Result<Option<Evicted>> {
        let mut residency = match self.residency.try_lock() {
            Ok(residency) => residency,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) if !alone => return Ok(None),
            // The holder of this lock waits for none that the caller holds.
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
    /// An array whose elements are on the host. Without a buffer, they are zeros that take no memory yet.
    pub(super) fn new(len: usize, ty: ElementType, host: Option<HostBuffer>) -> Self {
        let storage = Arc::new_cyclic(|this: &Weak<Storage>| {
            let residency = Residency::on_host(this.clone(), len, ty, host);
            Storage {
                len,
                ty,
                created: residency::now(),
                name: OnceLock::new(),
                in_dry_run: dry_run::is_under_way(),
                is_owned: AtomicBool::new(true),
                residency: Mutex::new(residency),
                shadow: OnceLock::new(),
            }
        });
        Self { storage }
    }

    /// Names the array for messages, unless it has a name already.
    pub(super) fn name(&self, name: String) {
        let _ = self.storage.name.set(name);
    }

    /// Records that the [`Array`](super::Array) is dropped and only handles are left.
    pub(super) fn release_owner(&self) {
        self.storage.is_owned.store(false, Ordering::Relaxed);
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.storage.len
    }

    /// Whether the array has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
    pub fn element_type(&self) -> ElementType {
        self.storage.ty
    }

    /// Whether both are handles to the same array.
    pub fn same_array(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
    }

    /// Waits for the work that produces the elements, and makes them valid on the host as well.
    pub fn fetch(&self) -> Result<()> {
        self.read_by_host(&(0..self.len()));
        self.borrow_on_host(0..self.len(), Usage::READ).map(drop)
    }

    /// Waits for the work that produces the elements, and makes the host the only place where they are valid. The next use
    /// on a GPU has to upload them. For measuring with and without transfers.
    ///
    /// # Errors
    /// [`Error::Argument`] while a guard of the array exists.
    pub fn move_to_host(&self) -> Result<()> {
        self.borrow_on_host(0..self.len(), Usage::UPDATE).map(drop)
    }

    /// The view of `range` on `gpu`, in a new extent if none covers it; with `fetch`, its values are made valid there. The
    /// caller holds the `gate`, which says what may be evicted to make room.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room and none can be made.
    pub(crate) fn admit(
        &self,
        gpu: &Arc<Gpu>,
        range: Range<usize>,
        fetch: bool,
        fit: Coverage,
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
            // The extent is useless, and takes the room of a smaller one.
            let extent = view.extent;
            drop(view);
            self.residency().evict(extent, Victims::Any)?;
            return Err(error);
        }
        Ok(view)
    }

    /// Makes `range` valid in the extent of a view.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room to stage it and none can be made.
    pub(crate) fn fetch_to_device(
        &self,
        gpu: &Gpu,
        view: &DeviceView,
        range: &Range<usize>,
        gate: &Gate<'_>,
    ) -> Result<()> {
        // The view keeps the extent from being evicted to make room for this transfer.
        self.making_room(gpu, gate, |residency| {
            residency.fetch_to_device(view, range)
        })
    }

    /// Runs `act`, which needs memory of a GPU, and makes room until it succeeds or no more room can be made.
    fn making_room<T>(
        &self,
        gpu: &Gpu,
        gate: &Gate<'_>,
        mut act: impl FnMut(&mut Residency) -> Result<T>,
    ) -> Result<T> {
        loop {
            // A statement of its own: the lock must be free while room is made.
            let done = act(&mut self.residency());
            let Err(Error::DeviceMemory { bytes, .. }) = done else {
                return done;
            };
            let room = gpu.make_room(bytes, gate)?;
            let to_host = room.to_host;
            self.residency().add_moved(TransferBytes {
                to_host,
                ..TransferBytes::default()
            });
            if room.freed == 0 {
                return done;
            }
        }
    }

    /// The view of `range` on `gpu`, for callers that hold no views yet; with `fetch`, its values are made valid there.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room for it.
    pub(crate) fn place_on(
        &self,
        gpu: &Arc<Gpu>,
        range: Range<usize>,
        fetch: bool,
    ) -> Result<DeviceView> {
        let admit = |gate: Gate<'_>| self.admit(gpu, range.clone(), fetch, Coverage::Whole, &gate);
        match admit(gpu.share()) {
            Err(Error::DeviceMemory { .. }) => admit(gpu.be_alone()),
            admitted => admitted,
        }
    }

    /// Evicts the extents on a GPU. Elements that are valid nowhere else go to the host. Extents in use stay.
    pub(crate) fn leave(&self, gpu: &Gpu) -> Result<()> {
        let mut residency = self.residency();
        for extent in residency.extents_on(gpu.id()) {
            if let Some(evicted) = residency.evict(extent, Victims::Any)? {
                let to_host = evicted.to_host;
                residency.add_moved(TransferBytes {
                    to_host,
                    ..TransferBytes::default()
                });
            }
        }
        Ok(())
    }

    /// Bytes of the whole array.
    pub(crate) fn bytes(&self) -> usize {
        self.len() * self.element_type().size()
    }

    /// Gives `take` the bytes of the elements, window by window, and fetches each window when its turn comes. The array
    /// cannot be written during a window.
    pub(crate) fn take_windows(&self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.read_by_host(&(0..self.len()));
        let size = self.element_type().size();
        for window in windows(self.len()) {
            let (start, _borrow) = self.borrow_on_host(window.clone(), Usage::READ)?;
            // SAFETY: `start` is that of the array's host memory, where the window is allocated and initialised, and
            // bytes have no alignment; the shared borrow keeps others from writing.
            let bytes = unsafe {
                std::slice::from_raw_parts(start.add(window.start * size), window.len() * size)
            };
            take(bytes)?;
        }
        Ok(())
    }

    /// Lets `fill` overwrite the bytes of the elements, window by window. The old values are not fetched.
    pub(crate) fn fill_windows(&self, mut fill: impl FnMut(&mut [u8]) -> Result<()>) -> Result<()> {
        self.residency().read_back().written_by_host();
        let size = self.element_type().size();
        for window in windows(self.len()) {
            let (start, _borrow) = self.borrow_on_host(window.clone(), Usage::OVERWRITE)?;
            // SAFETY: as in `take_windows`, and any bytes are elements; the exclusive borrow keeps others away.
            let bytes = unsafe {
                std::slice::from_raw_parts_mut(start.add(window.start * size), window.len() * size)
            };
            fill(bytes)?;
        }
        Ok(())
    }

    /// A copy of the bytes of a range, which is fetched first. It does not count as a read by the host.
    pub(crate) fn copy_out(&self, range: &Range<usize>) -> Result<Vec<u8>> {
        let size = self.element_type().size();
        let bytes = range.len() * size;
        let (start, _borrow) = self.borrow_on_host(range.clone(), Usage::READ)?;
        let mut copy = Vec::new();
        let reserved = copy.try_reserve_exact(bytes);
        reserved.map_err(|_| Error::HostMemory { bytes })?;
        // SAFETY: as in `take_windows`.
        copy.extend_from_slice(unsafe {
            std::slice::from_raw_parts(start.add(range.start * size), bytes)
        });
        Ok(copy)
    }

    /// Overwrites a range. The bytes must be exactly its elements.
    pub(crate) fn copy_in(&self, range: &Range<usize>, bytes: &[u8]) -> Result<()> {
        let size = self.element_type().size();
        assert_eq!(
            bytes.len(),
            range.len() * size,
            "as many elements as the range has"
        );
        let (start, _borrow) = self.borrow_on_host(range.clone(), Usage::OVERWRITE)?;
        // SAFETY: as in `fill_windows`.
        let target =
            unsafe { std::slice::from_raw_parts_mut(start.add(range.start * size), bytes.len()) };
        target.copy_from_slice(bytes);
        Ok(())
    }

    /// Records that the host reads `range`.
    pub(super) fn read_by_host(&self, range: &Range<usize>) {
        let share = range.len() as f32 / self.len().max(1) as f32;
        self.residency().read_back().read_by_host(share);
    }

    /// The start of the array's host memory, and the borrow that keeps other accesses from clashing with this one. If the
    /// usage reads, `range` is made valid there; if it writes, the host becomes its only valid place.
    ///
    /// The borrow checker already forbids a clash between uses of an [`Array`](super::Array). Handles can be cloned, so
    /// this checks it.
    pub(crate) fn borrow_on_host(
        &self,
        range: Range<usize>,
        usage: Usage,
    ) -> Result<(*mut u8, HostBorrow<'_>)> {
        self.borrow_for(None, range, usage)
    }

    /// [`Handle::borrow_on_host`] for a call, which `accesses` records if there is one.
    pub(crate) fn borrow_for(
        &self,
        accesses: Option<&Arc<AccessSet>>,
        range: Range<usize>,
        usage: Usage,
    ) -> Result<(*mut u8, HostBorrow<'_>)> {
        if !self.storage.in_dry_run && dry_run::is_under_way() {
            return Err(dry_run::refusal());
        }
        let accesses = accesses.filter(|accesses| self.storage.created < accesses.version);
        let start = self.with_recovery(&range, || {
            let mut residency = self.residency();
            residency.check_borrow(usage.writes)?;
            if let Some(accesses) = accesses {
                residency.begin_history();
                let read = Usage {
                    writes: false,
                    ..usage
                };
                residency.record(self, &range, read, accesses);
            }
            let start = residency.host_access(range.clone(), usage)?;
            if let Some(accesses) = accesses.filter(|_| usage.writes) {
                residency.record(self, &range, Usage::OVERWRITE, accesses);
                residency.arrived_on_host(&range);
            }
            residency.borrow(usage.writes)?;
            Ok(start)
        })?;
        let borrow = HostBorrow {
            handle: self,
            exclusive: usage.writes,
        };
        Ok((start, borrow))
    }

    /// Makes a range valid on the host as well.
    pub(crate) fn fetch_range(&self, range: Range<usize>) -> Result<TransferBytes> {
        self.with_recovery(&range, || {
            let mut residency = self.residency();
            residency.host_access(range.clone(), Usage::READ)?;
            Ok(residency.take_moved())
        })
    }

    /// Makes all elements valid on a GPU.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room for it.
    pub(crate) fn prefetch(&self, gpu: &Arc<Gpu>) -> Result<()> {
        let all = 0..self.len();
        self.with_recovery(&all, || self.place_on(gpu, all.clone(), true).map(drop))
    }

    /// Recovers its lost elements.
    ///
    /// # Errors
    /// [`Error::DataLost`] if they cannot be recovered.
    pub(crate) fn recover(&self) -> Result<()> {
        let all = 0..self.len();
        self.with_recovery(&all, || self.residency().check_not_lost(&all))
    }

    /// Records that a call is about to use a range on a GPU. What it writes lies in the extent of `view`. `accesses` is the
    /// call's access set, if the call is recorded.
    pub(crate) fn used_on_device(
        &self,
        view: Option<&DeviceView>,
        range: &Range<usize>,
        usage: Usage,
        accesses: Option<&Arc<AccessSet>>,
    ) -> Result<()> {
        // Extents of the call's own temporaries remember the journal too: an access to them recovers everything else.
        let rescuer = accesses.map(|accesses| accesses.rescuer());
        let accesses = accesses.filter(|accesses| self.storage.created < accesses.version);
        let written = view.filter(|_| usage.writes);
        if accesses.is_none() && written.is_none() {
            return Ok(());
        }
        let mut residency = self.residency();
        if accesses.is_some() {
            residency.begin_history();
        }
        if let Some(view) = written {
            residency.written_on_device(view, range, rescuer)?;
        }
        match accesses {
            Some(accesses) => {
                self.storage.is_owned.store(true, Ordering::Relaxed);
                residency.record(self, range, usage, accesses);
            }
            None => residency.written_without_record(range),
        }
        Ok(())
    }

    /// Runs `access`, which needs `range`. If elements of the range are lost, recovers them and runs `access` again. The
    /// caller must hold no array's lock and no views.
    fn with_recovery<T>(
        &self,
        range: &Range<usize>,
        mut access: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        /// Another GPU may be lost during each recovery.
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
            if attempts == ATTEMPTS || shadow::is_under_way() {
                return Err(error);
            }
            // A statement of its own: the lock must be free while recovery runs.
            let rescuer = self.residency().rescue(range);
            match rescuer {
                // Another thread has recovered it, or the lost GPU is the one it was to go to.
                None => {}
                Some(Rescuer::None) => return Err(self.data_lost(range)),
                Some(Rescuer::Journal(journal)) => {
                    let outcome = journal.rescue(self);
                    // An error about other arrays does not matter here.
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
        let LostGpu { name, reason } = residency.lost_gpu();
        Error::DataLost {
            array: self.to_string(),
            ranges,
            device: name,
            reason,
        }
    }

    /// Whether its elements may still be read.
    pub(crate) fn is_owned(&self) -> bool {
        self.storage.is_owned.load(Ordering::Relaxed)
    }

    /// Whether it was created at that moment or later.
    pub(crate) fn is_created_since(&self, moment: Version) -> bool {
        self.storage.created >= moment
    }

    /// A reference that does not keep the array alive.
    pub(crate) fn downgrade(&self) -> WeakHandle {
        WeakHandle {
            storage: Arc::downgrade(&self.storage),
        }
    }

    /// The residency, or its shadow in a shadow scope. Callers hold it only for one decision or one transfer.
    pub(crate) fn residency(&self) -> MutexGuard<'_, Residency> {
        let residency = if shadow::replaces(self.storage.created) {
            self.shadow()
        } else {
            &self.storage.residency
        };
        // Only a failed assertion can panic while the lock is held. The sets are consistent between statements, so the
        // data stays usable.
        residency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The residency itself, also in a shadow scope.
    pub(crate) fn real_residency(&self) -> MutexGuard<'_, Residency> {
        let residency = &self.storage.residency;
        residency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shadow(&self) -> &Mutex<Residency> {
        let make = || Box::new(Mutex::new(self.real_residency().shadow()));
        self.storage.shadow.get_or_init(make)
    }

    /// Drops the elements of the shadow.
    pub(crate) fn clear_shadow(&self) {
        if let Some(shadow) = self.storage.shadow.get() {
            let mut shadow = shadow.lock().unwrap_or_else(PoisonError::into_inner);
            *shadow = shadow.shadow();
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

/// Splits an array of `len` elements into windows that are large enough to be moved at full speed.
fn windows(len: usize) -> impl Iterator<Item = Range<usize>> {
    const WINDOW: usize = 1 << 20;
    (0..len)
        .step_by(WINDOW)
        .map(move |start| start..len.min(start + WINDOW))
}

/// A borrow of an array's host memory. It ends when this is dropped.
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
