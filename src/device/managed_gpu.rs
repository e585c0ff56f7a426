//! A GPU among the devices of a runtime: in use, lost and reopened after a while, or set aside because it computed
//! wrong results.
//!
//! A lost GPU never recovers by itself. A separate thread opens a new one on its adapter, which takes its place and
//! number.

use super::gpu::{Adapter, Faults, Gpu, GpuInfo, OpenGpu};
use crate::error::Result;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One GPU of a runtime, independent of the device that is currently open on its adapter.
pub(crate) struct ManagedGpu {
    shared: Arc<Shared>,
    /// The thread that reopens it.
    opening: Mutex<Option<JoinHandle<()>>>,
    /// The number of consecutive verifications that found an error.
    mismatches: AtomicU32,
    /// Why it is set aside, if it is.
    set_aside: OnceLock<String>,
}

struct Shared {
    adapter: Adapter,
    /// The last opened device.
    gpu: RwLock<Arc<Gpu>>,
    /// Whether it is known to be lost, so that calls need no lock in the common case.
    is_lost: AtomicBool,
    loss: Mutex<Loss>,
}

/// The history of a GPU's losses.
struct Loss {
    reason: String,
    pause: Duration,
    since: Instant,
    is_opening: bool,
}

/// A GPU on which nothing is placed, temporarily or permanently.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnusableGpu {
    /// Its number.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Why it was lost, could not be reopened, or was set aside.
    pub reason: String,
}

impl ManagedGpu {
    pub(super) fn new(OpenGpu { adapter, gpu }: OpenGpu) -> Self {
        let loss = Loss {
            reason: String::new(),
            pause: adapter.tuning().first_pause,
            since: Instant::now(),
            is_opening: false,
        };
        let shared = Shared {
            adapter,
            gpu: RwLock::new(gpu),
            is_lost: AtomicBool::new(false),
            loss: Mutex::new(loss),
        };
        Self {
            shared: Arc::new(shared),
            opening: Mutex::new(None),
            mismatches: AtomicU32::new(0),
            set_aside: OnceLock::new(),
        }
    }

    /// The adapter's description of itself.
    pub(crate) fn info(&self) -> &GpuInfo {
        self.shared.adapter.info()
    }

    /// The GPU that is open, unless it is lost.
    pub(crate) fn gpu(&self) -> Option<Arc<Gpu>> {
        if self.shared.is_lost.load(Ordering::Acquire) {
            return None;
        }
        let gpu = self.shared.latest();
        if gpu.is_lost() {
            self.shared.lose(&gpu);
            return None;
        }
        Some(gpu)
    }

    /// The GPU that was opened last, whether or not it is lost.
    pub(crate) fn latest(&self) -> Arc<Gpu> {
        self.shared.latest()
    }

    /// Why it is lost, if it is.
    pub(crate) fn loss(&self) -> Option<String> {
        self.gpu()
            .is_none()
            .then(|| self.shared.loss().reason.clone())
    }

    /// Records that a verification found no error.
    pub(crate) fn agreed(&self) {
        self.mismatches.store(0, Ordering::Relaxed);
    }

    /// Records that a verification found an error. After several in a row, nothing is placed on the GPU any more. Its
    /// contents can still be read.
    pub(crate) fn disagreed(&self, mismatch: &str) {
        let count = self.mismatches.fetch_add(1, Ordering::Relaxed) + 1;
        if count >= self.shared.adapter.tuning().most_mismatches {
            let (gpu, reason) = (
                &self.info().name,
                format!("{count} verifications in a row failed: {mismatch}"),
            );
            if self.set_aside.set(reason).is_ok() {
                tracing::warn!(
                    gpu,
                    mismatch,
                    "a GPU is set aside, since it computes wrongly"
                );
            }
        }
    }

    /// Why it is set aside, if it is.
    pub(crate) fn why_set_aside(&self) -> Option<&str> {
        self.set_aside.get().map(String::as_str)
    }

    /// Begins to reopen a lost GPU if it is due.
    pub(super) fn reopen_if_due(&self) {
        if !self.shared.is_lost.load(Ordering::Acquire) {
            return;
        }
        let mut loss = self.shared.loss();
        if loss.is_opening || loss.since.elapsed() < loss.pause {
            return;
        }
        loss.is_opening = true;
        drop(loss);
        let shared = Arc::clone(&self.shared);
        let named = std::thread::Builder::new().name("divvy opener".into());
        match named.spawn(move || drop(shared.open())) {
            Ok(thread) => *self.opening() = Some(thread),
            Err(error) => {
                tracing::warn!(%error, "no thread to open a GPU again");
                self.shared.loss().is_opening = false;
            }
        }
    }

    /// Reopens a lost GPU at once, whether or not it is due: for work that can run nowhere else.
    pub(super) fn open_now(&self) -> Result<Arc<Gpu>> {
        self.stop();
        match self.gpu() {
            Some(gpu) => Ok(gpu),
            None => self.shared.open(),
        }
    }

    /// Waits for the thread that reopens it, if there is one.
    pub(super) fn stop(&self) {
        let thread = self.opening().take();
        if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id()) {
            // The thread does not panic. If it did, the GPU would stay lost.
            let _ = thread.join();
        }
    }

    /// The faults that tests inject into it.
    pub(crate) fn with_faults<T>(&self, see: impl FnOnce(&Faults) -> T) -> T {
        see(self.shared.adapter.faults())
    }

    fn opening(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn latest(&self) -> Arc<Gpu> {
        Arc::clone(&self.gpu.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn loss(&self) -> MutexGuard<'_, Loss> {
        self.loss.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a loss.
    fn lose(&self, gpu: &Gpu) {
        let mut loss = self.loss();
        if self.is_lost.swap(true, Ordering::AcqRel) {
            return;
        }
        loss.reason = gpu.loss().unwrap_or_default();
        // After a long time without a loss, the pause starts small again.
        let tuning = self.adapter.tuning();
        let lasted = loss.since.elapsed() > tuning.longest_pause;
        let pause = if lasted {
            tuning.first_pause
        } else {
            loss.pause
        };
        loss.postpone(pause);
        tracing::warn!(
            gpu = gpu.name(),
            reason = loss.reason,
            "a GPU was lost; everything runs elsewhere until it can be opened again"
        );
    }

    fn open(&self) -> Result<Arc<Gpu>> {
        let opened = self.adapter.open();
        let mut loss = self.loss();
        loss.is_opening = false;
        let pause = (loss.pause * 2).min(self.adapter.tuning().longest_pause);
        loss.postpone(pause);
        match &opened {
            Ok(gpu) => {
                tracing::info!(gpu = gpu.name(), "a lost GPU works again");
                *self.gpu.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(gpu);
                self.is_lost.store(false, Ordering::Release);
            }
            Err(error) => loss.reason = format!("it cannot be opened again: {error}"),
        }
        opened
    }
}

impl Loss {
    fn postpone(&mut self, pause: Duration) {
        self.pause = pause;
        self.since = Instant::now();
    }
}

impl Drop for ManagedGpu {
    fn drop(&mut self) {
        self.stop();
    }
}
