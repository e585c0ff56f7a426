//! The account of a GPU's memory: how much of it is taken, and for what. Knows nothing of wgpu.
//!
//! Everything that Divvy allocates is counted: the buffers of arrays, idle ones kept for reuse, staging, parameters. A
//! budget, if there is one, is divided once: staging and parameters have shares that they keep to, the rest is the
//! arrays'. An allocation that exceeds it fails just as one that the driver refuses.

use super::tuning::Tuning;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The least budget: less would leave arrays next to nothing.
pub(crate) const LEAST_BUDGET: u64 = 256 << 10;

/// What a budget is divided into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Bytes for the buffers of arrays, idle ones included.
    pub(super) arrays: u64,
    /// Bytes for staging buffers.
    pub(super) staging: u64,
    /// Bytes of the parameter arena, for which another as much is staged.
    pub(super) parameters: u64,
}

impl Shares {
    /// A quarter for staging, which is enough for transfers to run at full speed from 512 MiB on, and next to nothing for
    /// parameters.
    fn of(budget: Option<u64>, tuning: &Tuning) -> Self {
        let Some(budget) = budget else {
            return Self {
                arrays: u64::MAX,
                staging: tuning.staging_bytes,
                parameters: tuning.parameter_bytes,
            };
        };
        let budget = budget.max(LEAST_BUDGET);
        let staging = (budget / 4).min(tuning.staging_bytes);
        let parameters = prev_power_of_two(budget / 16).min(tuning.parameter_bytes);
        Self {
            arrays: budget - staging - 2 * parameters,
            staging,
            parameters,
        }
    }
}

/// The largest power of two that is no more than `n`, or 1.
pub(super) fn prev_power_of_two(n: u64) -> u64 {
    1 << n.max(1).ilog2()
}

/// How much of a GPU's memory Divvy has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuMemory {
    /// The most that it may take, if that is limited.
    pub budget_bytes: Option<u64>,
    /// What it has taken now: arrays, buffers that are kept for reuse, staging.
    pub used_bytes: u64,
    /// The most that it had taken at any time.
    pub peak_bytes: u64,
}

/// What memory is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Arrays,
    /// Staging keeps to its share by itself.
    Staging,
}

/// The account of a GPU's memory.
#[derive(Debug)]
pub(super) struct Memory {
    budget: Option<u64>,
    shares: Shares,
    /// Bytes that staging keeps to now: its share, or less once the driver had no more memory.
    staging: AtomicU64,
    /// Staging never keeps to less.
    least_staging: u64,
    /// The memory that the driver is made out to have, for tests.
    driver_bytes: u64,
    arrays: AtomicU64,
    all: AtomicU64,
    peak: AtomicU64,
}

impl Memory {
    pub(super) fn new(budget: Option<u64>, driver_bytes: Option<u64>, tuning: &Tuning) -> Self {
        let shares = Shares::of(budget, tuning);
        Self {
            budget,
            shares,
            staging: AtomicU64::new(shares.staging),
            least_staging: 16 * tuning.smallest_piece,
            driver_bytes: driver_bytes.unwrap_or(u64::MAX),
            arrays: AtomicU64::new(0),
            all: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        }
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Bytes that staging keeps to.
    pub(super) fn staging_share(&self) -> u64 {
        self.staging.load(Ordering::Relaxed)
    }

    /// Staging keeps to a smaller share from now on, since the driver has no more memory.
    pub(super) fn limit_staging(&self, share: u64) {
        let share = share.max(self.least_staging);
        self.staging.fetch_min(share, Ordering::Relaxed);
    }

    pub(super) fn report(&self) -> GpuMemory {
        GpuMemory {
            budget_bytes: self.budget,
            used_bytes: self.all.load(Ordering::Relaxed),
            peak_bytes: self.peak.load(Ordering::Relaxed),
        }
    }

    /// Counts bytes in; `None` if that is more than may be taken.
    pub(super) fn lease(self: &Arc<Self>, purpose: Purpose, bytes: u64) -> Option<Lease> {
        let add_within = |count: &AtomicU64, limit: u64| {
            let add = |sum: u64| sum.checked_add(bytes).filter(|sum| *sum <= limit);
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
        };
        let before = add_within(&self.all, self.driver_bytes).ok()?;
        if purpose == Purpose::Arrays && add_within(&self.arrays, self.shares.arrays).is_err() {
            self.all.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        self.peak.fetch_max(before + bytes, Ordering::Relaxed);
        Some(Lease {
            memory: Arc::clone(self),
            purpose,
            bytes,
        })
    }

    /// Whether `bytes` bytes more for arrays are within the budget, whatever the driver says.
    pub(super) fn has_room_for_arrays(&self, bytes: u64) -> bool {
        let taken = self.arrays.load(Ordering::Relaxed);
        taken.saturating_add(bytes) <= self.shares.arrays
    }
}

/// Bytes that are counted as taken until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    memory: Arc<Memory>,
    purpose: Purpose,
    bytes: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.memory.all.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.purpose == Purpose::Arrays {
            self.memory.arrays.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_a_budget_are_no_more_than_it_and_arrays_get_most() {
        for budget in [LEAST_BUDGET, 1 << 20, 12_345_678, 64 << 20, 80 << 30] {
            let shares = Shares::of(Some(budget), &Tuning::default());
            let sum = shares.arrays + shares.staging + 2 * shares.parameters;
            assert_eq!(sum, budget);
            assert!(shares.arrays >= budget / 2, "{shares:?}");
            assert!(shares.parameters.is_power_of_two());
        }
        assert_eq!(
            Shares::of(Some(0), &Tuning::default()),
            Shares::of(Some(LEAST_BUDGET), &Tuning::default())
        );
        assert_eq!(Shares::of(None, &Tuning::default()).arrays, u64::MAX);
    }

    #[test]
    fn what_is_taken_is_counted_and_no_more_is_given_than_there_is() {
        let memory = Arc::new(Memory::new(Some(1 << 20), None, &Tuning::default()));
        let arrays = memory.shares().arrays;
        let first = memory.lease(Purpose::Arrays, arrays - 100).expect("room");
        assert!(memory.lease(Purpose::Arrays, 101).is_none());
        let second = memory.lease(Purpose::Arrays, 100).expect("room");
        let staging = memory.lease(Purpose::Staging, 1000).expect("room");
        assert_eq!(memory.report().used_bytes, arrays + 1000);
        drop((first, second, staging));
        let report = memory.report();
        assert_eq!((report.used_bytes, report.peak_bytes), (0, arrays + 1000));
        assert!(memory.lease(Purpose::Arrays, u64::MAX).is_none());
    }

    #[test]
    fn what_the_driver_has_limits_everything() {
        let memory = Arc::new(Memory::new(None, Some(1000), &Tuning::default()));
        let staging = memory.lease(Purpose::Staging, 600).expect("room");
        assert!(memory.lease(Purpose::Arrays, 401).is_none());
        drop(staging);
        assert!(memory.lease(Purpose::Arrays, 1000).is_some());
    }
}
