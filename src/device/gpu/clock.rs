//! How long a call's work on a GPU took, known once it is done and a thread has looked.
//!
//! A clock is never waited for. The timeline sets it, whichever way the work ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// How long the work of one call on one GPU took, from its recording to its completion, without waiting for earlier
/// work; see `timeline` for how that is found out.
#[derive(Debug)]
pub struct Clock {
    /// Pieces of work whose time is not known yet, and one more while pieces may follow.
    open: AtomicU32,
    nanoseconds: AtomicU64,
    /// Whether the time of a piece cannot be known, or does not count.
    spoiled: AtomicBool,
    /// The most calls that shared a submission with it, and whether they were predicted to take different times.
    calls: AtomicU32,
    mixed: AtomicBool,
}

/// What a [`Clock`] shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// The work is not done, or no thread has looked since.
    Pending,
    /// The work is done, or will never be, and how long it took cannot be known, or says nothing: a pipeline was used
    /// for the first time, or the device failed.
    Unknown,
    /// How long it took.
    Took {
        /// Seconds from recording to completion.
        seconds: f64,
        /// How many calls shared its submission; 1 if it was alone. What they cost together, a launch for instance, is
        /// shared among them.
        calls: u32,
        /// Whether these calls were predicted to take different times: then its share is as right as the predictions'
        /// ratio. Calls that are alike have equal shares, whatever was predicted.
        mixed: bool,
    },
}

impl Clock {
    /// A clock of a call that has recorded nothing yet; [`Clock::seal`] ends the call.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: AtomicU32::new(1),
            nanoseconds: AtomicU64::new(0),
            spoiled: AtomicBool::new(false),
            calls: AtomicU32::new(0),
            mixed: AtomicBool::new(false),
        })
    }

    /// What it shows now. Costs next to nothing, and waits for nothing.
    pub fn reading(&self) -> Reading {
        if self.open.load(Ordering::Acquire) > 0 {
            return Reading::Pending;
        }
        let nanoseconds = self.nanoseconds.load(Ordering::Relaxed);
        if nanoseconds == 0 || self.spoiled.load(Ordering::Relaxed) {
            return Reading::Unknown;
        }
        Reading::Took {
            seconds: nanoseconds as f64 * 1e-9,
            calls: self.calls.load(Ordering::Relaxed),
            mixed: self.mixed.load(Ordering::Relaxed),
        }
    }

    /// How long it took, once that is known.
    pub fn seconds(&self) -> Option<f64> {
        match self.reading() {
            Reading::Took { seconds, .. } => Some(seconds),
            Reading::Pending | Reading::Unknown => None,
        }
    }

    /// No more work follows.
    pub(crate) fn seal(&self) {
        self.open.fetch_sub(1, Ordering::Release);
    }

    /// The time will not count, whatever it is.
    pub(crate) fn spoil(&self) {
        self.spoiled.store(true, Ordering::Relaxed);
    }
}

/// A piece of a call's work in a submission, whose time its clock waits for. Dropped without having got one, it says
/// that it cannot be known.
#[derive(Debug)]
pub(super) struct Claim(Option<Arc<Clock>>);

impl Claim {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        clock.open.fetch_add(1, Ordering::Relaxed);
        Self(Some(clock))
    }

    /// Whether it is of the call that `clock` belongs to.
    pub(super) fn is_of(&self, clock: &Arc<Clock>) -> bool {
        self.0.as_ref().is_some_and(|own| Arc::ptr_eq(own, clock))
    }

    /// It took `seconds`, in a submission with `calls` calls.
    pub(super) fn settle(mut self, seconds: f64, calls: u32, mixed: bool) {
        if let Some(clock) = self.0.take() {
            // At least 1: what took no time that a clock can tell still took some.
            let nanoseconds = (seconds * 1e9).max(1.0) as u64;
            clock.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
            clock.calls.fetch_max(calls, Ordering::Relaxed);
            clock.mixed.fetch_or(mixed, Ordering::Relaxed);
            clock.open.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(clock) = self.0.take() {
            clock.spoil();
            clock.open.fetch_sub(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_adds_up_pieces_and_shows_them_once_all_are_known() {
        let clock = Clock::new();
        let (a, b) = (
            Claim::new(Arc::clone(&clock)),
            Claim::new(Arc::clone(&clock)),
        );
        a.settle(0.25, 1, false);
        clock.seal();
        assert_eq!(clock.reading(), Reading::Pending);
        b.settle(0.5, 3, true);
        let took = Reading::Took {
            seconds: 0.75,
            calls: 3,
            mixed: true,
        };
        assert_eq!(clock.reading(), took);
        assert_eq!(clock.seconds(), Some(0.75));
    }

    #[test]
    fn a_piece_that_is_dropped_spoils_the_sum() {
        let clock = Clock::new();
        let (a, b) = (
            Claim::new(Arc::clone(&clock)),
            Claim::new(Arc::clone(&clock)),
        );
        drop(a);
        assert_eq!(clock.reading(), Reading::Pending);
        b.settle(0.5, 1, false);
        clock.seal();
        assert_eq!(clock.reading(), Reading::Unknown);
    }

    #[test]
    fn a_call_that_recorded_nothing_took_no_known_time() {
        let clock = Clock::new();
        clock.seal();
        assert_eq!(clock.reading(), Reading::Unknown);
    }
}
