//! The register of the extents of arrays in a GPU's memory, and the gate through which threads come that hold views
//! of them.
//!
//! Room is made by evicting extents, the least recently used first. Two rules keep threads that do so to each other from
//! deadlock, and from endless competition:
//!
//! - A thread that evicts holds the lock of no array but the one that is giving way.
//! - An extent of which a thread holds a view is in use and stays. Views are held while a piece is encoded, under the
//!   gate: shared, so that threads encode side by side, or alone. A thread that finds no room while others hold views
//!   lets go of its own, waits until it is alone, and tries again. What does not fit then does not fit.

use crate::error::Result;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};

/// Identifies an extent within its GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ExtentId(u64);

/// An array, as an owner of extents that can give way.
pub(crate) trait Evict: Send + Sync + std::fmt::Debug {
    /// Frees an extent if it is not in use and it is among the `victims`; what is valid nowhere else goes to the host.
    /// `None` if it stays. Waits for threads that use the array only if the caller is `alone`.
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

/// What other threads may be encoding meanwhile.
#[derive(Debug)]
pub(crate) enum Gate<'a> {
    /// Others encode too, and their extents stay.
    Shared {
        /// While it lives, no thread is alone.
        _guard: RwLockReadGuard<'a, ()>,
    },
    /// No other thread encodes.
    Alone {
        /// While it lives, no other thread encodes.
        _guard: RwLockWriteGuard<'a, ()>,
    },
}

impl Gate<'_> {
    /// Whether no other thread is encoding.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self, Self::Alone { .. })
    }
}

/// The extents on a GPU.
#[derive(Debug, Default)]
pub(super) struct ExtentRegister {
    /// Counts the pieces that were encoded: the time by which extents are old.
    turn: AtomicU64,
    extents: Mutex<HashMap<ExtentId, Registered>>,
    gate: RwLock<()>,
}

#[derive(Debug)]
struct Registered {
    used: Arc<AtomicU64>,
    owner: Weak<dyn Evict>,
}

/// An extent's entry in the register of its GPU, until this is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    id: ExtentId,
    used: Arc<AtomicU64>,
    register: Arc<ExtentRegister>,
}

impl Registration {
    pub(crate) fn id(&self) -> ExtentId {
        self.id
    }

    /// Records that it is being used.
    pub(crate) fn touch(&self) {
        let now = self.register.turn.load(Ordering::Relaxed);
        self.used.store(now, Ordering::Relaxed);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.register.extents().remove(&self.id);
    }
}

impl ExtentRegister {
    fn extents(&self) -> MutexGuard<'_, HashMap<ExtentId, Registered>> {
        self.extents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers an extent of `owner`, used now.
    pub(super) fn register(self: &Arc<Self>, owner: &Weak<dyn Evict>) -> Registration {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = ExtentId(NEXT.fetch_add(1, Ordering::Relaxed));
        let now = self.turn.load(Ordering::Relaxed);
        let used = Arc::new(AtomicU64::new(now));
        let registered = Registered {
            used: Arc::clone(&used),
            owner: Weak::clone(owner),
        };
        self.extents().insert(id, registered);
        Registration {
            id,
            used,
            register: Arc::clone(self),
        }
    }

    /// Lets the caller hold views beside others. A new piece begins.
    pub(super) fn share(&self) -> Gate<'_> {
        self.turn.fetch_add(1, Ordering::Relaxed);
        Gate::Shared {
            _guard: self.gate.read().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Lets the caller hold views once no other thread does. A new piece begins.
    pub(super) fn be_alone(&self) -> Gate<'_> {
        self.turn.fetch_add(1, Ordering::Relaxed);
        Gate::Alone {
            _guard: self.gate.write().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// The extents with their owners, the least recently used first.
    pub(super) fn by_last_use(&self) -> Vec<(ExtentId, Arc<dyn Evict>)> {
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
