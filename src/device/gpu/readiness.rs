//! Which implementations of kernels have their pipelines on a GPU, so that a first call need not wait for a compiler.
//!
//! Implementations are told apart by a hash. What it leaves out, a size for which a shader is specialised differently,
//! may still be compiled by the call that needs it.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

/// Whether a GPU has compiled what a kernel needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Not as far as is known.
    Unknown,
    /// It is being compiled in the background.
    Compiling,
    /// It has run, or been compiled.
    Ready,
}

/// The implementations that a GPU knows.
#[derive(Debug, Default)]
pub(super) struct KnownImplementations {
    known: RwLock<HashMap<u64, Readiness>>,
    /// Held by the thread that compiles: one at a time is enough, and leaves the processor to others.
    pub(super) turn: Mutex<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    pub(super) stopped: AtomicBool,
}

impl KnownImplementations {
    /// Whether `implementation` is compiled.
    pub(super) fn readiness(&self, implementation: u64) -> Readiness {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(&implementation).copied();
        found.unwrap_or(Readiness::Unknown)
    }

    /// Records that `implementation` is compiled.
    pub(super) fn set_ready(&self, implementation: u64) {
        if self.readiness(implementation) == Readiness::Ready {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(implementation, Readiness::Ready);
    }

    pub(super) fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the caller begins to compile `implementation`; false if that is done or under way.
    pub(super) fn begin(&self, implementation: u64) -> bool {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let readiness = known.entry(implementation).or_insert(Readiness::Unknown);
        let begins = *readiness == Readiness::Unknown;
        if begins {
            *readiness = Readiness::Compiling;
        }
        begins
    }
}
