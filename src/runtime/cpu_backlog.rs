//! The CPU's backlog: the running calls of other threads, with which a new call would share the cores.

use std::sync::atomic::{AtomicU64, Ordering};

/// The predicted time on the CPU of all running calls.
#[derive(Debug, Default)]
pub(crate) struct CpuBacklog {
    nanoseconds: AtomicU64,
}

/// A running call. It counts until this is dropped.
#[derive(Debug)]
pub(crate) struct BacklogGuard<'a> {
    all: &'a CpuBacklog,
    nanoseconds: u64,
}

impl CpuBacklog {
    /// Adds a call whose parts on the CPU have these predicted seconds.
    pub(crate) fn begin(&self, parts: impl Iterator<Item = f64>) -> BacklogGuard<'_> {
        /// A year: a prediction is finite, but absurdly long if the kernel claims absurd work.
        const MOST: f64 = 3e16;
        let nanoseconds = parts.map(|seconds| (seconds * 1e9).clamp(0.0, MOST) as u64);
        let nanoseconds = nanoseconds.fold(0, u64::saturating_add).min(MOST as u64);
        // The sum may wrap around. The subtraction of each call then wraps it back, so it stays exact.
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        BacklogGuard {
            all: self,
            nanoseconds,
        }
    }

    /// The predicted seconds of all running calls.
    pub(crate) fn seconds(&self) -> f64 {
        self.nanoseconds.load(Ordering::Relaxed) as f64 * 1e-9
    }
}

impl Drop for BacklogGuard<'_> {
    fn drop(&mut self) {
        self.all
            .nanoseconds
            .fetch_sub(self.nanoseconds, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_leaves_the_backlog_however_it_ends() {
        let work = CpuBacklog::default();
        {
            let _one = work.begin([0.25, 0.5].into_iter());
            let _two = work.begin([f64::INFINITY, f64::NAN, -1.0].into_iter());
            assert!(work.seconds() >= 0.75);
        }
        assert_eq!(work.seconds(), 0.0);
        let panicked = std::panic::catch_unwind(|| {
            let _busy = work.begin([1.0].into_iter());
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
        assert_eq!(work.seconds(), 0.0);
    }
}
