//! Compiling in the background what a kernel's first call on a GPU will need.

use super::gpu::Gpu;
use super::readiness::Readiness;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

impl Gpu {
    /// Whether this GPU has compiled what an implementation needs: one costs a lookup.
    pub(crate) fn readiness(&self, implementation: u64) -> Readiness {
        self.known.readiness(implementation)
    }

    /// Records that this GPU has compiled what an implementation needs.
    pub(crate) fn set_ready(&self, implementation: u64) {
        self.known.set_ready(implementation);
    }

    /// Compiles in the background what an implementation needs, by `compile`, unless that is done or under way. It is
    /// ready afterwards, or if there is no thread to be had.
    pub(crate) fn compile_ahead(
        self: &Arc<Self>,
        implementation: u64,
        compile: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) {
        if !self.known.begin(implementation) {
            return;
        }
        let gpu = Arc::clone(self);
        let ready = Ready(Arc::clone(self), implementation);
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

    /// Lets the background finish what it is compiling, and nothing more. To end a program while a driver compiles may
    /// crash it.
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
