//! Faults on demand, for tests: the k-th allocation, submission or mapping of a GPU fails, or its device is really
//! destroyed at the k-th operation. Without any asked for, an operation costs one atomic addition.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultPoint {
    /// An allocation of a buffer fails, as if the GPU were full.
    Allocation,
    /// A submission fails.
    Submission,
    /// The mapping of a staging buffer fails.
    Mapping,
    /// The wgpu device is destroyed at an operation of any sort: one of those above, a dispatch or a copy.
    Device,
}

const POINTS: usize = 4;

/// The faults that are to happen on a GPU. They outlive its losses: the device that is opened in place of a lost one
/// counts on.
#[derive(Debug, Default)]
pub struct Faults {
    /// Whether any fault is asked for.
    armed: AtomicBool,
    /// Operations so far, by what a fault could have hit; every operation counts for the device.
    counts: [AtomicU64; POINTS],
    wanted: Mutex<Vec<(FaultPoint, u64)>>,
}

impl Faults {
    /// Has operation number `count() + in_operations` of that sort fail.
    pub fn fail(&self, point: FaultPoint, in_operations: u64) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.push((point, self.count(point) + in_operations));
        self.armed.store(true, Ordering::Relaxed);
    }

    /// No more faults happen than have happened.
    pub fn clear(&self) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.clear();
        self.armed.store(false, Ordering::Relaxed);
    }

    /// How many operations of that sort there have been.
    pub fn count(&self, point: FaultPoint) -> u64 {
        self.counts[point as usize].load(Ordering::Relaxed)
    }

    /// Counts an operation. Says whether it is to fail, and whether the device is to be destroyed before it.
    pub(super) fn hits(&self, point: FaultPoint) -> Hit {
        let device = self.step(FaultPoint::Device);
        let fails = point != FaultPoint::Device && self.step(point);
        Hit { fails, device }
    }

    fn step(&self, point: FaultPoint) -> bool {
        let number = self.counts[point as usize].fetch_add(1, Ordering::Relaxed);
        self.armed.load(Ordering::Relaxed) && self.take(point, number)
    }

    fn take(&self, point: FaultPoint, number: u64) -> bool {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = wanted.len();
        wanted.retain(|fault| *fault != (point, number));
        wanted.len() < before
    }
}

/// What is to happen at an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    /// It fails.
    pub(super) fails: bool,
    /// The device is destroyed first.
    pub(super) device: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operation_that_was_asked_for_fails_once() {
        let faults = Faults::default();
        faults.hits(FaultPoint::Mapping);
        faults.fail(FaultPoint::Mapping, 2);
        faults.fail(FaultPoint::Device, 0);
        let hits: Vec<_> = (0..4)
            .map(|_| faults.hits(FaultPoint::Mapping))
            .map(|hit| (hit.fails, hit.device))
            .collect();
        assert_eq!(
            hits,
            [(false, true), (false, false), (true, false), (false, false)]
        );
        assert_eq!(faults.count(FaultPoint::Mapping), 5);
        assert_eq!(faults.count(FaultPoint::Allocation), 0);
    }
}
