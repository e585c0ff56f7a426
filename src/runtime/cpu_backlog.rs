//! What the CPU is at: calls of other threads that a new one would have to share the cores with.

use std::sync::atomic::{AtomicU64, Ordering};

/// The sum of what the calls under way are predicted to take on the CPU.
#[derive(Debug, Default)]
pub(crate) struct CpuBacklog {
    nanoseconds: AtomicU64,
}

/// A call under way; it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct BacklogGuard<'a> {
    all: &'a CpuBacklog,
    nanoseconds: u64,
}

impl CpuBacklog {
    /// Counts a call in whose parts on the CPU are predicted to take so many seconds.
    pub(crate) fn begin(&self, parts: impl Iterator<Item = f64>) -> BacklogGuard<'_> {
        /// A year: predictions are finite, but may be of a kernel that claims absurd work.
        const MOST: f64 = 3e16;
        let nanoseconds = parts.map(|seconds| (seconds * 1e9).clamp(0.0, MOST) as u64);
        let nanoseconds = nanoseconds.fold(0, u64::saturating_add).min(MOST as u64);
        // The sum wraps around and back again rather than lose what will be taken off.
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        BacklogGuard {
            all: self,
            nanoseconds,
        }
    }

    /// Seconds that the calls under way are predicted to take.
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
    fn what_is_counted_in_is_counted_out_however_a_call_ends() {
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
