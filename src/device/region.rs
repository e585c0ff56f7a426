//! Parallel regions: ranges of items that the calling thread and helpers from the pool compute together.
//!
//! rayon's own way to enter a region from outside its pool puts the caller to sleep and wakes it again, which costs 15
//! to 22 µs. Here the calling thread works too: it takes ranges from the same counter as its helpers, and waits only
//! for ranges that a helper has begun. A helper that wakes too late finds the counter exhausted and touches nothing.
//! Helpers that are done stand by for a moment, since the next region often follows at once and then wakes no thread.

use super::params::PARAMS;
use crate::error::{Error, Result};
use crate::panics::discard;
use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Instant;

/// The work of a region on one range.
pub(super) type RangeTask<'a> = dyn Fn(Range<usize>) -> Result<()> + Sync + 'a;

/// A parallel region: ranges that the caller and its helpers claim.
pub(super) struct Region {
    /// A pointer, since a late helper may hold it after the task is gone.
    task: *const RangeTask<'static>,
    items: Range<usize>,
    step: usize,
    ranges: usize,
    claimed: AtomicUsize,
    finished: AtomicUsize,
    failure: Mutex<Option<Failure>>,
    caller: Thread,
}

// SAFETY: the task is `Sync`, so it may be called from any thread; the other fields are `Send` and `Sync`.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// The failure of a range.
enum Failure {
    Error(Error),
    Panic(Box<dyn Any + Send>),
}

impl Region {
    /// A region of `items`, handed out `step` at a time.
    ///
    /// # Safety
    /// The task, and everything it borrows, must live until [`Region::finish`] has returned. The caller must call it.
    pub(super) unsafe fn new(items: Range<usize>, step: usize, task: &RangeTask<'_>) -> Arc<Self> {
        // SAFETY: only the lifetime of the pointer changes, and `work` dereferences it for claimed ranges only.
        let task: *const RangeTask<'static> =
            unsafe { std::mem::transmute::<&RangeTask<'_>, _>(task) };
        Arc::new(Self {
            task,
            ranges: items.len().div_ceil(step),
            items,
            step,
            claimed: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            failure: Mutex::new(None),
            caller: std::thread::current(),
        })
    }

    /// The number of ranges.
    pub(super) fn ranges(&self) -> usize {
        self.ranges
    }

    /// Whether there are unclaimed ranges.
    fn has_unclaimed(&self) -> bool {
        self.claimed.load(Ordering::Relaxed) < self.ranges
    }

    /// Claims and computes ranges until none is left.
    pub(super) fn work(&self) {
        loop {
            let range = self.claimed.fetch_add(1, Ordering::Relaxed);
            if range >= self.ranges {
                return;
            }
            let lo = self.items.start + range * self.step;
            let part = lo..(lo + self.step).min(self.items.end);
            // SAFETY: the range is claimed and not finished, so `finish` has not returned and the task is alive.
            let task = unsafe { &*self.task };
            let outcome = match catch_unwind(AssertUnwindSafe(|| task(part))) {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(Failure::Error(error)),
                Err(panic) => Some(Failure::Panic(panic)),
            };
            let mut done = 1;
            if let Some(failure) = outcome {
                self.fail(failure);
                // Claims all remaining ranges, so that no thread begins them.
                let before = self.claimed.swap(self.ranges, Ordering::Relaxed);
                done += self.ranges.saturating_sub(before);
            }
            // Release: the caller sees what this range wrote once it reads the final count.
            if self.finished.fetch_add(done, Ordering::AcqRel) + done == self.ranges {
                self.caller.unpark();
            }
        }
    }

    /// Keeps the first failure.
    fn fail(&self, failure: Failure) {
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(failure);
        } else if let Failure::Panic(panic) = failure {
            drop(first);
            discard(panic);
        }
    }

    /// Computes ranges on this thread, waits for those that helpers have begun, and returns the first failure. Only the
    /// thread that made the region may call it.
    pub(super) fn finish(&self) -> Result<()> {
        self.work();
        let mut spins = 0;
        while self.finished.load(Ordering::Acquire) < self.ranges {
            if spins < PARAMS.spins {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::park();
            }
        }
        match self
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            None => Ok(()),
            Some(Failure::Error(error)) => Err(error),
            Some(Failure::Panic(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

/// The result of an offer.
pub(super) struct Offer {
    /// Helpers on standby, which will find the region.
    pub(super) waiting: usize,
    /// The number of the offer.
    pub(super) epoch: usize,
    /// Another thread's region that was offered before and still needs help, which no helper on standby will find any
    /// more.
    pub(super) displaced: Option<Arc<Region>>,
}

/// Where idle helpers wait for the next region.
#[derive(Default)]
pub(super) struct Standby {
    latest: Mutex<Option<Arc<Region>>>,
    /// The number of offers, so that helpers need no lock to see that there is none.
    epoch: AtomicUsize,
    waiting: AtomicUsize,
}

impl Standby {
    /// Offers a region to the helpers on standby.
    pub(super) fn offer(&self, region: &Arc<Region>) -> Offer {
        self.publish(Some(Arc::clone(region)))
    }

    /// Sends the helpers on standby back to the pool, which has other work for them. Returns the region that they were
    /// to help with.
    pub(super) fn dismiss(&self) -> Option<Arc<Region>> {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return None;
        }
        self.publish(None).displaced
    }

    fn publish(&self, region: Option<Arc<Region>>) -> Offer {
        let before = {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *latest, region)
        };
        // Before reading `waiting`: a leaving helper first counts itself out and then checks a last time, so that every
        // helper counted here sees the offer.
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        Offer {
            waiting: self.waiting.load(Ordering::SeqCst),
            epoch,
            displaced: before.filter(|region| region.has_unclaimed()),
        }
    }

    /// Helps with a region, offered as number `epoch`, and with regions that follow soon.
    pub(super) fn help(&self, region: Arc<Region>, mut epoch: usize) {
        let mut next = Some(region);
        while let Some(region) = next.take() {
            region.work();
            if let Some(later) = self.wait_past(epoch) {
                epoch = later;
                next.clone_from(&self.latest.lock().unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Waits a moment for an offer after number `epoch`.
    fn wait_past(&self, epoch: usize) -> Option<usize> {
        let newer = || Some(self.epoch.load(Ordering::SeqCst)).filter(|latest| *latest != epoch);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let since = Instant::now();
        let mut found = newer();
        while found.is_none() && since.elapsed() < PARAMS.standby {
            for _ in 0..PARAMS.polls_per_clock_read {
                std::hint::spin_loop();
                found = newer();
                if found.is_some() {
                    break;
                }
            }
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        found.or_else(newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_on_standby_joins_the_next_region() {
        let standby = Arc::new(Standby::default());
        let computed_by = Mutex::new(Vec::new());
        let task = |_| {
            let mut threads = computed_by.lock().unwrap_or_else(PoisonError::into_inner);
            threads.push(std::thread::current().id());
            Ok(())
        };
        // SAFETY: each region is finished below, before the task goes.
        let region = || unsafe { Region::new(0..4, 1, &task) };
        let first = region();
        let epoch = standby.offer(&first).epoch;
        std::thread::scope(|scope| {
            let helper = {
                let (standby, first) = (Arc::clone(&standby), Arc::clone(&first));
                scope.spawn(move || standby.help(first, epoch))
            };
            first.finish().expect("nothing fails");
            // Offers regions until the helper has taken part in one, or has left.
            while !helper.is_finished() {
                let next = region();
                if standby.offer(&next).waiting > 0 {
                    while next.has_unclaimed() {
                        std::hint::spin_loop();
                    }
                    next.finish().expect("nothing fails");
                    break;
                }
                next.finish().expect("nothing fails");
            }
        });
        assert!(
            computed_by
                .into_inner()
                .is_ok_and(|threads| threads.len() >= 4)
        );
        assert_eq!(standby.waiting.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn dismissed_helpers_leave() {
        let standby = Standby::default();
        assert_eq!(standby.publish(None).waiting, 0);
        // Offer number 1 is there and holds no region: the helper returns although it just began to wait.
        let task = |_| Ok(());
        // SAFETY: the region is finished below, before the task goes.
        let region = unsafe { Region::new(0..1, 1, &task) };
        region.finish().expect("nothing fails");
        standby.help(region, 0);
    }
}
