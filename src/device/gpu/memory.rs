//! The memory of a GPU: how much of it is taken, which arrays live in it, and how room is made.
//!
//! Everything that Divvy allocates is counted: the buffers of arrays, idle ones kept for reuse, staging, parameters. A
//! budget, if there is one, is divided once: staging and parameters have shares that they keep to, the rest is the
//! arrays'. An allocation that exceeds it fails just as one that the driver refuses.
//!
//! Room is made by evicting extents of arrays, the least recently used first. Two rules keep threads that do so to each
//! other from deadlock, and from endless competition:
//!
//! - Whoever evicts holds the lock of no array but the one that is giving way.
//! - An extent of which somebody holds a view is in use and stays. Views are held while a piece is encoded, under the
//!   [gate](Memory::share): shared, so that threads encode side by side, or alone. Whoever finds no room while others
//!   hold views lets go of its own, waits until it is alone, and tries again. What does not fit then does not fit.

use super::Gpu;
use crate::error::{Error, Result};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};

/// The least budget: less would leave arrays next to nothing.
pub(crate) const LEAST_BUDGET: u64 = 256 << 10;

/// What a budget is divided into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Bytes for the buffers of arrays, idle ones included.
    pub(super) arrays: u64,
    /// Bytes for staging buffers.
    pub(super) staging: u64,
    /// Bytes of the parameter arena, for which another as much is staged.
    pub(super) parameters: u64,
}

impl Shares {
    /// What staging and parameters take where there is plenty.
    const MOST_STAGING: u64 = 256 << 20;
    const MOST_PARAMETERS: u64 = 64 << 10;

    /// A quarter for staging, which is enough for transfers to run at full speed from 512 MiB on, and next to nothing for
    /// parameters.
    pub(super) fn of(budget: Option<u64>) -> Self {
        let Some(budget) = budget else {
            return Self {
                arrays: u64::MAX,
                staging: Self::MOST_STAGING,
                parameters: Self::MOST_PARAMETERS,
            };
        };
        let budget = budget.max(LEAST_BUDGET);
        let staging = (budget / 4).min(Self::MOST_STAGING);
        let parameters = prev_power_of_two(budget / 16).min(Self::MOST_PARAMETERS);
        Self {
            arrays: budget - staging - 2 * parameters,
            staging,
            parameters,
        }
    }
}

/// The largest power of two that is no more than `n`, which is not 0.
pub(super) fn prev_power_of_two(n: u64) -> u64 {
    1 << n.max(1).ilog2()
}

/// How much of a GPU's memory Divvy has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuMemory {
    /// The most that it may take, if that is limited.
    pub budget_bytes: Option<u64>,
    /// What it has taken now: arrays, buffers that are kept for reuse, staging.
    pub used_bytes: u64,
    /// The most that it had taken at any time.
    pub peak_bytes: u64,
}

/// What memory is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Arrays,
    /// Which keeps to its share by itself.
    Staging,
}

/// The account of a GPU's memory, and the extents of arrays in it.
#[derive(Debug)]
pub(super) struct Memory {
    budget: Option<u64>,
    shares: Shares,
    /// What the driver is made out to have, for tests.
    driver_bytes: u64,
    arrays: AtomicU64,
    all: AtomicU64,
    peak: AtomicU64,
    /// Counts the pieces that were encoded: the time by which extents are old.
    turn: AtomicU64,
    extents: Mutex<HashMap<ExtentId, Registered>>,
    gate: RwLock<()>,
}

/// Identifies an extent within its GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ExtentId(u64);

#[derive(Debug)]
struct Registered {
    used: Arc<AtomicU64>,
    owner: Weak<dyn Evict>,
}

/// An array, as somebody who can give way.
pub(crate) trait Evict: Send + Sync + std::fmt::Debug {
    /// Frees an extent if nobody uses it and it is among the `victims`; what is valid nowhere else goes to the host. `None`
    /// if it stays. Waits for whoever is at the array only if the caller is `alone`.
    ///
    /// # Errors
    /// What is valid there could not be moved; then it stays too.
    fn evict(&self, extent: ExtentId, victims: Victims, alone: bool) -> Result<Option<Evicted>>;
}

/// Which extents are to be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victims {
    /// Those in which nothing is valid.
    Stale,
    /// Those of which everything is valid elsewhere too.
    Copies,
    /// All.
    Any,
}

/// What an eviction came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evicted {
    /// Bytes that are free now.
    pub(crate) freed: u64,
    /// Bytes that were moved to the host.
    pub(crate) to_host: u64,
}

/// Who else may be encoding meanwhile.
#[derive(Debug)]
pub(crate) enum Gate<'a> {
    /// Others, whose extents stay.
    Shared {
        /// While it lives, nobody is alone.
        _guard: RwLockReadGuard<'a, ()>,
    },
    /// Nobody.
    Alone {
        /// While it lives, nobody else encodes.
        _guard: RwLockWriteGuard<'a, ()>,
    },
}

impl Gate<'_> {
    /// Whether nobody else is encoding.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self, Self::Alone { .. })
    }
}

impl Memory {
    pub(super) fn new(budget: Option<u64>, driver_bytes: Option<u64>) -> Self {
        Self {
            budget,
            shares: Shares::of(budget),
            driver_bytes: driver_bytes.unwrap_or(u64::MAX),
            arrays: AtomicU64::new(0),
            all: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            extents: Mutex::default(),
            gate: RwLock::new(()),
        }
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    pub(super) fn report(&self) -> GpuMemory {
        GpuMemory {
            budget_bytes: self.budget,
            used_bytes: self.all.load(Ordering::Relaxed),
            peak_bytes: self.peak.load(Ordering::Relaxed),
        }
    }

    /// Counts bytes in; `None` if that is more than may be taken.
    pub(super) fn lease(self: &Arc<Self>, purpose: Purpose, bytes: u64) -> Option<Lease> {
        let limit = match purpose {
            Purpose::Arrays => self.shares.arrays,
            Purpose::Staging => u64::MAX,
        };
        let add_within = |count: &AtomicU64, limit: u64| {
            let add = |sum: u64| sum.checked_add(bytes).filter(|sum| *sum <= limit);
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
        };
        let before = add_within(&self.all, self.driver_bytes).ok()?;
        if purpose == Purpose::Arrays && add_within(&self.arrays, limit).is_err() {
            self.all.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        self.peak.fetch_max(before + bytes, Ordering::Relaxed);
        Some(Lease {
            memory: Arc::clone(self),
            purpose,
            bytes,
        })
    }

    /// Whether so many bytes more for arrays are within the budget, whatever the driver says.
    pub(super) fn has_room_for_arrays(&self, bytes: u64) -> bool {
        let taken = self.arrays.load(Ordering::Relaxed);
        taken.saturating_add(bytes) <= self.shares.arrays
    }

    fn extents(&self) -> MutexGuard<'_, HashMap<ExtentId, Registered>> {
        self.extents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The extents and whose they are, the least recently used first.
    fn by_last_use(&self) -> Vec<(ExtentId, Arc<dyn Evict>)> {
        // Owners that come to their end here must not find the lock taken.
        let mut known: Vec<(u64, ExtentId, Weak<dyn Evict>)> = self
            .extents()
            .iter()
            .map(|(id, extent)| {
                let used = extent.used.load(Ordering::Relaxed);
                (used, *id, Weak::clone(&extent.owner))
            })
            .collect();
        known.sort_by_key(|(used, id, _)| (*used, *id));
        known
            .into_iter()
            .filter_map(|(_, id, owner)| Some((id, owner.upgrade()?)))
            .collect()
    }
}

/// Bytes that are counted as taken until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    memory: Arc<Memory>,
    purpose: Purpose,
    bytes: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.memory.all.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.purpose == Purpose::Arrays {
            self.memory.arrays.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// A wgpu buffer that is counted.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) raw: wgpu::Buffer,
    _lease: Lease,
}

/// Why there is no buffer.
#[derive(Debug)]
pub(super) enum Refusal {
    NoRoom,
    /// What wgpu said.
    Other(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoRoom => f.write_str("out of memory"),
            Self::Other(message) => f.write_str(message),
        }
    }
}

impl Memory {
    /// A new buffer.
    pub(super) fn allocate(
        self: &Arc<Self>,
        device: &wgpu::Device,
        purpose: Purpose,
        bytes: u64,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> Result<Allocation, Refusal> {
        let lease = self.lease(purpose, bytes).ok_or(Refusal::NoRoom)?;
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size: bytes,
            usage,
            mapped_at_creation: mapped,
        };
        match super::catch(device, || device.create_buffer(&descriptor)) {
            Ok(raw) => Ok(Allocation { raw, _lease: lease }),
            Err(wgpu::Error::OutOfMemory { .. }) => Err(Refusal::NoRoom),
            Err(other) => Err(Refusal::Other(other.to_string())),
        }
    }
}

/// An extent's entry in the register of its GPU, until this is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    id: ExtentId,
    used: Arc<AtomicU64>,
    memory: Arc<Memory>,
}

impl Registration {
    pub(crate) fn id(&self) -> ExtentId {
        self.id
    }

    /// It is being used.
    pub(crate) fn touch(&self) {
        let now = self.memory.turn.load(Ordering::Relaxed);
        self.used.store(now, Ordering::Relaxed);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.memory.extents().remove(&self.id);
    }
}

impl Gpu {
    /// How much of its memory is taken.
    pub(crate) fn memory(&self) -> GpuMemory {
        self.memory.report()
    }

    /// The most bytes that arrays may take together, if that is limited.
    pub(crate) fn array_budget(&self) -> Option<u64> {
        Some(self.memory.shares.arrays).filter(|bytes| *bytes != u64::MAX)
    }

    /// The largest buffer that an array may have.
    pub(crate) fn largest_buffer(&self) -> u64 {
        let budget = self.memory.shares.arrays / 256 * 256;
        self.limits().max_buffer_bytes.min(budget)
    }

    /// Registers an extent of `owner`, used now.
    pub(crate) fn register(&self, owner: &Weak<dyn Evict>) -> Registration {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = ExtentId(NEXT.fetch_add(1, Ordering::Relaxed));
        let now = self.memory.turn.load(Ordering::Relaxed);
        let used = Arc::new(AtomicU64::new(now));
        let registered = Registered {
            used: Arc::clone(&used),
            owner: Weak::clone(owner),
        };
        self.memory.extents().insert(id, registered);
        Registration {
            id,
            used,
            memory: Arc::clone(&self.memory),
        }
    }

    /// Lets the caller hold views of arrays on this GPU beside others. A new piece begins.
    pub(crate) fn share(&self) -> Gate<'_> {
        self.memory.turn.fetch_add(1, Ordering::Relaxed);
        let gate = &self.memory.gate;
        Gate::Shared {
            _guard: gate.read().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Lets the caller hold views of arrays on this GPU once nobody else does. It must hold none, nor the lock of an array.
    pub(crate) fn be_alone(&self) -> Gate<'_> {
        self.memory.turn.fetch_add(1, Ordering::Relaxed);
        let gate = &self.memory.gate;
        Gate::Alone {
            _guard: gate.write().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Evicts extents until so many bytes are free, or nothing is left that could go. Nobody may call this who holds the
    /// lock of an array.
    ///
    /// # Errors
    /// If the GPU fails meanwhile.
    pub(crate) fn make_room(&self, bytes: u64, gate: &Gate<'_>) -> Result<Evicted> {
        let mut all = Evicted::default();
        for victims in [Victims::Stale, Victims::Copies, Victims::Any] {
            for (extent, owner) in self.memory.by_last_use() {
                if all.freed >= bytes {
                    return Ok(all);
                }
                match owner.evict(extent, victims, gate.is_alone()) {
                    Ok(Some(evicted)) => {
                        all.freed += evicted.freed;
                        all.to_host += evicted.to_host;
                    }
                    // Another may be moved where this one could not.
                    Ok(None) | Err(Error::HostMemory { .. } | Error::DeviceMemory { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(all)
    }
}

impl Gpu {
    /// Sees to it that there is room for buffers of so many bytes each, all at once, which are idle then. The caller should
    /// be alone, for others would use them.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no such room.
    pub(crate) fn reserve(&self, buffers: &[u64], gate: &Gate<'_>) -> Result<Evicted> {
        let mut held = SmallVec::<[_; 2]>::new();
        let mut evicted = Evicted::default();
        while held.len() < buffers.len() {
            match self.allocate(buffers[held.len()]) {
                Err(Error::DeviceMemory { device, bytes }) => {
                    let room = self.make_room(bytes, gate)?;
                    evicted.freed += room.freed;
                    evicted.to_host += room.to_host;
                    if room.freed == 0 {
                        return Err(Error::DeviceMemory { device, bytes });
                    }
                }
                buffer => held.push(buffer?),
            }
        }
        Ok(evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_a_budget_are_no_more_than_it_and_arrays_get_most() {
        for budget in [LEAST_BUDGET, 1 << 20, 12_345_678, 64 << 20, 80 << 30] {
            let shares = Shares::of(Some(budget));
            let sum = shares.arrays + shares.staging + 2 * shares.parameters;
            assert_eq!(sum, budget);
            assert!(shares.arrays >= budget / 2, "{shares:?}");
            assert!(shares.parameters.is_power_of_two());
        }
        assert_eq!(Shares::of(Some(0)), Shares::of(Some(LEAST_BUDGET)));
        assert_eq!(Shares::of(None).arrays, u64::MAX);
    }

    #[test]
    fn what_is_taken_is_counted_and_no_more_is_given_than_there_is() {
        let memory = Arc::new(Memory::new(Some(1 << 20), None));
        let arrays = memory.shares().arrays;
        let first = memory.lease(Purpose::Arrays, arrays - 100).expect("room");
        assert!(memory.lease(Purpose::Arrays, 101).is_none());
        let second = memory.lease(Purpose::Arrays, 100).expect("room");
        let staging = memory.lease(Purpose::Staging, 1000).expect("room");
        assert_eq!(memory.report().used_bytes, arrays + 1000);
        drop((first, second, staging));
        let report = memory.report();
        assert_eq!((report.used_bytes, report.peak_bytes), (0, arrays + 1000));
        assert!(memory.lease(Purpose::Arrays, u64::MAX).is_none());
    }

    #[test]
    fn what_the_driver_has_limits_everything() {
        let memory = Arc::new(Memory::new(None, Some(1000)));
        let staging = memory.lease(Purpose::Staging, 600).expect("room");
        assert!(memory.lease(Purpose::Arrays, 401).is_none());
        drop(staging);
        assert!(memory.lease(Purpose::Arrays, 1000).is_some());
    }
}
