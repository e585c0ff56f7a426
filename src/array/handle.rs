//! Handles: counted references to arrays without their element type, which kernels keep and through which everything
//! reaches the elements.

use super::host::HostBuffer;
use super::residency::{AccessSet, Coverage, DeviceView, Residency, TransferBytes, Version};
use super::{ElementType, dry_run, residency, shadow};
use crate::device::gpu::{Evict, Evicted, ExtentId, Gate, Gpu, Victims};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};

/// A counted reference to an array without its element type: what kernels keep.
///
/// A handle gives no access to the elements; kernels reach those through the parts they are given. What was computed on a
/// GPU that is lost is computed again as long as there is the [`Array`](super::Array), or a call with one of its handles followed on
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
    created: Version,
    name: OnceLock<String>,
    /// Whether it was made in a rehearsal, and not by or for the caller.
    in_dry_run: bool,
    /// Whether somebody may still ask for its elements: false once its `Array` is dropped, unless a later call uses it.
    is_owned: AtomicBool,
    residency: Mutex<Residency>,
    /// What replays see in place of the residency.
    shadow: OnceLock<Box<Mutex<Residency>>>,
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
    /// An array whose elements are on the host; without a buffer, they are zeros that take no memory yet.
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

    /// Names the array for messages, unless it has a name.
    pub(super) fn name(&self, name: String) {
        let _ = self.storage.name.set(name);
    }

    /// The [`Array`](super::Array) is gone; only handles are left.
    pub(super) fn release_owner(&self) {
        self.storage.is_owned.store(false, Ordering::Relaxed);
    }

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
            self.residency().add_moved(TransferBytes {
                to_host,
                ..TransferBytes::default()
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
        let admit = |gate: Gate<'_>| self.admit(gpu, range.clone(), fetch, Coverage::Whole, &gate);
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

    /// A copy of the bytes of a range, which is fetched if need be. The host is not counted as their reader.
    pub(crate) fn copy_out(&self, range: &Range<usize>) -> Result<Vec<u8>> {
        let size = self.element_type().size();
        let bytes = range.len() * size;
        let (start, _borrow) = self.borrow_on_host(range.clone(), true, false)?;
        let mut copy = Vec::new();
        let reserved = copy.try_reserve_exact(bytes);
        reserved.map_err(|_| Error::HostMemory { bytes })?;
        // SAFETY: as in `take_windows`.
        copy.extend_from_slice(unsafe {
            std::slice::from_raw_parts(start.add(range.start * size), bytes)
        });
        Ok(copy)
    }

    /// Overwrites a range with the bytes of as many elements.
    pub(crate) fn copy_in(&self, range: &Range<usize>, bytes: &[u8]) -> Result<()> {
        let size = self.element_type().size();
        assert_eq!(
            bytes.len(),
            range.len() * size,
            "as many elements as the range has"
        );
        let (start, _borrow) = self.borrow_on_host(range.clone(), false, true)?;
        // SAFETY: as in `fill_windows`.
        let target =
            unsafe { std::slice::from_raw_parts_mut(start.add(range.start * size), bytes.len()) };
        target.copy_from_slice(bytes);
        Ok(())
    }

    /// Takes note that the host uses what is in `range`.
    pub(super) fn read_by_host(&self, range: &Range<usize>) {
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

    /// [`Handle::borrow_on_host`]; `accesses` keeps a record of it if it is for a call that may be run again.
    pub(crate) fn borrow_for(
        &self,
        accesses: Option<&Arc<AccessSet>>,
        range: Range<usize>,
        fetch: bool,
        write: bool,
    ) -> Result<(*mut u8, HostBorrow<'_>)> {
        if !self.storage.in_dry_run && dry_run::is_under_way() {
            return Err(dry_run::refusal());
        }
        let accesses = accesses.filter(|accesses| self.storage.created < accesses.version);
        let start = self.with_recovery(&range, || {
            let mut residency = self.residency();
            residency.check_borrow(write)?;
            if let Some(accesses) = accesses {
                residency.begin_history();
                residency.record(self, &range, (fetch, false), accesses);
            }
            let start = residency.host_access(range.clone(), fetch, write)?;
            if let Some(accesses) = accesses.filter(|_| write) {
                residency.record(self, &range, (false, true), accesses);
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
    pub(crate) fn fetch_range(&self, range: Range<usize>) -> Result<TransferBytes> {
        self.with_recovery(&range, || {
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
        self.with_recovery(&all, || self.place_on(gpu, all.clone(), true).map(drop))
    }

    /// Brings back what was lost of it.
    ///
    /// # Errors
    /// [`Error::DataLost`] if that cannot be done.
    pub(crate) fn recover(&self) -> Result<()> {
        let all = 0..self.len();
        self.with_recovery(&all, || self.residency().check_not_lost(&all))
    }

    /// Notes that a call is about to use a range on a GPU: where a view shows what it writes, if it writes. `accesses` keeps a
    /// record of it if it may have to be run again.
    pub(crate) fn used_on_device(
        &self,
        view: Option<&DeviceView>,
        range: &Range<usize>,
        (reads, writes): (bool, bool),
        accesses: Option<&Arc<AccessSet>>,
    ) -> Result<()> {
        // Whoever asks for what the call made itself has everything else recovered too.
        let rescuer = accesses.map(|accesses| accesses.rescuer());
        let accesses = accesses.filter(|accesses| self.storage.created < accesses.version);
        let written = view.filter(|_| writes);
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
                residency.record(self, range, (reads, writes), accesses);
            }
            None => residency.written_without_record(range),
        }
        Ok(())
    }

    /// Does something that needs `range`, after bringing back what was lost of that, if need be. Nobody may call this who
    /// holds the lock of an array, or views.
    fn with_recovery<T>(
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
            if attempts == ATTEMPTS || shadow::is_under_way() {
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
    pub(crate) fn is_created_since(&self, moment: Version) -> bool {
        self.storage.created >= moment
    }

    /// A reference that does not keep the array.
    pub(crate) fn downgrade(&self) -> WeakHandle {
        WeakHandle {
            storage: Arc::downgrade(&self.storage),
        }
    }

    /// Where the elements are. Held only for the time of one decision or one transfer.
    pub(crate) fn residency(&self) -> MutexGuard<'_, Residency> {
        let residency = if shadow::replaces(self.storage.created) {
            self.shadow()
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

    fn shadow(&self) -> &Mutex<Residency> {
        let make = || Box::new(Mutex::new(self.real_residency().shadow()));
        self.storage.shadow.get_or_init(make)
    }

    /// Lets go of what replays left in the stand-in.
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
