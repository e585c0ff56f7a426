//! Which implementations of kernels have their pipelines on a GPU, so that a first call need not wait for a compiler.
//!
//! Implementations are told apart by a hash. What it leaves out, a size for which a shader is specialised differently,
//! may still be compiled by the call that needs it.

use super::Gpu;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
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
    turn: Mutex<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stopped: AtomicBool,
}

impl KnownImplementations {
    /// Whether `implementation` is compiled.
    pub(super) fn readiness(&self, implementation: u64) -> Readiness {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(&implementation).copied();
        found.unwrap_or(Readiness::Unknown)
    }

    /// Notes that `implementation` is compiled from now on.
    pub(super) fn set_ready(&self, implementation: u64) {
        if self.readiness(implementation) == Readiness::Ready {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(implementation, Readiness::Ready);
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the caller begins to compile `implementation`; false if that is done, or somebody does it.
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

impl Gpu {
    /// Whether this GPU has compiled what an implementation needs: one costs a lookup.
    pub(crate) fn readiness(&self, implementation: u64) -> Readiness {
        self.known.readiness(implementation)
    }

    /// Notes that this GPU has compiled what an implementation needs.
    pub(crate) fn set_ready(&self, implementation: u64) {
        self.known.set_ready(implementation);
    }

    /// Compiles in the background what an implementation needs, by `compile`, unless that is done or under way. It is
    /// ready afterwards, or if there is no thread to be had.
    pub(crate) fn compile_ahead(
        &self,
        implementation: u64,
        compile: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) {
        let Some(gpu) = self.this.upgrade() else {
            return;
        };
        if !self.known.begin(implementation) {
            return;
        }
        let ready = Ready(Arc::clone(&gpu), implementation);
        let work = move || {
            let ready = ready;
            let known = &gpu.known;
            let _turn = known.turn.lock().unwrap_or_else(PoisonError::into_inner);
            if !known.stopped.load(Ordering::Relaxed) {
                compile(&ready.0);
            }
        };
        let named = std::thread::Builder::new().name("divvy compiler".into());
        match named.spawn(work) {
            Ok(thread) => {
                let mut threads = self.known.threads();
                threads.retain(|thread| !thread.is_finished());
                threads.push(thread);
            }
            Err(error) => tracing::warn!(%error, "nothing can be compiled in the background"),
        }
    }

    /// Lets the background finish what it is compiling, and nothing more. Whoever ends a program while a driver compiles
    /// may crash it.
    pub(crate) fn stop_compiling(&self) {
        self.known.stopped.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut *self.known.threads());
        // A kernel may hold the runtime itself, so that its thread is the one that ends it.
        let own = std::thread::current().id();
        for thread in threads.into_iter().filter(|t| t.thread().id() != own) {
            // A panic in it was caught and told.
            let _ = thread.join();
        }
    }
}

/// Says that an implementation is compiled, at the end of the thread that compiles it, whichever way that ends.
struct Ready(Arc<Gpu>, u64);

impl Drop for Ready {
    fn drop(&mut self) {
        self.0.set_ready(self.1);
    }
}
